package bolt

import (
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A place is a position, and the bytes ever appended up to it.
type place struct {
	at  eventlog.Position
	sum int64
}

// A state is where a channel's events begin and end.
type state struct {
	base    place     // just before the oldest retained event
	head    place     // the newest event ever
	oldest  time.Time // of the oldest retained event; zero if there is none
	newest  time.Time // of the newest event ever
	written uint64    // number of the generation of the last append
}

func (s *state) empty() bool  { return s.base.at.Offset == s.head.at.Offset }
func (s *state) bytes() int64 { return s.head.sum - s.base.sum }
func (s *state) events() int  { return int(s.head.at.Offset - s.base.at.Offset) }

// A channel is what the log knows of one that was written to: all but its
// events.
type channel struct {
	// Static after it was made.
	id        uint64 // in the keys of the file
	name      eventlog.Channel
	births    [2]uint64 // the marks before the first event that were valid when it came
	retention eventlog.Retention

	// Owned by the writer.
	next      state   // with what is not shown yet
	staged    []entry // events that are not in the file yet, up to next.head
	floor     uint64  // all events up to this offset were deleted from the file
	producers map[string]*producer
	due       time.Time // no event gets too old before
	duePlace  int       // in Log.aging
	dirty     bool      // in Log.dirty
	unshown   bool      // in Log.unshown
	littered  bool      // in Log.litter

	// Written by the writer with Log.mu, read with it by all.
	shown state   // what readers know
	tail  []entry // the shown events that may not be in the file yet
}

func newChannel(id uint64, name eventlog.Channel, r eventlog.Retention, births [2]uint64) *channel {
	before := place{at: eventlog.Position{Offset: 0, Mark: births[0]}}
	s := state{base: before, head: before}
	return &channel{id: id, name: name, births: births, retention: r, next: s, shown: s}
}

func (ch *channel) born(mark uint64) bool {
	return mark != 0 && (mark == ch.births[0] || mark == ch.births[1])
}

// push stages one event. wall is the time.
func (ch *channel) push(m eventlog.Message, mark uint64, wall time.Time) *entry {
	s := &ch.next
	if wall.Before(s.newest) {
		wall = s.newest // the clock was set back
	}
	e := entry{
		Event: eventlog.Event{
			Message: m,
			At:      eventlog.Position{Offset: s.head.at.Offset + 1, Mark: mark},
			Prev:    s.head.at.Mark,
			Time:    wall,
		},
		sum: s.head.sum + int64(m.Size()),
	}
	if s.empty() {
		s.oldest = wall
	}
	s.newest, s.head = wall, e.place()
	ch.staged = append(ch.staged, e)
	return &e
}

// show lets readers know of what was staged. The caller holds Log.mu.
func (ch *channel) show() { ch.shown, ch.tail = ch.next, ch.staged }

// over reports whether a state is over a bound, so that its base has to move.
func (ch *channel) over(s *state, now time.Time) bool {
	r := &ch.retention
	return !s.empty() && (r.Events > 0 && s.events() > r.Events ||
		r.Bytes > 0 && s.bytes() > r.Bytes && s.events() > 1 ||
		tooOld(s.oldest, r.Age, now))
}

// tooOld reports whether an event of a time is too old. A negative age is none.
func tooOld(t time.Time, age time.Duration, now time.Time) bool {
	return age > 0 && now.Sub(t) >= age
}

// trimmed returns a state whose base has moved to where retention has it. events
// reads the channel, up to the head of s.
func (ch *channel) trimmed(s state, now time.Time, events *events) (state, error) {
	r := &ch.retention
	target, head := s.base.at.Offset, s.head.at.Offset
	if r.Events > 0 && s.events() > r.Events {
		target = head - uint64(r.Events)
	}
	var err error
	if r.Bytes > 0 && s.bytes() > r.Bytes {
		from := max(target, s.base.at.Offset+1)
		target, err = events.first(from, head-1, func(e *entry) bool { return s.head.sum-e.sum <= r.Bytes })
		target = min(target, head-1) // the newest stays, whatever its size
	}
	if r.Age > 0 && err == nil {
		target, err = events.first(target+1, head, func(e *entry) bool { return !tooOld(e.Time, r.Age, now) })
		target--
	}
	if err != nil || target == s.base.at.Offset {
		return s, err
	}
	return events.cut(s, target)
}
