package bolt

import (
	"context"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// Seek implements [eventlog.Log].
func (l *Log) Seek(ctx context.Context, name eventlog.Channel, s eventlog.Start) (at eventlog.Position, err error) {
	if err := ended(ctx); err != nil {
		return at, err
	}
	if err := name.Check(); err != nil {
		return at, err
	}
	if err := s.Check(); err != nil {
		return at, err
	}
	if s == (eventlog.Start{}) { // the head is in memory
		see, _, err := l.look(name)
		return see.head.at, err
	}
	see, _, err := l.with(name, func(see *look, events *events) (err error) {
		base, head := see.base.at.Offset, see.head.at.Offset
		offset := base
		switch {
		case s.Last > 0 && see.events() > s.Last:
			offset = head - uint64(s.Last)
		case !s.Since.IsZero():
			if offset, err = events.since(base, head, s.Since); err != nil {
				return err
			}
		}
		at, err = see.position(offset, events)
		return err
	})
	if err == nil && see.ch == nil {
		at = see.head.at
	}
	return at, err
}

// since returns the last offset, of those from base to head, after which no
// event is from before a time.
func (s *events) since(base, head uint64, t time.Time) (uint64, error) {
	first, err := s.first(base+1, head, func(e *entry) bool { return !e.Time.Before(t) })
	return first - 1, err
}

// Read implements [eventlog.Log]. The events are the caller's.
func (l *Log) Read(ctx context.Context, name eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (page eventlog.Page, err error) {
	if err := ended(ctx); err != nil {
		return page, err
	}
	if err := name.Check(); err != nil {
		return page, err
	}
	see, before, err := l.with(name, func(see *look, events *events) error {
		page, err = see.page(events, after, limit)
		return err
	})
	switch {
	case err != nil:
		return eventlog.Page{}, err
	case see.ch != nil:
		return page, nil
	case !isPlace(after, before):
		return eventlog.Page{}, rewritten(after, see.head.at)
	}
	return eventlog.Page{Next: see.head.at, Head: see.head.at}, nil
}

// page returns what comes after a position.
func (s *look) page(events *events, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page := eventlog.Page{Next: after, Head: s.head.at}
	if err := s.locate(after); err != nil || after.Offset == s.head.at.Offset {
		return page, err
	}
	var failed error
	scan, sum := eventlog.NewScan(limit), int64(0)
	err := events.forwards(after.Offset+1, s.head.at.Offset, func(e *entry) bool {
		if e.At.Offset == after.Offset+1 {
			failed = s.follows(after, e)
		}
		if failed != nil || !scan.Takes(&e.Message) {
			return false
		}
		if scan.Matched {
			page.Events = append(page.Events, e.event())
		}
		page.Next, sum = e.At, e.sum
		return true
	})
	if err == nil {
		err = failed
	}
	page.Behind = s.head.sum - sum
	return page, err
}

// isPlace reports whether a position is the place before the first event, by the
// marks that this may have.
func isPlace(p eventlog.Position, marks [2]uint64) bool {
	return p.Offset == 0 && p.Mark != 0 && (p.Mark == marks[0] || p.Mark == marks[1])
}
