package conformance

import (
	"fmt"
	"time"
)

// A ledger is what is known of a channel: its places from 1, in order. Place 0
// is before all of them.
type ledger struct {
	places    []place
	numbers   map[int]int     // the place of each number
	positions map[string]spot // what texts stand for
	trusting  bool            // gaps are believed

	// What moves while a history is read. Each is a place.
	now     int // what was published so far
	dropped int // all up to it may be gone, by retention
	lost    int // all up to it is gone with the log's history
	unborn  int // the channel had no name then, or may have had none

	stale time.Duration // positions of a channel without a name, known before this, may be gone
}

// A place is one event of a channel, or, without a number, the loss of all
// before it: who goes past that has to be told.
type place struct {
	n            int
	digest, kind string
	position     string // "" as long as nobody knows
	there        bool   // it is in the channel, as somebody was told
	refused      bool
	excused      string // the reason why it alone need not be shown
}

// A spot is what a position stands for.
type spot struct {
	place int
	event bool          // of an event; else of a channel without a name
	since time.Duration // when it was first known
}

func newLedger() *ledger {
	return &ledger{numbers: map[int]int{}, positions: map[string]spot{}}
}

func (l *ledger) add(p place) (at int) {
	l.places = append(l.places, p)
	if p.n != 0 {
		l.numbers[p.n] = len(l.places)
	}
	return len(l.places)
}

// count returns how many places after from, up to and including to, are there.
func (l *ledger) count(from, to int) (n int) {
	for _, p := range l.places[from:max(from, to)] {
		if p.there {
			n++
		}
	}
	return n
}

// kept returns the first place after from, up to and including to, that is there
// and has no excuse for reasons of a kind.
func (l *ledger) kept(from, to int, reason string) (at int, ok bool) {
	floor := max(l.dropped, l.lost)
	for at := max(from, floor) + 1; at <= to; at++ {
		if p := &l.places[at-1]; p.there && (p.excused == "" || p.excused != reason) {
			return at, true
		}
	}
	return 0, false
}

// named names a place.
func (l *ledger) named(at int) string {
	switch {
	case at == 0:
		return "the beginning"
	case l.places[at-1].n == 0:
		return "the beginning of a history that replaced a lost one"
	}
	return fmt.Sprintf("number %d", l.places[at-1].n)
}

// place returns what a position stands for. One that is unknown may be of the
// channel while it had no name, told to a reader that isn't further.
func (l *ledger) place(text string, nameless bool, when time.Duration) (s spot, ok bool) {
	if s, ok = l.positions[text]; !ok && nameless {
		s, ok = spot{place: l.unborn, since: when}, true
		l.positions[text] = s
	}
	return s, ok
}

// isStale reports whether the log may no longer know a position, though it lost
// nothing: it belongs to a channel whose name may have been dropped, or may
// still be.
func (l *ledger) isStale(s spot) bool {
	if s.event {
		return s.place <= l.unborn
	}
	return s.since < l.stale
}
