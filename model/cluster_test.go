package model

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// A fake is a System in memory, which goes by rules, right or weak. Its positions
// say nothing.
type fake struct {
	*cluster
	texts map[pos]string
	known map[string]pos
	here  map[string]string // what its events are called
	nodes [maxNodes]map[string]Answer

	trustsTail bool // a node answers with what it read before
	neverLost  bool // it takes a lost position for the head
	lostAway   bool // while it can't ask, it says lost
	deafToSync bool
}

func newFake(r Rules, setup Setup) *fake {
	f := &fake{cluster: newCluster(r, setup.Confirms), texts: map[pos]string{}, known: map[string]pos{}, here: map[string]string{}}
	for i := range f.nodes {
		f.nodes[i] = map[string]Answer{}
	}
	return f
}

func (f *fake) text(p pos) string {
	if f.texts[p] == "" {
		f.texts[p] = fmt.Sprintf("p%d", len(f.texts))
		f.known[f.texts[p]] = p
	}
	return f.texts[p]
}

func (f *fake) Append(event string, number int) (Answer, error) {
	a := f.cluster.append(number)
	switch {
	case len(a.Events) > 0:
		f.here[a.Events[0]] = event
		a.Events[0] = event
		if a.Next != "" {
			a.Next = f.text(f.primary.head())
		}
	case a.Next != "":
		a.Next = f.text(f.numbered)
	}
	return a, nil
}

func (f *fake) Seek(int) (Answer, error) {
	at, a := f.seek()
	a.Next = f.text(at)
	return a, nil
}

func (f *fake) Read(node int, after string, limit int) (Answer, error) {
	at := f.known[after]
	if seen, ok := f.nodes[node-1][after]; ok && f.trustsTail && len(seen.Events) > 0 {
		return seen, nil
	}
	from, a := f.read(at, limit)
	switch {
	case a.Later && f.lostAway:
		return Answer{Lost: "rewritten", Next: after}, nil
	case a.Later:
		return Answer{Next: after, Head: after}, nil
	case f.neverLost && a.Lost != "":
		a = Answer{Head: "head"}
	}
	for i := range a.Events {
		a.Events[i] = f.here[a.Events[i]]
	}
	if a.Head != "" {
		head := f.primary.at(f.primary.readable(&f.rules))
		if head.off < from.off {
			head = from
		}
		a.Head = f.text(head)
	}
	a.Next = f.text(from)
	f.nodes[node-1][after] = a
	return a, nil
}

func (f *fake) Do(deed string) error {
	if !f.deafToSync || deed != DeedSync {
		f.do(deed)
	}
	return nil
}

// nodeTraces are traces of several nodes, of all kinds.
var nodeTraces = sync.OnceValue(func() []Trace {
	all := Counterexamples(Rules{})
	confirms := NodeScope()
	confirms.Confirms = true
	for seed := range uint64(300) {
		all = append(all,
			RandomNodeTrace(Rules{}, NodeScope(), rand.New(rand.NewPCG(seed, 0)), 100),
			RandomNodeTrace(Rules{}, confirms, rand.New(rand.NewPCG(seed, 1)), 100))
	}
	return all
})

// TestNodeTracesRun: a system that goes by the right rules answers all traces of
// several nodes, and in these everything happens.
func TestNodeTracesRun(t *testing.T) {
	seen := map[string]int{}
	for i, trace := range nodeTraces() {
		if err := trace.Run(newFake(Rules{}, trace.Setup)); err != nil {
			t.Fatalf("trace %d %s: %v\n%s", i, trace.Name, err, trace)
		}
		for _, s := range trace.Steps {
			seen[s.Do+" "+s.Want.Note+s.Want.Lost]++
			if s.Want.Later {
				seen["later"]++
			}
		}
	}
	for _, what := range []string{
		"append ", "append duplicate", "append stale", "seek ", "read ", "read trimmed", "read rewritten", "later",
		"trim ", "rise ", "sync ", "failover ", "wipe ", "away ", "back ", "confirm ",
	} {
		if seen[what] < 20 {
			t.Errorf("%q happens %d times", what, seen[what])
		}
	}
}

// TestCounterexamplesAreAnswered: each weak rule's is there, by its name, and ends
// with what each client reads then.
func TestCounterexamplesAreAnswered(t *testing.T) {
	for i, w := range WeakRules() {
		trace := nodeTraces()[i]
		t.Logf("%s\n%s", trace.Name, trace)
		if n := len(trace.Steps); trace.Name != w.Name || n < 20 || trace.Steps[n-1].Do != "read" {
			t.Errorf("%s: %d steps", w.Name, n)
		}
	}
}

// TestRunBites: a system that is wrong is found so.
func TestRunBites(t *testing.T) {
	traces := nodeTraces()
	check := func(name string, sys func(Setup) *fake) {
		for i, trace := range traces {
			if err := trace.Run(sys(trace.Setup)); err != nil {
				t.Logf("%s, trace %d %s: %v", name, i, trace.Name, err)
				return
			}
		}
		t.Errorf("%s: nothing shows", name)
	}
	for name, r := range map[string]Rules{
		"OffsetOnly":              {OffsetOnly: true},
		"TrimmedUnchecked":        {TrimmedUnchecked: true},
		"TrimmedMarkForgotten":    {TrimmedMarkForgotten: true},
		"MarkOfAnyLog":            {MarkOfAnyLog: true},
		"FixedPlace":              {FixedPlace: true},
		"NumberedGenerations":     {NumberedGenerations: true},
		"PlaceExactLonger":        {PlaceExactLonger: true},
		"PlaceExactShorter":       {PlaceExactShorter: true},
		"BirthPlaceForgotten":     {BirthPlaceForgotten: true},
		"NameDroppedSooner":       {NameDroppedSooner: true},
		"NameKeptLonger":          {NameKeptLonger: true},
		"ProducerNameDropped":     {ProducerNameDropped: true},
		"WipedSecretsKept":        {WipedSecretsKept: true},
		"LowerNumberTaken":        {LowerNumberTaken: true},
		"ReadableBeforeConfirmed": {ReadableBeforeConfirmed: true},
		"AboveReadableIsLost":     {AboveReadableIsLost: true},
		"GapToReadableHead":       {GapToReadableHead: true},
	} {
		check(name, func(s Setup) *fake { return newFake(r, s) })
	}
	for name, breakIt := range map[string]func(*fake){
		"trusts its tail": func(f *fake) { f.trustsTail = true },
		"never lost":      func(f *fake) { f.neverLost = true },
		"lost when away":  func(f *fake) { f.lostAway = true },
		"deaf to sync":    func(f *fake) { f.deafToSync = true },
	} {
		check(name, func(s Setup) *fake {
			f := newFake(Rules{}, s)
			breakIt(f)
			return f
		})
	}
}
