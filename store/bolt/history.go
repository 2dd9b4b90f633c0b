package bolt

import (
	"context"

	"github.com/throughline/throughline/eventlog"
)

var _ eventlog.History = (*Log)(nil)

// Range implements [eventlog.History]. The events are the caller's.
func (l *Log) Range(ctx context.Context, name eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (page eventlog.RangePage, err error) {
	if err := ended(ctx); err != nil {
		return page, err
	}
	if err := name.Check(); err != nil {
		return page, err
	}
	if err := r.Check(); err != nil {
		return page, err
	}
	if err := limit.Filter.Check(); err != nil {
		return page, err
	}
	see, before, err := l.with(name, func(see *look, events *events) error {
		page, err = see.part(events, r, limit)
		return err
	})
	switch {
	case err != nil:
		return eventlog.RangePage{}, err
	case see.ch != nil:
		return page, nil
	}
	for _, p := range []eventlog.Position{r.After, r.Until} {
		if !p.IsZero() && !isPlace(p, before) {
			return eventlog.RangePage{}, rewritten(p, see.head.at)
		}
	}
	return eventlog.RangePage{Next: see.head.at, Done: true, First: see.head.at, Head: see.head.at}, nil
}

// part returns a page of a range.
func (s *look) part(events *events, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	page := eventlog.RangePage{First: s.base.at, Head: s.head.at}
	after, until, err := s.bounds(events, r)
	if err != nil {
		return page, err
	}
	scan := eventlog.NewScan(limit)
	next := after // what was taken, up to here, or, backwards, down to here
	if r.Backwards {
		next = until
	}
	take := func(e *entry) bool {
		if !scan.Takes(&e.Message) {
			return false
		}
		if scan.Matched {
			page.Events = append(page.Events, e.event())
		}
		next = e.At.Offset
		if r.Backwards {
			next--
		}
		return true
	}
	if r.Backwards {
		err = events.backwards(until, after+1, take)
		page.Done = next == after
	} else {
		err = events.forwards(after+1, until, take)
		page.Done = next == until
	}
	if err != nil {
		return page, err
	}
	page.Next, err = s.position(next, events)
	return page, err
}

// bounds returns the offsets between which a range lies: all events after the
// first, up to and including the second.
func (s *look) bounds(events *events, r eventlog.Range) (after, until uint64, err error) {
	base, head := s.base.at.Offset, s.head.at.Offset
	after, until = base, head
	if !r.After.IsZero() {
		if err := s.find(r.After, events); err != nil {
			return 0, 0, err
		}
		after = r.After.Offset
	}
	if !r.Until.IsZero() {
		if err := s.find(r.Until, events); err != nil {
			return 0, 0, err
		}
		until = r.Until.Offset
	}
	if !r.Since.IsZero() {
		since, err := events.since(base, head, r.Since)
		if err != nil {
			return 0, 0, err
		}
		after = max(after, since)
	}
	if !r.Before.IsZero() {
		since, err := events.since(base, head, r.Before)
		if err != nil {
			return 0, 0, err
		}
		until = min(until, since)
	}
	return after, max(after, until), nil
}
