package model

func (n *node) headOffset() uint8 { return n.base + n.n }

func (n *node) at(i uint8) pos {
	switch {
	case i > 0:
		return pos{off: n.base + i, id: n.entries[i-1].id, log: n.made}
	case n.base > 0:
		return pos{off: n.base, id: n.baseID, log: n.made}
	}
	return pos{at: n.place}
}

func (n *node) identityAt(i uint8) uint8 {
	if i > 0 {
		return n.entries[i-1].id
	}
	return n.baseID
}

// push extends the tail. It keeps the newest.
func (n *node) push(e entry) {
	if n.n == maxTail {
		n.base, n.baseID, n.place = n.base+1, n.entries[0].id, place{}
		copy(n.entries[:], n.entries[1:])
		n.n--
	}
	n.entries[n.n] = e
	n.n++
}

// reset makes the tail what the log has.
func (n *node) reset(r *Rules, l *log) {
	first := l.readable(r) - min(l.readable(r), maxTail)
	from := l.at(first)
	n.known, n.made = true, l.made
	n.base, n.baseID, n.place = from.off, l.identityAt(first), from.at
	n.entries = [maxTail]entry{}
	n.n = uint8(copy(n.entries[:], l.entries[first:l.readable(r)]))
}

// next returns the index of the log's first entry beyond the tail if the tail
// may be extended by it, or whether there is nothing new.
func (n *node) next(r *Rules, l *log) (i uint8, follows bool) {
	if !n.known || l.headOffset() < n.headOffset() || l.base > n.headOffset() {
		return 0, false
	}
	i = n.headOffset() - l.base
	if i < l.n && r.TailUnchecked {
		return i, true
	}
	return i, r.same(l.at(i), n.at(n.n)) // for an entry: its predecessor's mark
}

// pull has the node read the log on, after its tail. Anything that doesn't
// follow from the tail puts what the log has in its place. A name is renewed.
func (s *state) pull(r *Rules, which int) {
	n, l := &s.nodes[which], s.source(which)
	if h := n.at(n.n); r.GapToOldHead && n.known && h != l.head() {
		n.before, n.beforeID = h, n.identityAt(n.n)
	}
	if i, follows := n.next(r, l); follows {
		for ; i < l.readable(r); i++ {
			n.push(l.entries[i])
		}
	} else {
		n.reset(r, l)
	}
	l.renew(r)
}

// renew notes the check of a silent channel.
func (l *log) renew(r *Rules) {
	if !l.born {
		return
	}
	l.checked = true
	if !r.WatchedNameDropped {
		l.silent = 0
	}
}

// source is the log that a node reads.
func (s *state) source(which int) *log {
	if s.nodes[which].deposed {
		return &s.old
	}
	return &s.primary
}

// find returns the index of the first entry of the tail after a position.
func (n *node) find(r *Rules, c *client) (i uint8, found bool) {
	if !n.known || c.pos.off < n.base || c.pos.off > n.headOffset() {
		return 0, false
	}
	i = c.pos.off - n.base
	if r.CheckedAtResumeOnly && !c.fresh {
		return i, true
	}
	return i, r.same(n.at(i), c.pos)
}

// A servedKind says what a client gets.
type servedKind uint8

const (
	nothing servedKind = iota
	anEvent
	aMove // its position moves without an event
	aGap
)

// A serving is what a client gets next.
type serving struct {
	kind  servedKind
	event entry
	to    pos
	after uint8 // identity of to
	why   reason
}

// serving finds what a client gets next: from the tail if that holds its
// position, else from the log, which alone may declare it lost.
func (s *state) serving(r *Rules, c *client) serving {
	n := &s.nodes[c.node]
	i, found := n.find(r, c)
	switch {
	case found && i < n.n:
		return serving{kind: anEvent, event: n.entries[i], to: n.at(i + 1)}
	case found:
		return serving{}
	case r.CheckedAtResumeOnly && !c.fresh && n.known && c.pos.off > n.headOffset():
		return serving{} // it seems to be ahead, and waits
	case r.LaggingSaysLost && n.known && c.pos.off > n.headOffset():
		return serving{kind: aGap, to: n.at(n.n), after: n.identityAt(n.n), why: rewritten}
	}
	return s.reading(r, c)
}

// reading is what a read of the log gives a client.
func (s *state) reading(r *Rules, c *client) serving {
	n, l := &s.nodes[c.node], s.source(int(c.node))
	i, why := l.locate(r, c.pos)
	switch {
	case why != exact:
		return n.gap(r, l, why)
	case i < l.readable(r):
		return serving{kind: anEvent, event: l.entries[i], to: l.at(i + 1)}
	case l.head() != c.pos && !r.PlaceNotMoved && !l.born:
		return serving{kind: aMove, to: l.head(), after: c.after}
	}
	return serving{}
}

// gap is what a client gets whose position the log declared lost.
func (n *node) gap(r *Rules, l *log, why reason) serving {
	g := serving{kind: aGap, why: why}
	g.to, g.after = l.to(r, why)
	switch {
	case r.GapToOldHead && n.beforeID > 0:
		g.to, g.after = n.before, n.beforeID
	case r.GapToEarliest:
		g.to, g.after = l.to(r, trimmed)
	}
	return g
}
