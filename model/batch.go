package model

// remembered returns what was read after a position, if that is remembered.
func (n *node) remembered(after pos) (i int, found bool) {
	for i, b := range n.batches {
		if b != (batch{}) && b.after == after {
			return i, true
		}
	}
	return 0, false
}

// forgetBatch forgets one batch of the newest first.
func (n *node) forgetBatch(i int) {
	copy(n.batches[i:], n.batches[i+1:])
	n.batches[maxBatches-1] = batch{}
}

// batched is what a client gets of a node whose engine remembers what it read.
// The first read of a client that came is its own, and takes the place of
// what was remembered there. A read that declares a loss drops what was read
// before, as that may be of a history which is no more. A read that nothing
// came of isn't remembered.
func (w *world) batched(s *state, c *client) (got serving, answered bool) {
	n, own := &s.nodes[c.node], c.fresh && !w.rules.BatchTrustedAtResume
	i, found := n.remembered(c.pos)
	if found && !own {
		return n.batches[i].serving(c), true
	}
	if !w.asks(s, c.node) {
		return serving{}, false
	}
	if found && !w.rules.BatchOutlivesFirstRead {
		n.forgetBatch(i)
	}
	got = s.reading(&w.rules, c)
	switch _, still := n.remembered(c.pos); {
	case got.kind == aGap:
		w.dropBatches(n, got.to)
	case got.kind != nothing && !still:
		copy(n.batches[1:], n.batches[:])
		n.batches[0] = batch{after: c.pos, to: got.to, event: got.event}
	}
	return got, true
}

func (b *batch) serving(c *client) serving {
	if b.event.id == 0 {
		return serving{kind: aMove, to: b.to, after: c.after}
	}
	return serving{kind: anEvent, event: b.event, to: b.to}
}

// dropBatches is what a loss does to those that are remembered.
func (w *world) dropBatches(n *node, to pos) {
	switch {
	case w.rules.BatchBesideGap:
	case w.rules.BatchesKeptButAtGapsEnd:
		if i, found := n.remembered(to); found {
			n.forgetBatch(i)
		}
	default:
		n.batches = [maxBatches]batch{}
	}
}

// forget is what time does to what an engine remembers.
func (w *world) forget(n *node) outcome {
	for i := maxBatches - 1; i >= 0; i-- {
		if n.batches[i] != (batch{}) {
			n.forgetBatch(i)
			return outcome{done: true}
		}
	}
	return outcome{}
}
