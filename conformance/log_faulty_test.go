package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

func openMemory(_ *testing.T, s LogSetup) eventlog.Log {
	return eventlog.NewMemory(eventlog.MemoryOptions{
		Retain:                 func(eventlog.Channel) eventlog.Retention { return s.Retention },
		MaxData:                s.MaxData,
		Generation:             s.Generation,
		RememberProducers:      s.RememberProducers,
		MaxProducersPerOwner:   s.MaxProducersPerOwner,
		MaxProducersPerChannel: s.MaxProducersPerChannel,
	})
}

// A brokenLog breaks the contract where one of its functions is set.
type brokenLog struct {
	eventlog.Log
	mu       sync.Mutex // guards what the functions note; never held over a call of the log, which may wake
	onAppend func(context.Context, eventlog.Channel, eventlog.Batch) (eventlog.Position, bool, error)
	onSeek   func(context.Context, eventlog.Channel, eventlog.Start) (eventlog.Position, error)
	onRead   func(context.Context, eventlog.Channel, eventlog.Position, eventlog.Limit) (eventlog.Page, error)
	onRange  func(context.Context, eventlog.Channel, eventlog.Range, eventlog.Limit) (eventlog.RangePage, error)
	onWatch  func(eventlog.Channel, func()) func()
	onInfo   func() eventlog.Info
	onClose  func() error
}

func (b *brokenLog) Append(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
	if b.onAppend != nil {
		return b.onAppend(ctx, ch, batch)
	}
	return b.Log.Append(ctx, ch, batch)
}

func (b *brokenLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if b.onSeek != nil {
		return b.onSeek(ctx, ch, s)
	}
	return b.Log.Seek(ctx, ch, s)
}

func (b *brokenLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if b.onRead != nil {
		return b.onRead(ctx, ch, after, limit)
	}
	return b.Log.Read(ctx, ch, after, limit)
}

// A brokenHistory is one that is read in parts. What is broken elsewhere has no
// history, so that nothing is asked of it twice.
type brokenHistory struct{ *brokenLog }

func (b brokenHistory) Range(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	if b.onRange != nil {
		return b.onRange(ctx, ch, r, limit)
	}
	return b.parts(ctx, ch, r, limit)
}

// parts is Range as it should be.
func (b *brokenLog) parts(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	return b.Log.(eventlog.History).Range(ctx, ch, r, limit)
}

func (b *brokenLog) Watch(ch eventlog.Channel, wake func()) func() {
	if b.onWatch != nil {
		return b.onWatch(ch, wake)
	}
	return b.Log.Watch(ch, wake)
}

func (b *brokenLog) Info() eventlog.Info {
	if b.onInfo != nil {
		return b.onInfo()
	}
	return b.Log.Info()
}

func (b *brokenLog) Close() error {
	if b.onClose != nil {
		return b.onClose()
	}
	return b.Log.Close()
}

// head is the latest position, whatever happens.
func (b *brokenLog) head(ch eventlog.Channel) eventlog.Position {
	at, _ := b.Log.Seek(context.Background(), ch, eventlog.Start{})
	return at
}

func (b *brokenLog) base(ch eventlog.Channel) eventlog.Position {
	at, _ := b.Log.Seek(context.Background(), ch, eventlog.Start{Earliest: true})
	return at
}

// A logFault is one way to be broken, and has to be noticed.
type logFault struct {
	name   string
	fails  string           // the ids of the clauses that must fail
	setup  func(*LogSetup)  // what the log makes of what it was asked for
	breaks func(*brokenLog) // what it does wrong
}

func (f *logFault) open(t *testing.T, s LogSetup) eventlog.Log {
	if f.setup != nil {
		f.setup(&s)
	}
	b := &brokenLog{Log: openMemory(t, s)}
	t.Cleanup(func() { _ = b.Log.Close() }) // a broken Close may not have
	if f.breaks != nil {
		f.breaks(b)
	}
	if b.onRange != nil || f.breaks == nil && f.setup == nil {
		return brokenHistory{b}
	}
	return b
}

// onPage breaks a log by changing the pages it returns.
func onPage(change func(p *eventlog.Page, after eventlog.Position, limit eventlog.Limit)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			page, err := b.Log.Read(ctx, ch, after, limit)
			if err == nil {
				change(&page, after, limit)
			}
			return page, err
		}
	}
}

// onEvents breaks a log by changing each event that it returns.
func onEvents(change func(e *eventlog.Event)) func(*brokenLog) {
	return onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) {
		for i := range p.Events {
			change(&p.Events[i])
		}
	})
}

// anyData is more than any log takes: a batch is looked at but for that.
const anyData = 1 << 30

// onLimit breaks a log by changing what is asked of it.
func onLimit(change func(l *eventlog.Limit)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			change(&limit)
			return b.Log.Read(ctx, ch, after, limit)
		}
	}
}

// onBatch breaks a log by changing what it appends.
func onBatch(change func(b *eventlog.Batch)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			change(&batch)
			return b.Log.Append(ctx, ch, batch)
		}
	}
}

// onStart breaks a log by changing which start it seeks.
func onStart(change func(s *eventlog.Start)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
			change(&s)
			return b.Log.Seek(ctx, ch, s)
		}
	}
}

// onSince breaks a log by changing where a time is.
func onSince(change func(b *brokenLog, ch eventlog.Channel, at eventlog.Position) eventlog.Position) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
			at, err := b.Log.Seek(ctx, ch, s)
			if err == nil && !s.Since.IsZero() {
				at = change(b, ch, at)
			}
			return at, err
		}
	}
}

// onLost breaks a log by doing something else where a position is lost.
func onLost(instead func(b *brokenLog, ch eventlog.Channel, limit eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error)) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			page, err := b.Log.Read(ctx, ch, after, limit)
			if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
				return instead(b, ch, limit, lost)
			}
			return page, err
		}
	}
}

var logFaults = slices.Concat(appendFaults, pageFaults, lostFaults, generationFaults, producerFaults, watchFaults, historyFaults)

var appendFaults = []logFault{
	{name: "returns the position of the first event", fails: "L01 L22 L33 L50 L90", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			before := b.head(ch)
			at, duplicate, err := b.Log.Append(ctx, ch, batch)
			if page, e := b.Log.Read(ctx, ch, before, eventlog.Limit{}); e == nil && len(page.Events) > 0 {
				at = page.Events[0].At
			}
			return at, duplicate, err
		}
	}},
	{name: "appends a batch one by one", fails: "L02", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (at eventlog.Position, duplicate bool, err error) {
			if batch.Producer.ID != "" || batch.Expect != nil {
				return b.Log.Append(ctx, ch, batch)
			}
			for _, m := range batch.Messages {
				if at, duplicate, err = b.Log.Append(ctx, ch, eventlog.Batch{Messages: []eventlog.Message{m}}); err != nil {
					return at, duplicate, err
				}
			}
			return at, duplicate, err
		}
	}},
	{name: "passes over what is invalid", fails: "L03 L02 L54", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			at, duplicate, err := b.Log.Append(ctx, ch, batch)
			if _, ok := errors.AsType[*eventlog.Invalid](err); ok {
				return b.head(ch), false, nil
			}
			return at, duplicate, err
		}
	}},
	{name: "forgets keys and tags", fails: "L04", breaks: onEvents(func(e *eventlog.Event) { e.Key, e.Tags = "", nil })},
	{name: "leaves the type empty", fails: "L04", breaks: onEvents(func(e *eventlog.Event) { e.Type = strings.TrimPrefix(e.Type, "message") })},
	{name: "takes the time from a clock that is set back", fails: "L05 L28", breaks: onEvents(func(e *eventlog.Event) {
		e.Time = e.Time.Add(-time.Duration(e.At.Offset%2) * time.Millisecond)
	})},
	{name: "tells the time of the read", fails: "L05 L28", breaks: onEvents(func(e *eventlog.Event) { e.Time = time.Now() })},
	{name: "counts instead of drawing marks", fails: "L06 L20 L22 L33 L90", breaks: onEvents(func(e *eventlog.Event) {
		e.At.Mark, e.Prev = e.At.Offset, e.At.Offset-1
	})},
	{name: "draws short marks", fails: "L06 L20 L22 L33 L90", breaks: onEvents(func(e *eventlog.Event) { e.At.Mark &= 0xffffffff; e.Prev &= 0xffffffff })},
	{name: "forgets the mark of the event before", fails: "L06 L20", breaks: onEvents(func(e *eventlog.Event) { e.Prev = e.At.Mark })},
	{name: "ignores what is expected", fails: "L07 L08 L54", breaks: onBatch(func(b *eventlog.Batch) { b.Expect = nil })},
	{name: "checks what is expected in another step", fails: "L08 L40 L50", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			if head := b.head(ch); batch.Expect != nil && *batch.Expect != head {
				return eventlog.Position{}, false, &eventlog.Expectation{Expected: *batch.Expect, Head: head}
			}
			time.Sleep(time.Millisecond) // the other step
			batch.Expect = nil
			return b.Log.Append(ctx, ch, batch)
		}
	}},
	{name: "acknowledges what it never appends", fails: "L09 L01 L20 L31 L45 L50 L60 L90", breaks: func(b *brokenLog) {
		var n atomic.Int32
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			if n.Add(1)%3 == 0 {
				return b.head(ch), false, nil
			}
			return b.Log.Append(ctx, ch, batch)
		}
	}},
	{name: "ignores contexts", fails: "L10", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			return b.Log.Append(context.WithoutCancel(ctx), ch, batch)
		}
	}},
	{name: "calls an ended context a loss", fails: "L10", breaks: func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			if ctx.Err() != nil {
				return eventlog.Page{}, &eventlog.Lost{From: after, To: after, Reason: eventlog.Rewritten}
			}
			return b.Log.Read(ctx, ch, after, limit)
		}
	}},
	{name: "joins namespace and name", fails: "L11 L30 L56", breaks: func(b *brokenLog) {
		join := func(ch eventlog.Channel) eventlog.Channel {
			return eventlog.Channel{Name: ch.Namespace + ch.Name}
		}
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			return b.Log.Append(ctx, join(ch), batch)
		}
		b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
			return b.Log.Seek(ctx, join(ch), s)
		}
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			return b.Log.Read(ctx, join(ch), after, limit)
		}
		b.onWatch = func(ch eventlog.Channel, wake func()) func() { return b.Log.Watch(join(ch), wake) }
	}},
	{name: "goes on after Close", fails: "L12 L37", breaks: func(b *brokenLog) {
		var calls atomic.Int32
		b.onClose = func() error {
			if calls.Add(1) == 1 {
				return nil
			}
			return b.Log.Close()
		}
	}},
	{name: "promises more data than it takes", fails: "L13 L03", breaks: func(b *brokenLog) {
		b.onInfo = func() eventlog.Info {
			i := b.Log.Info()
			i.MaxData++
			return i
		}
	}},
}

var pageFaults = []logFault{
	{name: "drops an event", fails: "L20 L09 L02 L34 L53 L90", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) {
		p.Events = slices.DeleteFunc(p.Events, func(e eventlog.Event) bool { return e.At.Offset%40 == 7 })
	})},
	{name: "returns pages in the wrong order", fails: "L20 L22 L09 L31 L50 L90", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) {
		slices.Reverse(p.Events)
	})},
	{name: "repeats an event", fails: "L20 L09 L31 L53 L90", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) {
		if n := len(p.Events); n > 0 && p.Events[n-1].At.Offset%5 == 0 {
			p.Events = append(p.Events, p.Events[n-1])
		}
	})},
	{name: "moves past an event that it did not return", fails: "L20 L22 L02 L31 L45 L50 L90", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) {
		if len(p.Events) > 2 {
			p.Events = p.Events[:len(p.Events)-1]
		}
	})},
	{name: "has no bound of bytes", fails: "L21", breaks: onLimit(func(l *eventlog.Limit) { l.Bytes = 1 << 40 })},
	{name: "returns nothing if the first event is too large", fails: "L21 L20 L90", breaks: onPage(func(p *eventlog.Page, after eventlog.Position, limit eventlog.Limit) {
		if limit.Bytes > 0 && len(p.Events) == 1 && p.Events[0].Size() > limit.Bytes {
			p.Events, p.Next = nil, after
		}
	})},
	{name: "says that the page's end is the head", fails: "L22 L90", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) { p.Head = p.Next })},
	{name: "is never behind", fails: "L23", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) { p.Behind = 0 })},
	{name: "is always behind", fails: "L23", breaks: onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) { p.Behind++ })},
	{name: "returns its own slice", fails: "L24", breaks: func(b *brokenLog) {
		var shared []eventlog.Event
		onPage(func(p *eventlog.Page, _ eventlog.Position, _ eventlog.Limit) {
			b.mu.Lock()
			defer b.mu.Unlock()
			shared = append(shared[:0], p.Events...)
			p.Events = shared
		})(b)
	}},
	{name: "ignores types", fails: "L25 L90", breaks: onLimit(func(l *eventlog.Limit) { l.Filter.Types = nil })},
	{name: "does not know that no type is message", fails: "L25", breaks: onLimit(func(l *eventlog.Limit) {
		for i, t := range l.Filter.Types {
			if t == "" {
				l.Filter.Types[i] = "nothing"
			}
		}
		l.Filter.Types = slices.Clone(l.Filter.Types)
	})},
	{name: "does not move on over what is filtered", fails: "L25", breaks: onPage(func(p *eventlog.Page, after eventlog.Position, limit eventlog.Limit) {
		if len(limit.Filter.Types) > 0 && len(p.Events) == 0 {
			p.Next = after
		}
	})},
	{name: "looks through everything", fails: "L26", breaks: func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			for {
				page, err := b.Log.Read(ctx, ch, after, limit)
				if err != nil || len(page.Events) > 0 || !page.More() {
					return page, err
				}
				after = page.Next
			}
		}
	}},
	{name: "seeks one too few", fails: "L27 L90", breaks: func(b *brokenLog) {
		b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
			s.Last = max(s.Last-1, min(s.Last, 0))
			return b.Log.Seek(ctx, ch, s)
		}
	}},
	{name: "takes the earliest for the latest", fails: "L27 L01 L32 L45 L90", breaks: func(b *brokenLog) {
		b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
			s.Earliest = s == eventlog.Start{}
			return b.Log.Seek(ctx, ch, s)
		}
	}},
	{name: "seeks what is no start", fails: "L27", breaks: onStart(func(s *eventlog.Start) {
		if s.Last < 0 || s.Earliest {
			s.Last = 0
		}
	})},
	{name: "seeks a time and something else", fails: "L27", breaks: onStart(func(s *eventlog.Start) {
		if !s.Since.IsZero() {
			s.Last, s.Earliest = 0, false
		}
	})},
	{name: "takes any time for the latest", fails: "L28 L90", breaks: onStart(func(s *eventlog.Start) { s.Since = time.Time{} })},
	{name: "takes any time for the earliest", fails: "L28 L90", breaks: onStart(func(s *eventlog.Start) {
		if !s.Since.IsZero() {
			s.Since, s.Earliest = time.Time{}, true
		}
	})},
	{name: "seeks what is after a time, not at it", fails: "L28", breaks: onStart(func(s *eventlog.Start) {
		if !s.Since.IsZero() {
			s.Since = s.Since.Add(1)
		}
	})},
	{name: "seeks one event too late", fails: "L28 L90", breaks: onSince(func(b *brokenLog, ch eventlog.Channel, at eventlog.Position) eventlog.Position {
		if page, err := b.Log.Read(context.Background(), ch, at, eventlog.Limit{Bytes: 1}); err == nil {
			at = page.Next
		}
		return at
	})},
	{name: "takes a time after all events for the earliest", fails: "L28 L90", breaks: onSince(func(b *brokenLog, ch eventlog.Channel, at eventlog.Position) eventlog.Position {
		if at == b.head(ch) {
			at = b.base(ch)
		}
		return at
	})},
	{name: "goes to the head where a time is trimmed", fails: "L28 L90", breaks: onSince(func(b *brokenLog, ch eventlog.Channel, at eventlog.Position) eventlog.Position {
		if at == b.base(ch) && at.Offset > 0 {
			at = b.head(ch)
		}
		return at
	})},
	{name: "compares times without their zones", fails: "L28", breaks: onStart(func(s *eventlog.Start) {
		if t := s.Since; !t.IsZero() {
			s.Since = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
		}
	})},
}

// fixedPlace is a log where the place before each first event is the same.
func fixedPlace(b *brokenLog) {
	fixed := eventlog.Position{Offset: 0, Mark: 1}
	fix := func(at *eventlog.Position) {
		if at.Offset == 0 {
			*at = fixed
		}
	}
	b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
		at, err := b.Log.Seek(ctx, ch, s)
		fix(&at)
		return at, err
	}
	b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
		if after == fixed && b.base(ch).Offset == 0 {
			after = b.base(ch)
		}
		page, err := b.Log.Read(ctx, ch, after, limit)
		fix(&page.Next)
		fix(&page.Head)
		if len(page.Events) > 0 && page.Events[0].At.Offset == 1 {
			page.Events[0].Prev = fixed.Mark
		}
		return page, err
	}
	b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
		expected := batch.Expect
		if head := b.head(ch); expected != nil && *expected == fixed && head.Offset == 0 {
			batch.Expect = &head
		}
		at, duplicate, err := b.Log.Append(ctx, ch, batch)
		if e, ok := errors.AsType[*eventlog.Expectation](err); ok {
			e.Expected = *expected
			fix(&e.Head)
		}
		return at, duplicate, err
	}
}

// forgetMarks is a log that knows events by their offsets alone.
func forgetMarks(b *brokenLog, ch eventlog.Channel, limit eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error) {
	ctx := context.Background()
	at := b.base(ch)
	for lost.From.Offset >= at.Offset {
		page, err := b.Log.Read(ctx, ch, at, eventlog.Limit{Bytes: 1})
		if at.Offset == lost.From.Offset || err != nil || !page.More() {
			at = page.Next
			if page.Next.Offset != lost.From.Offset && len(page.Events) > 0 {
				at = page.Events[0].Before()
			}
			return b.Log.Read(ctx, ch, at, limit)
		}
		at = page.Next
	}
	return eventlog.Page{}, lost
}

var lostFaults = []logFault{
	{name: "has one fixed place before every first event", fails: "L30 L40 L90", breaks: fixedPlace},
	{name: "forgets marks", fails: "L31 L32 L45 L90", breaks: onLost(forgetMarks)},
	{name: "takes a lost position for the head", fails: "L31 L32 L37 L45 L90", breaks: onLost(func(b *brokenLog, ch eventlog.Channel, _ eventlog.Limit, _ *eventlog.Lost) (eventlog.Page, error) {
		return eventlog.Page{Next: b.head(ch), Head: b.head(ch)}, nil
	})},
	{name: "goes on where events were trimmed", fails: "L32 L35 L36 L90", breaks: onLost(func(b *brokenLog, ch eventlog.Channel, limit eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error) {
		if lost.Reason == eventlog.Trimmed {
			return b.Log.Read(context.Background(), ch, b.base(ch), limit)
		}
		return eventlog.Page{}, lost
	})},
	{name: "sends who lost some events to the head", fails: "L32 L35 L90", breaks: onLost(func(b *brokenLog, ch eventlog.Channel, _ eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error) {
		lost.To = b.head(ch)
		return eventlog.Page{}, lost
	})},
	{name: "tells of a loss from nowhere", fails: "L31 L40 L90", breaks: onLost(func(_ *brokenLog, _ eventlog.Channel, _ eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error) {
		lost.From = eventlog.Position{}
		return eventlog.Page{}, lost
	})},
	{name: "loses who stands at the last trimmed event", fails: "L32 L36 L24 L46 L90", breaks: func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			if after == b.base(ch) && after.Offset > 0 {
				return eventlog.Page{}, &eventlog.Lost{From: after, To: b.head(ch), Reason: eventlog.Rewritten}
			}
			return b.Log.Read(ctx, ch, after, limit)
		}
	}},
	{name: "keeps everything", fails: "L33 L32 L28 L90", setup: func(s *LogSetup) { s.Retention.Events, s.Retention.Bytes = -1, -1 }},
	{name: "keeps fewer events than asked", fails: "L34 L28 L90", setup: func(s *LogSetup) { s.Retention.Events = (s.Retention.Events + 1) / 2 }},
	{name: "keeps fewer bytes than asked", fails: "L34", setup: func(s *LogSetup) { s.Retention.Bytes /= 2 }},
	{name: "does not know of age", fails: "L35 L28 L44 L90", setup: func(s *LogSetup) { s.Retention.Age = -1 }},
	{name: "takes events for older than they are", fails: "L35 L41 L90", setup: func(s *LogSetup) { s.Retention.Age /= 2 }},
	{name: "calls a loss unavailable", fails: "L37", breaks: onLost(func(_ *brokenLog, _ eventlog.Channel, _ eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error) {
		return eventlog.Page{}, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, lost)
	})},
	{name: "calls unavailable a loss", fails: "L37 L12", breaks: func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			page, err := b.Log.Read(ctx, ch, after, limit)
			if errors.Is(err, eventlog.ErrUnavailable) {
				err = &eventlog.Lost{From: after, To: after, Reason: eventlog.Rewritten}
			}
			return page, err
		}
	}},
}

// onUnborn breaks reads after the place before the first event, where it isn't
// the present one.
func onUnborn(when func(head eventlog.Position) bool) func(*brokenLog) {
	return func(b *brokenLog) {
		b.onRead = func(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
			page, err := b.Log.Read(ctx, ch, after, limit)
			head, base := b.head(ch), b.base(ch)
			if err == nil && after.Offset == 0 && base.Offset == 0 && after != base && when(head) {
				return eventlog.Page{}, &eventlog.Lost{From: after, To: head, Reason: eventlog.Rewritten}
			}
			return page, err
		}
	}
}

// ownWakes is a log that keeps those who watch to itself, so that what keeps
// names doesn't know of them.
func ownWakes(b *brokenLog) {
	type watcher struct {
		ch   eventlog.Channel
		wake func()
	}
	watchers := make(map[*watcher]bool)
	b.onWatch = func(ch eventlog.Channel, wake func()) func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		w := &watcher{ch, wake}
		watchers[w] = true
		return func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(watchers, w)
		}
	}
	b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
		at, duplicate, err := b.Log.Append(ctx, ch, batch)
		b.mu.Lock()
		all := slices.Collect(maps.Keys(watchers))
		b.mu.Unlock()
		for _, w := range all {
			if w.ch == ch {
				w.wake()
			}
		}
		return at, duplicate, err
	}
}

var generationFaults = []logFault{
	{name: "has one generation", fails: "L40 L42 L43 L44", setup: func(s *LogSetup) { s.Generation = 1 << 60 }},
	{name: "forgets the generation before", fails: "L40 L42 L90", breaks: onUnborn(func(head eventlog.Position) bool { return head.Offset == 0 })},
	{name: "forgets at birth the generation before", fails: "L40 L41 L90", breaks: onUnborn(func(head eventlog.Position) bool { return head.Offset > 0 })},
	{name: "takes any place for the first", fails: "L41 L40 L45 L31 L90", breaks: onLost(func(b *brokenLog, ch eventlog.Channel, limit eventlog.Limit, lost *eventlog.Lost) (eventlog.Page, error) {
		if lost.From.Offset == 0 && b.base(ch).Offset == 0 {
			return b.Log.Read(context.Background(), ch, b.base(ch), limit)
		}
		return eventlog.Page{}, lost
	})},
	{name: "wakes nobody when a place moves", fails: "L42", breaks: func(b *brokenLog) {
		b.onWatch = func(ch eventlog.Channel, wake func()) func() {
			return b.Log.Watch(ch, func() {
				if b.head(ch).Offset > 0 {
					wake()
				}
			})
		}
	}},
	{name: "creates channels that are sought", fails: "L43 L90", breaks: func(b *brokenLog) {
		places := make(map[eventlog.Channel]eventlog.Position)
		b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
			at, err := b.Log.Seek(ctx, ch, s)
			if at.Offset > 0 || err != nil {
				return at, err
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if _, found := places[ch]; !found {
				places[ch] = at
			}
			return places[ch], nil
		}
	}},
	{name: "forgets empty channels", fails: "L36 L40 L90", setup: func(s *LogSetup) {
		if s.Retention.Age > 0 {
			s.Generation = time.Minute
		}
	}},
	{name: "forgets names that are watched", fails: "L46 L90", breaks: ownWakes},
	{name: "forgets names that have producers", fails: "L47 L13 L55 L90", setup: func(s *LogSetup) { s.RememberProducers /= 10 }},
}

// otherStep applies the producer rule in another step than the append.
func otherStep(b *brokenLog) {
	type last struct {
		seq uint64
		at  eventlog.Position
	}
	var mu sync.Mutex
	known := make(map[eventlog.Channel]map[string]last)
	b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
		p := batch.Producer
		if batch.Check(anyData) != nil {
			return b.Log.Append(ctx, ch, batch)
		}
		mu.Lock()
		was := known[ch][p.ID]
		mu.Unlock()
		if p.Seq == was.seq && p.Seq > 0 {
			return was.at, true, nil
		}
		time.Sleep(time.Millisecond)
		batch.Producer = eventlog.Producer{}
		at, duplicate, err := b.Log.Append(ctx, ch, batch)
		mu.Lock()
		defer mu.Unlock()
		if known[ch] == nil {
			known[ch] = make(map[string]last)
		}
		known[ch][p.ID] = last{p.Seq, at}
		return at, duplicate, err
	}
}

var producerFaults = []logFault{
	{name: "appends duplicates", fails: "L50 L51 L52 L53 L55 L47 L90", breaks: onBatch(func(b *eventlog.Batch) {
		if b.Check(anyData) == nil {
			b.Producer = eventlog.Producer{}
		}
	})},
	{name: "checks producers in another step", fails: "L53 L47", breaks: otherStep},
	{name: "tells repeats the head", fails: "L50 L90", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			at, duplicate, err := b.Log.Append(ctx, ch, batch)
			if duplicate {
				at = b.head(ch)
			}
			return at, duplicate, err
		}
	}},
	{name: "knows producers by their owner", fails: "L50 L52", breaks: onBatch(func(b *eventlog.Batch) {
		if b.Producer.ID != "" {
			b.Producer.ID = b.Producer.Owner + "/" + b.Producer.ID
		}
	})},
	{name: "takes a lower number for a duplicate", fails: "L51 L55", breaks: func(b *brokenLog) {
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			at, duplicate, err := b.Log.Append(ctx, ch, batch)
			if errors.Is(err, eventlog.ErrStale) {
				return b.head(ch), true, nil
			}
			return at, duplicate, err
		}
	}},
	{name: "numbers over all channels", fails: "L52 L90", breaks: func(b *brokenLog) {
		highest := make(map[string]uint64)
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			p := batch.Producer
			b.mu.Lock()
			stale := p.Seq > 0 && p.Seq < highest[p.ID]
			highest[p.ID] = max(highest[p.ID], p.Seq)
			b.mu.Unlock()
			if stale {
				return eventlog.Position{}, false, eventlog.ErrStale
			}
			return b.Log.Append(ctx, ch, batch)
		}
	}},
	{name: "counts numbers that it refused", fails: "L54 L90", breaks: func(b *brokenLog) {
		tried := make(map[eventlog.Producer]bool)
		b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
			b.mu.Lock()
			again := tried[batch.Producer]
			tried[batch.Producer] = batch.Producer.ID != ""
			b.mu.Unlock()
			if again {
				return b.head(ch), true, nil
			}
			return b.Log.Append(ctx, ch, batch)
		}
	}},
	{name: "forgets producers too soon", fails: "L55 L47 L90", breaks: func(b *brokenLog) {
		b.onInfo = func() eventlog.Info {
			i := b.Log.Info()
			i.ProducersRemembered *= 10
			return i
		}
	}, setup: func(s *LogSetup) { s.RememberProducers /= 10 }},
	{name: "has no bound of producers", fails: "L56 L57", setup: func(s *LogSetup) {
		s.MaxProducersPerOwner, s.MaxProducersPerChannel = 1000, 1000
	}},
	{name: "has no bound of producers per channel", fails: "L56", setup: func(s *LogSetup) { s.MaxProducersPerChannel = 1000 }},
	{name: "never forgets producers", fails: "L57", setup: func(s *LogSetup) { s.RememberProducers = 1 << 60 }, breaks: func(b *brokenLog) {
		b.onInfo = func() eventlog.Info {
			i := b.Log.Info()
			i.ProducersRemembered = time.Hour
			return i
		}
	}},
}

// lockedWakes is a log that calls wake with its own lock held. The lock is
// a channel, so that a bubble sees who waits for it.
func lockedWakes(b *brokenLog) {
	lock := make(chan struct{}, 1)
	var wakes []func()
	b.onWatch = func(ch eventlog.Channel, wake func()) func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		wakes = append(wakes, wake)
		return b.Log.Watch(ch, func() {
			if b.head(ch).Offset == 0 {
				wake()
			}
		})
	}
	b.onSeek = func(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
		select {
		case lock <- struct{}{}:
			defer func() { <-lock }()
			return b.Log.Seek(ctx, ch, s)
		case <-ctx.Done():
			return eventlog.Position{}, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, ctx.Err())
		}
	}
	b.onAppend = func(ctx context.Context, ch eventlog.Channel, batch eventlog.Batch) (eventlog.Position, bool, error) {
		lock <- struct{}{}
		defer func() { <-lock }()
		at, duplicate, err := b.Log.Append(ctx, ch, batch)
		b.mu.Lock()
		all := slices.Clone(wakes)
		b.mu.Unlock()
		for _, wake := range all {
			wake()
		}
		return at, duplicate, err
	}
}

var watchFaults = []logFault{
	{name: "misses wakes", fails: "L60 L42 L90", breaks: func(b *brokenLog) {
		b.onWatch = func(ch eventlog.Channel, wake func()) func() {
			var n atomic.Int32
			return b.Log.Watch(ch, func() {
				if n.Add(1)%5 > 0 {
					wake()
				}
			})
		}
	}},
	{name: "misses the first event of a channel", fails: "L60 L90", breaks: func(b *brokenLog) {
		b.onWatch = func(ch eventlog.Channel, wake func()) func() {
			return b.Log.Watch(ch, func() {
				if b.head(ch).Offset != 1 {
					wake()
				}
			})
		}
	}},
	{name: "wakes with a lock held", fails: "L61", breaks: lockedWakes},
	{name: "does not stop", fails: "L62", breaks: func(b *brokenLog) {
		b.onWatch = func(ch eventlog.Channel, wake func()) func() {
			b.Log.Watch(ch, wake)
			return func() {}
		}
	}},
	{name: "stops the others too", fails: "L62 L90", breaks: func(b *brokenLog) {
		var stopped atomic.Bool
		b.onWatch = func(ch eventlog.Channel, wake func()) func() {
			stop := b.Log.Watch(ch, func() {
				if !stopped.Load() {
					wake()
				}
			})
			return func() { stopped.Store(true); stop() }
		}
	}},
}

// TestSuiteCatchesBrokenLogs: the clauses that a fault is about fail for it.
func TestSuiteCatchesBrokenLogs(t *testing.T) {
	var parts []BrokenPart
	for _, f := range logFaults {
		parts = append(parts, BrokenPart{Name: f.name, Fails: f.fails, Try: func(t *testing.T, id string) ([]string, bool) {
			i := slices.IndexFunc(logClauses, func(c logClause) bool { return c.id == id })
			failures, notFor := logClauses[i].try(t, f.open)
			return failures, notFor == ""
		}})
	}
	Bite(t, "log", parts)
}

// TestSuitePassesWholeLogs: what the faults are made of, with nothing broken.
func TestSuitePassesWholeLogs(t *testing.T) {
	TestLog(t, (&logFault{}).open)
}
