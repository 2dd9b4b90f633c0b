package redis

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// countedRounds are rounds that take a millisecond.
func countedRounds(n *int) *rounds[int] {
	return &rounds[int]{
		log: &Log{ctx: context.Background()}, hurry: make(chan struct{}, 1),
		do: func() (int, error) { time.Sleep(time.Millisecond); *n++; return *n, nil },
	}
}

// TestRoundsOfACrowd: many who come one by one share rounds, and none waits long.
func TestRoundsOfACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := countedRounds(&n)
		var group sync.WaitGroup
		for range 2000 { // in 4 s
			group.Go(func() {
				began := time.Now()
				if _, err := r.ask(context.Background()); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > crowdPause*maxCrowd/crowd+5*time.Millisecond {
					t.Errorf("one waited %v", took)
				}
			})
			time.Sleep(rand.N(4 * time.Millisecond))
		}
		group.Wait()
		if n > 400 { // mostly 60: how soon some coincide is chance
			t.Errorf("%d rounds for 2000 in 4 s", n)
		}
		time.Sleep(time.Second)
	})
}

// TestRoundsOfFew: who asks alone, or is one of a few whom a bell woke, does not wait.
func TestRoundsOfFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := countedRounds(&n)
		for i := range 1000 { // events, as fast as they are read
			r.ring()
			var group sync.WaitGroup
			for range 1 + i%4 {
				group.Go(func() {
					began := time.Now()
					_, _ = r.ask(context.Background())
					if took := time.Since(began); took > 3*time.Millisecond {
						t.Errorf("one waited %v", took)
					}
				})
			}
			group.Wait()
		}
		for range 100 {
			began := time.Now()
			_, _ = r.ask(context.Background())
			if took := time.Since(began); took > time.Millisecond {
				t.Errorf("a lone one waited %v", took)
			}
		}
	})
}

// TestNewsWaitForNoCrowd: what rings while rounds gather those who come back is read at
// once.
func TestNewsWaitForNoCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := countedRounds(&n)
		var group sync.WaitGroup
		for range 10 * crowd {
			group.Go(func() { _, _ = r.ask(context.Background()) })
		}
		time.Sleep(5 * time.Millisecond) // a round is over, and the next one gathers
		for range 5 {
			r.ring()
			began := time.Now()
			_, _ = r.ask(context.Background())
			if took := time.Since(began); took > 3*time.Millisecond {
				t.Errorf("news waited %v", took)
			}
		}
		group.Wait()
	})
}
