package eventlog

import (
	"math"
	"time"
)

const (
	// sweepGap is the least time between two sweeps: what a sweep frees is
	// invisible already, so it need not be soon.
	sweepGap = time.Second
	// sweepChannels is how many channels are trimmed before others may have
	// the lock.
	sweepChannels = 1000
	// earlyRise is the least time between rises for want of room.
	earlyRise = time.Minute
	// never is later than anything.
	never = time.Duration(math.MaxInt64)
)

// run sweeps when there is something to sweep, until Close.
func (m *Memory) run() {
	defer close(m.done)
	defer m.timer.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-m.timer.C:
			for m.sweep() {
			}
		}
	}
}

// sweep forgets producers, frees events that are too old, and lets the
// generation rise if it is time. It reports whether there is more to do now.
func (m *Memory) sweep() (more bool) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	now := m.now()
	m.producers.forget(now - m.options.RememberProducers)
	if m.expireSome(now) {
		m.mu.Unlock()
		return true
	}
	var wake []*watcher
	if m.riseDue(now) {
		wake = m.rise(now)
	}
	m.swept, m.next = now, never
	m.plan(now)
	m.mu.Unlock()
	for _, w := range wake {
		w.wake()
	}
	return false
}

// expireSome trims what is too old in a bounded number of channels, and reports
// whether there are more.
func (m *Memory) expireSome(now time.Duration) (more bool) {
	for range sweepChannels {
		if m.aging.Len() == 0 || m.aging.items[0].due > now {
			return false
		}
		m.expire(m.aging.items[0], now)
	}
	return true
}

// expire trims what is too old in a channel, and notes when to look again.
func (m *Memory) expire(h *history, now time.Duration) {
	m.trim(h, h.aged(now))
	if h.len() > 0 && h.retention.Age > 0 {
		h.due = h.oldest().at + h.retention.Age
		m.aging.update(h)
	}
}

// riseDue reports whether the generation is to rise: it is over, or too many
// names wait to be dropped. Names that something keeps don't count, since rises
// would not drop them.
func (m *Memory) riseDue(now time.Duration) bool {
	if now-m.generation.rose >= m.options.Generation {
		return true
	}
	if len(m.empty) < m.options.MaxNames || now-m.counted < earlyRise {
		return false
	}
	m.counted = now
	waiting := 0
	for h := range m.empty {
		if m.droppable(h) {
			waiting++
		}
	}
	return waiting >= m.options.MaxNames
}

// plan sets the timer to when there is something to sweep.
func (m *Memory) plan(now time.Duration) {
	soon := never
	if p := m.producers.oldest(); p != nil {
		soon = p.at + m.options.RememberProducers
	}
	if m.aging.Len() > 0 {
		soon = min(soon, m.aging.items[0].due)
	}
	if len(m.empty) >= m.options.MaxNames {
		soon = min(soon, m.counted+earlyRise)
	}
	next := min(max(soon, m.swept+sweepGap), m.generation.rose+m.options.Generation)
	if next < m.next {
		m.next = next
		m.timer.Reset(max(0, next-now))
	}
}
