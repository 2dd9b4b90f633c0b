package model

// attended reports whether a node has a client.
func (w *world) attended(s *state, which uint8) bool {
	for _, c := range s.clients[:w.scope.Clients] {
		if c.node == which {
			return true
		}
	}
	return false
}

func (w *world) append(s *state, bells bool) outcome {
	if int(s.events) == w.scope.Events {
		return outcome{}
	}
	o := w.appendSeq(s, 0)
	if w.needsBells() && bells {
		for i := range w.scope.Nodes {
			w.ring(s, &s.nodes[i])
		}
	}
	return o
}

// appendSeq adds an event to the primary, perhaps the producer's.
func (w *world) appendSeq(s *state, seq uint8) outcome {
	o := outcome{done: true, event: s.identity(), seq: seq}
	s.events++
	if s.primary.taken>>seq&1 == 1 {
		o.fault = "a publish is in the log twice"
	} else if seq > 0 && s.primary.taken>>seq != 0 {
		o.fault = "publishes are out of order"
	}
	s.primary.append(&w.rules, o.event, seq)
	return o
}

func (w *world) ring(s *state, n *node) {
	n.rung = true
	if w.rules.BellsCarryEvents {
		n.brings, n.bringsN = s.primary.entries[s.primary.n-1], s.primary.headOffset()
	}
}

// age is what time does to the log.
func (w *world) age(s *state, d deed) outcome {
	l := &s.primary
	switch d {
	case doTrim:
		if l.n == 0 || w.scope.Whole {
			return outcome{}
		}
		l.trim()
		return outcome{done: true}
	case doExpire:
		if !w.rules.NameExpires || !l.born || l.n > 0 || l.silent == 0 || l.last > 0 {
			return outcome{}
		}
		w.drop(s)
		return outcome{done: true}
	}
	if int(s.rises) == w.scope.Rises {
		return outcome{}
	}
	s.rises++
	o := outcome{done: true}
	if !w.rules.NameExpires && l.droppable(&w.rules) {
		w.drop(s)
		o.verdict = "the name is dropped"
	}
	l.rise(&w.rules, s.generation(w.rules, l.gens[0].num+1))
	return o
}

func (w *world) drop(s *state) {
	for i := range w.scope.Nodes {
		if s.primary.checked && w.attended(s, uint8(i)) {
			s.primary.forgot = s.primary.baseID
		}
	}
	s.primary.drop(s.identity())
}

// fail is what happens between primary and replica.
func (w *world) fail(s *state, st step) outcome {
	switch st.deed {
	case doSync:
		if int(s.failovers) == w.scope.Failovers || s.replica == s.primary {
			return outcome{}
		}
		s.replica = s.primary
	case doFailover:
		if int(s.failovers) == w.scope.Failovers {
			return outcome{}
		}
		s.failovers++
		if w.rules.DeposedAnswers {
			s.old = s.primary
			for i := range w.scope.Nodes {
				s.nodes[i].deposed = true
			}
		}
		s.primary = s.replica
		if int(s.failovers) == w.scope.Failovers {
			s.replica = log{} // no longer of interest
		}
	default:
		if !s.nodes[st.who].deposed {
			return outcome{}
		}
		w.notice(s, st.who)
	}
	return outcome{done: true}
}

func (w *world) notice(s *state, which uint8) {
	s.nodes[which].deposed = false
	for _, n := range s.nodes {
		if n.deposed {
			return
		}
	}
	s.old = log{} // nobody reads it
}

func (w *world) pull(s *state, which uint8) outcome {
	n := &s.nodes[which]
	if w.rules.NoIntervalCheck && !n.rung || !w.attended(s, which) {
		return outcome{}
	}
	before, log := *n, *s.source(int(which))
	s.pull(&w.rules, int(which))
	if w.rules.NoIntervalCheck {
		n.rung = false
	}
	return outcome{done: *n != before || *s.source(int(which)) != log}
}

// bell brings an event to a tail, by the weak rule that bells do.
func (w *world) bell(s *state, which uint8) outcome {
	n := &s.nodes[which]
	if !w.rules.BellsCarryEvents || !n.rung {
		return outcome{}
	}
	o := outcome{done: true, event: n.brings.id}
	if n.known && n.bringsN == n.headOffset()+1 && n.brings.prev == n.identityAt(n.n) {
		n.push(n.brings)
		o.verdict = "taken"
	}
	n.rung, n.brings, n.bringsN = false, entry{}, 0
	return o
}

// serve gives a client what is next for it, and judges it.
func (w *world) serve(s *state, c *client) outcome {
	if c.owed { // the block that follows that of its `to`
		c.owed = false
		return outcome{done: true, got: serving{kind: aGap, to: c.pos, after: c.after, why: rewritten}}
	}
	got := s.serving(&w.rules, c)
	o := outcome{done: got.kind != nothing || c.fresh, got: got}
	c.fresh = false
	switch got.kind {
	case nothing:
		return o
	case anEvent:
		o.event, o.fault = got.event.id, c.judge(got.event)
		c.after, c.last = got.event.id, max(c.last, got.event.id)
	case aGap:
		if s.primary.owes(c) {
			o.fault = "a gap is said though nothing is missing"
		}
		if !w.rules.GapBesideTail {
			s.pull(&w.rules, int(c.node)) // where to go on, and the tail, are of one read
		}
		if !w.rules.GapSwallowed {
			c.after = got.after
		}
		c.owed = w.rules.GapAfterItsTo
	}
	c.pos = got.to
	return o
}

// judge compares what a client gets with what it received before.
func (c *client) judge(e entry) string {
	switch {
	case e.id <= c.last:
		return "a client gets an event twice, or out of order"
	case e.prev != c.after:
		return "events are lost without a gap"
	}
	return ""
}

// lose is a serving that never arrives, by the weak rule that the server's
// cursor counts. By the right one it changes nothing.
func (w *world) lose(s *state, c *client) outcome {
	if !w.rules.ServerCursor {
		return outcome{}
	}
	o := outcome{got: s.serving(&w.rules, c)}
	if o.got.kind != nothing {
		o.done, c.pos = true, o.got.to
	}
	return o
}

// move has a client resume on another node, or on the same. Before the node
// serves it, it compares its tail with the primary: else one that missed
// a failover may hand out again what the client had, before it heard elsewhere
// that it vanished. If the primary can't be asked the client waits, which is as
// if it came later.
func (w *world) move(s *state, c *client) outcome {
	before := *c
	if w.scope.Nodes > 1 {
		c.node ^= 1
	}
	c.fresh = w.rules.CheckedAtResumeOnly
	if c.owed {
		c.owed = false // and the gap is lost; what it received is not
		c.after = 0
	}
	o := outcome{done: *c != before}
	if !w.rules.TailTrustedAtResume {
		o.done = w.pull(s, c.node).done || o.done
	}
	return o
}

// publish is what happens to the producer's publishes.
func (w *world) publish(s *state, st step) outcome {
	p := &s.producer
	if st.deed == doSend {
		for i := range p.flight {
			if p.flight[i].seq == 0 && int(p.seq) <= w.scope.Publishes {
				p.flight[i] = copied{seq: p.seq}
				return outcome{done: true, seq: p.seq}
			}
		}
		return outcome{}
	}
	f := &p.flight[st.who]
	if f.seq == 0 {
		return outcome{}
	}
	if st.deed == doCheck {
		if !w.rules.ProducerCheckApart || f.checked || w.used(s, f.seq) {
			return outcome{}
		}
		f.checked = true
		return outcome{done: true, seq: f.seq}
	}
	return w.arrive(s, f, st.deed)
}

// used reports whether the log refuses a number.
func (w *world) used(s *state, seq uint8) bool {
	if w.rules.LowerNumberTaken {
		return seq == s.primary.last
	}
	return seq <= s.primary.last
}

// arrive is the step in which the log takes a publish, or refuses it as taken.
func (w *world) arrive(s *state, f *copied, d deed) outcome {
	o := outcome{done: true, seq: f.seq, verdict: "refused"}
	if f.checked || !w.used(s, f.seq) {
		if w.rules.ProducerCheckApart && !f.checked || int(s.events) == w.scope.Events {
			return outcome{}
		}
		o = w.appendSeq(s, f.seq)
		o.verdict = "appended"
	}
	// The answer to a lower number is not what the producer waits for.
	if d == doArrive && f.seq == s.producer.seq {
		s.producer.seq++
	}
	*f = copied{}
	return o
}
