package eventlog

// A Shrinker is a [Log] that can give memory back before its own bounds make it.
// A server that runs short of memory asks for that (server.Options.MemoryLimit).
type Shrinker interface {
	Measured
	// Shrink drops the oldest events, so many bytes of them as Size counts, or
	// a little more, and returns how many bytes went. Less means that no more is to
	// be had. The bounds stay as they are, so the log may grow again. Readers meet
	// [Trimmed]. It may be called concurrently with everything else, and takes
	// long only if there is much to drop.
	Shrink(bytes int64) (freed int64)
}

var _ Shrinker = (*Memory)(nil)

// shrinkEvents is how many events Shrink drops before others may have the lock.
const shrinkEvents = 1000

// Shrink implements [Shrinker]. What goes is what goes when MaxBytes is reached:
// the oldest event of the heaviest channel in the heaviest namespace, one by one.
func (m *Memory) Shrink(bytes int64) (freed int64) {
	for freed < bytes {
		some := m.shrinkSome(bytes - freed)
		if some == 0 {
			break
		}
		freed += some
	}
	return freed
}

// shrinkSome drops up to shrinkEvents events, and returns how many bytes went.
func (m *Memory) shrinkSome(bytes int64) (freed int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.shares.total
	least := max(before-bytes, 0)
	touched := make(map[*history]struct{})
	for range shrinkEvents {
		if m.shares.total <= least {
			break
		}
		h := m.shares.victim(nil)
		m.trim(h, 1)
		touched[h] = struct{}{}
	}
	for h := range touched {
		h.compact()
	}
	return before - m.shares.total
}

// compact gives back the room of what was dropped, where that is half of all or
// more: of small events it is most of what they take. The rest is copied, with
// some room to grow.
func (h *history) compact() {
	live := h.live()
	if cap(h.entries) < 2*len(live)+16 {
		return
	}
	h.entries = append(make([]entry, 0, len(live)+len(live)/4), live...)
	h.first = 0
}
