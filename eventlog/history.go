package eventlog

import (
	"sort"
	"time"
)

// A history is what a Memory holds of one channel that was written to. All of
// it is guarded by the mutex of its Memory.
type history struct {
	channel   Channel
	retention Retention
	births    [2]uint64 // the marks before the first event that were valid when it came

	entries []entry  // what is retained: entries[first:]; those before are cleared
	first   int      // index of the oldest retained entry
	base    Position // just before the oldest retained entry
	head    Position // of the newest entry ever
	baseSum int64    // bytes ever appended up to base
	headSum int64    // bytes ever appended

	lastTime  time.Time // of the newest event ever
	written   uint64    // number of the generation of the last append
	producers map[string]*producer

	due        time.Duration // no event gets too old before
	duePlace   int           // in Memory.aging
	sharePlace int           // in its namespace's share
}

// An entry is an event with what a log needs to know about it.
type entry struct {
	event Event
	at    time.Duration // when it came, by the clock of the Memory
	sum   int64         // bytes ever appended up to this event
}

func newHistory(ch Channel, r Retention, births [2]uint64) *history {
	place := Position{Offset: 0, Mark: births[0]}
	return &history{channel: ch, retention: r, births: births, base: place, head: place}
}

func (h *history) len() int           { return len(h.entries) - h.first }
func (h *history) live() []entry      { return h.entries[h.first:] }
func (h *history) bytes() int64       { return h.headSum - h.baseSum }
func (h *history) oldest() *entry     { return &h.entries[h.first] }
func (h *history) born(m uint64) bool { return m != 0 && (m == h.births[0] || m == h.births[1]) }

// push appends one event.
func (h *history) push(message Message, mark uint64, wall time.Time, at time.Duration) {
	if wall.Before(h.lastTime) {
		wall = h.lastTime // the wall clock was set back
	}
	h.lastTime = wall
	prev := h.head.Mark
	h.head = Position{Offset: h.head.Offset + 1, Mark: mark}
	h.headSum += int64(message.Size())
	h.entries = append(h.entries, entry{
		event: Event{Message: message, At: h.head, Prev: prev, Time: wall},
		at:    at,
		sum:   h.headSum,
	})
}

// drop removes the n oldest entries. Each costs a constant on average: entries
// move only when at least as many were dropped since they last did.
func (h *history) drop(n int) {
	if n == 0 {
		return
	}
	gone := h.entries[h.first : h.first+n]
	h.base, h.baseSum = gone[n-1].event.At, gone[n-1].sum
	clear(gone) // the array must not keep their data alive
	h.first += n
	if h.first < h.len() {
		return
	}
	live := h.live()
	if cap(h.entries) > 4*len(live)+16 {
		h.entries = append(make([]entry, 0, 2*len(live)), live...)
	} else {
		copy(h.entries, live)
		clear(h.entries[h.first:])
		h.entries = h.entries[:len(live)]
	}
	h.first = 0
}

// excess returns how many of the oldest entries are over the bounds of events
// and bytes, which spare the newest.
func (h *history) excess() int {
	n, r := 0, h.retention
	if r.Events > 0 {
		n = max(0, h.len()-r.Events)
	}
	if r.Bytes > 0 {
		live := h.live()
		for n < len(live)-1 && h.headSum-h.sumBefore(n) > r.Bytes {
			n++
		}
	}
	return n
}

// aged returns how many of the oldest entries are too old.
func (h *history) aged(now time.Duration) int {
	if h.retention.Age < 0 {
		return 0
	}
	n := 0
	for live := h.live(); n < len(live) && now-live[n].at >= h.retention.Age; n++ {
	}
	return n
}

// sumBefore returns the bytes ever appended before the retained entry i.
func (h *history) sumBefore(i int) int64 {
	if i == 0 {
		return h.baseSum
	}
	return h.live()[i-1].sum
}

// before returns the position just before the retained entry i, which may be
// one past the last.
func (h *history) before(i int) Position {
	if i == 0 {
		return h.base
	}
	return h.live()[i-1].event.At
}

// since returns the index of the first retained entry that is not from before
// a time. It may be one past the last.
func (h *history) since(t time.Time) int {
	live := h.live()
	return sort.Search(len(live), func(i int) bool { return !live[i].event.Time.Before(t) })
}

// locate returns the index of the first retained entry after a position.
func (h *history) locate(after Position) (int, error) {
	lost := func(to Position, why Reason) (int, error) {
		return 0, &Lost{From: after, To: to, Reason: why}
	}
	switch {
	case after.Offset > h.head.Offset, after.Offset == 0 && !h.born(after.Mark):
		return lost(h.head, Rewritten)
	case after.Offset < h.base.Offset:
		// Its mark is no longer known, and need not be: all that this history
		// still has comes later.
		return lost(h.base, Trimmed)
	case after.Offset == 0:
		return 0, nil
	}
	i := int(after.Offset - h.base.Offset)
	if h.before(i).Mark != after.Mark {
		return lost(h.head, Rewritten)
	}
	return i, nil
}

// page returns a page that begins at the retained entry from. after is the
// position that was asked for.
func (h *history) page(from int, after Position, limit Limit) Page {
	live, s := h.live(), NewScan(limit)
	end, matches := from, 0
	for ; end < len(live) && s.Takes(&live[end].event.Message); end++ {
		if s.Matched {
			matches++
		}
	}
	page := Page{Next: after, Head: h.head, Behind: h.headSum - h.sumBefore(end)}
	if end > from {
		page.Next = live[end-1].event.At
	}
	if matches == 0 {
		return page
	}
	page.Events = make([]Event, 0, matches) // a copy: entries are cleared when they go
	for i := from; i < end; i++ {
		if limit.Filter.Match(&live[i].event.Message) {
			page.Events = append(page.Events, live[i].event)
		}
	}
	return page
}
