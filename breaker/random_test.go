package breaker_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/breaker"
)

var (
	seed  = flag.Uint64("seed", 0, "run only this random schedule")
	seeds = flag.Uint64("seeds", 60, "how many random schedules are run")
)

// TestClientsByFacts runs random schedules of clients that come, fall behind, keep
// up, break and stay away, and holds what the breakers say against what follows
// from the plain list of what happened (facts_test.go).
func TestClientsByFacts(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for s := first; s <= last && !t.Failed(); s++ {
		synctest.Test(t, func(t *testing.T) { newRun(t, s).run() })
	}
}

// A run is one schedule.
type run struct {
	t       *testing.T
	seed    uint64
	rand    *rand.Rand
	o       breaker.Options
	clients *breaker.Clients
	facts   *facts
	lines   []*pair
	trace   []string
}

// A pair is a line, and what is known of it.
type pair struct {
	line *breaker.Line
	is   *factLine
}

func newRun(t *testing.T, seed uint64) *run {
	r := &run{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1))}
	r.o = breaker.Options{
		Spare: -1,
		Delay: 5 * time.Second, MaxDelay: 40 * time.Second, Forget: 5 * time.Minute,
		BrokenLines: 2 + int(seed%2), BrokenWithin: 30 * time.Second, MaxRecords: []int{3, 6, 100}[seed%3],
	}
	r.clients, r.facts = breaker.NewClients(r.o), &facts{o: r.o}
	return r
}

func (r *run) run() {
	for range 400 {
		r.step()
		r.known()
		if r.t.Failed() {
			return
		}
	}
	r.end()
}

func (r *run) step() {
	switch r.rand.IntN(11) {
	case 0, 1, 2, 3:
		r.enter(r.anyone())
	case 4:
		r.wait()
	case 5:
		r.another()
	default:
		if len(r.lines) > 0 {
			r.happen(r.lines[r.rand.IntN(len(r.lines))])
		}
	}
}

// wait lets time pass: moments, about a delay, or so much that things are
// forgotten.
func (r *run) wait() {
	d := time.Duration(1+r.rand.IntN(9)) * [...]time.Duration{time.Millisecond, time.Second, 5 * time.Second, 5 * time.Second, time.Minute}[r.rand.IntN(5)]
	r.note("%v pass", d)
	time.Sleep(d)
}

// anyone is one of a few sessions, which stay with their identity as a rule, or
// a plain client.
func (r *run) anyone() breaker.Client {
	n := r.rand.IntN(8)
	who := breaker.Client{Identity: fmt.Sprint("id", n%2), Transport: [...]string{"sse", "ws"}[r.rand.IntN(2)]}
	switch kind := r.rand.IntN(10); {
	case kind < 6:
		who.Session = fmt.Sprint("s", n)
		if kind == 0 {
			who.Identity = "id2" // it has moved
		}
	case kind < 9:
		who.Place = r.place()
	}
	return who
}

func (r *run) place() breaker.Place {
	from := uint64(r.rand.IntN(4)) //nolint:gosec // small
	return breaker.Place{Channel: "c", From: from, To: from + uint64(r.rand.IntN(2))}
}

// enter has a client ask.
func (r *run) enter(who breaker.Client) {
	after, broken, is := r.facts.enter(who)
	r.note("%+v asks: %v %v", who, after, broken)
	l, err := r.clients.Enter(who)
	if is != nil {
		if err != nil {
			r.fail("kept out: %v", err)
			return
		}
		r.lines = append(r.lines, &pair{l, is})
		r.trial(r.lines[len(r.lines)-1])
		return
	}
	d, ok := errors.AsType[*breaker.Denial](err)
	if !ok || l != nil || d.After != after || !slices.Equal(d.Broken, broken) {
		r.fail("%v, %v, and it has to be kept out for %v %v", l, err, after, broken)
	}
}

// another node says whom it has evicted.
func (r *run) another() {
	who := r.anyone()
	t := breaker.Trip{Session: who.Session, Identity: who.Identity, Place: who.Place, Times: 1 + r.rand.IntN(4)}
	t.For = time.Duration(1+r.rand.IntN(60)) * time.Second
	ago := time.Duration(r.rand.IntN(10)) * time.Second
	r.note("another node says, after %v: %+v", ago, t)
	r.facts.another(t, ago)
	r.clients.Hear(t, ago)
}

// happen has something happen to a line.
func (r *run) happen(p *pair) {
	switch kind := r.rand.IntN(12); {
	case kind < 4:
		at := r.place()
		want := r.facts.tooSlow(p.is, at)
		r.note("%v is too slow at %v: %v", p.is, at, want)
		if got := p.line.TooSlow(at, ""); got != want {
			r.fail("kept out for %v, not %v", got, want)
		}
	case kind < 6:
		r.note("%v keeps up", p.is)
		r.facts.keepsUp(p.is)
		p.line.KeepsUp()
	case kind < 7:
	default:
		r.leave(p, kind < 10)
		return
	}
	r.trial(p)
}

func (r *run) leave(p *pair, broken bool) {
	want := r.facts.leave(p.is, broken)
	r.note("%v leaves, broken %v: tripped %v", p.is, broken, want)
	if got := p.line.Leave(broken); got != want {
		r.fail("tripped %v, not %v", got, want)
	}
	r.lines = slices.DeleteFunc(r.lines, func(q *pair) bool { return p == q })
}

// trial compares whether a line is on trial.
func (r *run) trial(p *pair) {
	if got := p.line.OnTrial(); got != p.is.trial {
		r.fail("%v is on trial: %v, not %v", p.is, got, p.is.trial)
	}
}

// known compares what is known, and holds it against the bound.
func (r *run) known() {
	got, want := r.clients.Known(), r.facts.known()
	want.Identities = got.Identities
	if got != want || got.Records > r.o.MaxRecords {
		r.fail("known is %+v, not %+v", got, want)
	}
}

// end has all leave, and time pass. Then nothing is left of anybody but of who
// failed last.
func (r *run) end() {
	for len(r.lines) > 0 {
		r.leave(r.lines[0], false)
	}
	time.Sleep(r.o.MaxDelay + r.o.Forget)
	before := r.clients.Known().Records
	for i := range before/2 + 1 { // each makes room for itself
		l, err := r.clients.Enter(session(fmt.Sprint("stranger", i), fmt.Sprint("far away ", i)))
		if err != nil {
			r.fail("a stranger is kept out: %v", err)
			return
		}
		l.TooSlow(breaker.Place{}, "")
		l.Leave(false)
		time.Sleep(r.o.Delay)
	}
	if n := r.clients.Known(); n.Records > before/2+1 || n.Identities > before/2+1 || n.Open != 0 {
		r.fail("of %d records there are %+v when all is over", before, n)
	}
}

func (r *run) note(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

func (r *run) fail(format string, args ...any) {
	r.t.Errorf("seed %d, after %d steps: %s\nthe last of them: %q", r.seed, len(r.trace), fmt.Sprintf(format, args...), r.trace[max(0, len(r.trace)-12):])
}

// TestDelayStaysAtItsBound however often it happens.
func TestDelayStaysAtItsBound(t *testing.T) {
	play(t, breaker.Options{Delay: time.Minute, MaxDelay: time.Hour, Forget: time.Hour}, func(s *scene) {
		delay := time.Minute
		for range 70 {
			s.evicted(s.in(session("s", "a")), 0, delay)
			s.out(session("s", "a"), delay)
			time.Sleep(delay)
			delay = min(2*delay, time.Hour)
		}
	})
}

// TestLongAbsentIsNoHeritage: who was evicted and stayed away until that is
// forgotten counts no more when a new session of its identity comes.
func TestLongAbsentIsNoHeritage(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		var old []*breaker.Line
		for i := range 3 {
			old = append(old, s.in(session(fmt.Sprint("old", i), "nat")))
		}
		for _, l := range old {
			s.evicted(l, 0, 5*time.Second)
		}
		s.out(session("new", "nat"), 5*time.Second)
		time.Sleep(5*time.Second + 10*time.Minute)
		s.in(session("well", "nat"))
		bad := s.in(session("bad", "nat"))
		if bad.OnTrial() {
			t.Error("it inherits what was forgotten")
		}
		s.evicted(bad, 0, 5*time.Second)
		s.in(session("new", "nat")) // one is away, one keeps up
	})
}

// TestPlainClientsDontInheritBrokenLines: that a session's WebSockets break is
// about that session.
func TestPlainClientsDontInheritBrokenLines(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		who := session("s", "a")
		s.evicted(s.in(who), 0, 5*time.Second)
		time.Sleep(5 * time.Second)
		for range 3 {
			s.in(who).Leave(true)
		}
		s.out(who, 5*time.Second, "ws")
		s.in(breaker.Client{Identity: "a", Transport: "ws"})
	})
}

// TestWhoLeavesWellIsNotNoted: of a line whose client was forgotten meanwhile
// nothing is remembered that takes another's place.
func TestWhoLeavesWellIsNotNoted(t *testing.T) {
	play(t, breaker.Options{MaxRecords: 1}, func(s *scene) {
		s.in(session("s", "a")).Leave(true)
		l := s.in(session("s", "a"))
		s.evicted(s.in(session("t", "b")), 0, 5*time.Second)
		l.Leave(false)
		s.out(session("t", "b"), 5*time.Second)
	})
}

// TestOldLinesDecideAsWell: a line that began before its transport was closed,
// and ends well after the delay, is as good as a trial.
func TestOldLinesDecideAsWell(t *testing.T) {
	o := breaker.Options{Forget: time.Minute}
	play(t, o, func(s *scene) {
		who := session("s", "a")
		s.in(who).Leave(true)
		old, other := s.in(who), s.in(who)
		for range 2 {
			s.in(who).Leave(true)
		}
		time.Sleep(50 * time.Second)
		old.Leave(false)
		time.Sleep(50 * time.Second)
		other.Leave(false) // it keeps what is known from being forgotten
		for range 3 {
			s.in(who).Leave(true)
		}
		s.out(who, 10*time.Second, "ws")
	})
}
