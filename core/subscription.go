package core

import (
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A subscription is a line's cursor in one channel.
type subscription struct {
	// Static after its line has taken it.
	line  *line
	topic *topic
	name  string
	// caughtUpAt is the head's offset when it began: beyond that it is live.
	caughtUpAt uint64

	// index is where topic.subs has it; guarded by topic.mu.
	index int

	// dirty: there may be something to read.
	dirty atomic.Bool

	// Owned by the line's worker.
	cursor  eventlog.Position
	lag     lag
	retryAt time.Time // the log could not be asked: not before this
}

// behind is how many events the cursor is behind what is known of the head,
// or 0 while it is catching up.
func (s *subscription) behind() uint64 {
	head := s.topic.head.Load()
	if s.cursor.Offset < s.caughtUpAt || head <= s.cursor.Offset {
		return 0
	}
	return head - s.cursor.Offset
}

// A lag watches whether a distance that is too large shrinks.
type lag struct {
	since time.Time // when it last was closer than ever before; zero: it is not too large
	least uint64    // how close that was
}

// tooLong takes the distance as it is now and reports whether it has been over
// the limit for a whole window without shrinking.
func (l *lag) tooLong(behind, limit uint64, now time.Time, window time.Duration) bool {
	switch {
	case behind <= limit:
		*l = lag{}
	case l.since.IsZero() || behind < l.least:
		*l = lag{since: now, least: behind}
	default:
		return now.Sub(l.since) >= window
	}
	return false
}
