package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// NodeScope returns a scope for [RandomNodeTrace] in which everything happens, but
// for what a log must be set up for: see Scope.Confirms.
func NodeScope() Scope {
	return Scope{Name: "traces", Nodes: 2, Clients: 2, Events: 100, Rises: 30, Failovers: 20, Wipes: 5, Publishes: 20, Away: true}
}

// A cluster is a primary and a replica. It goes by the model's rules, and
// answers as a log must at each node: a read of any node is one of the primary.
type cluster struct {
	*world
	state
	names namer
	// Where the producer's last number is.
	numbered, copied pos
}

func newCluster(r Rules, confirms bool) *cluster {
	const enough = 200 // the bounds are those of whoever makes a trace
	sc := Scope{Events: enough, Rises: enough, Failovers: enough, Wipes: enough, Publishes: enough, Away: true, Confirms: confirms}
	return &cluster{world: newWorld(r, sc), state: initial(r, sc), names: namer{}}
}

func (c *cluster) append(number int) Answer {
	l := &c.primary
	seq := uint8(number)
	switch {
	case c.away:
		return Answer{Later: true}
	case seq > 0 && seq == l.last:
		return c.appended(Answer{Next: c.names.pos(c.numbered), Note: noteDuplicate})
	case seq > 0 && c.used(&c.state, seq):
		return Answer{Note: noteStale}
	}
	o := c.appendSeq(&c.state, seq)
	if seq > 0 {
		c.numbered = l.head()
	}
	return c.appended(Answer{Events: []string{c.names.event(o.event)}, Next: c.names.pos(l.head())})
}

// appended leaves out the position if it can't be told yet.
func (c *cluster) appended(a Answer) Answer {
	if c.scope.Confirms {
		a.Next = ""
	}
	return a
}

func (c *cluster) seek() (pos, Answer) {
	if c.away {
		return pos{}, Answer{Later: true}
	}
	at := c.primary.at(c.primary.readable(&c.rules))
	return at, Answer{Next: c.names.pos(at)}
}

// read returns where the reader goes on, and the answer.
func (c *cluster) read(from pos, limit int) (pos, Answer) {
	l := &c.primary
	if c.away {
		return from, Answer{Later: true}
	}
	i, why := l.locate(&c.rules, from)
	if why != exact {
		to, _ := l.to(&c.rules, why)
		return to, Answer{Lost: why.String(), Next: c.names.pos(to)}
	}
	var a Answer
	end := l.readable(&c.rules)
	a.Head = c.names.pos(l.at(end))
	switch {
	case i > end:
		a.Head = c.names.pos(from)
	case i < end && limit > 0:
		end = min(end, i+uint8(limit))
		fallthrough
	case i < end:
		for _, e := range l.entries[i:end] {
			a.Events = append(a.Events, c.names.event(e.id))
		}
		from = l.at(end)
	case !l.born:
		from = l.at(0)
	}
	a.Next = c.names.pos(from)
	return from, a
}

// do does a deed, if that is possible.
func (c *cluster) do(d string) (done bool) {
	s := &c.state
	switch d {
	case DeedConfirm:
		s.waited = pos{}
		return c.confirm(s, doWaited).done && c.confirm(s, doConfirm).done
	case DeedFailover:
		s.away = true // which fences it
		c.numbered = c.copied
	case DeedSync:
		if done = c.apply(s, step{deed: doSync}).done; done {
			c.copied = c.numbered
		}
		return done
	}
	if done = c.apply(s, step{deed: deed(slices.Index(deeds[:], d))}).done; done && d == DeedWipe {
		c.numbered = pos{}
	}
	return done
}

// A recorder makes a trace of what is done to a cluster. Each client has its
// position.
type recorder struct {
	*cluster
	at    map[int]pos
	trace Trace
}

func newRecorder(r Rules, confirms bool) *recorder {
	return &recorder{newCluster(r, confirms), map[int]pos{}, Trace{Setup: Setup{Events: maxEntries, Confirms: confirms}}}
}

func (rec *recorder) note(s Step, want Answer) {
	s.Want = want
	rec.trace.Steps = append(rec.trace.Steps, s)
}

func (rec *recorder) append(number int) {
	if !rec.away {
		rec.note(Step{Do: "append", Number: number}, rec.cluster.append(number))
	}
}

func (rec *recorder) seek(client, node int) {
	at, a := rec.cluster.seek()
	if !a.Later {
		rec.at[client] = at
		rec.note(Step{Do: "seek", Client: client, Node: node, Start: "latest"}, a)
	}
}

func (rec *recorder) read(client, node, limit int) {
	at, a := rec.cluster.read(rec.at[client], limit)
	rec.at[client] = at
	rec.note(Step{Do: "read", Client: client, Node: node, Number: limit}, a)
}

func (rec *recorder) do(d string) {
	if rec.cluster.do(d) {
		rec.note(Step{Do: d}, Answer{})
	}
}

// observers are the clients beyond those of a scope, one for each node.
func observer(node int) int { return maxClients + node }

// begin gives each client the position before the first event.
func (rec *recorder) begin() {
	for client := range observer(maxNodes) {
		rec.seek(client+1, client%maxNodes+1)
	}
}

// look has each client read on each node, so that each trace ends with what came
// of it.
func (rec *recorder) look(clients int) Trace {
	rec.do(DeedBack)
	for client := range clients {
		for range 2 { // what follows a gap, too
			rec.read(client+1, 1, 0)
			rec.read(client+1, 2, 0)
		}
	}
	return rec.trace
}

// Counterexamples returns, for each weak rule, what is done in its shortest
// counterexample, with the answers that rules give: with the right ones the zero
// value. See [System] for how to run them.
func Counterexamples(r Rules) []Trace {
	var all []Trace
	for _, w := range WeakRules() {
		t := RightAnswers(r, w.Scope, Search(w.Rules, w.Scope).Steps)
		t.Name = w.Name
		all = append(all, t)
	}
	return all
}

// RightAnswers does what is done in a trace of a search, and notes how rules
// answer that. Where a node of the search reads on, a client of its own reads there,
// so that a node that keeps a tail has it. What can't be done is left out.
func RightAnswers(r Rules, sc Scope, t Trace) Trace {
	rec := newRecorder(r, sc.Confirms)
	rec.begin()
	for _, s := range t.Steps {
		switch s.Do {
		case "append":
			rec.append(0)
		case "arrive", "unheard":
			rec.append(s.Number)
		case "pull", "bell", "notice":
			rec.read(observer(s.Node), s.Node, 0)
		case "serve":
			rec.read(s.Client, s.Node, 1)
		case "expire":
			rec.do(DeedRise)
		case DeedTrim, DeedRise, DeedSync, DeedFailover, DeedAway, DeedBack, DeedWipe, DeedConfirm:
			rec.do(s.Do)
		}
	}
	return rec.look(observer(maxNodes))
}

// RandomNodeTrace returns a long trace of several nodes, by rules, within
// a scope.
func RandomNodeTrace(r Rules, sc Scope, random *rand.Rand, length int) Trace {
	rec := newRecorder(r, sc.Confirms)
	rec.begin()
	kinds := []struct {
		weight int
		can    func() bool
		do     func()
	}{
		{8, nil, func() { rec.read(random.IntN(sc.Clients)+1, random.IntN(sc.Nodes)+1, random.IntN(2)) }},
		{4, func() bool { return int(rec.events) < sc.Events }, func() { rec.append(0) }},
		{1, func() bool { return int(rec.events) < sc.Events && int(rec.primary.last) < sc.Publishes }, func() {
			rec.append(max(1, int(rec.primary.last)+1-random.IntN(3))) // a new number, or a repeat
		}},
		{1, nil, func() { rec.seek(random.IntN(sc.Clients)+1, random.IntN(sc.Nodes)+1) }},
		{1, func() bool { return !sc.Whole }, func() { rec.do(DeedTrim) }},
		{1, func() bool { return int(rec.rises) < sc.Rises }, func() { rec.do(DeedRise) }},
		{2, nil, func() { rec.do(DeedSync) }},
		{2, func() bool { return sc.Confirms }, func() { rec.do(DeedConfirm) }},
		{1, func() bool { return int(rec.failovers) < sc.Failovers }, func() { rec.do(DeedFailover) }},
		{1, func() bool { return int(rec.wipes) < sc.Wipes && random.IntN(4) == 0 }, func() { rec.do(DeedWipe) }},
		{1, func() bool { return sc.Away && random.IntN(4) == 0 }, func() { rec.do(DeedAway) }},
		{3, func() bool { return rec.away }, func() { rec.do(DeedBack) }},
	}
	var bag []int
	for i, k := range kinds {
		bag = append(bag, slices.Repeat([]int{i}, k.weight)...)
	}
	for range length {
		if k := kinds[bag[random.IntN(len(bag))]]; k.can == nil || k.can() {
			k.do()
		}
	}
	return rec.look(sc.Clients)
}

// What a [System] notes of an append.
const (
	noteDuplicate = "duplicate"
	noteStale     = "stale"
)

// The deeds of a [System] that have no answer.
const (
	DeedTrim     = "trim"
	DeedRise     = "rise"
	DeedSync     = "sync"
	DeedFailover = "failover"
	DeedWipe     = "wipe"
	DeedAway     = "away"
	DeedBack     = "back"
	DeedConfirm  = "confirm"
)

// A System is what a trace of several nodes is run on: a log in a store with
// one primary and one replica, seen by two nodes, of which each may keep what it
// read. One channel of it, which nobody watches, is all that a trace is about.
// It is new for each trace, keeps [Setup.Events] events in a channel, and nothing
// of it changes with time.
type System interface {
	// Append appends an event of this name, as its data, at any node. If number
	// isn't 0 it is that of the trace's one producer. The answer has
	//  - Events, the name, and Next, its position, if it was appended,
	//  - Next, that of the first one, and Note "duplicate" if it has the number
	//    of the producer's last event,
	//  - Note "stale" if its number is lower.
	// If [Setup.Confirms], whoever appends doesn't wait until the event is
	// confirmed, and Next is left out.
	Append(event string, number int) (Answer, error)

	// Seek asks a node, 1 or 2, for the position of the (readable) head: Next.
	Seek(node int) (Answer, error)

	// Read has a node read what comes after a position: all, or at most limit
	// events if that isn't 0. The answer has Events, Next and Head as
	// the page has them, or Lost, the reason, and Next, where to go on. If
	// events are confirmed, Head is the readable head, or the position itself if that
	// is above it.
	//
	// If the primary is away the answer is Later; or nothing with Next as
	// presented, from a node whose tail ends there.
	Read(node int, after string, limit int) (Answer, error)

	// Do does one of
	//  - trim: the oldest event of the channel is trimmed, as if by its age;
	//  - rise: the generation rises, on the primary;
	//  - sync: the replica, which else is cut off and stays as it is, gets all that
	//    the primary has;
	//  - failover: the primary is gone for good, and the replica, as it is, takes
	//    over. It has a new replica, cut off in the same state. The nodes know it
	//    when this returns. It ends that the primary is away;
	//  - wipe: the primary comes back empty. The replica isn't told, and stays as it
	//    is, until it syncs or takes over;
	//  - away: no node can ask the primary, until
	//  - back: it can be asked again;
	//  - confirm: as a node's check does when it hears that the replica has what the
	//    replica has, which is on the primary and isn't readable, that is
	//    confirmed on the primary. The replica doesn't hear of it before it
	//    syncs. Only if [Setup.Confirms].
	Do(deed string) error
}

// Run runs a trace of several nodes on a system, and compares each answer.
func (t Trace) Run(sys System) error {
	return t.Replay(func(s Step, after string) (Answer, error) {
		switch s.Do {
		case "append":
			name := fmt.Sprintf("a repeat of number %d", s.Number)
			if len(s.Want.Events) > 0 {
				name = s.Want.Events[0]
			}
			got, err := sys.Append(name, s.Number)
			if err == nil && got.Note != s.Want.Note {
				err = fmt.Errorf("%q", got.Note)
			}
			return got, err
		case "seek":
			return sys.Seek(s.Node)
		case "read":
			got, err := sys.Read(s.Node, after, s.Number)
			if err == nil && s.Want.Later && !got.Later && got.Next == after {
				got = Answer{Later: true, Events: got.Events, Lost: got.Lost} // it waits at its tail's head
			}
			return got, err
		}
		return Answer{}, sys.Do(s.Do)
	})
}
