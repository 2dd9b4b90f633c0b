package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// maxCallBreakers is of how many calls that fail breakers are kept, by their
// names, which clients choose. The others have none.
const maxCallBreakers = 100

// heardOf says what an error of a function means: it is a failure only if the
// function says that something it needs is away. A no to a client is none.
func heardOf(err error) breaker.Outcome {
	r, refused := errors.AsType[*transport.Refusal](err)
	switch {
	case refused && r == nil:
		return breaker.Answered
	case refused && r.Code == transport.CodeUnavailable,
		errors.Is(err, eventlog.ErrUnavailable), errors.Is(err, session.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return breaker.Failed
	}
	return breaker.Declined
}

// function adds one of the program's. option is how refusals call it.
func (ds *dependencies) function(name, option string) *dependency {
	d := &dependency{name: name, rule: ds.functionRule(), refuse: refuseFor(option), blames: newBlames()}
	ds.guard(d, "", 0)
	return ds.add(d)
}

func (ds *dependencies) functionRule() *askRule {
	return &askRule{judge: heardOf, haste: ds.short, strict: true}
}

// refuseFor refuses clients while a function is not asked.
func refuseFor(option string) func(*breaker.NotAsked) error {
	return func(not *breaker.NotAsked) error {
		after := not.After + rand.N(not.After+time.Second) // they don't all come at once
		return transport.RefuseFor(after, transport.CodeUnavailable, "%s of this server fails", option).Because(not)
	}
}

// guardFunctions puts breakers before those of the program's functions that
// clients wait for.
func (ds *dependencies) guardFunctions() {
	o := &ds.s.o
	if ask := o.Authenticate; ask != nil {
		d := ds.function("Authenticate", "Options.Authenticate")
		o.Authenticate = func(r *http.Request) (id Identity, err error) {
			err = d.ask(r.Context(), func() (err error) { id, err = ask(r); return err })
			return id, err
		}
	}
	if ask := o.Authorize; ask != nil {
		d := ds.function("Authorize", "Options.Authorize")
		o.Authorize = func(ctx context.Context, who Identity, what Action, ch Channel) error {
			return d.askFor(ctx, blamed(who, ""), func() error { return ask(ctx, who, what, ch) })
		}
	}
	if ask := o.OnConnect; ask != nil {
		d := ds.function("OnConnect", "Options.OnConnect")
		o.OnConnect = func(ctx context.Context, who Client) (w Welcome, err error) {
			err = d.askFor(ctx, blamed(who.Identity, who.Addr), func() (err error) { w, err = ask(ctx, who); return err })
			return w, err
		}
	}
	if ask := o.OnSubscribe; ask != nil {
		d := ds.function("OnSubscribe", "Options.OnSubscribe")
		o.OnSubscribe = func(ctx context.Context, who Client, ch Channel) error {
			return d.askFor(ctx, blamed(who.Identity, who.Addr), func() error { return ask(ctx, who, ch) })
		}
	}
	if ask := o.OnPublish; ask != nil {
		d := ds.function("OnPublish", "Options.OnPublish")
		o.OnPublish = func(ctx context.Context, p *Publication) error {
			return d.askFor(ctx, blamed(p.Client.Identity, p.Client.Addr), func() error { return ask(ctx, p) })
		}
	}
	ds.guardCalls()
	ds.guardRules()
}

// guardRules does the same for the From of all rules, which share one.
func (ds *dependencies) guardRules() {
	var d *dependency
	guard := func(r *Rule) {
		ask := r.From
		if ask == nil {
			return
		}
		if d == nil {
			d = ds.function("From", "Rule.From in Options.Namespaces")
		}
		asked := d
		r.From = func(ctx context.Context, who Identity, ch Channel) (since time.Time, err error) {
			err = asked.askFor(ctx, blamed(who, ""), func() (err error) { since, err = ask(ctx, who, ch); return err })
			return since, err
		}
	}
	for _, rules := range ds.s.rules {
		for _, r := range rules.names {
			guard(r)
		}
		for _, p := range rules.prefixes {
			guard(p.rule)
		}
	}
}

// callBreakers are those of OnCall: one for each name, as calls may need
// different things. One is made when a call fails, so that names that are made up
// cost nothing.
type callBreakers struct {
	ds     *dependencies
	all    *dependency // its breaker is not used
	mu     sync.Mutex
	byName map[string]*callBreaker
}

type callBreaker struct {
	asked *dependency
	used  time.Time
}

func (ds *dependencies) guardCalls() {
	ask := ds.s.o.OnCall
	if ask == nil {
		return
	}
	c := &callBreakers{ds: ds, all: ds.function("OnCall", "Options.OnCall"), byName: make(map[string]*callBreaker)}
	ds.calls = c
	ds.s.o.OnCall = func(ctx context.Context, r Request) (p Payload, err error) {
		err = c.ask(ctx, r.Name, blamed(r.Client.Identity, r.Client.Addr), func() (err error) { p, err = ask(ctx, r); return err })
		return p, err
	}
}

func (c *callBreakers) ask(ctx context.Context, name, who string, call func() error) error {
	if d := c.of(name); d != nil {
		return d.askFor(ctx, who, call)
	}
	return c.all.rule.follow(ctx, false, func(what breaker.Outcome) {
		if c.all.blames.weigh(who, what) == breaker.Failed {
			c.failed(name)
		}
	}, call)
}

// of returns the breaker of a call that has one.
func (c *callBreakers) of(name string) *dependency {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.byName[name]
	if b == nil {
		return nil
	}
	b.used = time.Now()
	return b.asked
}

// failed counts the failure of a call that had no breaker when it began.
func (c *callBreakers) failed(name string) {
	d := c.make(name)
	if d == nil {
		return
	}
	if asking, err := d.breaker.Allow(); err == nil {
		asking.Done(breaker.Failed)
	}
}

// make returns the breaker of a call, or nil if there are too many.
func (c *callBreakers) make(name string) *dependency {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.byName[name]; b != nil {
		return b.asked
	}
	if len(c.byName) >= maxCallBreakers {
		c.drop()
	}
	if len(c.byName) >= maxCallBreakers {
		return nil
	}
	d := *c.all
	c.ds.guard(&d, name, 0)
	c.byName[name] = &callBreaker{asked: &d, used: time.Now()}
	return &d
}

// drop forgets calls that did not fail lately, or were not made for a while. It is
// called with mu held.
func (c *callBreakers) drop() {
	for name, b := range c.byName {
		is := b.asked.breaker.Status()
		if is.State == breaker.Closed && is.Failures == 0 || time.Since(b.used) > time.Minute {
			delete(c.byName, name)
		}
	}
}

// status is that of the call that is worst off.
func (c *callBreakers) status() (worst breaker.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.byName {
		is := b.asked.breaker.Status()
		worst.Refusing = worst.Refusing || is.Refusing
		worst.State = max(worst.State, is.State)
		if !is.Since.IsZero() && (worst.Since.IsZero() || is.Since.Before(worst.Since)) {
			worst.Since = is.Since
		}
	}
	return worst
}

// status is how a dependency is now.
func (ds *dependencies) status(d *dependency) breaker.Status {
	if ds.calls != nil && d == ds.calls.all {
		return ds.calls.status()
	}
	return d.breaker.Status()
}

// measure sets the series that say how all are.
func (ds *dependencies) measure() {
	if ds == nil {
		return
	}
	for _, d := range ds.named {
		ds.s.metrics.dependency.WithLabelValues(d.name).Set(float64(ds.status(d).State))
	}
}
