package breaker_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/breaker"
)

// A scene plays with the breakers of clients in fake time.
type scene struct {
	*testing.T
	clients *breaker.Clients
}

func play(t *testing.T, o breaker.Options, body func(*scene)) {
	t.Helper()
	if o.Spare == 0 {
		o.Spare = -1
	}
	synctest.Test(t, func(t *testing.T) { body(&scene{t, breaker.NewClients(o)}) })
}

func session(id, identity string) breaker.Client {
	return breaker.Client{Session: id, Identity: identity, Transport: "ws"}
}

func plain(identity string, at uint64) breaker.Client {
	return breaker.Client{Identity: identity, Transport: "sse", Place: breaker.Place{Channel: "c", From: at, To: at}}
}

// in lets a client in.
func (s *scene) in(who breaker.Client) *breaker.Line {
	s.Helper()
	l, err := s.clients.Enter(who)
	if err != nil {
		s.Fatalf("%+v: %v", who, err)
	}
	return l
}

// out wants a client to be kept out for a time.
func (s *scene) out(who breaker.Client, want time.Duration, broken ...string) {
	s.Helper()
	l, err := s.clients.Enter(who)
	d, ok := errors.AsType[*breaker.Denial](err)
	if l != nil || !ok || d.After != want || !slices.Equal(d.Broken, broken) {
		s.Fatalf("%+v: %v, %+v, want %v %v", who, l, err, want, broken)
	}
}

// evicted has a line evicted.
func (s *scene) evicted(l *breaker.Line, at uint64, want time.Duration) {
	s.Helper()
	if trip := l.TooSlow(breaker.Place{Channel: "c", To: at}, ""); trip.For != want {
		s.Fatalf("kept out for %v, want %v", trip.For, want)
	}
	l.Leave(false)
}

// TestDelaysGrow: each time it is longer, up to a bound; who keeps up for long
// enough begins anew.
func TestDelaysGrow(t *testing.T) {
	o := breaker.Options{Delay: 5 * time.Second, MaxDelay: 30 * time.Second, Forget: time.Hour}
	for name, who := range map[string]breaker.Client{"session": session("s", "a"), "plain": plain("a", 7)} {
		t.Run(name, func(t *testing.T) {
			play(t, o, func(s *scene) {
				l := s.in(who)
				if l.OnTrial() {
					t.Error("the first line is on trial")
				}
				for _, seconds := range []int{5, 10, 20, 30, 30} {
					delay := time.Duration(seconds) * time.Second
					s.evicted(l, 9, delay)
					s.out(who, delay)
					time.Sleep(delay - time.Millisecond)
					s.out(who, time.Millisecond)
					time.Sleep(time.Millisecond)
					if l = s.in(who); !l.OnTrial() {
						t.Error("who was evicted is not on trial")
					}
				}
				l.KeepsUp()
				if l.OnTrial() {
					t.Error("still on trial")
				}
				time.Sleep(time.Hour - 1)
				s.evicted(l, 9, 30*time.Second)
				time.Sleep(30 * time.Second)
				l = s.in(who)
				l.KeepsUp()
				time.Sleep(time.Hour)
				s.evicted(l, 9, 5*time.Second)
			})
		})
	}
}

// TestTrialsAreHandedOver: a trial that ended without a verdict, or that another
// line took over, goes on.
func TestTrialsAreHandedOver(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		who := session("s", "a")
		s.evicted(s.in(who), 0, 5*time.Second)
		time.Sleep(5 * time.Second)
		first := s.in(who)
		second := s.in(who)
		if !second.OnTrial() {
			t.Error("the second line is not on trial")
		}
		s.trials(1)
		first.Leave(false)
		s.trials(1)
		second.Leave(false)
		s.trials(0) // nobody is here who could pass it
		third := s.in(who)
		s.trials(1)
		if !third.OnTrial() {
			t.Error("the third line is not on trial")
		}
		s.evicted(third, 0, 10*time.Second)
		s.out(who, 10*time.Second)
	})
}

// trials wants so many clients to be on trial.
func (s *scene) trials(want int) {
	s.Helper()
	if n := s.clients.Known(); n.Trials != want {
		s.Errorf("%d clients are on trial, want %d", n.Trials, want)
	}
}

// TestIdentityInherits: a new session waits for what one of its identity has
// done, unless others of it keep up.
func TestIdentityInherits(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		s.evicted(s.in(session("one", "a")), 0, 5*time.Second)
		s.in(session("other", "b"))
		for i := range 20 {
			s.out(session(fmt.Sprint("new", i), "a"), 5*time.Second)
		}
		s.out(breaker.Client{Identity: "a", Transport: "sse"}, 5*time.Second)
		time.Sleep(5 * time.Second)
		heir := s.in(session("heir", "a"))
		if !heir.OnTrial() {
			t.Error("the heir is not on trial")
		}
		s.evicted(heir, 0, 10*time.Second)
		s.out(session("heir", "a"), 10*time.Second)
		s.out(session("next", "a"), 10*time.Second)
	})
}

// TestNATIsNotOneClient: as long as as many keep up as were evicted, new ones
// come in.
func TestNATIsNotOneClient(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		well := []*breaker.Line{s.in(session("w1", "nat")), s.in(session("w2", "nat"))}
		bad1, bad2, bad3 := s.in(session("b1", "nat")), s.in(session("b2", "nat")), s.in(session("b3", "nat"))
		s.evicted(bad1, 0, 5*time.Second)
		s.evicted(bad2, 0, 5*time.Second)
		s.in(session("n1", "nat")).Leave(false) // two away; b3, w1 and w2 keep up
		well[0].Leave(false)
		s.in(session("n2", "nat")).Leave(false)
		s.evicted(bad3, 0, 5*time.Second) // three away, w2 keeps up
		s.out(session("n3", "nat"), 5*time.Second)
		s.out(session("b1", "nat"), 5*time.Second)
		s.in(session("elsewhere", "home"))
	})
}

// TestPlainClientsAreKnownByTheirPlace: of many behind one address, only who
// goes on from where somebody was evicted waits.
func TestPlainClientsAreKnownByTheirPlace(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		for i := range uint64(4) {
			s.in(plain("a", 1000+i))
		}
		l := s.in(plain("a", 10))
		if trip := l.TooSlow(breaker.Place{Channel: "c", From: 10, To: 20}, ""); trip.For != 5*time.Second {
			t.Fatal(trip)
		}
		l.Leave(false)
		for _, at := range []uint64{10, 15, 20} {
			s.out(plain("a", at), 5*time.Second)
		}
		for _, at := range []uint64{9, 21, 1000} {
			s.in(plain("a", at)).Leave(false)
		}
		other := plain("a", 15)
		other.Place.Channel = "d"
		s.in(other)
		time.Sleep(5 * time.Second)
		if !s.in(plain("a", 15)).OnTrial() {
			t.Error("who came back is not on trial")
		}
	})
}

// TestPlainClientsWaitForTheirOwn: where stretches of several hold the place that a client comes
// back from, it waits for the one that ends there, and not for another's longer delay.
func TestPlainClientsWaitForTheirOwn(t *testing.T) {
	const near, far = 120, 900
	for _, ends := range [][]uint64{{near, far}, {far, near}} {
		play(t, breaker.Options{}, func(s *scene) {
			both := []*breaker.Line{s.in(plain("a", 10)), s.in(plain("a", 10))}
			left := map[uint64]time.Duration{}
			for i, l := range both {
				time.Sleep(4 * time.Second)
				if trip := l.TooSlow(breaker.Place{Channel: "c", From: 10, To: ends[i]}, ""); trip.For != 5*time.Second {
					t.Fatal(trip)
				}
				l.Leave(false)
				left[ends[i]] = time.Duration(1+4*i) * time.Second
			}
			s.out(plain("a", 115), left[near])
			s.out(plain("a", 500), left[far])
			time.Sleep(left[near])
			if !s.in(plain("a", 115)).OnTrial() {
				t.Error("who waited for its own delay is not on trial")
			}
		})
	}
}

// TestBrokenLinesCloseTheirTransport, and no other; long ones, and those that
// did not break, don't count, and begin the count anew.
func TestBrokenLinesCloseTheirTransport(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		ws, sse := session("s", "a"), session("s", "a")
		sse.Transport = "sse"
		breaks := func(lived time.Duration) bool {
			l := s.in(ws)
			time.Sleep(lived)
			return l.Leave(true)
		}
		for _, seconds := range []int{1, 1, 60, 1, 1} {
			if breaks(time.Duration(seconds) * time.Second) {
				t.Fatal("tripped too soon")
			}
		}
		s.in(ws).Leave(false)
		for n := 1; n <= 3; n++ {
			if tripped := breaks(time.Second); tripped != (n == 3) {
				t.Fatalf("after %d in a row: tripped %v", n, tripped)
			}
		}
		s.out(ws, 5*time.Second, "ws")
		s.in(sse).Leave(false)
		s.in(session("t", "a")).Leave(false)
		time.Sleep(5 * time.Second)
		if !breaks(time.Second) {
			t.Fatal("the trial that broke did not trip it again")
		}
		s.out(ws, 10*time.Second, "ws")
		time.Sleep(10 * time.Second)
		for _, seconds := range []int{20, 40, 60, 60} { // up to BrokenWithin
			if !breaks(time.Second) {
				t.Fatal("a trial that broke did not trip it")
			}
			s.out(ws, time.Duration(seconds)*time.Second, "ws")
			time.Sleep(time.Duration(seconds) * time.Second)
		}
		s.in(ws).Leave(false) // a trial that went well
		if breaks(time.Second) {
			t.Fatal("one broken line tripped a transport that had worked")
		}
	})
}

// TestRecordsAreBounded: of many absent clients the last ones are known.
func TestRecordsAreBounded(t *testing.T) {
	play(t, breaker.Options{MaxRecords: 100}, func(s *scene) {
		for i := range 1000 {
			s.evicted(s.in(session(fmt.Sprint(i), fmt.Sprint(i))), 0, 5*time.Second)
		}
		for i := range 900 {
			s.in(session(fmt.Sprint(i), fmt.Sprint(i))).Leave(false)
		}
		for i := 900; i < 1000; i++ {
			s.out(session(fmt.Sprint(i), fmt.Sprint(i)), 5*time.Second)
		}
		if n := s.clients.Known(); n.Records != 100 || n.Open != 100 || n.Trials != 0 {
			t.Errorf("%+v", n)
		}
	})
}

// TestWellClientsLeaveNothing behind.
func TestWellClientsLeaveNothing(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		for i := range 100 {
			s.in(session(fmt.Sprint(i), "a")).Leave(i%3 == 2)
			l := s.in(plain("a", 1))
			l.Leave(false)
			l.Leave(true) // once is enough
			l.KeepsUp()
			_ = l.TooSlow(breaker.Place{}, "")
		}
		if n := s.clients.Known(); n.Records != 33 || n.Identities != 1 {
			t.Errorf("after broken lines: %+v", n)
		}
		time.Sleep(time.Hour)
		for i := range 100 {
			s.in(session(fmt.Sprint(i), "a")).Leave(false)
		}
		if n := s.clients.Known(); n != (breaker.Known{}) {
			t.Errorf("an hour later: %+v", n)
		}
	})
}

// TestTripsAreHeard: another node keeps out who was evicted here, for as long as
// is left, and delays grow from there on; what it knows already changes nothing.
func TestTripsAreHeard(t *testing.T) {
	play(t, breaker.Options{}, func(s *scene) {
		for name, who := range map[string]breaker.Client{"session": session("s", "a"), "plain": plain("b", 15)} {
			other := &scene{t, breaker.NewClients(breaker.Options{})}
			l := s.in(who)
			trip := l.TooSlow(breaker.Place{Channel: "c", From: 10, To: 20}, "")
			l.Leave(false)
			other.clients.Hear(trip, 2*time.Second)
			other.out(who, 3*time.Second)
			s.clients.Hear(trip, 0) // its own
			s.out(who, 5*time.Second)
			time.Sleep(3 * time.Second)
			other.clients.Hear(trip, 5*time.Second) // of long ago
			l = other.in(who)
			if !l.OnTrial() {
				t.Errorf("%s: not on trial at the other node", name)
			}
			other.evicted(l, 20, 10*time.Second)
			other.clients.Hear(trip, 0) // late
			other.out(who, 10*time.Second)
			if n := other.clients.Known(); n.Records != 1 {
				t.Errorf("%s: %+v", name, n)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestNamedPlainClientsAreRemembered: a subject that has caught up is let in from
// wherever it goes on, and its next delay is longer all the same; an address is
// many, and begins anew.
func TestNamedPlainClientsAreRemembered(t *testing.T) {
	for named, again := range map[bool]time.Duration{true: 10 * time.Second, false: 5 * time.Second} {
		play(t, breaker.Options{}, func(s *scene) {
			who := plain("a", 15)
			who.Named = named
			s.evicted(s.in(who), 20, 5*time.Second)
			time.Sleep(5 * time.Second)
			l := s.in(who)
			l.KeepsUp()
			l.Leave(false)
			who.Place = breaker.Place{Channel: "c", From: 99, To: 99}
			if l = s.in(who); l.OnTrial() {
				t.Error("on trial, having caught up")
			}
			s.evicted(l, 120, again)
		})
	}
}

// TestAddressesHaveSomeToSpare: a few slow ones keep nobody else out who comes
// from the same address; a subject is one.
func TestAddressesHaveSomeToSpare(t *testing.T) {
	play(t, breaker.Options{Spare: 2}, func(s *scene) {
		for i := range 2 {
			s.evicted(s.in(session(fmt.Sprint(i), "office")), 0, 5*time.Second)
		}
		s.in(session("new", "office")).Leave(false)
		ann := session("new", "office")
		ann.Named = true
		s.out(ann, 5*time.Second)
		s.evicted(s.in(session("third", "office")), 0, 5*time.Second)
		s.out(session("another", "office"), 5*time.Second)
	})
}
