package breaker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/throughline/throughline/breaker"
)

// absent wants those who are kept out, written out, and how many are on trial.
func (s *scene) absent(most, trials int, want ...string) {
	s.Helper()
	n, list := s.clients.Inspect(most)
	var got []string
	for _, a := range list {
		got = append(got, fmt.Sprintf("%s/%s %v %v %d %q", a.Session, a.Identity, a.Broken, a.After, a.Times, a.Why))
	}
	if !slices.Equal(got, want) || n.Trials != trials || n != s.clients.Known() {
		s.Errorf("%d on trial, kept out\n%q, want %d\n%q", n.Trials, got, trials, want)
	}
}

// TestInspect: who is kept out is listed with what is known of it, the last first,
// until it may come back. Then it is on trial, which its line says.
func TestInspect(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		s.absent(9, 0)
		a, b, well := s.in(session("a", "x")), s.in(plain("y", 7)), s.in(session("w", "x"))
		_ = a.TooSlow(breaker.Place{}, "a write took long")
		time.Sleep(time.Second)
		s.evicted(b, 9, 5*time.Second)
		s.absent(9, 0, `/y [] 5s 1 ""`, `a/x [] 4s 1 "a write took long"`)
		s.absent(1, 0, `/y [] 5s 1 ""`)
		s.absent(0, 0)
		if is := a.Standing(); is != (breaker.Standing{Evicted: 1, Why: "a write took long"}) {
			t.Errorf("who was evicted: %+v", is)
		}
		a.Leave(false)
		time.Sleep(4 * time.Second)
		s.absent(9, 0, `/y [] 1s 1 ""`)
		a = s.in(session("a", "x"))
		s.absent(9, 1, `/y [] 1s 1 ""`)
		if is := a.Standing(); is != (breaker.Standing{Trial: true, Evicted: 1, Why: "a write took long"}) {
			t.Errorf("who is on trial: %+v", is)
		}
		_ = a.TooSlow(breaker.Place{}, "it fell behind")
		s.absent(9, 0, `a/x [] 10s 2 "it fell behind"`, `/y [] 1s 1 ""`)
		if is := well.Standing(); is != (breaker.Standing{}) {
			t.Errorf("who is well: %+v", is)
		}
	})
}

// TestInspectBroken: who is kept out of one transport is listed with its name.
func TestInspectBroken(t *testing.T) {
	play(t, breaker.Options{BrokenLines: 2}, func(s *scene) {
		for _, over := range []string{"ws", "ndjson"} {
			for range 2 {
				who := session("a", "x")
				who.Transport = over
				s.in(who).Leave(true)
			}
			time.Sleep(time.Second)
		}
		s.absent(9, 0, `a/x [ndjson ws] 4s 1 ""`)
		time.Sleep(3500 * time.Millisecond)
		s.absent(9, 0, `a/x [ndjson] 500ms 1 ""`)
		time.Sleep(time.Second)
		s.absent(9, 0)
	})
}
