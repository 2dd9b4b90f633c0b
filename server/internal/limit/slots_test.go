package limit

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestSlots(t *testing.T) {
	for _, c := range []struct {
		name             string
		most, mostPerKey int
		keys             string // each takes a slot
		want             string // of those that get one
	}{
		{"no limit", 0, 0, "aaaabbbb", "aaaabbbb"},
		{"negative is none", -1, -1, "aaaabbbb", "aaaabbbb"},
		{"in total", 3, 0, "aabbb", "aab"},
		{"by key", 0, 2, "aaabcbb", "aabcb"},
		{"both", 4, 2, "aaabbbcc", "aabb"},
		{"one key may have all", 2, 5, "aaa", "aa"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NewSlots[rune](c.most, c.mostPerKey)
			for range 3 {
				got := ""
				for _, key := range c.keys {
					if s.Take(key) {
						got += string(key)
					}
				}
				if got != c.want || s.inUse != len(got) {
					t.Errorf("%q have %d slots, not %q", got, s.inUse, c.want)
				}
				for _, key := range got {
					s.Release(key)
				}
				if s.inUse != 0 || len(s.of) != 0 {
					t.Errorf("%d are in use and %d keys remembered after all were released", s.inUse, len(s.of))
				}
			}
		})
	}
}

func TestReleasedSlotsAreTakenAgain(t *testing.T) {
	s := NewSlots[string](2, 1)
	if !s.Take("a") || !s.Take("b") || s.Take("c") {
		t.Fatal("not two")
	}
	s.Release("a")
	if s.Take("b") || !s.Take("c") || s.Take("a") {
		t.Error("not that of a, by c")
	}
}

func TestSlotsReleasedTwice(t *testing.T) {
	s := NewSlots[string](1, 1)
	s.Take("b")
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		if s.inUse != 1 || s.Take("c") {
			t.Errorf("%d are in use", s.inUse)
		}
		s.Release("b") // the lock is not held any more
	}()
	s.Release("a")
}

func TestSlotsTogether(t *testing.T) {
	s := NewSlots[int](5, 2)
	var inUse [4]atomic.Int32
	var total atomic.Int32
	var wg sync.WaitGroup
	for worker := range 8 {
		key := worker % len(inUse)
		wg.Go(func() {
			for range 5000 {
				if !s.Take(key) {
					continue
				}
				if n := total.Add(1); n > 5 {
					t.Errorf("%d are in use", n)
				}
				if n := inUse[key].Add(1); n > 2 {
					t.Errorf("%d are in use by %d", n, key)
				}
				inUse[key].Add(-1)
				total.Add(-1)
				s.Release(key)
			}
		})
	}
	wg.Wait()
	if s.inUse != 0 || len(s.of) != 0 {
		t.Errorf("%d are in use, by %d", s.inUse, len(s.of))
	}
}

func TestSlotsAllocateNothing(t *testing.T) {
	s := NewSlots[string](0, 1)
	if n := testing.AllocsPerRun(1000, func() { s.Take("a"); s.Release("a") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
