package model

import (
	"bytes"
	"hash/maphash"
)

// A Result is what a search found.
type Result struct {
	Depth  int    // of the deepest state
	States int    // seen, that differ in more than names
	Ended  bool   // there was nothing more within the scope
	Fault  string // what law was broken, if any was
	Steps  Trace  // how, in as few steps as possible
}

// A searcher goes breadth first, so that the first fault is of a shortest way.
type searcher struct {
	*world
	seeds  [2]maphash.Seed
	seen   map[key]struct{}
	coder  coder
	best   []byte
	origin []origin // of each state in the order found, if ways are wanted
}

// An origin is how a state was reached.
type origin struct {
	from uint32
	step step
}

// A found is a state and its number.
type found struct {
	state state
	index uint32
}

func newSearcher(r Rules, sc Scope) *searcher {
	x := &searcher{world: newWorld(r, sc), seen: map[key]struct{}{}}
	x.seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	x.coder.numbered = r.NumberedGenerations
	return x
}

// Search tries all that can happen within a scope.
func Search(r Rules, sc Scope) Result {
	x := newSearcher(r, sc)
	s := initial(r, sc)
	x.add(&s, origin{})
	level := []found{{state: s}}
	result := Result{}
	for depth := 1; depth <= sc.Depth && len(level) > 0; depth++ {
		var next []found
		for i := range level {
			if fault := x.expand(&level[i], depth < sc.Depth, &next); fault != "" {
				result.Fault = fault
				result.Depth, result.States = depth, len(x.seen)
				result.Steps = x.trace(fault)
				return result
			}
		}
		result.Depth = depth
		level = next
	}
	result.States, result.Ended = len(x.seen), len(level) == 0 && result.Depth < sc.Depth
	return result
}

// expand tries all steps from a state, and adds what is new.
func (x *searcher) expand(f *found, keep bool, next *[]found) (fault string) {
	for _, st := range x.steps {
		s := f.state
		o := x.apply(&s, st)
		if !o.done {
			continue
		}
		way := origin{f.index, st}
		if o.fault != "" {
			x.origin = append(x.origin, way)
			return o.fault
		}
		index, isNew := x.add(&s, way)
		if !isNew {
			continue
		}
		if fault := x.settles(&s); fault != "" {
			return fault
		}
		if keep {
			*next = append(*next, found{s, index})
		}
	}
	return ""
}

// add notes a state, unless it was seen.
func (x *searcher) add(s *state, way origin) (index uint32, isNew bool) {
	k := x.key(s)
	if _, ok := x.seen[k]; ok {
		return 0, false
	}
	x.seen[k] = struct{}{}
	x.origin = append(x.origin, way)
	return uint32(len(x.origin) - 1), true
}

// key is the same for states that differ in the names of identities, nodes or
// clients only.
func (x *searcher) key(s *state) key {
	c := &x.coder
	c.ids, c.gens = 0, 0
	for _, l := range []*log{&s.primary, &s.replica, &s.old} {
		c.liveLog(l)
	}
	for i := range x.scope.Nodes {
		c.liveNode(&s.nodes[i])
	}
	c.ids, c.gens = c.ids&^1, c.gens&^1 // 0 is none
	x.best = x.best[:0]
	for nodes := range uint8(max(1, x.scope.Nodes)) {
		for clients := range max(1, x.scope.Clients) {
			c.buf = c.buf[:0]
			x.encode(s, nodes, clients)
			if len(x.best) == 0 || bytes.Compare(c.buf, x.best) < 0 {
				x.best = append(x.best[:0], c.buf...)
			}
		}
	}
	return key{maphash.Bytes(x.seeds[0], x.best), maphash.Bytes(x.seeds[1], x.best)}
}

// encode writes a state with its nodes and clients swapped, or not.
func (x *searcher) encode(s *state, nodes uint8, clients int) {
	c := &x.coder
	for i := range x.scope.Clients {
		c.client(&s.clients[i^clients], nodes)
	}
	for i := range x.scope.Nodes {
		c.node(&s.nodes[i^int(nodes)])
	}
	c.put(s.events, s.rises, s.failovers, s.wipes, flags(s.away))
	if x.scope.Publishes > 0 {
		c.put(s.producer.seq)
		for _, f := range s.producer.flight {
			c.put(f.seq, flags(f.checked))
		}
	}
	c.log(&s.primary)
	if x.replicates(s) {
		c.log(&s.replica)
	}
	if x.scope.Confirms {
		c.put(s.waited.off, rank(c.ids, s.waited.id), s.acked.off, rank(c.ids, s.acked.id))
	}
	if x.rules.DeposedAnswers {
		c.log(&s.old)
	}
}

// settleRounds is more than any client needs to get to the head.
const settleRounds = 12

// settles lets a state run on without faults: the primary answers, the replica
// has all, nodes check, and confirm what is there, and clients are served.
// Then each client must be at the head.
func (x *searcher) settles(from *state) (fault string) {
	if x.atHead(from) {
		return ""
	}
	s := *from
	s.away = false
	for range settleRounds {
		quiet := !x.confirmAll(&s)
		for i := range uint8(x.scope.Nodes) {
			if s.nodes[i].deposed {
				x.notice(&s, i)
			}
			quiet = !x.bell(&s, i).done && quiet
			quiet = !x.pull(&s, i).done && quiet
		}
		for i := range x.scope.Clients {
			quiet = !x.serve(&s, &s.clients[i]).done && quiet
		}
		switch {
		case x.atHead(&s):
			return ""
		case quiet:
			return "left alone, a client stays behind for ever"
		}
	}
	return "left alone, a client never gets to the head"
}

// atHead reports whether all clients are where the primary's head is. Before
// the first event a client must have the present place; if its own event
// vanished it isn't behind, but should be told.
func (x *searcher) atHead(s *state) bool {
	head := s.primary.head()
	for i := range x.scope.Clients {
		c := &s.clients[i]
		switch {
		case c.owed:
			return false
		case head.off == 0 && c.pos.off > 0 && !x.scope.Strict:
		case head.off == 0 && !x.rules.same(head, c.pos), head.off > 0 && head != c.pos:
			return false
		}
	}
	return true
}
