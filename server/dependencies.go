package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// What a server depends on, the log, the store and the program's functions,
// each has a breaker: when it fails again and again it is not asked for a while,
// so that who needs it is told at once, nothing piles up, and it can recover.

const (
	// trialTime is how long a question to the log or the store may be the trial,
	// as not all of them have a deadline. Functions have one.
	trialTime = 10 * time.Second
	// haste is what a question has to last before it counts as a failure that its
	// time was over: some come with what others have left of theirs.
	haste = time.Second
)

// A dependency is one of them.
type dependency struct {
	name    string // its label: "log", "store", or an option's name
	breaker *breaker.Dependency
	rule    *askRule
	refuse  func(*breaker.NotAsked) error
	metrics *metrics
	blames  *blames                // of those whose calls fail; nil: that is not looked at
	last    *atomic.Pointer[error] // of the calls that failed
}

// An askRule says what is a failure.
type askRule struct {
	// judge says what an error means, of a question whose time was not over.
	judge func(error) breaker.Outcome
	// haste: see the constant, but never more than half of what they mostly have.
	haste time.Duration
	// trial bounds trials; 0: they have a deadline.
	trial time.Duration
	// strict: the end of its time is a failure at once, even if the question goes
	// on, as functions that are deaf to their contexts do.
	strict bool
}

// ask makes a call unless the breaker is open.
func (d *dependency) ask(ctx context.Context, call func() error) error {
	return d.askFor(ctx, "", call)
}

// askFor is ask for a client, or whoever "" is.
func (d *dependency) askFor(ctx context.Context, who string, call func() error) error {
	asking, err := d.breaker.Allow()
	if err != nil {
		d.metrics.notAsked.WithLabelValues(d.name).Inc()
		if not, ok := errors.AsType[*breaker.NotAsked](err); ok {
			return d.refuse(not)
		}
		return err
	}
	asked := call
	call = func() error {
		err := asked()
		if err != nil {
			d.last.Store(&err)
		}
		return err
	}
	report := asking.Done
	if !asking.Trial() {
		report = func(what breaker.Outcome) { asking.Done(d.blames.weigh(who, what)) }
	}
	return d.rule.follow(ctx, asking.Trial(), report, call)
}

// follow makes a call and reports its outcome, once.
func (r *askRule) follow(ctx context.Context, trial bool, report func(breaker.Outcome), call func() error) error {
	if r.strict || trial {
		var stop func()
		report, stop = r.atDeadline(ctx, trial, report)
		defer stop()
	}
	what := breaker.Unheard // if it panics
	defer func() { report(what) }()
	began := time.Now()
	err := call()
	what = r.outcome(ctx, began, err)
	return err
}

// atDeadline reports a failure when the time of a call is over, whether it has
// returned or not, and that nothing is known of a trial for which nobody waits.
// What it returns reports unless that was done.
func (r *askRule) atDeadline(ctx context.Context, trial bool, report func(breaker.Outcome)) (once func(breaker.Outcome), stop func()) {
	var first sync.Once
	once = func(what breaker.Outcome) { first.Do(func() { report(what) }) }
	cancel := func() {}
	if trial && r.trial > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.trial)
	}
	began := time.Now()
	unhook := context.AfterFunc(ctx, func() {
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= r.haste:
			once(breaker.Failed)
		case trial: // the next one may try: this one may never return
			once(breaker.Unheard)
		}
	})
	return once, func() { unhook(); cancel() }
}

// outcome says what a call was that has returned. That its time was over is
// a failure whatever it says; that nobody waited for it says nothing.
func (r *askRule) outcome(ctx context.Context, began time.Time, err error) breaker.Outcome {
	over := ctx.Err()
	switch {
	case errors.Is(over, context.DeadlineExceeded) && time.Since(began) >= r.haste:
		return breaker.Failed
	case err == nil:
		return breaker.Answered
	case over != nil, errors.Is(err, context.Canceled):
		return breaker.Unheard
	}
	return r.judge(err)
}

// dependencies are all of a server's. It is nil if they have no breakers.
type dependencies struct {
	named []*dependency
	calls *callBreakers // those of OnCall; nil: there are none
	o     Dependencies
	short time.Duration
	s     *Server
}

// depend puts breakers before the log, the store and the program's functions.
func (s *Server) depend() {
	if s.o.Dependencies.Disabled {
		return
	}
	ds := &dependencies{o: s.o.Dependencies, s: s}
	def(&ds.o.FailuresInARow, 5)
	def(&ds.o.OpenFor, 2*time.Second)
	s.dependencies = ds
	ds.short = haste
	for _, d := range []time.Duration{s.o.ReadTimeout, s.o.StoreTimeout, s.o.AttachTimeout, s.o.PublishTimeout, s.o.CallTimeout} {
		if d > 0 {
			ds.short = min(ds.short, d/2)
		}
	}
	log := ds.serve("log", logAnswered, eventlog.ErrUnavailable)
	s.log = &guardedLog{Log: s.log, asked: log}
	if s.past != nil {
		s.past = &guardedHistory{History: s.past, asked: log}
	}
	s.store = &guardedStore{Store: s.store, asked: ds.serve("store", storeAnswered, session.ErrUnavailable)}
	ds.guardFunctions()
}

// serve adds the log or the store.
func (ds *dependencies) serve(name string, answered func(error) bool, unavailable error) *dependency {
	judge := func(err error) breaker.Outcome {
		if answered(err) {
			return breaker.Answered
		}
		return breaker.Failed
	}
	d := &dependency{
		name:   name,
		rule:   &askRule{judge: judge, haste: ds.short, trial: trialTime},
		refuse: func(not *breaker.NotAsked) error { return fmt.Errorf("%w: %w", unavailable, not) },
	}
	ds.guard(d, "", ds.o.FailuresInARow)
	return ds.add(d)
}

func (ds *dependencies) add(d *dependency) *dependency {
	d.metrics = ds.s.metrics
	d.metrics.notAsked.WithLabelValues(d.name) // which is 0 so far
	ds.named = append(ds.named, d)
	return d
}

// guard gives a dependency its breaker, which tells of its changes. call is the name of
// a call, or empty.
func (ds *dependencies) guard(d *dependency, call string, inARow int) {
	name, last := d.name, new(atomic.Pointer[error])
	d.last = last
	d.breaker = breaker.NewDependency(breaker.DependencyOptions{FailuresInARow: inARow, OpenFor: ds.o.OpenFor, Changed: func(c breaker.Change) {
		if c.To == breaker.Open {
			var why error // nil: it was the time
			if err := last.Load(); err != nil {
				why = *err
			}
			ds.s.o.Logger.Warn("dependency open", "dependency", name, "channel", call, "failures", c.Failures, "error", why)
			return
		}
		ds.s.o.Logger.Info("dependency closed", "dependency", name, "channel", call, "after", c.Lasted, "failures", c.Failures)
	}})
}

// logAnswered reports whether an error of a log is an answer.
func logAnswered(err error) bool {
	_, lost := errors.AsType[*eventlog.Lost](err)
	_, invalid := errors.AsType[*eventlog.Invalid](err)
	_, unexpected := errors.AsType[*eventlog.Expectation](err)
	for _, answer := range []error{eventlog.ErrStale, eventlog.ErrBusy, eventlog.ErrNotDurable, eventlog.ErrFull} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return lost || invalid || unexpected
}

// storeAnswered is the same of a store.
func storeAnswered(err error) bool {
	_, invalid := errors.AsType[*eventlog.Invalid](err)
	return invalid || errors.Is(err, session.ErrBusy)
}

// A guardedLog is a log behind a breaker. Watching it asks nothing.
type guardedLog struct {
	eventlog.Log
	asked *dependency
}

// Append implements [eventlog.Log], as does the rest.
func (l *guardedLog) Append(ctx context.Context, ch Channel, b eventlog.Batch) (last Position, duplicate bool, err error) {
	err = l.asked.ask(ctx, func() (err error) {
		last, duplicate, err = l.Log.Append(ctx, ch, b)
		return err
	})
	if _, not := errors.AsType[*breaker.NotAsked](err); not {
		err = notAppended{err}
	}
	return last, duplicate, err
}

// notAppended is the error of a batch for which the log was not asked.
type notAppended struct{ error }

func (e notAppended) Unwrap() error { return e.error }

func (notAppended) Is(target error) bool { return target == eventlog.ErrNotAppended }

func (l *guardedLog) Seek(ctx context.Context, ch Channel, start eventlog.Start) (at Position, err error) {
	err = l.asked.ask(ctx, func() (err error) {
		at, err = l.Log.Seek(ctx, ch, start)
		return err
	})
	return at, err
}

func (l *guardedLog) Read(ctx context.Context, ch Channel, after Position, limit Limit) (page Page, err error) {
	err = l.asked.ask(ctx, func() (err error) {
		page, err = l.Log.Read(ctx, ch, after, limit)
		return err
	})
	return page, err
}

// A guardedHistory is the same log, read in parts.
type guardedHistory struct {
	eventlog.History
	asked *dependency
}

// Range implements [eventlog.History].
func (l *guardedHistory) Range(ctx context.Context, ch Channel, r Range, limit Limit) (page eventlog.RangePage, err error) {
	err = l.asked.ask(ctx, func() (err error) {
		page, err = l.History.Range(ctx, ch, r, limit)
		return err
	})
	return page, err
}

// A guardedStore is a store behind a breaker.
type guardedStore struct {
	session.Store
	asked *dependency
}

// Secret implements [session.Store], as does the rest.
func (s *guardedStore) Secret(ctx context.Context) (secret []byte, err error) {
	err = s.asked.ask(ctx, func() (err error) {
		secret, err = s.Store.Secret(ctx)
		return err
	})
	return secret, err
}

func (s *guardedStore) Claim(ctx context.Context, held session.Held, lease session.Lease) error {
	return s.asked.ask(ctx, func() error { return s.Store.Claim(ctx, held, lease) })
}

func (s *guardedStore) Touch(ctx context.Context, held []session.Held) (missing []session.Held, err error) {
	err = s.asked.ask(ctx, func() (err error) {
		missing, err = s.Store.Touch(ctx, held)
		return err
	})
	return missing, err
}

func (s *guardedStore) Release(ctx context.Context, held session.Held, idle time.Duration) (ended bool, err error) {
	err = s.asked.ask(ctx, func() (err error) {
		ended, err = s.Store.Release(ctx, held, idle)
		return err
	})
	return ended, err
}

func (s *guardedStore) Present(ctx context.Context, ch Channel, most int) (members []Member, total int, err error) {
	err = s.asked.ask(ctx, func() (err error) {
		members, total, err = s.Store.Present(ctx, ch, most)
		return err
	})
	return members, total, err
}
