package core

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestPages: whatever lines take and give back, they hold no more than there is
// and leave some for others; none waits while there is room, also if one that has
// its turn is busy, and each that waits has its turn.
func TestPages(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			w := newTakers(t, seed)
			for range 1000 {
				c := w.all[w.dice.IntN(len(w.all))]
				switch w.dice.IntN(5) {
				case 0, 1, 2:
					w.take(c)
				case 3:
					w.give(c)
				default:
					w.leave(c)
				}
				w.settle(3)
			}
			for _, c := range w.all { // all want, and all give back
				w.take(c)
			}
			for w.pages.waiting.Len() > 0 || w.held > 0 {
				before := w.turns
				for _, c := range w.all {
					w.give(c)
				}
				if w.settle(0); w.turns == before && w.pages.waiting.Len() > 0 {
					t.Fatalf("seed %d: %d lines wait for ever", seed, w.pages.waiting.Len())
				}
			}
			if w.pages.left != roomOfTest || len(w.pages.known) > 0 {
				t.Fatalf("seed %d: %d left, %d known", seed, w.pages.left, len(w.pages.known))
			}
		})
	}
}

// TestPagesGetSmaller as less is left, down to the smallest, and then none.
func TestPagesGetSmaller(t *testing.T) {
	p := newPages(1 << 20)
	last, all := 1<<20, 0
	for size := p.take(&line{}, 64<<10); size > 0; size = p.take(&line{}, 64<<10) {
		if size > last || size < smallestPage || size > max(smallestPage, (1<<20-all)/sharesOfPages) {
			t.Fatalf("a page of %d after one of %d, with %d taken", size, last, all)
		}
		last = size
		all += size
	}
	if last != smallestPage || all > 1<<20 || all <= 1<<20-smallestPage {
		t.Errorf("%d were taken, the last %d", all, last)
	}
}

const roomOfTest, mostOfTest = 96 << 10, 5 << 10

// A taker is a line that takes a page when it is asked to.
type taker struct {
	line  *line
	asked atomic.Bool
	held  int
}

type takers struct {
	*testing.T
	dice  *rand.Rand
	pages *pages
	all   []*taker
	held  int
	turns int // pages taken
}

func newTakers(t *testing.T, seed uint64) *takers {
	w := &takers{T: t, dice: rand.New(rand.NewPCG(seed, 1)), pages: newPages(roomOfTest)}
	for range 60 {
		c := &taker{line: &line{}}
		c.line.worker.start(func() { c.asked.Store(true) }, func() {})
		w.all = append(w.all, c)
	}
	return w
}

func (w *takers) take(c *taker) {
	if c.held > 0 {
		return
	}
	c.held = w.pages.take(c.line, mostOfTest)
	if w.held += c.held; w.held > roomOfTest || c.held > mostOfTest || c.held > 0 && c.held < smallestPage {
		w.Fatalf("%d bytes for one, and %d for all", c.held, w.held)
	}
	if c.held > 0 {
		w.turns++
	}
}

func (w *takers) give(c *taker) {
	if c.held > 0 {
		w.pages.give(c.held)
		w.held -= c.held
		c.held = 0
	}
}

func (w *takers) leave(c *taker) {
	if c.held == 0 {
		w.pages.leave(c.line)
	}
}

// settle has those who were asked take, or leave, until nobody is asked. So many
// are too busy to listen.
func (w *takers) settle(busy int) {
	for again := true; again; {
		again = false
		synctest.Wait()
		for _, c := range w.all {
			switch {
			case !c.asked.Load():
			case w.pages.known[c.line] == nil: // it has left meanwhile
				c.asked.Store(false)
			case busy > 0:
				busy--
			default:
				c.asked.Store(false)
				again = true
				if w.dice.IntN(4) == 0 {
					w.leave(c)
				} else {
					w.take(c)
				}
			}
		}
	}
	if w.pages.left >= smallestPage && w.pages.waiting.Len() > 0 {
		w.Fatalf("%d lines wait though %d bytes are left", w.pages.waiting.Len(), w.pages.left)
	}
}

// TestPagesComeInTurn: who waits longest is first.
func TestPagesComeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTakers(t, 1)
		w.pages = newPages(smallestPage)
		w.take(w.all[0])
		for _, c := range w.all[1:] {
			w.take(c)
		}
		for i, c := range w.all[:len(w.all)-1] {
			w.give(c)
			synctest.Wait()
			if w.take(w.all[i+1]); w.all[i+1].held == 0 {
				t.Fatalf("line %d did not have its turn", i+1)
			}
		}
	})
}
