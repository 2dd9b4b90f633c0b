package limit

import "sync"

// Slots counts what is in use, in total and by key, and refuses what would be
// too much. A key of which nothing is in use takes no memory. They may be used
// concurrently.
type Slots[K comparable] struct {
	// Static after NewSlots.
	most       int
	mostPerKey int

	mu sync.Mutex

	// Guarded by mu.
	inUse int
	of    map[K]int // by key, never 0
}

// NewSlots returns slots of which so many may be in use at once, in total and
// by any one key. 0 or below is no limit.
func NewSlots[K comparable](most, mostPerKey int) *Slots[K] {
	return &Slots[K]{most: most, mostPerKey: mostPerKey, of: make(map[K]int)}
}

// Take takes a slot for a key and reports whether there was one. Who took it
// has to release it, once.
func (s *Slots[K]) Take(key K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.of[key]
	if s.most > 0 && s.inUse >= s.most || s.mostPerKey > 0 && of >= s.mostPerKey {
		return false
	}
	s.inUse++
	s.of[key] = of + 1
	return true
}

// Release gives back a slot that the key has taken. It panics if there is none:
// a slot given back twice would let in one too many from then on, unseen.
func (s *Slots[K]) Release(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.of[key] {
	case 0:
		panic("limit: a slot is released that was not taken")
	case 1:
		delete(s.of, key)
	default:
		s.of[key]--
	}
	s.inUse--
}
