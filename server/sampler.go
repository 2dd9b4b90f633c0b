package server

import (
	"log/slog"
	"sync"
	"time"
)

// Of one kind of line a sampler lets sampled through in each window, and then
// says how many more there were.
const (
	sampled      = 10
	sampleWindow = time.Minute
	// maxKinds bounds what is counted apart; what comes beyond counts as one kind.
	maxKinds = 200
)

// A kind is what lines are counted by. Neither part is a client's to choose.
type kind struct{ event, code string }

// A leftOut is how many lines of a kind were left out, and the level of the
// highest.
type leftOut struct {
	kind
	count int
	level slog.Level
}

// A sampler bounds how many lines are written, whatever happens, so that no
// flood of refusals can fill a disk. It has one timer, and only while something
// was left out.
type sampler struct {
	report func(leftOut) // called without a lock held

	mu     sync.Mutex
	began  time.Time       // guarded by mu: the window
	counts map[kind]*tally // guarded by mu
	timer  *time.Timer     // guarded by mu
	over   bool            // guarded by mu
}

type tally struct {
	seen  int
	level slog.Level
}

func newSampler(report func(leftOut)) *sampler {
	return &sampler{report: report, counts: make(map[kind]*tally)}
}

// take reports whether a line is to be written.
func (s *sampler) take(k kind, level slog.Level) bool {
	now := time.Now()
	s.mu.Lock()
	var missed []leftOut
	if now.Sub(s.began) >= sampleWindow {
		missed = s.next(now)
	}
	ok := s.count(k, level, now)
	s.mu.Unlock()
	s.tell(missed)
	return ok
}

// count is called with mu held.
func (s *sampler) count(k kind, level slog.Level, now time.Time) bool {
	t := s.counts[k]
	if t == nil && len(s.counts) >= maxKinds {
		k = kind{event: other}
		t = s.counts[k]
	}
	if t == nil {
		t = &tally{level: level}
		s.counts[k] = t
	}
	t.seen++
	t.level = max(t.level, level)
	if t.seen <= sampled {
		return true
	}
	if s.timer == nil && !s.over {
		s.timer = time.AfterFunc(s.began.Add(sampleWindow).Sub(now), s.tick)
	}
	return false
}

// next begins another window, and returns what was left out in the last one. It
// is called with mu held.
func (s *sampler) next(now time.Time) (missed []leftOut) {
	for k, t := range s.counts {
		if t.seen > sampled {
			missed = append(missed, leftOut{kind: k, count: t.seen - sampled, level: t.level})
		}
	}
	clear(s.counts)
	s.began = now
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	return missed
}

func (s *sampler) tick() {
	s.mu.Lock()
	var missed []leftOut
	if now := time.Now(); now.Sub(s.began) >= sampleWindow { // else a line was quicker and began the next one
		missed = s.next(now)
	}
	s.mu.Unlock()
	s.tell(missed)
}

// close tells what was left out so far. Later lines are counted all the same.
func (s *sampler) close() {
	s.mu.Lock()
	missed := s.next(time.Now())
	s.over = true
	s.mu.Unlock()
	s.tell(missed)
}

func (s *sampler) tell(missed []leftOut) {
	for _, m := range missed {
		s.report(m)
	}
}
