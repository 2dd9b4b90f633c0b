package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
)

func appendReturnsLast(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	offset := uint64(0)
	for _, batch := range [][]string{{"a"}, {"b", "c", "d"}, {"e", "f"}} {
		after := c.head(l, room)
		last := c.append(l, room, text(batch...))
		offset += uint64(len(batch))
		c.expect(l, room, after, batch...)
		page := c.read(l, room, after, eventlog.Limit{})
		if got := page.Events[len(page.Events)-1].At; got != last || last.Offset != offset {
			c.fatalf("Append returned %v, the last event is at %v and should have offset %d", last, got, offset)
		}
	}
	for i, e := range c.readAll(l, room, start, eventlog.Limit{}) {
		if e.At.Offset != uint64(i+1) {
			c.errorf("event %d has offset %d", i+1, e.At.Offset)
		}
	}
}

func batchIsWhole(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	bad := text("a", "b", "c")
	bad[1].Type = "open"
	if _, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: bad}); err == nil {
		c.errorf("a batch with a bad message was taken")
	}
	c.expect(l, room, start)

	const writers, batches = 4, 20
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for b := range batches {
				id := fmt.Sprintf("%d.%d", w, b)
				if _, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: text(id, id, id)}); err != nil {
					c.errorf("Append: %v", err)
				}
			}
		})
	}
	all.Wait()
	events := data(c.readAll(l, room, start, eventlog.Limit{}))
	if len(events) != writers*batches*3 {
		c.fatalf("%d events of %d", len(events), writers*batches*3)
	}
	for i := 0; i < len(events); i += 3 {
		if events[i] != events[i+1] || events[i] != events[i+2] {
			c.fatalf("a batch is not together: %q", events[i:i+3])
		}
	}
}

func invalidIsRefused(c *logCheck) {
	l := c.open(LogSetup{MaxData: 1000})
	limit := l.Info().MaxData
	channels := []eventlog.Channel{{}, {Name: "a\nb"}, {Name: "\xff"}, {Namespace: "a\x00", Name: "b"}, {Name: strings.Repeat("x", eventlog.MaxChannelName+1)}}
	for _, ch := range channels {
		_, _, err := l.Append(c.ctx, ch, eventlog.Batch{Messages: text("a")})
		c.invalid(err, "Append to %q", ch)
		_, err = l.Seek(c.ctx, ch, eventlog.Start{})
		c.invalid(err, "Seek in %q", ch)
		_, err = l.Read(c.ctx, ch, eventlog.Position{Offset: 0, Mark: 1}, eventlog.Limit{})
		c.invalid(err, "Read of %q", ch)
	}
	batches := []eventlog.Batch{
		{},
		{Messages: numbered(eventlog.MaxBatch+1, 2)},
		{Messages: []eventlog.Message{{Type: "open"}}},
		{Messages: []eventlog.Message{{Type: "throughline.x", Kind: eventlog.Text}}},
		{Messages: []eventlog.Message{{Data: []byte("{")}}},
		{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte("\xff")}}},
		{Messages: []eventlog.Message{{Kind: 9}}},
		{Messages: text("a"), Producer: eventlog.Producer{ID: "p"}},
		{Messages: text("a"), Producer: eventlog.Producer{Seq: 1}},
	}
	start := c.head(l, room)
	for i, b := range batches {
		_, _, err := l.Append(c.ctx, room, b)
		c.invalid(err, "Append of bad batch %d", i)
	}
	_, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: numbered(1, limit+1)})
	c.invalid(err, "Append of %d bytes", limit+1)
	if invalid, ok := errors.AsType[*eventlog.Invalid](err); ok && !invalid.TooLarge {
		c.errorf("data over the bound is not TooLarge: %v", err)
	}
	c.expect(l, room, start)
	c.append(l, room, numbered(1, limit))
}

func (c *logCheck) invalid(err error, format string, args ...any) {
	if _, ok := errors.AsType[*eventlog.Invalid](err); !ok {
		c.errorf("%s: error %v, not *Invalid", fmt.Sprintf(format, args...), err)
	}
}

func messagesUnchanged(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	messages := []eventlog.Message{
		{Data: []byte(`{"a":1}`)},
		{Type: "said", Kind: eventlog.Text, Data: []byte("líne\r\nline\x00"), Key: "kéy", Tags: []string{"x", "y z"}},
		{Type: "raw", Kind: eventlog.Binary, Data: []byte{0, 255, 10, 13}},
		{Kind: eventlog.Text},
	}
	c.append(l, room, messages)
	events := c.readAll(l, room, start, eventlog.Limit{})
	if len(events) != len(messages) {
		c.fatalf("%d events of %d", len(events), len(messages))
	}
	for i, want := range messages {
		got := events[i].Message
		if want.Type == "" {
			want.Type = eventlog.DefaultType
		}
		if got.Type != want.Type || got.Kind != want.Kind || got.Key != want.Key ||
			string(got.Data) != string(want.Data) || !slices.Equal(got.Tags, want.Tags) {
			c.errorf("appended %+v, read %+v", want, got)
		}
	}
}

func timeNeverGoesBack(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	began := time.Now()
	for range 20 {
		c.append(l, room, numbered(3, 10))
		c.pass(l, time.Second)
	}
	last := time.Time{}
	for i, e := range c.readAll(l, room, start, eventlog.Limit{}) {
		if e.Time.Before(last) {
			c.errorf("event %d is of %v, the one before of %v", i, e.Time, last)
		}
		last = e.Time
		if off := e.Time.Sub(began) - time.Duration(i/3)*time.Second; off.Abs() > time.Second {
			c.errorf("event %d is off by %v", i, off)
		}
	}
}

func marksAreRandom(c *logCheck) {
	seen := make(map[uint64]bool)
	for range 2 { // two logs
		l := c.open(LogSetup{})
		for _, ch := range []eventlog.Channel{room, {Name: "other"}} {
			before := c.head(l, ch)
			c.append(l, ch, numbered(100, 10))
			for _, e := range c.readAll(l, ch, before, eventlog.Limit{}) {
				if e.At.Mark == 0 || e.At.Mark >= 1<<eventlog.MarkBits || seen[e.At.Mark] {
					c.fatalf("%v at %v: the mark is zero, too long, or not new", ch, e.At)
				}
				if e.Before() != before {
					c.fatalf("%v at %v: the event before is %v, not %v", ch, e.At, e.Before(), before)
				}
				seen[e.At.Mark] = true
				before = e.At
			}
		}
	}
	small := 0
	for mark := range seen {
		if mark < 1<<(eventlog.MarkBits-8) {
			small++
		}
	}
	if small > 20 { // 1.6 expected
		c.errorf("%d of %d marks leave their highest 8 bits unused", small, len(seen))
	}
}

func expectIsTheHead(c *logCheck) {
	l := c.open(LogSetup{})
	unborn := c.head(l, room)
	try := func(expect, head eventlog.Position) {
		before := c.head(l, room)
		_, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: text("no"), Expect: &expect})
		var wrong *eventlog.Expectation
		if !errors.As(err, &wrong) || wrong.Head != head || wrong.Expected != expect {
			c.errorf("expecting %v where the head is %v: %v", expect, head, err)
		}
		if after := c.head(l, room); after != before {
			c.errorf("expecting %v moved the head from %v to %v", expect, before, after)
		}
	}
	try(eventlog.Position{Offset: 0, Mark: unborn.Mark ^ 1}, unborn)
	try(eventlog.Position{Offset: 1, Mark: 1}, unborn)
	first := c.appendBatch(l, room, eventlog.Batch{Messages: text("a"), Expect: &unborn})
	try(unborn, first)
	try(eventlog.Position{Offset: 1, Mark: first.Mark ^ 1}, first)
	second := c.appendBatch(l, room, eventlog.Batch{Messages: text("b", "c"), Expect: &first})
	try(first, second)
	c.expect(l, room, unborn, "a", "b", "c")
}

func expectHasOneWinner(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	for range 10 {
		head := c.head(l, room)
		c.race(func() bool {
			_, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: text("a"), Expect: &head})
			var wrong *eventlog.Expectation
			if err != nil && !errors.As(err, &wrong) {
				c.errorf("Append: %v", err)
			}
			return err == nil
		})
	}
	if n := len(c.readAll(l, room, start, eventlog.Limit{})); n != 10 {
		c.errorf("%d events of 10", n)
	}
}

// race runs what only one of several goroutines may succeed in.
func (c *logCheck) race(run func() bool) {
	var all sync.WaitGroup
	won := make(chan bool, 8)
	for range cap(won) {
		all.Go(func() { won <- run() })
	}
	all.Wait()
	winners := 0
	for range cap(won) {
		if <-won {
			winners++
		}
	}
	if winners != 1 {
		c.errorf("%d of %d concurrent appends were taken, not 1", winners, cap(won))
	}
}

func concurrentAppends(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	const writers, each = 4, 50
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if _, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: text(fmt.Sprintf("%d %d", w, i))}); err != nil {
					c.errorf("Append: %v", err)
				}
			}
		})
	}
	// A reader beside them sees the same as one that comes later.
	var live []eventlog.Event
	written := make(chan struct{})
	go func() { all.Wait(); close(written) }()
	after := start
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
			page := c.read(l, room, after, eventlog.Limit{Bytes: 1000})
			live, after = append(live, page.Events...), page.Next
		}
	}
	live = append(live, c.readAll(l, room, after, eventlog.Limit{})...)
	later := c.readAll(l, room, start, eventlog.Limit{})
	if !slices.Equal(data(live), data(later)) {
		c.errorf("who read beside the appends saw %d events, who read later %d, or in another order", len(live), len(later))
	}
	if len(later) != writers*each {
		c.fatalf("%d events of %d", len(later), writers*each)
	}
	next := make([]int, writers)
	for i, e := range later {
		var w, n int
		if _, err := fmt.Sscanf(string(e.Data), "%d %d", &w, &n); err != nil {
			c.fatalf("event %d is %q", i+1, e.Data)
		}
		if e.At.Offset != uint64(i+1) || next[w] != n {
			c.fatalf("event %d has offset %d and is number %d of its writer, not %d", i+1, e.At.Offset, n, next[w])
		}
		next[w]++
	}
}

func endedContext(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	_, _, appending := l.Append(ctx, room, eventlog.Batch{Messages: text("a")})
	_, seeking := l.Seek(ctx, room, eventlog.Start{})
	_, reading := l.Read(ctx, room, start, eventlog.Limit{})
	for i, err := range []error{appending, seeking, reading} {
		var lost *eventlog.Lost
		if errors.As(err, &lost) || !errors.Is(err, context.Canceled) && !errors.Is(err, eventlog.ErrUnavailable) {
			c.errorf("%s: error %v", []string{"Append", "Seek", "Read"}[i], err)
		}
	}
	c.expect(l, room, start)
}

func channelsApart(c *logCheck) {
	l := c.open(LogSetup{})
	channels := []eventlog.Channel{
		{Name: "a"},
		{Name: "b"},
		{Namespace: "t", Name: "a"},
		{Namespace: "u", Name: "a"},
		{Namespace: "ab", Name: "c"},
		{Namespace: "a", Name: "bc"},
		{Name: "abc"},
		{Name: "t/a"},
		{Name: "t:a"},
		{Name: "A"},
		{Name: "a "},
		{Name: "é"},
		{Name: "e\u0301"},
	}
	starts := make(map[eventlog.Channel]eventlog.Position)
	for _, ch := range channels {
		starts[ch] = c.head(l, ch)
	}
	for i, ch := range channels {
		c.append(l, ch, text(fmt.Sprintf("first of %d", i)))
	}
	for i, ch := range channels {
		c.append(l, ch, text(fmt.Sprintf("second of %d", i)))
	}
	for i, ch := range channels {
		c.expect(l, ch, starts[ch], fmt.Sprintf("first of %d", i), fmt.Sprintf("second of %d", i))
	}
}

func closedIsUnavailable(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	last := c.append(l, room, text("a"))
	stop := l.Watch(room, func() {})
	if err := l.Close(); err != nil {
		c.errorf("Close: %v", err)
	}
	_, _, appending := l.Append(c.ctx, room, eventlog.Batch{Messages: text("b")})
	_, seeking := l.Seek(c.ctx, room, eventlog.Start{})
	_, first := l.Read(c.ctx, room, start, eventlog.Limit{})
	_, second := l.Read(c.ctx, room, last, eventlog.Limit{})
	for i, err := range []error{appending, seeking, first, second} {
		var lost *eventlog.Lost
		if !errors.Is(err, eventlog.ErrUnavailable) || errors.As(err, &lost) {
			c.errorf("%s: error %v", []string{"Append", "Seek", "Read", "Read at the head"}[i], err)
		}
	}
	stop()
	l.Watch(room, func() {})()
}

func infoIsTrue(c *logCheck) {
	l := c.open(LogSetup{MaxData: 1000, RememberProducers: time.Hour})
	info := l.Info()
	if info.MaxData < 1000 || info.ProducersRemembered < time.Hour {
		c.fatalf("Info is %+v, and %v and %d bytes were asked for", info, time.Hour, 1000)
	}
	c.append(l, room, numbered(1, info.MaxData))
	_, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: numbered(1, info.MaxData+1)})
	c.invalid(err, "Append of a byte more than Info says")
}
