package model

// A deed is a kind of step.
type deed uint8

const (
	doAppend   deed = iota
	doTrim          // the log drops its oldest event
	doRise          // the generation rises, and names go
	doExpire        // a name goes by itself
	doSync          // the replica gets all that the primary has
	doFailover      // the replica takes over
	doAway          // the primary answers nobody: it is fenced, or out of reach
	doBack          // it answers again
	doWipe          // it loses everything
	doWaited        // somebody hears that the replica has what it appended or found
	doConfirm       // and makes it readable
	doNotice        // a node learns who is the primary
	doPull          // a node reads on: a bell rang, or a check was due
	doBell          // a bell brings an event
	doForget        // an engine forgets its oldest batch
	doServe         // a client gets what is next for it
	doLose          // the same, but the line breaks before it arrives
	doMove          // a client goes to the other node and resumes
	doMoveAway      // the same, while that node can't ask the primary
	doSend          // the producer sends its publish, or repeats it
	doCheck         // the log looks for a publish's number
	doArrive        // a publish arrives at the log, and so does its answer
	doUnheard       // the same, but the answer is lost
)

// A step is a deed and whose it is.
type step struct {
	deed deed
	who  uint8
}

// An outcome is what a step did. If it wasn't possible it did nothing.
type outcome struct {
	done  bool
	fault string // what law it broke
	event uint8  // that was appended, or delivered
	got   serving
	// For a publish that arrived: its number, and what became of it.
	seq     uint8
	verdict string
}

// A world is rules within a scope.
type world struct {
	rules Rules
	scope Scope
	steps []step // all that may be possible
}

func newWorld(r Rules, sc Scope) *world {
	w := &world{rules: r, scope: sc}
	add := func(d deed, n int) {
		for i := range n {
			w.steps = append(w.steps, step{d, uint8(i)})
		}
	}
	switch {
	case w.needsBells():
		add(doAppend, 2) // bells ring, or are lost
	case sc.Publishes == 0:
		add(doAppend, 1)
	}
	for _, d := range []deed{doTrim, doRise, doExpire, doSync, doFailover} {
		add(d, 1)
	}
	for _, d := range []deed{doNotice, doPull, doBell} {
		add(d, sc.Nodes)
	}
	for _, d := range []deed{doServe, doLose, doMove} {
		add(d, sc.Clients)
	}
	if sc.Away {
		add(doAway, 1)
		add(doBack, 1)
		add(doMoveAway, sc.Clients)
	}
	if sc.Wipes > 0 {
		add(doWipe, 1)
	}
	if sc.Confirms {
		add(doWaited, 1)
		add(doConfirm, 1)
	}
	if sc.Batches {
		add(doForget, sc.Nodes)
	}
	if sc.Publishes > 0 {
		add(doSend, 1)
		for _, d := range []deed{doCheck, doArrive, doUnheard} {
			add(d, maxFlight)
		}
	}
	return w
}

// needsBells reports whether bells are part of the state. A bell that says
// nothing is the same step as a check that is always possible, wherever and
// whenever it comes from.
func (w *world) needsBells() bool { return w.rules.NoIntervalCheck || w.rules.BellsCarryEvents }

// apply does a step.
func (w *world) apply(s *state, st step) outcome {
	switch st.deed {
	case doAppend:
		return w.append(s, st.who == 0)
	case doTrim, doRise, doExpire:
		return w.age(s, st.deed)
	case doSync, doFailover, doAway, doBack, doWipe, doNotice:
		return w.fail(s, st)
	case doWaited, doConfirm:
		return w.confirm(s, st.deed)
	case doPull:
		return w.pull(s, st.who)
	case doBell:
		return w.bell(s, st.who)
	case doForget:
		return w.forget(&s.nodes[st.who])
	case doServe:
		return w.serve(s, &s.clients[st.who])
	case doLose:
		return w.lose(s, &s.clients[st.who])
	case doMove, doMoveAway:
		return w.move(s, &s.clients[st.who], st.deed)
	}
	return w.publish(s, st)
}
