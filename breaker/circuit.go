package breaker

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

// errFailed is what a circuit is told of failures. Nobody sees it.
var errFailed = errors.New("breaker: failed")

// A circuit is a breaker whose delay grows. gobreaker's timeout can neither be
// changed nor read, so each trip makes one anew.
type circuit struct {
	failures uint32 // in a row trip it
	cb       *gobreaker.TwoStepCircuitBreaker[struct{}]
	until    time.Time   // it is open until then
	trips    int         // in a row
	calm     time.Time   // when it closed last; zero: it has not since it tripped
	verdict  func(error) // on the trial under way; nil: there is none
	failed   time.Time   // when a failure was counted last
}

func newCircuit(failures uint32) *circuit {
	c := &circuit{failures: failures}
	c.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{ReadyToTrip: c.ripe})
	return c
}

func (c *circuit) ripe(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= c.failures }

// trip opens it, for longer than the last time unless that is long ago.
func (c *circuit) trip(o *Options, most time.Duration, now time.Time) {
	if !c.calm.IsZero() && now.Sub(c.calm) >= o.Forget {
		c.trips = 0
	}
	delay := most
	if o.Delay <= most>>c.trips {
		delay = o.Delay << c.trips
	}
	c.open(c.trips+1, delay, now)
}

// open opens it until delay is over.
func (c *circuit) open(trips int, delay time.Duration, now time.Time) {
	c.trips, c.until, c.calm, c.verdict = trips, now.Add(delay), time.Time{}, nil
	forced := true
	c.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     max(1, delay-1), // it counts what is after its timeout, and clients come when it is over
		ReadyToTrip: func(n gobreaker.Counts) bool { return forced || c.ripe(n) },
	})
	if done, err := c.cb.Allow(); err == nil {
		done(errFailed)
	}
	forced = false
}

// enter reports whether whoever asks may go on: after is how long not. Once it
// was open, who comes is on trial, and takes the place of who was before.
func (c *circuit) enter(now time.Time) (after time.Duration, ok bool) {
	if c.isOpen() {
		return max(time.Millisecond, c.until.Sub(now)), false
	}
	if c.verdict == nil && c.cb.State() == gobreaker.StateHalfOpen {
		if done, err := c.cb.Allow(); err == nil {
			c.verdict = done
		}
	}
	return 0, true
}

// onTrial reports whether it waits for a verdict.
func (c *circuit) onTrial() bool { return c.verdict != nil }

// isOpen reports whether enter would not let in who comes now.
func (c *circuit) isOpen() bool { return c.verdict == nil && c.cb.State() == gobreaker.StateOpen }

// pass is the verdict that all is well.
func (c *circuit) pass(now time.Time) {
	if c.verdict != nil {
		c.verdict(nil)
		c.verdict, c.calm = nil, now
	}
}

// count counts how something went while it was closed, and reports whether it
// has failed too often.
func (c *circuit) count(failed bool, now time.Time) (tripped bool) {
	done, err := c.cb.Allow()
	if err != nil {
		return false
	}
	if failed {
		c.failed = now
		done(errFailed)
	} else {
		done(nil)
	}
	return c.cb.State() == gobreaker.StateOpen
}

// forgettable reports whether it is as good as a new one.
func (c *circuit) forgettable(o *Options, now time.Time) bool {
	switch {
	case c.trips == 0:
		return now.Sub(c.failed) >= o.Forget
	case !c.calm.IsZero():
		return now.Sub(c.calm) >= o.Forget
	}
	return now.Sub(c.until) >= o.Forget
}
