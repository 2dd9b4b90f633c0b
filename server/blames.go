package server

import (
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/breaker"
)

const (
	// blamedAtMost is how many failures of one client count in a window while
	// others are served well: one that knows how to make a function fail closes it
	// to nobody else.
	blamedAtMost = 4
	// blameWindow is that of package breaker.
	blameWindow = 10 * time.Second
	// maxBlamed bounds how many clients are known. Failures of more count.
	maxBlamed = 10_000
)

// blames count whose calls fail.
type blames struct {
	mu       sync.Mutex
	began    time.Time      // guarded by mu: this window
	failures map[string]int // guarded by mu
	well     [4]string      // guarded by mu: two clients that were answered in this window, and two in the one before
}

func newBlames() *blames { return &blames{failures: make(map[string]int)} }

// blamed is by what a client is counted: its subject, or else its address.
func blamed(who Identity, addr string) string {
	if who.Subject != "" {
		return who.Namespace + "\x00" + who.Subject
	}
	return addr
}

// weigh returns what an outcome counts for: nothing, if it is one of too many
// failures of the same client.
func (b *blames) weigh(who string, what breaker.Outcome) breaker.Outcome {
	if b == nil || who == "" || what != breaker.Failed && what != breaker.Answered {
		return what
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.began) >= blameWindow {
		b.well = [4]string{2: b.well[0], 3: b.well[1]}
		b.began = now
		clear(b.failures)
	}
	if what == breaker.Answered {
		if b.well[0] != who {
			b.well[0], b.well[1] = who, b.well[0]
		}
		return what
	}
	if _, known := b.failures[who]; !known && len(b.failures) >= maxBlamed {
		return what
	}
	b.failures[who]++
	if b.failures[who] > blamedAtMost && b.othersAreWell(who) {
		return breaker.Unheard
	}
	return what
}

func (b *blames) othersAreWell(who string) bool {
	return slices.ContainsFunc(b.well[:], func(well string) bool { return well != "" && well != who })
}
