package model

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
)

var deeper = flag.Int("depth", 0, "how many steps deeper to search, where a scope isn't searched to its end")

// searchAll searches the right rules in all scopes, once for all tests.
var searchAll = sync.OnceValue(func() []Result {
	var results []Result
	for _, sc := range Scopes(*deeper - 2*shallower) {
		if shallower > 0 {
			sc.Depth = min(sc.Depth, 9)
		}
		results = append(results, Search(Rules{}, sc))
	}
	return results
})

// refuteAll searches each of the weak rules, once for all tests.
var refuteAll = sync.OnceValue(func() []Result {
	var results []Result
	for _, w := range WeakRules() {
		results = append(results, Search(w.Rules, w.Scope))
	}
	return results
})

// TestRulesHold: whatever happens within the scopes, the right rules keep the
// law.
func TestRulesHold(t *testing.T) {
	states, depth := 0, 0
	for i, sc := range Scopes(*deeper) {
		r := searchAll()[i]
		t.Logf("%s: depth %d, %d states, to the end: %v", sc.Name, r.Depth, r.States, r.Ended)
		if r.Fault != "" {
			t.Errorf("%s:\n%s", sc.Name, r.Steps)
		}
		states += r.States
		depth = r.Depth // the last scope has all parts, and is the shallowest
	}
	refuted := 0
	for _, r := range refuteAll() {
		if r.Fault != "" {
			refuted++
		}
	}
	fmt.Printf("model: depth %d, %d states, %d weak rules refuted\n", depth, states, refuted)
}

// TestWeakRulesAreRefuted: each weak rule breaks the law, by no shorter way, in
// a scope in which the right rules keep it.
func TestWeakRulesAreRefuted(t *testing.T) {
	for i, w := range WeakRules() {
		r := refuteAll()[i]
		t.Logf("%s. %s\n%s", w.Name, w.Why, r.Steps)
		if r.Fault == "" || len(r.Steps.Steps) != r.Depth || r.Steps.Fault != r.Fault {
			t.Errorf("%s: not refuted in %d states, depth %d", w.Name, r.States, r.Depth)
		}
		if shallower > 0 {
			continue
		}
		sc := w.Scope
		sc.Depth = r.Depth
		if right := Search(Rules{}, sc); right.Fault != "" {
			t.Errorf("%s: the right rules break the law, too:\n%s", w.Name, right.Steps)
		}
		sc.Depth--
		if sooner := Search(w.Rules, sc); sc.Depth > 0 && sooner.Fault != "" {
			t.Errorf("%s: a shorter way:\n%s", w.Name, sooner.Steps)
		}
	}
}

// TestEachRuleIsWeak: each field of Rules has its counterexample, but for those
// that are harmless.
func TestEachRuleIsWeak(t *testing.T) {
	shown := map[string]bool{"NameKeptLonger": true, "BatchesKeptButAtGapsEnd": true}
	for _, w := range WeakRules() {
		set := reflect.ValueOf(w.Rules).FieldByName(w.Name)
		if !set.IsValid() || !set.Bool() {
			t.Errorf("%s doesn't have the weakness of its name", w.Name)
		}
		shown[w.Name] = true
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Rules]()) {
		if !shown[f.Name] {
			t.Errorf("no counterexample shows that %s is weak", f.Name)
		}
	}
}

// TestNameMayBeKeptLonger: to forget a name one generation later costs memory,
// and breaks no law.
func TestNameMayBeKeptLonger(t *testing.T) {
	sc := Scopes(0)[0]
	sc.Depth -= 50 * min(shallower, 1)
	r := Search(Rules{NameKeptLonger: true}, sc)
	if r.Fault != "" || !r.Ended && shallower == 0 {
		t.Errorf("to the end: %v\n%s", r.Ended, r.Steps)
	}
}

// TestBatchesMayBeKeptButAtGapsEnd: of what an engine remembers, a loss need drop
// only what was read after the place where its gap ends.
func TestBatchesMayBeKeptButAtGapsEnd(t *testing.T) {
	for _, sc := range Scopes(-2 - 2*shallower) {
		if !sc.Batches {
			continue
		}
		if shallower > 0 {
			sc.Depth = min(sc.Depth, 9)
		}
		if r := Search(Rules{BatchesKeptButAtGapsEnd: true}, sc); r.Fault != "" {
			t.Errorf("%s:\n%s", sc.Name, r.Steps)
		}
	}
}

// TestPublishesInOrder: a publish is judged by its number, too.
func TestPublishesInOrder(t *testing.T) {
	w := newWorld(Rules{LowerNumberTaken: true}, Scope{Events: 4, Failovers: 1, Publishes: 2})
	s := initial(w.rules, w.scope)
	var last outcome
	for _, st := range []step{
		{doSend, 0},
		{doSend, 0},
		{doArrive, 0},   // one copy of number 1 is late
		{doFailover, 0}, // and the other vanishes
		{doSend, 0},
		{doArrive, 0}, // number 2
		{doArrive, 1}, // number 1
	} {
		if last.fault != "" {
			t.Fatalf("before %v: %s", st, last.fault)
		}
		if last = w.apply(&s, st); !last.done {
			t.Fatalf("%v can't be done", st)
		}
	}
	if last.fault != "publishes are out of order" {
		t.Errorf("number 1 after number 2: %q", last.fault)
	}
}

// TestReadmeIsCurrent holds the tables of the README against what was found.
func TestReadmeIsCurrent(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| scope") && !strings.HasPrefix(line, "| weak") && !strings.HasPrefix(line, "| ---") {
			rows[strings.TrimSpace(line)] = true
		}
	}
	wanted := rowsOf(t)
	for _, row := range wanted {
		if !rows[row] {
			t.Errorf("README.md lacks: %s", row)
		}
		delete(rows, row)
	}
	for row := range rows {
		if shallower == 0 && *deeper == 0 {
			t.Errorf("README.md has: %s", row)
		}
	}
}

// with is what parts of a scope aren't numbers.
func with(sc Scope) string {
	switch {
	case sc.Away:
		return "away"
	case sc.Confirms:
		return "confirms"
	case sc.Batches:
		return "batches"
	}
	return ""
}

// rowsOf returns the rows of the tables. Those of the scopes are of a search of
// the usual depth.
func rowsOf(t *testing.T) (rows []string) {
	t.Helper()
	for i, sc := range Scopes(0) {
		if shallower > 0 || *deeper != 0 {
			break
		}
		r := searchAll()[i]
		depth := fmt.Sprint(r.Depth)
		if r.Ended {
			depth += ", the end"
		}
		rows = append(rows, fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %s | %s | %d |",
			sc.Name, sc.Nodes, sc.Clients, sc.Events, sc.Rises, sc.Failovers, sc.Wipes, sc.Publishes, with(sc), depth, r.States))
	}
	for i, w := range WeakRules() {
		rows = append(rows, fmt.Sprintf("| `%s` | %d | %s |", w.Name, refuteAll()[i].Depth, w.Why))
	}
	return rows
}
