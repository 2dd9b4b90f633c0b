package breaker

import "time"

// A Trip says that a client was evicted, to nodes that did not see it.
type Trip struct {
	Session  string `json:"session,omitempty"`
	Identity string `json:"identity"`
	Place    Place  `json:"place,omitzero"`
	Times    int    `json:"times"` // how often in a row
	// For is how long it is kept out.
	For time.Duration `json:"for"`
	Why string        `json:"why,omitempty"` // for people
}

// Hear takes note of a trip of another node, that long ago. One that is known,
// or less than what is known, changes nothing.
func (c *Clients) Hear(t Trip, ago time.Duration) {
	out := min(t.For, c.o.MaxDelay) - max(0, ago)
	if out <= 0 || t.Times < 1 {
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.find(&Client{Session: t.Session, Identity: t.Identity, Place: t.Place}, now)
	if r == nil {
		r = c.newRecord(t.Session, t.Identity, now)
	}
	switch {
	case r.slow == nil:
		r.slow = newCircuit(1)
	case r.slow.isOpen() && r.slow.trips >= t.Times:
		return
	}
	r.place, r.why, r.connection = t.Place, t.Why, ""
	r.slow.open(max(t.Times, r.slow.trips), out, now)
	c.account(r)
}
