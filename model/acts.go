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
	if int(s.events) == w.scope.Events || s.away {
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
	if s.away {
		return outcome{}
	}
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
	s.forgive(w.scope)
}

// forgive ends what is owed to those who rely on confirmed events.
func (s *state) forgive(sc Scope) {
	s.acked = pos{}
	for i := range sc.Clients {
		s.clients[i].sure = false
	}
}

// fail is what happens between primary and replica.
func (w *world) fail(s *state, st step) outcome {
	switch st.deed {
	case doSync:
		if !w.replicates(s) || s.away || s.replica == s.primary {
			return outcome{}
		}
		s.replica = s.primary
	case doFailover:
		return w.failover(s)
	case doAway, doBack:
		away := st.deed == doAway
		if !w.scope.Away || s.away == away {
			return outcome{}
		}
		s.away = away
	case doWipe:
		if int(s.wipes) == w.scope.Wipes || s.away {
			return outcome{}
		}
		s.wipes++
		gens := s.primary.gens
		s.primary = s.unborn(w.rules, w.scope)
		if w.rules.WipedSecretsKept {
			s.primary.gens = gens
		}
		s.forgive(w.scope)
	default:
		if !s.nodes[st.who].deposed {
			return outcome{}
		}
		w.notice(s, st.who)
	}
	return outcome{done: true}
}

// replicates reports whether what the replica has may still be of interest.
func (w *world) replicates(s *state) bool {
	return w.scope.Confirms || int(s.failovers) < w.scope.Failovers
}

// failover has the replica take over. Where the primary may be away, this is the
// fence: it answers nobody before there is a new one, and nobody ever after. A
// node that would ask it says "try later", until it learns who is the primary.
// In other scopes a node learns at once.
func (w *world) failover(s *state) outcome {
	fenced := w.scope.Away && !w.rules.DeposedAnswers
	if int(s.failovers) == w.scope.Failovers || fenced && !s.away {
		return outcome{}
	}
	s.failovers++
	if w.rules.DeposedAnswers {
		s.old = s.primary
	}
	for i := range w.scope.Nodes {
		s.nodes[i].deposed = fenced || w.rules.DeposedAnswers
	}
	s.primary, s.away = s.replica, false
	if !w.replicates(s) {
		s.replica = log{} // no longer of interest
	}
	o := outcome{done: true}
	if s.acked != (pos{}) && !s.primary.has(s.acked) {
		o.fault = "an acknowledged event is lost, though the replica had it"
	}
	for _, c := range s.clients[:w.scope.Clients] {
		if c.sure && !s.primary.has(c.pos) {
			o.fault = "an event that a client received vanishes, though it was to be readable only if the replica has it"
		}
	}
	return o
}

// asks reports whether a node can ask the primary, or what it takes for it.
func (w *world) asks(s *state, which uint8) bool {
	if s.nodes[which].deposed {
		return w.rules.DeposedAnswers
	}
	return !s.away
}

// confirm is how what the replica has becomes readable. Whoever appended an event,
// or found one above the readable head, waits until the replica has it. Then, and
// perhaps after a failover, it has the primary compare and confirm.
func (w *world) confirm(s *state, d deed) outcome {
	switch {
	case !w.scope.Confirms || s.away:
		return outcome{}
	case d == doConfirm:
		if s.waited == (pos{}) {
			return outcome{}
		}
		o := outcome{done: true, event: s.waited.id}
		if s.primary.confirm(&w.rules, s.waited) {
			s.acked = s.primary.at(s.waited.off - s.primary.base)
			o.event = s.acked.id
		}
		s.waited = pos{}
		return o
	}
	p := s.replica.head()
	if s.waited != (pos{}) || p.off <= max(s.primary.ok, s.primary.base) || !s.primary.has(p) {
		return outcome{}
	}
	s.waited = p
	return outcome{done: true, event: p.id}
}

// confirmAll is a node's check of what is not readable yet, if it can be.
func (w *world) confirmAll(s *state) (did bool) {
	if !w.scope.Confirms || w.rules.NobodyConfirms {
		return false
	}
	s.replica, s.waited = s.primary, pos{} // whoever heard before is dead
	if did = w.confirm(s, doWaited).done; did {
		w.confirm(s, doConfirm)
	}
	return did
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
	if w.rules.NoIntervalCheck && !n.rung || !w.attended(s, which) || !w.asks(s, which) {
		return outcome{}
	}
	before, log := *n, *s.source(int(which))
	if w.scope.Batches {
		s.source(int(which)).renew(&w.rules)
	} else {
		s.pull(&w.rules, int(which))
	}
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
	got, answered := w.next(s, c)
	if !answered {
		return outcome{}
	}
	o := outcome{done: got.kind != nothing || c.fresh, got: got}
	c.fresh = false
	switch got.kind {
	case nothing:
		return o
	case anEvent:
		o.event, o.fault = got.event.id, c.judge(got.event)
		c.after, c.last = got.event.id, max(c.last, got.event.id)
		c.sure = w.scope.Confirms && got.to.off >= s.primary.base && s.primary.has(got.to)
	case aGap:
		c.sure = false
		if s.primary.owes(c) {
			o.fault = "a gap is said though nothing is missing"
		}
		if !w.rules.GapBesideTail && !w.scope.Batches {
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

// next finds what a client gets, if its node needn't ask the primary, or can.
func (w *world) next(s *state, c *client) (got serving, answered bool) {
	n := &s.nodes[c.node]
	if w.scope.Batches {
		return w.batched(s, c)
	}
	if !w.asks(s, c.node) {
		if _, found := n.find(&w.rules, c); !found {
			return serving{}, false
		}
	}
	return s.serving(&w.rules, c), true
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
// if it came later. But who has all that the node has may come and wait, as
// nothing can follow what the node didn't read then.
func (w *world) move(s *state, c *client, d deed) outcome {
	before, to := *c, c.node
	if w.scope.Nodes > 1 {
		to ^= 1
	}
	trusted := w.rules.TailTrustedAtResume || w.scope.Batches // whose read is to come
	if asks := w.asks(s, to); d == doMoveAway {
		n := &s.nodes[to]
		i, found := n.find(&w.rules, c)
		if asks || !found || i < n.n && !w.rules.AwayServesTail {
			return outcome{}
		}
		trusted = true
	} else if !asks && !trusted {
		return outcome{}
	}
	c.node = to
	c.fresh = w.rules.CheckedAtResumeOnly || w.scope.Batches
	if c.owed {
		c.owed = false // and the gap is lost; what it received is not
		c.after = 0
	}
	o := outcome{done: *c != before}
	if !trusted {
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
