package model

import (
	"fmt"
	"testing"
)

// TestKeysMergeOnlyNames: states that count as one can do the same, step by step,
// with the same faults, and get to states that count as one.
func TestKeysMergeOnlyNames(t *testing.T) {
	for _, c := range []struct {
		scope Scope
		depth int
		rules []Rules
	}{
		{inNames, 8, []Rules{{}, {WatchedNameDropped: true}, {GapSwallowed: true}, {NumberedGenerations: true}}},
		{inTails, 8, []Rules{{}, {TailTrustedAtResume: true}, {TailUnchecked: true}, {ServerCursor: true}, {BellsCarryEvents: true}, {GapToOldHead: true}, {GapToEarliest: true}}},
		{inWhole, 8, []Rules{{DeposedAnswers: true}, {TailTrustedAtResume: true}, {LaggingSaysLost: true}}},
		{inProducer, 9, []Rules{{}, {ProducerNameDropped: true}, {LowerNumberTaken: true}, {ProducerCheckApart: true}}},
		{inAway, 8, []Rules{{}, {DeposedAnswers: true}, {AwayServesTail: true}}},
		{inConfirms, 9, []Rules{{}, {ConfirmByOffset: true}, {ReadableBeforeConfirmed: true}, {GapToReadableHead: true}}},
		{inBatches, 8, []Rules{{}, {BatchBesideGap: true}, {BatchOutlivesFirstRead: true}}},
		{inOldTrimmed, 8, []Rules{{}, {MarkOfAnyLog: true}}},
		{Scope{Nodes: 2, Clients: 2, Events: 2, Rises: 1, Failovers: 1, Wipes: 1, Batches: true}, 6, []Rules{{}, {BatchTrustedAtResume: true}}},
		{Scope{Nodes: 2, Clients: 2, Events: 2, Failovers: 1}, 7, []Rules{{}, {GapAfterItsTo: true}, {CheckedAtResumeOnly: true}}},
	} {
		for i, r := range c.rules {
			t.Run(fmt.Sprintf("%s %d", c.scope.Name, i), func(t *testing.T) {
				checkKeys(t, r, c.scope, c.depth-shallower)
			})
		}
	}
}

func checkKeys(t *testing.T, r Rules, sc Scope, depth int) {
	x := newSearcher(r, sc)
	level := []state{initial(r, sc)}
	all := map[state]bool{level[0]: true}
	first := map[key]state{}
	futures := map[key]map[future]int{}
	for range depth {
		var next []state
		for _, from := range level {
			can, beyond := futuresOf(x, &from)
			k := x.key(&from)
			if known, ok := futures[k]; !ok {
				futures[k], first[k] = can, from
			} else if !sameFutures(known, can) {
				t.Fatalf("these count as one, and their futures differ:\n%+v\n%+v", first[k], from)
			}
			for _, s := range beyond {
				if !all[s] {
					all[s] = true
					next = append(next, s)
				}
			}
		}
		level = next
	}
	if len(futures) == 0 || len(all) < 100 {
		t.Errorf("only %d states", len(all))
	}
}

// A future is what a step leads to.
type future struct {
	to          key
	fault, ends string
}

// futuresOf returns what can happen next, and how often.
func futuresOf(x *searcher, from *state) (can map[future]int, beyond []state) {
	can = map[future]int{}
	for _, st := range x.steps {
		s := *from
		if o := x.apply(&s, st); o.done {
			can[future{x.key(&s), o.fault, x.settles(&s)}]++
			beyond = append(beyond, s)
		}
	}
	return can, beyond
}

func sameFutures(a, b map[future]int) bool {
	if len(a) != len(b) {
		return false
	}
	for f, n := range a {
		if b[f] != n {
			return false
		}
	}
	return true
}
