package breaker

import (
	"slices"
	"time"
)

// What people see who look into a server.

// An Absent is a client that is kept out.
type Absent struct {
	Session    string // or "" in plain use
	Identity   string
	Connection string // that failed last; "": another node said so
	// Broken names the transports that it is kept out of, in order; nil: of all, as it was too slow.
	Broken []string
	After  time.Duration // for how long still
	Times  int           // how often in a row
	Why    string        // it was the last time
}

// Inspect is Known, with up to so many of the clients that are kept out, those
// that were heard of last first. It costs what Known costs.
func (c *Clients) Inspect(most int) (Known, []Absent) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.known()
	var list []Absent
	for e := c.recent.Front(); e != nil && len(list) < most; e = e.Next() {
		r := e.Value.(*record) //nolint:forcetypeassert // it holds nothing else
		if a := r.absent(now); a.Times > 0 {
			list = append(list, a)
		}
	}
	return n, list
}

// absent says how a client is kept out; the zero Absent says that it is not.
func (r *record) absent(now time.Time) Absent {
	a := Absent{Session: r.session, Identity: r.identity, Connection: r.connection, Why: r.why}
	if r.slow != nil && r.slow.isOpen() {
		a.After, a.Times = r.slow.until.Sub(now), r.slow.trips
		return a
	}
	for name, b := range r.broken {
		if b.isOpen() {
			a.Broken = append(a.Broken, name)
			a.After, a.Times = max(a.After, b.until.Sub(now)), max(a.Times, b.trips)
		}
	}
	if a.Times == 0 {
		return Absent{}
	}
	slices.Sort(a.Broken)
	return a
}

// Standing is how a line's client stands.
type Standing struct {
	Trial   bool   // it has to show that it keeps up
	Evicted int    // how often in a row it was, until it kept up for long
	Why     string // it was the last time
}

// Standing returns how the line's client stands now.
func (l *Line) Standing() Standing {
	l.clients.mu.Lock()
	defer l.clients.mu.Unlock()
	s := Standing{Trial: l.trial}
	if r := l.record; r != nil && r.slow != nil {
		s.Evicted, s.Why = r.slow.trips, r.why
	}
	return s
}
