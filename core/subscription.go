package core

import (
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A subscription is a line's cursor in one channel.
type subscription struct {
	// Static after its line has taken it.
	line  *line
	topic *topic
	name  string
	// filter says which events are wanted.
	filter *filter
	from   uint64 // the offset of where it began
	// caughtUpAt is the head's offset when it began: beyond that it is live.
	caughtUpAt uint64

	// index is where topic.subs has it; guarded by topic.mu.
	index int

	// dirty: there may be something to read.
	dirty atomic.Bool
	// sentTo and takenTo are the offsets up to which all was sent, and is on its
	// way at least.
	sentTo, takenTo atomic.Uint64
	// For people who look: how long after its line began it was over the policy,
	// and has not come closer since; 0: it is within it.
	overSince atomic.Int64

	// Owned by the line's worker.
	cursor  eventlog.Position
	pace    breaker.Pace
	more    bool      // there was more than what was read last
	behind  int64     // about how many bytes
	newest  time.Time // when the last event that was read was appended
	retryAt time.Time // the log could not be asked: not before this
	nothing time.Time // since when it gets nothing, through no fault of its own; zero: it does
	passed  share     // of what was read, the filter
	// moved is where the cursor moved to without an event, which the client was
	// not told; told is when it was last told where it is.
	moved *transport.Run
	told  time.Time
}

// lags reports whether it reads what came earlier: that waits for room.
func (s *subscription) lags() bool { return s.more || s.cursor.Offset < s.caughtUpAt }

// distance is how far the cursor is behind what is known of the head, or zero
// while it is catching up.
func (s *subscription) distance(now time.Time) breaker.Distance {
	head := s.topic.head.Load()
	if s.cursor.Offset < s.caughtUpAt || head <= s.cursor.Offset {
		return breaker.Distance{}
	}
	d := s.remaining(head, s.behind)
	if !s.newest.IsZero() {
		d.Age = now.Sub(s.newest)
	}
	return d
}

// remaining is what lies between the cursor and a head. Of what is filtered out
// nothing comes to the client, which so is not behind by it.
func (s *subscription) remaining(head uint64, bytes int64) breaker.Distance {
	d := breaker.Distance{Events: head - s.cursor.Offset, Bytes: bytes}
	if s.filter.selects() {
		d.Events, d.Bytes = s.passed.of(d.Events), int64(s.passed.of(uint64(max(0, bytes)))) //nolint:gosec // they only get smaller
	}
	return d
}
