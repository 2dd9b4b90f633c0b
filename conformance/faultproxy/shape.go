package faultproxy

import "time"

// A timed is a piece and when it goes on.
type timed struct {
	at time.Time
	p  []byte
}

// A shaper says when the bytes of one direction go on, and in what pieces. One
// goroutine calls it. Pieces go on in the order in which they came.
type shaper interface {
	shape(now time.Time, p []byte) []timed
	// end returns what is left at the end of a message, or of the stream. An
	// empty piece says when that goes on.
	end(now time.Time) []timed
}

// prompt changes nothing.
type prompt struct{}

func (prompt) shape(now time.Time, p []byte) []timed { return []timed{{now, p}} }
func (prompt) end(time.Time) []timed                 { return nil }

// delayed lets all go on so much later.
type delayed struct{ by time.Duration }

func (s delayed) shape(now time.Time, p []byte) []timed { return []timed{{now.Add(s.by), p}} }
func (s delayed) end(now time.Time) []timed             { return s.shape(now, nil) }

// stalled holds what comes after some bytes until some time has passed.
type stalled struct {
	prompt
	left  int64
	hold  time.Duration
	since time.Time
}

func (s *stalled) shape(now time.Time, p []byte) []timed {
	if s.left >= int64(len(p)) && s.left > 0 {
		s.left -= int64(len(p))
		if s.left == 0 {
			s.since = now
		}
		return []timed{{now, p}}
	}
	k := s.left
	if s.since.IsZero() {
		s.left, s.since = 0, now
	}
	return []timed{{now, p[:k]}, {s.since.Add(s.hold), p[k:]}}
}

// throttled keeps to a rate.
type throttled struct {
	prompt
	rate int // bytes per second
	next time.Time
}

// tick is how often a throttled direction passes something, if its rate is not
// too low for that.
const tick = 50 * time.Millisecond

func (s *throttled) shape(now time.Time, p []byte) (list []timed) {
	if s.next.Before(now) {
		s.next = now
	}
	step := max(1, s.rate/int(time.Second/tick))
	for len(p) > 0 {
		k := min(step, len(p))
		s.next = s.next.Add(time.Duration(k) * time.Second / time.Duration(s.rate))
		list = append(list, timed{s.next, p[:k:k]})
		p = p[k:]
	}
	return list
}

// split makes small pieces, with a pause between two.
type split struct {
	prompt
	size int
	gap  time.Duration
	next time.Time
}

func (s *split) shape(now time.Time, p []byte) (list []timed) {
	for len(p) > 0 {
		if s.next.Before(now) {
			s.next = now
		}
		k := min(s.size, len(p))
		list = append(list, timed{s.next, p[:k:k]})
		s.next = s.next.Add(s.gap)
		p = p[k:]
	}
	return list
}

// merged gathers what comes within some time of the first; a flow joins what is
// due at the same time.
type merged struct {
	prompt
	span time.Duration
	due  time.Time
}

func (s *merged) shape(now time.Time, p []byte) []timed {
	if !now.Before(s.due) {
		s.due = now.Add(s.span)
	}
	return []timed{{s.due, p}}
}

// held keeps all until the end, up to a bound.
type held struct {
	buf  []byte
	max  int
	full func()      // what comes is dropped from then on
	free func() bool // whether the end frees it
}

func (s *held) shape(_ time.Time, p []byte) []timed {
	if len(s.buf)+len(p) > s.max {
		s.full()
		return nil
	}
	s.buf = append(s.buf, p...)
	return nil
}

func (s *held) end(now time.Time) []timed {
	buf := s.buf
	s.buf = nil
	if !s.free() {
		return nil
	}
	return []timed{{now, buf}}
}

// collected keeps all for good.
type collected struct{ held }

func (s *collected) end(time.Time) []timed { return nil }

// dropped passes nothing.
type dropped struct{}

func (dropped) shape(time.Time, []byte) []timed { return nil }
func (dropped) end(time.Time) []timed           { return nil }
