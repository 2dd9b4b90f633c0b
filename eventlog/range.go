package eventlog

import (
	"context"
	"iter"
	"time"
)

// A History is a [Log] that also reads what it holds in parts and backwards. It
// is optional, and found by assertion.
type History interface {
	// Range returns events of a part of a channel, in the order that r asks for,
	// a page at a time. It may be called concurrently with everything else, and
	// creates no channel.
	//
	// Errors: [*Lost] if After or Until has no place in the history that is still
	// there, which says where a reader may go on from; [ErrUnavailable] if that
	// can't be said now; [*Invalid].
	Range(ctx context.Context, ch Channel, r Range, limit Limit) (RangePage, error)
}

// A Range is a part of a channel's history: what lies within all of its bounds.
// The zero value is all that is kept, oldest first.
type Range struct {
	// After is the place before the first event. Zero: the oldest that is kept.
	After Position
	// Until is the last event. Zero: the head when the page is read.
	Until Position
	// Since and Before bound the events' Time: not before Since, and before
	// Before. Zero: no bound.
	Since, Before time.Time
	// Backwards asks for the newest first.
	Backwards bool
}

// Check reports with an [*Invalid] whether no log can read r: After lies behind
// Until, or Since behind Before.
func (r *Range) Check() error {
	switch {
	case !r.After.IsZero() && !r.Until.IsZero() && r.After.Offset > r.Until.Offset:
		return &Invalid{Field: "range", Problem: "ends before it begins"}
	case !r.Since.IsZero() && !r.Before.IsZero() && r.Since.After(r.Before):
		return &Invalid{Field: "range", Problem: "ends before it begins"}
	}
	return nil
}

// A RangePage is what one Range returns.
type RangePage struct {
	// Events are in the order that was asked for.
	Events []Event
	// Next is where to go on: what After has to be for the next page or, backwards,
	// Until. The other bounds stay.
	Next Position
	// Done is true if nothing of the range is left: there was nothing more when
	// the page was read.
	Done bool
	// First is the place before the oldest event that is kept, and Head the
	// newest event. If First has the offset 0, nothing is missing before it.
	First, Head Position
}

// Rest returns the part of r that is left after a page of it.
func (r Range) Rest(page *RangePage) Range {
	if r.Backwards {
		r.Until = page.Next
	} else {
		r.After = page.Next
	}
	return r
}

var _ History = (*Memory)(nil)

// Range implements [History]. The events are shared by all readers, the slice of
// them is the caller's.
func (m *Memory) Range(ctx context.Context, ch Channel, r Range, limit Limit) (RangePage, error) {
	if err := ended(ctx); err != nil {
		return RangePage{}, err
	}
	if err := ch.Check(); err != nil {
		return RangePage{}, err
	}
	if err := r.Check(); err != nil {
		return RangePage{}, err
	}
	if err := limit.Filter.Check(); err != nil {
		return RangePage{}, err
	}
	h := m.rlock(ch)
	defer m.mu.RUnlock()
	switch {
	case m.closed:
		return RangePage{}, errClosed
	case h != nil:
		return h.part(r, limit)
	}
	place := m.generation.place(ch)
	for _, p := range []Position{r.After, r.Until} {
		if !p.IsZero() && !m.generation.holds(ch, p) {
			return RangePage{}, &Lost{From: p, To: place, Reason: Rewritten}
		}
	}
	return RangePage{Next: place, Done: true, First: place, Head: place}, nil
}

// part returns a page of a range.
func (h *history) part(r Range, limit Limit) (RangePage, error) {
	page := RangePage{First: h.base, Head: h.head}
	from, to := 0, h.len() // the retained entries of the range
	for _, bound := range []struct {
		at    Position
		entry *int
	}{{r.After, &from}, {r.Until, &to}} {
		if bound.at.IsZero() {
			continue
		}
		i, err := h.locate(bound.at)
		if err != nil {
			return page, err
		}
		*bound.entry = i
	}
	if !r.Since.IsZero() {
		from = max(from, h.since(r.Since))
	}
	if !r.Before.IsZero() {
		to = min(to, h.since(r.Before))
	}
	to = max(to, from)
	if r.Backwards {
		h.backwards(&page, from, to, limit)
	} else {
		h.forwards(&page, from, to, limit)
	}
	return page, nil
}

func (h *history) forwards(page *RangePage, from, to int, limit Limit) {
	live, s := h.live(), NewScan(limit)
	i := from
	for ; i < to && s.Takes(&live[i].event.Message); i++ {
		if s.Matched {
			page.Events = append(page.Events, live[i].event)
		}
	}
	page.Next, page.Done = h.before(i), i == to
}

func (h *history) backwards(page *RangePage, from, to int, limit Limit) {
	live, s := h.live(), NewScan(limit)
	i := to
	for ; i > from && s.Takes(&live[i-1].event.Message); i-- {
		if s.Matched {
			page.Events = append(page.Events, live[i-1].event)
		}
	}
	page.Next, page.Done = h.before(i), i == from
}

// Events returns the events of a range, read page after page as they are asked
// for: limit.Events at most, if it is set; the other bounds are those of a page.
// After an error there is nothing more.
func Events(ctx context.Context, h History, ch Channel, r Range, limit Limit) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			page, err := h.Range(ctx, ch, r, limit)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for i := range page.Events {
				if !yield(page.Events[i], nil) {
					return
				}
			}
			if limit.Events > 0 {
				if limit.Events -= len(page.Events); limit.Events <= 0 {
					return
				}
			}
			if page.Done {
				return
			}
			r = r.Rest(&page)
		}
	}
}
