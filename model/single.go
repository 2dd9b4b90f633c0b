package model

import (
	"fmt"
	"math/rand/v2"
)

// singleReaders is how many positions are kept in a trace of one node.
const singleReaders = 2

// A single is one log on one node, with a clock. It goes by the rules of the
// model's primary, and answers as an eventlog.Log must.
type single struct {
	rules Rules
	setup Setup
	log   log
	ids   state // gives out identities

	now     int
	came    [maxEntries]int // when the retained events came
	readers [singleReaders]pos
	woken   bool // whoever watches must have been since the last step
}

// An act is one step of a trace of one node, by what it is called in a Step.
type act struct {
	do     string
	client int // from 1
	number int
	start  string
}

// singleActs is what short traces are made of.
func singleActs(s Setup) []act {
	return []act{
		{do: "append", number: 1},
		{do: "append", number: 2},
		{do: "pass", number: 1},
		{do: "pass", number: s.Generation},
		{do: "read", client: 1},
		{do: "read", client: 2},
		{do: "seek", client: 1, start: "latest"},
		{do: "seek", client: 2, start: "earliest"},
		{do: "watch"},
	}
}

// look has both readers read, so that each trace ends with what came of it.
var look = []act{{do: "read", client: 1}, {do: "read", client: 2}, {do: "seek", client: 1, start: "last"}, {do: "read", client: 1}}

// begin gives both readers a position.
var begin = []act{{do: "seek", client: 1, start: "latest"}, {do: "seek", client: 2, start: "latest"}}

// ShortTraces yields a trace for each sequence of so many acts.
func ShortTraces(r Rules, setup Setup, length int) func(yield func(Trace) bool) {
	acts := singleActs(setup)
	return func(yield func(Trace) bool) {
		total := 1
		for range length {
			total *= len(acts)
		}
		for n := range total {
			chosen := make([]act, length)
			for i := range chosen {
				chosen[i] = acts[n%len(acts)]
				n /= len(acts)
			}
			if !yield(runSingle(r, setup, begin, chosen, look)) {
				return
			}
		}
	}
}

// RandomTrace returns a long trace of one node.
func RandomTrace(r Rules, setup Setup, random *rand.Rand, length int) Trace {
	acts := append(singleActs(setup),
		act{do: "seek", client: 2, start: "last"}, act{do: "seek", client: 2, start: "latest"},
		act{do: "read", client: 1}, act{do: "read", client: 2}, act{do: "pass", number: setup.Generation - 1})
	chosen := make([]act, length)
	for i := range chosen {
		chosen[i] = acts[random.IntN(len(acts))]
	}
	return runSingle(r, setup, begin, chosen, look)
}

// runSingle does acts and notes the answers.
func runSingle(r Rules, setup Setup, parts ...[]act) Trace {
	m := &single{rules: r, setup: setup}
	first := initial(r, Scope{})
	m.log, m.ids = first.primary, first
	t := Trace{Setup: setup}
	for _, acts := range parts {
		for _, a := range acts {
			m.woken = false
			step := Step{Do: a.do, Client: a.client, Number: a.number, Start: a.start}
			switch a.do {
			case "append":
				step.Want = m.append(a.number)
			case "pass":
				m.pass(a.number)
			case "read":
				step.Want = m.read(&m.readers[a.client-1])
			case "seek":
				step.Want = m.seek(&m.readers[a.client-1], a.start)
			case "watch": // or stop to
				m.log.watched = !m.log.watched
			}
			step.Want.Woken = m.woken
			t.Steps = append(t.Steps, step)
		}
	}
	return t
}

func singleEvent(id uint8) string { return fmt.Sprintf("e%d", id) }

func singlePos(p pos) string {
	if p.off == 0 {
		return fmt.Sprintf("0:g%d", p.at.id)
	}
	return fmt.Sprintf("%d:%s", p.off, singleEvent(p.id))
}

func (m *single) append(n int) Answer {
	var a Answer
	for range n {
		id := m.ids.identity()
		if int(m.log.n) == m.setup.Events {
			m.trim()
		}
		m.log.append(&m.rules, id, 0)
		m.came[m.log.n-1] = m.now
		a.Events = append(a.Events, singleEvent(id))
	}
	a.Next = singlePos(m.log.head())
	m.woken = m.log.watched
	return a
}

func (m *single) trim() {
	m.log.trim()
	copy(m.came[:], m.came[1:])
}

// pass lets time go by: events get too old, and when it is time for it the
// generation rises.
func (m *single) pass(ticks int) {
	for range ticks {
		m.now++
		for m.setup.Age > 0 && m.log.n > 0 && m.now-m.came[0] >= m.setup.Age {
			m.trim()
		}
		if m.now%m.setup.Generation > 0 {
			continue
		}
		if m.log.droppable(&m.rules) {
			m.log.drop(m.ids.identity())
		}
		m.log.rise(&m.rules, m.ids.generation(m.rules, m.log.gens[0].num+1))
		m.woken = m.woken || m.log.watched && !m.log.born
	}
}

func (m *single) read(from *pos) Answer {
	i, why := m.log.locate(&m.rules, *from)
	if why != exact {
		to, _ := m.log.to(&m.rules, why)
		*from = to
		return Answer{Lost: why.String(), Next: singlePos(to)}
	}
	var a Answer
	for _, e := range m.log.entries[i:m.log.n] {
		a.Events = append(a.Events, singleEvent(e.id))
	}
	if i < m.log.n || !m.log.born && !m.rules.PlaceNotMoved {
		*from = m.log.head()
	}
	a.Next, a.Head = singlePos(*from), singlePos(m.log.head())
	return a
}

func (m *single) seek(to *pos, start string) Answer {
	switch start {
	case "latest":
		*to = m.log.head()
	case "earliest":
		*to = m.log.at(0)
	case "last":
		*to = m.log.at(m.log.n - min(m.log.n, 1))
	}
	return Answer{Next: singlePos(*to)}
}
