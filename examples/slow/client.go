package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"
)

// What the page calls the states of a client.
const (
	connecting = "connecting"
	live       = "live"
	late       = "late" // it reads, and is over the limit
	stalled    = "stalled"
	evicted    = "evicted"
	onTrial    = "trial"
	caughtUp   = "caught-up"
)

const (
	// celebrated is how long a client that has passed its trial counts as caught up,
	// and not just as live.
	celebrated = 5 * time.Second
	// patience is before a client tries again that nobody told when to.
	patience = 500 * time.Millisecond
)

// A client reads the ticks by the session protocol (PROTOCOL §6), and counts them.
type client struct {
	demo    *demo
	name    string
	carrier string // "ws" or "sse"
	tap     *tap
	ctx     context.Context
	leave   context.CancelFunc
	line    uint64 // of this connection; rising
	token   string

	mu        sync.Mutex
	connected bool      // guarded by mu
	out       bool      // guarded by mu: it was evicted, and is not back yet
	until     time.Time // guarded by mu: and may be then; zero: not known
	passed    bool      // guarded by mu: the server says so of its trial, since it was evicted
	trial     bool      // guarded by mu: it came back, and has not passed it yet
	goal      uint64    // guarded by mu: what was published last as of then: from there on it is live
	reached   time.Time // guarded by mu: when it passed
	evictions int       // guarded by mu
	place     string    // guarded by mu: the last position
	count     count     // guarded by mu
}

func newClient(d *demo, name, carrier string, rate int) *client {
	c := &client{demo: d, name: name, carrier: carrier, tap: newTap(rate), place: "latest"}
	c.ctx, c.leave = context.WithCancel(d.ctx)
	return c
}

// run comes back whenever the connection ended, until the client is removed.
func (c *client) run() {
	for c.ctx.Err() == nil {
		again := c.follow()
		select {
		case <-c.ctx.Done():
		case <-time.After(again):
		}
	}
}

// follow reads one connection to its end, and returns when to come back.
func (c *client) follow() (again time.Duration) {
	c.line++
	ctx, end := context.WithCancel(c.ctx)
	defer end()
	next, err := c.open(ctx)
	for err == nil {
		var f frame
		if f, err = next(); err == nil {
			err = c.take(f)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected = false
	why, told := err.(*reason) //nolint:errorlint // nobody wraps it
	if !told {
		return patience
	}
	after := time.Duration(why.After) * time.Millisecond
	if why.Code == "slow_consumer" {
		c.evict(after)
	}
	return max(after, time.Millisecond)
}

// hello is the frame that a connection begins with.
func (c *client) hello() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, _ := json.Marshal(map[string]any{"hello": map[string]any{
		"version": 1, "line": c.line, "token": c.token,
		"channels": []map[string]string{{"channel": ticks, "after": c.place}},
	}})
	return text
}

// take takes a frame. The error is a *reason if the server said goodbye.
func (c *client) take(f frame) error {
	head := c.demo.head()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case f.Close != nil:
		return f.Close
	case f.End != nil:
		return f.End
	case f.Open != nil:
		c.back(f.Open.Token, head)
	case f.Gap != nil:
		c.place = f.Gap.To
		c.count.gap()
	case f.Position != "":
		c.place = f.Position
		var t tick
		if json.Unmarshal(f.Data, &t) == nil && t.N > 0 {
			c.count.event(t.N)
		}
	}
	return nil
}

// back notes that the server has let the client in. It is called with mu held.
func (c *client) back(token string, head uint64) {
	if token != "" {
		c.token = token
	}
	c.connected = true
	if c.out {
		c.out, c.until = false, time.Time{}
		c.trial, c.goal = !c.passed, head
		if c.passed {
			c.reached = time.Now()
		}
	}
}

// pass takes word that the server has ended the trial: the client has come within
// the limits. That may be before the client has heard that it is back.
func (c *client) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed = true
	if c.trial {
		c.trial, c.reached = false, time.Now()
	}
}

// keptOut takes word that the client was evicted, for so long; 0: not known.
func (c *client) keptOut(out time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evict(out)
}

// evict is called with mu held.
func (c *client) evict(out time.Duration) {
	if !c.out {
		c.evictions++
	}
	c.out, c.trial, c.passed = true, false, false
	if out > 0 {
		c.until = time.Now().Add(out)
	}
}

// isOut reports whether the client is kept out.
func (c *client) isOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out
}

// A view is how a client looks to the page.
type view struct {
	Name      string `json:"name"`
	Carrier   string `json:"carrier"`
	Modem     bool   `json:"modem"`
	State     string `json:"state"`
	Reads     bool   `json:"reads"`
	Back      int64  `json:"back"` // of an evicted client: when it may come back, in ms; -1: not known
	Last      uint64 `json:"last"`
	Lag       uint64 `json:"lag"`
	ToGo      uint64 `json:"toGo"`    // of one on trial: to what was published last when it came back
	Missing   uint64 `json:"missing"` // lost in silence
	Repeated  uint64 `json:"repeated"`
	LeftOut   uint64 `json:"leftOut"` // missing, and it was told so
	Evictions int    `json:"evictions"`
}

// view returns how the client is; head is what was published last.
func (c *client) view(head uint64) view {
	reads := c.tap.isOpen()
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{
		Name: c.name, Carrier: c.carrier, Modem: c.tap.rate > 0, Reads: reads, Back: -1,
		Last: c.count.last, Missing: c.count.missing, Repeated: c.count.repeated, LeftOut: c.count.leftOut, Evictions: c.evictions,
	}
	if c.count.last > 0 && head > c.count.last {
		v.Lag = head - c.count.last
	}
	v.State = c.state(reads, v.Lag)
	if v.State == onTrial && c.goal > c.count.last {
		v.ToGo = c.goal - c.count.last
	}
	if c.out && !c.until.IsZero() {
		v.Back = max(0, time.Until(c.until).Milliseconds())
	}
	return v
}

// state is called with mu held.
func (c *client) state(reads bool, lag uint64) string {
	switch {
	case c.out:
		return evicted
	case !reads:
		return stalled
	case !c.connected:
		return connecting
	case c.trial:
		return onTrial
	case !c.reached.IsZero() && time.Since(c.reached) < celebrated:
		return caughtUp
	case lag > maxLag:
		return late
	}
	return live
}

// A count holds the numbers that a client received against what they have to be:
// each once, in order, but for what a gap told of.
type count struct {
	last                       uint64
	missing, repeated, leftOut uint64
	told                       bool // of a gap since
}

func (c *count) gap() { c.told = true }

func (c *count) event(n uint64) {
	switch {
	case c.last == 0: // where it begins
	case n <= c.last:
		c.repeated++
		return
	case c.told:
		c.leftOut += n - c.last - 1
	default:
		c.missing += n - c.last - 1
	}
	c.last, c.told = n, false
}
