package conformance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// onPart breaks a log by changing the pages of ranges.
func onPart(change func(p *eventlog.RangePage, r eventlog.Range, limit eventlog.Limit)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRange = func(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
			page, err := b.parts(ctx, ch, r, limit)
			if err == nil {
				change(&page, r, limit)
			}
			return page, err
		}
	}
}

// onRange breaks a log by changing what is asked of it.
func onRange(change func(r *eventlog.Range, limit *eventlog.Limit)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRange = func(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
			change(&r, &limit)
			return b.parts(ctx, ch, r, limit)
		}
	}
}

// onPartError breaks a log by returning another error, or none.
func onPartError(instead func(b *brokenLog, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit, err error) (eventlog.RangePage, error)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRange = func(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
			page, err := b.parts(ctx, ch, r, limit)
			if err != nil {
				return instead(b, ch, r, limit, err)
			}
			return page, err
		}
	}
}

var historyFaults = []logFault{
	{name: "ignores Until", fails: "L70 L77", breaks: onRange(func(r *eventlog.Range, _ *eventlog.Limit) { r.Until = eventlog.Position{} })},
	{name: "ignores Before", fails: "L70", breaks: onRange(func(r *eventlog.Range, _ *eventlog.Limit) { r.Before = time.Time{} })},
	{name: "begins a range after Since, not at it", fails: "L70", breaks: onRange(func(r *eventlog.Range, _ *eventlog.Limit) {
		if !r.Since.IsZero() {
			r.Since = r.Since.Add(1)
			if !r.Before.IsZero() {
				r.Before = r.Before.Add(1)
			}
		}
	})},
	{name: "has the event at Before, too", fails: "L70", breaks: onRange(func(r *eventlog.Range, _ *eventlog.Limit) {
		if !r.Before.IsZero() {
			r.Before = r.Before.Add(1)
		}
	})},
	{name: "can't read backwards", fails: "L70 L71 L73 (L72) (L74)", breaks: onRange(func(r *eventlog.Range, _ *eventlog.Limit) { r.Backwards = false })},
	{name: "goes on after the event that follows a page", fails: "L71 L70 L73", breaks: onPart(func(p *eventlog.RangePage, r eventlog.Range, _ eventlog.Limit) {
		if n := len(p.Events); !p.Done && n > 1 && !r.Backwards {
			p.Events = p.Events[:n-1]
		}
	})},
	{name: "repeats the last event of a page backwards", fails: "L71 L70 L73 L72", breaks: onPart(func(p *eventlog.RangePage, r eventlog.Range, _ eventlog.Limit) {
		if n := len(p.Events); !p.Done && n > 0 && r.Backwards {
			p.Next = p.Events[n-1].At
		}
	})},
	{name: "is done only when a page is empty", fails: "L71 (L70) (L72) (L73) (L74) (L79)", breaks: onPart(func(p *eventlog.RangePage, _ eventlog.Range, _ eventlog.Limit) {
		p.Done = p.Done && len(p.Events) == 0
	})},
	{name: "gives a range as a whole", fails: "L72 (L71)", breaks: onRange(func(_ *eventlog.Range, l *eventlog.Limit) { l.Bytes, l.Events = 1<<40, 0 })},
	{name: "counts no events of a page", fails: "L72 L71 (L76)", breaks: onRange(func(_ *eventlog.Range, l *eventlog.Limit) { l.Events = 0 })},
	{name: "leaves out an event that is larger than a page", fails: "L72 L71 L70 L73 (L76) (L75)", breaks: onPart(func(p *eventlog.RangePage, _ eventlog.Range, l eventlog.Limit) {
		if l.Bytes > 0 && len(p.Events) == 1 && p.Events[0].Size() > l.Bytes {
			p.Events = nil
		}
	})},
	{name: "knows no tags", fails: "L73 L78", breaks: onRange(func(_ *eventlog.Range, l *eventlog.Limit) { l.Filter.Tags = nil })},
	{name: "knows no keys", fails: "L73", breaks: onRange(func(_ *eventlog.Range, l *eventlog.Limit) { l.Filter.Keys = nil })},
	{name: "knows no types of a range", fails: "L73 L74", breaks: onRange(func(_ *eventlog.Range, l *eventlog.Limit) { l.Filter.Types = nil })},
	{name: "wants all tags, not one of them", fails: "L73", breaks: onPart(func(p *eventlog.RangePage, _ eventlog.Range, l eventlog.Limit) {
		p.Events = slices.DeleteFunc(p.Events, func(e eventlog.Event) bool {
			return slices.ContainsFunc(l.Filter.Tags, func(tag string) bool { return !slices.Contains(e.Tags, tag) })
		})
	})},
	{name: "looks through all for a page", fails: "L74", breaks: onRange(func(_ *eventlog.Range, l *eventlog.Limit) { l.Scan = 1 << 40 })},
	{name: "does not move on over what a range leaves out", fails: "L74", breaks: onPart(func(p *eventlog.RangePage, r eventlog.Range, _ eventlog.Limit) {
		if !p.Done && len(p.Events) == 0 {
			p.Next = r.After
			if r.Backwards {
				p.Next = r.Until
			}
		}
	})},
	{name: "forgets in ranges what events are about", fails: "L75", breaks: onPart(func(p *eventlog.RangePage, _ eventlog.Range, _ eventlog.Limit) {
		for i := range p.Events {
			p.Events[i].Key, p.Events[i].Tags = "", nil
		}
	})},
	{name: "lends its own slice to who reads a range", fails: "L75 (L71) (L70) (L73)", breaks: func(b *brokenLog) {
		kept := map[eventlog.Position][]eventlog.Event{}
		onPart(func(p *eventlog.RangePage, r eventlog.Range, l eventlog.Limit) {
			if r != (eventlog.Range{}) || l.Events > 0 || l.Bytes > 0 || !l.Filter.IsZero() {
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if was, ok := kept[p.Head]; ok {
				p.Events = was
			}
			kept[p.Head] = p.Events
		})(b)
	}},
	{name: "takes the beginning of a range for the first", fails: "L76", breaks: onPart(func(p *eventlog.RangePage, r eventlog.Range, _ eventlog.Limit) {
		if !r.After.IsZero() {
			p.First = r.After
		}
	})},
	{name: "takes the end of a page for the head", fails: "L76", breaks: onPart(func(p *eventlog.RangePage, _ eventlog.Range, _ eventlog.Limit) { p.Head = p.Next })},
	{name: "begins anywhere if After is lost", fails: "L77 L79", breaks: onPartError(func(b *brokenLog, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit, err error) (eventlog.RangePage, error) {
		if lost, ok := errors.AsType[*eventlog.Lost](err); ok && lost.From == r.After {
			r.After = eventlog.Position{}
			return b.parts(context.Background(), ch, r, limit)
		}
		return eventlog.RangePage{}, err
	})},
	{name: "calls all that is lost trimmed", fails: "L77 L79", breaks: onPartError(func(_ *brokenLog, _ eventlog.Channel, _ eventlog.Range, _ eventlog.Limit, err error) (eventlog.RangePage, error) {
		if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
			return eventlog.RangePage{}, &eventlog.Lost{From: lost.From, To: lost.To, Reason: eventlog.Trimmed}
		}
		return eventlog.RangePage{}, err
	})},
	{name: "has nothing in a range that can't be", fails: "L78", breaks: onPartError(func(_ *brokenLog, _ eventlog.Channel, _ eventlog.Range, _ eventlog.Limit, err error) (eventlog.RangePage, error) {
		if _, ok := errors.AsType[*eventlog.Invalid](err); ok {
			return eventlog.RangePage{Done: true}, nil
		}
		return eventlog.RangePage{}, err
	})},
	{name: "makes up a place for a channel that nobody wrote", fails: "L79 (L76)", breaks: onPart(func(p *eventlog.RangePage, _ eventlog.Range, _ eventlog.Limit) {
		if p.Head.Offset == 0 {
			p.First.Mark ^= 1
		}
	})},
}

// TestHistoryIsOptional: its clauses are not for a log that is none, and others
// are.
func TestHistoryIsOptional(t *testing.T) {
	plain := func(t *testing.T, s LogSetup) eventlog.Log { return struct{ eventlog.Log }{openMemory(t, s)} }
	for _, c := range logClauses {
		if failures, notFor := c.try(t, plain); len(failures) > 0 || (notFor != "") != (c.group == "history") {
			t.Errorf("%s: n/a %q, failures %q", c.id, notFor, failures)
		}
	}
}
