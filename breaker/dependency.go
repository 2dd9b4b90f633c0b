package breaker

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// The rule by which a dependency that still answers sometimes is given up for
// a while: at least failedShare of at least manyCalls in a window failed.
const (
	dependencyWindow = 10 * time.Second
	dependencyBucket = time.Second
	manyCalls        = 20
)

// An Outcome is what one call says of what was called.
type Outcome uint8

// The outcomes.
const (
	// Answered: it works.
	Answered Outcome = iota
	// Failed: it does not.
	Failed
	// Declined: it answered by a no to whoever asked. That ends a trial well,
	// but is not counted otherwise: nobody can hide failures, or make some, by
	// asking for what they can't have.
	Declined
	// Unheard: nothing is known, as nobody waited for the end, or the call
	// panicked. It is not counted. If it was the trial, the next call is one.
	Unheard
)

// A State is that of a dependency's breaker. The numbers are those that metrics
// show.
type State uint8

// The states.
const (
	Closed   State = iota // it is asked
	HalfOpen              // the next call, or one under way, is the trial
	Open                  // it is not asked
)

// String returns the state in words.
func (s State) String() string { return gobreaker.State(s).String() }

// DependencyOptions say when a dependency is given up, and for how long. The zero
// value works.
type DependencyOptions struct {
	// FailuresInARow open it. 0: only when at least half of at least 20 calls in
	// 10 s failed, which opens it in any case.
	FailuresInARow int
	// OpenFor is how long it is not asked, then, before one call may try.
	// Default 2 s.
	OpenFor time.Duration
	// Changed is told when it was given up and when it is back, in order and
	// one at a time. It is called without a lock held, by a call that has ended.
	Changed func(Change)
}

// A Change says that a dependency was given up, or is back.
type Change struct {
	To       State         // Open or Closed
	Failures int           // so many made it open
	Lasted   time.Duration // for how long it was open, trials that failed included
}

// A Dependency is something that may fail, and is then not asked for a while, so
// that who needs it is told at once and it can recover. Its methods may be called
// concurrently.
type Dependency struct {
	o       DependencyOptions
	circuit *gobreaker.TwoStepCircuitBreaker[struct{}]
	row     atomic.Int32  // failures in a row; the circuit's own are of its window
	era     atomic.Uint32 // changes of the circuit's state
	failing atomic.Bool   // it is not closed
	untold  atomic.Int32  // how many changes

	mu       sync.Mutex // may be taken with the circuit's lock held, and not the other way
	since    time.Time  // when it opened; zero: it is closed
	until    time.Time  // when the next trial may be
	failures int        // since it began to fail
	changes  []Change   // that were not told yet
	telling  bool
}

// What a circuit is told of calls. Nobody sees these.
var (
	errCallFailed = errors.New("breaker: the call failed")
	errUncounted  = errors.New("breaker: the call says nothing")
)

// NewDependency returns one that works, as far as is known.
func NewDependency(o DependencyOptions) *Dependency {
	def(&o.OpenFor, 2*time.Second)
	d := &Dependency{o: o}
	d.circuit = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Interval:      dependencyWindow,
		BucketPeriod:  dependencyBucket,
		Timeout:       o.OpenFor,
		ReadyToTrip:   d.ripe,
		OnStateChange: d.turned,
		IsExcluded:    func(err error) bool { return errors.Is(err, errUncounted) },
	})
	return d
}

// ripe reports whether it is to be given up. The circuit calls it with its lock
// held.
func (d *Dependency) ripe(n gobreaker.Counts) bool {
	row := int(d.row.Load())
	counted := n.TotalFailures + n.TotalSuccesses // those under way say nothing yet
	if (d.o.FailuresInARow == 0 || row < d.o.FailuresInARow) && (counted < manyCalls || 2*n.TotalFailures < counted) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures = max(row, int(n.TotalFailures))
	return true
}

// turned notes a change of the circuit's state, which calls it with its lock
// held: nothing of the program's may run here.
func (d *Dependency) turned(_ string, from, to gobreaker.State) {
	now := time.Now()
	d.era.Add(1)
	d.row.Store(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case to == gobreaker.StateOpen && from == gobreaker.StateClosed:
		d.since, d.until = now, now.Add(d.o.OpenFor)
		d.change(Change{To: Open, Failures: d.failures})
	case to == gobreaker.StateOpen: // the trial failed
		d.failures++
		d.until = now.Add(d.o.OpenFor)
	case to == gobreaker.StateClosed:
		d.change(Change{To: Closed, Failures: d.failures, Lasted: now.Sub(d.since)})
		d.since, d.failures = time.Time{}, 0
	}
	d.failing.Store(!d.since.IsZero())
}

// change is called with mu held.
func (d *Dependency) change(c Change) {
	if d.o.Changed != nil {
		d.changes = append(d.changes, c)
		d.untold.Add(1)
	}
}

// NotAsked is the error of a call that was not made, as the dependency failed
// before.
type NotAsked struct {
	// Failures is how often it failed.
	Failures int
	// After is when it may be asked again, more than 0. If a trial is under way
	// that is when the next one would be.
	After time.Duration
}

func (n *NotAsked) Error() string {
	again := max(n.After.Round(100*time.Millisecond), 100*time.Millisecond)
	return fmt.Sprintf("not asked: it failed %d times, asked again in %v", n.Failures, again)
}

// An Asking is a call that may be made, and whose outcome is to be told once.
type Asking struct {
	d     *Dependency
	done  func(error)
	era   uint32
	trial bool
	began time.Time
}

// Allow says whether a call may be made: then Done must be called when it is
// over. Else the error is a [*NotAsked].
func (d *Dependency) Allow() (Asking, error) {
	done, err := d.circuit.Allow()
	if err != nil {
		return Asking{}, d.notAsked()
	}
	// If the state changed since the circuit allowed the call, the circuit does
	// not count it, and it does not matter what is said of it here.
	return Asking{d: d, done: done, era: d.era.Load(), trial: d.failing.Load(), began: time.Now()}, nil
}

func (d *Dependency) notAsked() *NotAsked {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := time.Until(d.until)
	if left <= 0 { // a trial is under way
		left = d.o.OpenFor
	}
	return &NotAsked{Failures: d.failures, After: left}
}

// Trial reports whether this call decides if others may be made again. It should
// be over at some time, whatever happens: until then there are no others.
func (a Asking) Trial() bool { return a.trial }

// Done tells what became of the call. It is called once.
func (a Asking) Done(what Outcome) {
	d := a.d
	current := d.era.Load() == a.era
	err := errUncounted
	switch {
	case what == Failed:
		if current {
			d.row.Add(1)
		}
		err = errCallFailed
	case what == Answered, what == Declined && a.trial:
		if current && d.row.Load() != 0 {
			d.row.Store(0)
		}
		err = nil
	}
	if current && !a.trial && time.Since(a.began) >= dependencyWindow-dependencyBucket {
		a.late(err)
	} else {
		a.done(err)
	}
	d.tell()
}

// late tells the circuit of a call that took about as long as the window, or
// longer. The circuit counts an outcome where its call began, and so would drop
// this one: a dependency that fails by deadlines would never be given up.
func (a Asking) late(outcome error) {
	a.done(errUncounted)
	if done, err := a.d.circuit.Allow(); err == nil {
		done(outcome)
	}
}

// tell tells of changes that were not told yet, unless somebody is at it, who
// tells these, too.
func (d *Dependency) tell() {
	if d.untold.Load() == 0 { // nearly always
		return
	}
	for first := true; ; first = false {
		c, ok := d.next(first)
		if !ok {
			return
		}
		d.o.Changed(c)
	}
}

func (d *Dependency) next(first bool) (c Change, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if first && d.telling {
		return c, false
	}
	if d.telling = len(d.changes) > 0; !d.telling {
		return c, false
	}
	c = d.changes[0]
	d.changes = d.changes[1:]
	d.untold.Add(-1)
	return c, true
}

// A Status is how a dependency is just now.
type Status struct {
	State State
	// Refusing: a call would not be made now, as it is open, or the trial is
	// under way.
	Refusing bool
	// Since is when it opened; zero: it is closed.
	Since time.Time
	// Failures is how many calls failed: in the last 10 s, or if it is not closed
	// since it began to.
	Failures int
}

// Status returns it.
func (d *Dependency) Status() Status {
	s := Status{State: State(d.circuit.State())}
	n := d.circuit.Counts()
	s.Refusing = s.State == Open || s.State == HalfOpen && n.Requests > n.TotalExclusions
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Since, s.Failures = d.since, max(d.failures, int(n.TotalFailures))
	return s
}
