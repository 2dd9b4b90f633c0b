package core

import (
	"cmp"
	"context"
	"errors"
	"math/bits"
	"slices"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// read asks the log for a batch.
func (t *topic) read(b *batch) {
	defer b.ready.Store(true)
	ctx, cancel := context.WithTimeout(t.engine.ctx, t.engine.o.ReadTimeout)
	defer cancel()
	b.version = t.version.Load()
	began := time.Now()
	page, err := t.engine.o.Log.Read(ctx, t.channel, b.after, eventlog.Limit{Bytes: b.most, Filter: b.filter.Filter})
	t.engine.askedLog("read", t.channel, began, err)
	switch {
	case errors.As(err, &b.lost):
		t.head.Store(b.lost.To.Offset)
		if b.lost.Reason == eventlog.Rewritten {
			t.forgetAll() // what was read before may be of the history that is gone
		}
	case err != nil:
		b.err = err
	default:
		t.head.Store(page.Head.Offset)
		t.known.Store(b.version)
		shorten(&page, b.after)
		t.take(b, page)
	}
}

// shorten ends a page that others follow at an offset which those come to as well that
// began elsewhere: a multiple of a power of two, with more than half of the page before it.
// From there on they share what is read and encoded.
func shorten(page *eventlog.Page, after eventlog.Position) {
	long := page.Next.Offset - after.Offset
	if !page.More() || long < 4 {
		return
	}
	grid := uint64(1) << (bits.Len64(long) - 2) // at most half of it, and more than a quarter
	end := page.Next.Offset &^ (grid - 1)
	last, ok := slices.BinarySearchFunc(page.Events, end, func(e eventlog.Event, end uint64) int { return cmp.Compare(e.At.Offset, end) })
	if !ok { // a filter left it out, and only the log knows its position
		return
	}
	for i := last + 1; i < len(page.Events); i++ {
		page.Behind += int64(page.Events[i].Size())
	}
	page.Events, page.Next = page.Events[:last+1], page.Events[last].At
}

// take makes a run of a page. An event that can't be shown becomes a gap of
// one, and what comes before it a run of its own.
func (t *topic) take(b *batch, page eventlog.Page) {
	events, next := page.Events, page.Next
	b.head, b.behind = page.Head, page.Behind
	fit := t.knownFit()
	for i := range events {
		if fit.hold(events[i].At.Offset) || events[i].Check(0) == nil {
			b.size += events[i].Size()
			continue
		}
		if i == 0 {
			b.lost = &eventlog.Lost{From: b.after, To: events[0].At, Reason: eventlog.Unencodable}
			return
		}
		events, next = events[:i], events[i-1].At
		break
	}
	if next == b.after {
		return
	}
	if !b.filter.selects() {
		t.foundFit(span{b.after.Offset, next.Offset})
	}
	b.run = &transport.Run{Channel: t.channel, Events: events, Next: next, Secret: t.policy.Secret}
	b.more = next != page.Head
}

// spans are pieces of a channel's history, none of which meets another.
type spans [8]span

// A span is what comes after an offset, up to another; the zero one is empty.
type span struct{ after, to uint64 }

func (all *spans) hold(offset uint64) bool {
	for _, s := range all {
		if s.after < offset && offset <= s.to {
			return true
		}
	}
	return false
}

// add joins a span with those that it meets. If there is no room, the earliest goes, which
// the log will trim first.
func (all *spans) add(s span) {
	earliest := 0
	for i, o := range all {
		if o.after <= s.to && s.after <= o.to {
			s = span{min(s.after, o.after), max(s.to, o.to)}
			all[i] = span{}
		}
		if all[i].to < all[earliest].to {
			earliest = i
		}
	}
	if s.to > all[earliest].to {
		all[earliest] = s
	}
}

// knownFit is where events need no [eventlog.Message.Check] any more: they passed it
// when they were read for others. Those who catch up read the same again and again.
func (t *topic) knownFit() spans {
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	return t.fit
}

func (t *topic) foundFit(s span) {
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	t.fit.add(s)
}
