package core

import (
	"context"
	"slices"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// gather collects what one Send takes: what others asked the worker to say, and
// up to a page of what there is to read. If last is not nil, it is the goodbye.
func (l *line) gather() (items []transport.Item, last *transport.Reason) {
	items = l.items[:0]
	l.liveSince = time.Time{}
	defer func() { l.items = items }()

	inbox, last, ready := l.takeInbox()
	if !ready {
		return nil, nil
	}
	for _, c := range inbox {
		items = l.obey(c, items)
	}
	if last != nil {
		items = append(items, transport.Item{Frame: &transport.Frame{Kind: transport.FrameClose, Reason: *last}})
		return items, last
	}
	beats := false
	if l.timerFired.Swap(false) {
		before := len(items)
		items = l.heartbeat(items)
		beats = len(items) > before
	}
	for _, w := range l.watches {
		if w.dirty.Load() {
			if f := w.next(); f != nil {
				items = append(items, transport.Item{Frame: f})
			}
		}
	}
	return l.tellMoves(l.read(items), beats), nil
}

func (l *line) takeInbox() (inbox []command, last *transport.Reason, ready bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.attached {
		return nil, nil, false
	}
	inbox, l.inbox = l.inbox, nil
	if len(l.waiting) > 0 {
		l.intake.ask() // it may have waited for this room
	}
	return inbox, l.goodbye, true
}

func (l *line) obey(c command, items []transport.Item) []transport.Item {
	if c.join != nil {
		c.join.dirty.Store(true)
		l.subs = append(l.subs, c.join)
	}
	if c.leave != "" {
		l.subs = slices.DeleteFunc(l.subs, func(s *subscription) bool {
			if s.name == c.leave {
				l.engine.leave(s)
			}
			return s.name == c.leave
		})
	}
	if c.watches != nil {
		l.watches = *c.watches
	}
	if c.frame != nil {
		items = append(items, transport.Item{Frame: c.frame})
	}
	if c.taken != nil {
		c.taken()
	}
	return items
}

// read appends what the subscriptions have, up to a page, each of them first in
// turn.
func (l *line) read(items []transport.Item) []transport.Item {
	budget := l.engine.o.PageBytes
	l.sendBegan = l.volume
	for i := range l.subs {
		s := l.subs[(l.first+i)%len(l.subs)]
		if budget <= 0 {
			break
		}
		if s.dirty.Load() {
			items, budget = s.read(items, budget)
		}
	}
	l.first++
	return items
}

// read appends what comes after the cursor and moves it. It leaves the
// subscription dirty if there may be more.
func (s *subscription) read(items []transport.Item, budget int) ([]transport.Item, int) {
	if time.Now().Before(s.retryAt) {
		return items, budget
	}
	for begun := false; budget > 0 && !s.line.over.Load(); begun = begun || s.moved == nil {
		s.dirty.Store(false)
		b := s.next(&budget)
		excused := b != nil && b.err == nil && s.answered()
		switch {
		case b == nil:
			s.dirty.Store(true) // it waits for room
			return items, 0
		case b.err != nil:
			s.retry()
			return items, budget
		case b.lost != nil && s.hasBegun(begun):
			s.dirty.Store(true) // in one Send a gap comes before the runs: the next one begins with it
			return items, budget
		case b.lost != nil:
			items = append(items, transport.Item{Frame: s.gap(b.lost)})
			s.cursor = b.lost.To
			s.caughtUpAt = min(s.caughtUpAt, b.lost.To.Offset) // a history that was rewritten may be shorter
			continue
		case b.run == nil:
			s.more = false
			return items, budget
		case b.size > budget && s.line.hasSome():
			s.dirty.Store(true) // the next Send begins with it
			return items, 0
		case s.topic.policy.Slow == SkipToLatest && !excused && s.tooFar(b):
			return s.skip(items, begun), 0
		}
		if len(b.run.Events) > 0 {
			items = append(items, transport.Item{Run: b.run})
		}
		if l := s.line; s.cursor.Offset >= s.caughtUpAt && l.liveSince.IsZero() && len(b.run.Events) > 0 {
			l.liveSince = b.run.Events[0].Time
		}
		s.took(b)
		budget -= b.size
		if s.topic.isLast(b) {
			return items, budget
		}
	}
	s.dirty.Store(true)
	return items, budget
}

// hasSome reports whether the Send that is gathered has events already.
func (l *line) hasSome() bool { return l.volume > l.sendBegan }

// next returns what comes after the cursor, and bounds the budget by the room
// that there is for lines that lag. It is nil while there is none.
func (s *subscription) next(budget *int) *batch {
	if !s.lags() {
		return s.topic.next(s.cursor, s.line.engine.o.PageBytes, s.filter)
	}
	room := s.line.room()
	if room == 0 {
		s.getsNothing()
		return nil
	}
	*budget = min(*budget, room)
	b := s.topic.next(s.cursor, room, s.filter)
	if over := b.size - *budget; over > 0 && !s.line.hasSome() { // an event that is larger than a page
		s.line.engine.pages.give(-over)
		s.line.taken += over
	}
	return b
}

// took moves the cursor over what was read.
func (s *subscription) took(b *batch) {
	s.passed.add(s.cursor, b.run)
	s.cursor, s.more, s.behind = b.run.Next, b.more, b.behind
	s.line.volume += b.size
	s.takenTo.Store(s.cursor.Offset)
	n := len(b.run.Events)
	if n == 0 {
		s.moved = b.run
		return
	}
	s.moved, s.told = nil, s.line.lastSent
	s.newest = b.run.Events[n-1].Time
}

// getsNothing notes since when there is something to read that can't be had, which
// the reader is not blamed for.
func (s *subscription) getsNothing() {
	if s.nothing.IsZero() {
		s.nothing = time.Now()
	}
}

// answered ends that, and reports whether it was so.
func (s *subscription) answered() bool {
	if s.nothing.IsZero() {
		return false
	}
	s.pace.Excuse(time.Since(s.nothing))
	s.nothing = time.Time{}
	return true
}

// tooFar reports whether the cursor is farther behind than its channel's policy
// lets it be.
func (s *subscription) tooFar(b *batch) bool {
	d := s.remaining(b.head.Offset, b.behind+int64(b.size))
	if len(b.run.Events) > 0 {
		d.Age = time.Since(b.run.Events[0].Time)
	}
	return !s.topic.policy.limits.Within(d)
}

// skip moves the cursor to before the last event, and says so by a gap.
func (s *subscription) skip(items []transport.Item, begun bool) []transport.Item {
	s.dirty.Store(true)
	if s.hasBegun(begun) {
		return items // in one Send a gap comes before the runs
	}
	e := s.line.engine
	ctx, cancel := context.WithTimeout(e.ctx, e.o.ReadTimeout)
	defer cancel()
	to, err := e.seekLog(ctx, s.topic.channel, eventlog.Start{Last: 1})
	if err != nil || to.Offset <= s.cursor.Offset {
		s.retry()
		return items
	}
	items = append(items, transport.Item{Frame: s.gap(&eventlog.Lost{From: s.cursor, To: to, Reason: eventlog.Skipped})})
	s.cursor, s.more = to, false
	s.caughtUpAt = min(s.caughtUpAt, to.Offset)
	return items
}

// gap is the frame that tells of a loss.
func (s *subscription) gap(lost *eventlog.Lost) *transport.Frame {
	s.line.engine.o.Observer.Gap(s.line.source, lost.Reason)
	s.tellGap(lost)
	return &transport.Frame{Kind: transport.FrameGap, Channel: s.name, Lost: *lost}
}

// retry has the worker read again after a while, as the log could not be asked.
func (s *subscription) retry() {
	e := s.line.engine
	if e.ctx.Err() != nil {
		return // the engine is closing: nothing more is read
	}
	wait := e.soon()
	s.getsNothing()
	s.retryAt = time.Now().Add(wait)
	s.dirty.Store(true)
	time.AfterFunc(wait, s.line.ask)
}
