package conformance_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
)

// A goodChannel makes up the history of a channel, and of readers that are served
// as they should be.
type goodChannel struct {
	dice    *rand.Rand
	now     time.Duration
	h       conformance.History
	events  []goodEvent // that are in the channel now, or were trimmed
	trimmed int         // of them
	place   string      // before the first of them
	number  int
	places  int
	readers []*goodReader
}

type goodEvent struct {
	n        int
	position string
}

type goodReader struct {
	name     string
	position string
	next     int // index in events
	lost     bool
}

func newGoodChannel(dice *rand.Rand) *goodChannel {
	c := &goodChannel{dice: dice}
	c.renew()
	for i := range 3 {
		r := &goodReader{name: fmt.Sprintf("reader %d", i), position: c.place}
		c.add(conformance.Entry{What: conformance.LineBegan, By: r.name, Position: "latest"})
		c.add(conformance.Entry{What: conformance.Opened, By: r.name, Position: c.place})
		c.readers = append(c.readers, r)
	}
	return c
}

func (c *goodChannel) add(e conformance.Entry) {
	e.Time = c.now
	c.h.Entries = append(c.h.Entries, e)
}

// renew gives the place before the first event another position.
func (c *goodChannel) renew() {
	c.places++
	c.place = fmt.Sprintf("place-%d", c.places)
}

// make makes a history of so many steps, at whose end everybody has all.
func (c *goodChannel) make(steps int) *conformance.History {
	lasting := c.dice.IntN(4) == 0
	for range steps {
		c.now += time.Second
		switch c.dice.IntN(14) {
		case 0, 1, 2, 3, 4:
			c.publish()
		case 5:
			c.trim(c.dice.IntN(1 + len(c.events) - c.trimmed))
		case 6:
			if !lasting && c.dice.IntN(3) == 0 {
				c.loseAll()
			}
		case 7:
			if !lasting && c.dice.IntN(2) == 0 {
				c.forget()
			}
		default:
			c.read(c.readers[c.dice.IntN(len(c.readers))], c.dice.IntN(5))
		}
	}
	c.publish()
	for _, r := range c.readers {
		c.read(r, len(c.events)+1)
		c.add(conformance.Entry{What: conformance.Rested, By: r.name})
	}
	return &c.h
}

func (c *goodChannel) publish() {
	c.number++
	n, position := c.number, fmt.Sprintf("event-%d", c.number)
	c.add(conformance.Entry{What: conformance.Published, By: "node", N: n, Digest: digestOf(n), Type: "said"})
	outcome := c.dice.IntN(8)
	switch outcome {
	case 0: // unknown, and not there
		return
	case 1:
		c.add(conformance.Entry{What: conformance.Refused, N: n})
		return
	}
	c.events = append(c.events, goodEvent{n, position})
	if outcome > 2 {
		c.add(conformance.Entry{What: conformance.Acknowledged, N: n, Position: position})
		return
	}
	c.add(conformance.Entry{What: conformance.LineBegan, By: "witness", Position: "last=1"}) // else it is unknown
	c.hand("witness", c.events[len(c.events)-1])
}

func digestOf(n int) string { return fmt.Sprintf("digest-%d", n) }

func (c *goodChannel) trim(n int) {
	if n == 0 {
		return
	}
	c.trimmed += n
	c.add(conformance.Entry{What: conformance.Dropped, N: c.events[c.trimmed-1].n})
}

func (c *goodChannel) loseAll() {
	c.add(conformance.Entry{What: conformance.HistoryLost})
	c.restart()
}

// forget drops the name of the channel, if it holds nothing.
func (c *goodChannel) forget() {
	c.trim(len(c.events) - c.trimmed)
	c.now += time.Hour
	c.add(conformance.Entry{What: conformance.Forgotten, Before: c.now})
	c.restart()
}

func (c *goodChannel) restart() {
	c.events, c.trimmed = nil, 0
	c.renew()
	for _, r := range c.readers {
		r.lost = true
	}
}

// read hands a reader up to so many events, after the gap that comes first.
func (c *goodChannel) read(r *goodReader, most int) {
	switch {
	case r.lost:
		r.lost, r.next = false, len(c.events)
		c.gap(r, "rewritten")
	case r.next < c.trimmed:
		r.next = c.trimmed
		c.gap(r, "trimmed")
	}
	for ; most > 0 && r.next < len(c.events); most-- {
		e := c.events[r.next]
		r.next++
		r.position = e.position
		c.hand(r.name, e)
	}
}

func (c *goodChannel) hand(reader string, e goodEvent) {
	c.add(conformance.Entry{What: conformance.Handed, By: reader, N: e.n, Position: e.position, Digest: digestOf(e.n), Type: "said"})
}

func (c *goodChannel) gap(r *goodReader, reason string) {
	to := c.place
	if r.next > 0 {
		to = c.events[r.next-1].position
	}
	c.add(conformance.Entry{What: conformance.GapTold, By: r.name, From: r.position, To: to, Reason: reason})
	r.position = to
}

// A spoiling changes one thing in a good history. at is where to begin to look
// for one that can be changed so; ok is false if there is none.
type spoiling struct {
	name  string
	spoil func(h *facts, i int) (entries []conformance.Entry, ok bool)
}

// facts are a history, with what its spoilings need to know.
type facts struct {
	entries  []conformance.Entry
	known    map[int]string // where the acknowledged events are
	replaced bool           // the history was lost, or the name forgotten
}

func newFacts(h *conformance.History) *facts {
	f := &facts{entries: h.Entries, known: map[int]string{}}
	for _, e := range h.Entries {
		switch e.What {
		case conformance.Acknowledged:
			f.known[e.N] = e.Position
		case conformance.HistoryLost, conformance.Forgotten:
			f.replaced = true
		}
	}
	return f
}

// handed reports whether an entry hands over an acknowledged event.
func (f *facts) handed(i int) bool {
	return f.entries[i].What == conformance.Handed && f.known[f.entries[i].N] != ""
}

// next returns the index of what a reader gets after entry i, or -1.
func (f *facts) next(i int) int {
	for k := i + 1; k < len(f.entries); k++ {
		if f.entries[k].By == f.entries[i].By {
			return k
		}
	}
	return -1
}

// with returns the entries with another in place of one.
func (f *facts) with(i int, change func(*conformance.Entry)) []conformance.Entry {
	all := slices.Clone(f.entries)
	change(&all[i])
	return all
}

var spoilings = []spoiling{
	{"an event is missing", func(f *facts, i int) ([]conformance.Entry, bool) {
		return slices.Delete(slices.Clone(f.entries), i, i+1), f.handed(i)
	}},
	{"an event comes twice", func(f *facts, i int) ([]conformance.Entry, bool) {
		return slices.Insert(slices.Clone(f.entries), i, f.entries[i]), f.entries[i].What == conformance.Handed
	}},
	{"an event comes again at the end", func(f *facts, i int) ([]conformance.Entry, bool) {
		return append(slices.Clone(f.entries), f.entries[i]), f.entries[i].What == conformance.Handed
	}},
	{"two events change places", func(f *facts, i int) ([]conformance.Entry, bool) {
		k := f.next(i)
		if k < 0 || !f.handed(i) || !f.handed(k) {
			return nil, false
		}
		all := slices.Clone(f.entries)
		all[i], all[k] = all[k], all[i]
		return all, true
	}},
	{"an event has another's number", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.N++ }), f.handed(i)
	}},
	{"an event has another's position", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.Position = fmt.Sprintf("event-%d", e.N+1) }), f.handed(i)
	}},
	{"an event has a position of its own", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.Position = "elsewhere" }), f.handed(i)
	}},
	{"an event has another payload", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.Digest += "!" }), f.handed(i)
	}},
	{"an event has another type", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.Type = "message" }), f.handed(i)
	}},
	{"an event comes before it is published", func(f *facts, i int) ([]conformance.Entry, bool) {
		return slices.Insert(slices.Delete(slices.Clone(f.entries), i, i+1), 6, f.entries[i]), f.handed(i)
	}},
	{"a refused event is handed over", func(f *facts, i int) ([]conformance.Entry, bool) {
		n := f.entries[i].N
		return slices.Insert(slices.Clone(f.entries), i+1, conformance.Entry{
			What: conformance.Handed, By: "reader 1", N: n, Position: fmt.Sprintf("event-%d", n), Digest: digestOf(n),
		}), f.entries[i].What == conformance.Refused
	}},
	{"a gap begins elsewhere", func(f *facts, i int) ([]conformance.Entry, bool) {
		other := f.known[1]
		return f.with(i, func(e *conformance.Entry) { e.From = other }), f.entries[i].What == conformance.GapTold && other != "" && f.entries[i].From != other
	}},
	{"a gap ends nowhere", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.To, e.Reason = "nowhere", "trimmed" }), f.entries[i].What == conformance.GapTold
	}},
	{"a gap takes the next event with it", func(f *facts, i int) ([]conformance.Entry, bool) {
		k := f.next(i)
		if f.entries[i].What != conformance.GapTold || k < 0 || !f.handed(k) {
			return nil, false
		}
		return f.with(i, func(e *conformance.Entry) { e.To = f.entries[k].Position }), true
	}},
	{"an event becomes a gap", func(f *facts, i int) ([]conformance.Entry, bool) {
		k := f.next(i)
		if !f.handed(i) || k < 0 || !f.handed(k) {
			return nil, false
		}
		from := f.entries[i].Position
		return f.with(k, func(e *conformance.Entry) {
			*e = conformance.Entry{What: conformance.GapTold, By: e.By, From: from, To: e.Position, Reason: "skipped"}
		}), true
	}},
	{"a gap is told where nothing is missing", func(f *facts, i int) ([]conformance.Entry, bool) {
		at := f.entries[i].Position
		return slices.Insert(slices.Clone(f.entries), i+1, conformance.Entry{
			What: conformance.GapTold, By: f.entries[i].By, From: at, To: at, Reason: "trimmed",
		}), f.handed(i)
	}},
	{"trimmed is called rewritten", func(f *facts, i int) ([]conformance.Entry, bool) {
		return f.with(i, func(e *conformance.Entry) { e.Reason = "rewritten" }),
			f.entries[i].What == conformance.GapTold && f.entries[i].Reason == "trimmed" && !f.replaced
	}},
	{"a reader is moved on", func(f *facts, i int) ([]conformance.Entry, bool) {
		k := f.next(i)
		if !f.handed(i) || k < 0 || !f.handed(k) {
			return nil, false
		}
		return slices.Insert(slices.Clone(f.entries), i+1, conformance.Entry{
			What: conformance.Opened, By: f.entries[i].By, Position: f.entries[k].Position,
		}), true
	}},
	{"a reader is moved to nowhere", func(f *facts, i int) ([]conformance.Entry, bool) {
		return slices.Insert(slices.Clone(f.entries), i+1, conformance.Entry{
			What: conformance.Opened, By: f.entries[i].By, Position: "nowhere",
		}), f.handed(i) && i == len(f.entries)-2
	}},
	{"a reader rests before it has all", func(f *facts, i int) ([]conformance.Entry, bool) {
		k := f.next(i)
		if k < 0 || !f.handed(k) || f.entries[i].By == "node" || f.entries[i].By == "" {
			return nil, false
		}
		return slices.Insert(slices.Clone(f.entries), k, conformance.Entry{What: conformance.Rested, By: f.entries[k].By}), true
	}},
}

// spoilt is a good history, with one thing changed in it.
func spoilt(seed uint64, which, at int) (h *conformance.History, how string, ok bool) {
	good := newGoodChannel(rand.New(rand.NewPCG(seed, 3))).make(60)
	f, s := newFacts(good), spoilings[which%len(spoilings)]
	for range f.entries {
		at = (at + 1) % len(f.entries)
		if entries, ok := s.spoil(f, at); ok {
			return &conformance.History{Entries: entries}, fmt.Sprintf("%s (entry %d)", s.name, at), true
		}
	}
	return nil, s.name, false
}

// TestJudge: good histories pass, and each that is spoilt in one thing does not.
func TestJudge(t *testing.T) {
	tried := map[string]int{}
	for seed := range uint64(400) {
		good := newGoodChannel(rand.New(rand.NewPCG(seed, 3))).make(60)
		if v := good.Judge(); !v.OK() {
			t.Fatalf("seed %d, a good history: %v", seed, v)
		}
		for which, s := range spoilings {
			h, how, ok := spoilt(seed, which, int(seed*7))
			if !ok {
				continue
			}
			tried[s.name]++
			if v := h.Judge(); v.OK() {
				t.Errorf("seed %d: %s, and the verdict is: %v", seed, how, v)
			}
		}
	}
	for _, s := range spoilings {
		if tried[s.name] < 20 {
			t.Errorf("%s: tried %d times only", s.name, tried[s.name])
		}
	}
}

// TestOracleFollowsGaps: a gap says where the reader is afterwards, so that
// the next may begin there and nowhere else.
func TestOracleFollowsGaps(t *testing.T) {
	o := conformance.NewOracle("p0")
	for n := 1; n <= 5; n++ {
		o.Payload()
		o.Appended(n, fmt.Sprintf("p%d", n))
	}
	told := func(second string) conformance.Verdict {
		return o.Judge("p0", []conformance.Seen{
			{N: 1, Position: "p1"}, {From: "p1", To: "p3"}, {From: second, To: "p4"}, {N: 5, Position: "p5"},
		})
	}
	if v := told("p3"); !v.OK() || v.Missing != 3 {
		t.Errorf("two gaps in a row: %v", v)
	}
	if v := told("p1"); v.OK() {
		t.Errorf("a gap that begins where the last one did: %v", v)
	}
}

// FuzzJudge: no history that is spoilt in one thing is found good.
func FuzzJudge(f *testing.F) {
	for which := range spoilings {
		f.Add(uint64(which), which, 10*which)
	}
	f.Fuzz(func(t *testing.T, seed uint64, which, at int) {
		h, how, ok := spoilt(seed, max(0, which), max(0, at))
		if !ok {
			return
		}
		if v := h.Judge(); v.OK() {
			t.Errorf("%s, and the verdict is: %v", how, v)
		}
	})
}

// TestHistoryIsKept: what a file holds is judged as what was saved.
func TestHistoryIsKept(t *testing.T) {
	h, how, _ := spoilt(5, 0, 20)
	path := filepath.Join(t.TempDir(), "history.json")
	if err := h.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := conformance.ReadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.Judge().String(), h.Judge().String(); got != want || again.Judge().OK() {
		t.Errorf("%s: %s, not %s", how, got, want)
	}
}
