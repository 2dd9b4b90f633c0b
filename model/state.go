package model

import (
	"math"
	"math/bits"
)

// The bounds of the parts' memory.
const (
	maxEntries = 3 // that the log keeps; one more trims the oldest
	maxTail    = 2 // that a node keeps
	maxNodes   = 2
	maxClients = 2
	maxFlight  = 2 // copies of publishes under way
	maxBatches = 2 // that an engine remembers
	exactNow   = 2 // places valid at a time: this generation's and the one before's
)

// A place is the identity of a generation, from which the mark of the place
// before the first event is derived. num counts where a rule wants a number.
type place struct{ id, num uint8 }

// A pos is a position. What stands for its mark is id, the event's identity, or
// at offset 0 the place.
//
// log is which log made the event. A log that lost everything is another.
type pos struct {
	off, id uint8
	at      place
	log     uint8
}

// An entry is an event in a log or a tail. Identities rise with time. prev is
// the identity of the event before it, or for the first that of the channel's
// life: it stands for the predecessor's mark, and is the truth that deliveries
// are judged by.
type entry struct{ id, prev uint8 }

// A log is the primary, or what the replica has of it.
type log struct {
	born    bool
	made    uint8 // which log it is
	life    uint8 // identity of the channel from one drop of its name to the next
	base    uint8 // offset of the last trimmed event
	baseID  uint8 // its identity, or life
	n       uint8
	entries [maxEntries]entry
	ok      uint8               // offset up to which events were confirmed
	births  [exactNow + 1]place // valid when the first event came
	gens    [exactNow + 1]place // valid now, the present one first
	silent  uint8               // rises since the name was written or renewed
	last    uint8               // the producer's highest number

	confirms bool // append confirms nothing

	watched bool  // somebody watches, as far as the log can know: one node only
	checked bool  // truth: a node with clients checked the name since the last rise
	forgot  uint8 // truth: the last event of a name dropped in spite of that
	taken   uint8 // truth: bits of the numbers ever appended
}

// A batch is what was once read after a position: an event, or that the position
// moved.
type batch struct {
	after, to pos
	event     entry
}

// A node keeps a tail of the channel, or its engine the last batches.
type node struct {
	known   bool // it has read
	made    uint8
	base    uint8
	baseID  uint8
	place   place // if base is 0
	n       uint8
	entries [maxTail]entry

	before   pos // the head before it last read on, for a weak rule
	beforeID uint8

	deposed bool  // it reads the old primary
	rung    bool  // a bell is on its way
	brings  entry // what it brings, and where
	bringsN uint8

	batches [maxBatches]batch // the newest first
}

// A client is on a node and has a position, which is its own.
type client struct {
	node  uint8
	pos   pos
	fresh bool // it resumed and was not served yet, where that matters
	owed  bool // its position moved over a gap that it didn't hear of

	after uint8 // truth: identity of what it received last, or the life it began in
	last  uint8 // truth: the latest event it ever received
	sure  bool  // truth: it received a confirmed event last
}

// A copied is one sending of a publish.
type copied struct {
	seq     uint8
	checked bool // the log found its number unused
}

// A producer publishes one number after the other, and repeats it until it is
// acknowledged.
type producer struct {
	seq    uint8
	flight [maxFlight]copied
}

// A state is everything. It is a value: steps change copies.
type state struct {
	primary, replica, old log
	nodes                 [maxNodes]node
	clients               [maxClients]client
	producer              producer

	away   bool // the primary answers nobody
	waited pos  // an event of which somebody heard that the replica has it, and will confirm it
	acked  pos  // truth: the last that was confirmed

	events, rises, failovers uint8 // used
	wipes                    uint8
	ids, gens                uint8 // identities given out
}

// initial is an unborn channel, with all clients waiting at its place.
func initial(r Rules, sc Scope) state {
	var s state
	s.primary = s.unborn(r, sc)
	s.replica = s.primary
	for i := range sc.Clients {
		s.clients[i] = client{pos: pos{at: s.primary.gens[0]}, after: s.primary.life}
	}
	s.producer.seq = 1
	return s
}

// unborn is a log without anything, with fresh secrets.
func (s *state) unborn(r Rules, sc Scope) log {
	l := log{made: s.wipes, life: s.identity(), confirms: sc.Confirms}
	l.baseID = l.life
	for i := exactNow - 1; i >= 0; i-- {
		l.gens[i] = s.generation(r, uint8(exactNow-1-i))
	}
	return l
}

func (s *state) identity() uint8 {
	if s.ids == math.MaxUint8 {
		panic("model: a run of too many events")
	}
	s.ids++
	return s.ids
}

func (s *state) generation(r Rules, num uint8) place {
	s.gens++
	if !r.NumberedGenerations {
		num = 0
	}
	return place{id: s.gens, num: num}
}

// A key stands for a state in the set of those seen.
type key [2]uint64

// A coder writes a state as bytes in which identities are replaced by their
// rank, so that states that differ in names only are one.
type coder struct {
	buf      []byte
	ids      uint64 // identities that something may be compared with
	gens     uint64
	numbered bool
}

func (c *coder) put(values ...uint8) { c.buf = append(c.buf, values...) }

func rank(live uint64, id uint8) uint8 {
	if live>>id&1 == 0 {
		return 0xff // of a history that nobody has: equal to nothing there is
	}
	return uint8(bits.OnesCount64(live & (1<<id - 1)))
}

func flags(bits ...bool) (b uint8) {
	for i, bit := range bits {
		if bit {
			b |= 1 << i
		}
	}
	return b
}

func (c *coder) liveLog(l *log) {
	c.ids |= 1<<l.life | 1<<l.baseID | 1<<l.forgot
	for _, e := range l.entries[:l.n] {
		c.ids |= 1<<e.id | 1<<e.prev
	}
	for i := range l.gens {
		c.gens |= 1<<l.gens[i].id | 1<<l.births[i].id
	}
}

func (c *coder) liveNode(n *node) {
	for _, b := range n.batches {
		c.ids |= 1<<b.after.id | 1<<b.event.id | 1<<b.event.prev
		c.gens |= 1<<b.after.at.id | 1<<b.to.at.id
	}
	if !n.known && !n.rung {
		return
	}
	c.ids |= 1<<n.baseID | 1<<n.beforeID | 1<<n.brings.id | 1<<n.brings.prev
	for _, e := range n.entries[:n.n] {
		c.ids |= 1<<e.id | 1<<e.prev
	}
	c.gens |= 1<<n.place.id | 1<<n.before.at.id
}

func (c *coder) place(p place) {
	c.put(rank(c.gens, p.id))
	if c.numbered {
		c.put(p.num)
	}
}

func (c *coder) entries(entries []entry) {
	for _, e := range entries {
		c.put(rank(c.ids, e.id), rank(c.ids, e.prev))
	}
}

func (c *coder) log(l *log) {
	c.put(flags(l.born, l.watched, l.checked), rank(c.ids, l.life), rank(c.ids, l.forgot), l.base, rank(c.ids, l.baseID), l.n, l.ok, l.silent, l.last, l.taken, l.made)
	c.entries(l.entries[:l.n])
	for i := range l.gens {
		c.place(l.gens[i])
		c.place(l.births[i])
	}
}

func (c *coder) node(n *node) {
	c.put(flags(n.known, n.deposed, n.rung), n.n, n.base, n.bringsN, n.made)
	if n.known {
		c.put(rank(c.ids, n.baseID))
		c.place(n.place)
		c.entries(n.entries[:n.n])
	}
	if n.rung {
		c.entries([]entry{n.brings})
	}
	if n.beforeID > 0 {
		c.put(n.before.off, rank(c.ids, n.beforeID))
		c.place(n.before.at)
	}
	for _, b := range n.batches {
		if b == (batch{}) {
			break
		}
		c.pos(b.after)
		c.pos(b.to)
		c.entries([]entry{b.event})
	}
}

func (c *coder) pos(p pos) {
	c.put(p.off, rank(c.ids, p.id), p.log)
	c.place(p.at)
}

func (c *coder) client(cl *client, swapped uint8) {
	c.put(cl.node^swapped, flags(cl.fresh, cl.owed, cl.sure), cl.pos.off, cl.pos.log)
	c.put(rank(c.ids, cl.pos.id), rank(c.ids, cl.after))
	c.place(cl.pos.at)
	// Only its order among those that may still come matters.
	c.put(uint8(bits.OnesCount64(c.ids & (2<<cl.last - 1))))
}
