package breaker

import "time"

// A Line is a connection of a client that was let in. Its methods may be called
// concurrently; after Leave they do nothing.
type Line struct {
	clients *Clients
	who     Client
	began   time.Time

	// Guarded by clients.mu.
	record  *record // nil: nothing is known of its client
	trial   bool
	counted bool // in identity.keepUp
	left    bool
}

// OnTrial reports whether the client still has to show that it keeps up.
func (l *Line) OnTrial() bool {
	l.clients.mu.Lock()
	defer l.clients.mu.Unlock()
	return l.trial
}

// KeepsUp ends the trial of a client that has caught up, and reports whether it
// was on one.
func (l *Line) KeepsUp() (passed bool) {
	l.clients.mu.Lock()
	defer l.clients.mu.Unlock()
	if l.left || !l.trial {
		return false
	}
	l.trial = false
	l.record.slow.pass(time.Now())
	l.count(true)
	return true
}

// TooSlow notes that the client is evicted, where it may be found again if it is
// a plain one, and why, for people. It returns what other nodes have to know.
func (l *Line) TooSlow(at Place, why string) Trip {
	now := time.Now()
	c := l.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.left {
		return Trip{For: c.o.Delay}
	}
	r := l.ownRecord(now)
	r.place, r.why, r.connection = at, why, l.who.Connection
	if r.slow == nil {
		r.slow = newCircuit(1)
	}
	r.slow.trip(&c.o, c.o.MaxDelay, now)
	l.trial = false
	l.count(false)
	return Trip{Session: r.session, Identity: r.identity, Place: r.place, Times: r.slow.trips, For: r.slow.until.Sub(now), Why: why}
}

// Leave ends the line. Broken says that neither side closed it, after the
// transport had proved that it works. It reports whether the session is kept out
// of the transport from now on.
func (l *Line) Leave(broken bool) (tripped bool) {
	now := time.Now()
	c := l.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.left {
		return false
	}
	l.left = true
	tripped = l.judge(broken && now.Sub(l.began) < c.o.BrokenWithin, now)
	if l.record != nil {
		l.record.lines--
		c.account(l.record)
	}
	l.count(false)
	c.drop(l.who.Identity, c.identity(l.who.Identity))
	return tripped
}

// count notes whether the line is one that keeps up.
func (l *Line) count(keepsUp bool) {
	id := l.clients.identity(l.who.Identity)
	switch {
	case keepsUp && !l.counted:
		id.keepUp++
	case !keepsUp && l.counted:
		id.keepUp--
	}
	l.counted = keepsUp
}

// judge counts how the line went for its transport.
func (l *Line) judge(broken bool, now time.Time) (tripped bool) {
	if l.who.Session == "" || !broken && (l.record == nil || l.record.at == nil || l.record.broken[l.who.Transport] == nil) {
		return false
	}
	r := l.ownRecord(now)
	b := r.broken[l.who.Transport]
	if b == nil {
		if r.broken == nil {
			r.broken = make(map[string]*circuit)
		}
		b = newCircuit(uint32(l.clients.o.BrokenLines)) //nolint:gosec // a small number
		r.broken[l.who.Transport] = b
	}
	b.enter(now) // once the delay is over, a line from before decides as well as a new one
	switch {
	case b.onTrial() && !broken:
		b.pass(now)
	case b.onTrial(), b.count(broken, now):
		r.connection = l.who.Connection
		b.trip(&l.clients.o, max(l.clients.o.Delay, l.clients.o.BrokenWithin), now)
		return true
	}
	return false
}

// ownRecord returns the record of the line's client, which it makes if there is
// none.
func (l *Line) ownRecord(now time.Time) *record {
	c := l.clients
	if l.record != nil && l.record.at != nil {
		c.recent.MoveToFront(l.record.at)
		return l.record
	}
	r := c.sessions[l.who.Session] // of another line of the session
	if r == nil {
		r = c.newRecord(l.who.Session, l.who.Identity, now)
		r.place = l.who.Place
	}
	l.record = r
	c.attach(r)
	return r
}

// newRecord makes a record of a client that is not attached.
func (c *Clients) newRecord(session, identity string, now time.Time) *record {
	c.makeRoom(now)
	r := &record{session: session, identity: identity}
	r.at = c.recent.PushFront(r)
	id := c.identity(identity)
	id.records = append(id.records, r)
	if session != "" {
		c.sessions[session] = r
	}
	return r
}

// makeRoom forgets what says nothing any more, and then what is oldest.
func (c *Clients) makeRoom(now time.Time) {
	for range 2 {
		if oldest := c.oldest(); oldest != nil && oldest.forgettable(&c.o, now) {
			c.forget(oldest)
		}
	}
	for c.recent.Len() >= c.o.MaxRecords {
		c.forget(c.oldest())
	}
}

func (c *Clients) oldest() *record {
	if e := c.recent.Back(); e != nil {
		return e.Value.(*record) //nolint:forcetypeassert // it holds nothing else
	}
	return nil
}
