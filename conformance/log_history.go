package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// history returns the log as one that is read in parts. If it can't be, the clause
// does not apply.
func (c *logCheck) history(s LogSetup) (eventlog.Log, eventlog.History) {
	l := c.open(s)
	h, ok := l.(eventlog.History)
	if !ok {
		c.notFor = "the log is no eventlog.History, which is optional"
		panic(endOfCheck)
	}
	return l, h
}

func (c *logCheck) part(h eventlog.History, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) eventlog.RangePage {
	page, err := h.Range(c.ctx, ch, r, limit)
	if err != nil {
		c.fatalf("Range of %v, %+v: %v", ch, r, err)
	}
	return page
}

// partAll reads page after page to the end of a range.
func (c *logCheck) partAll(h eventlog.History, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (all []eventlog.Event) {
	for {
		page := c.part(h, ch, r, limit)
		all = append(all, page.Events...)
		if page.Done {
			return all
		}
		rest := r.Rest(&page)
		if rest == r {
			c.fatalf("Range of %v, %+v: a page that is not the last doesn't move on", ch, r)
		}
		r = rest
	}
}

// holds checks what a range holds, in both orders and in pages of several sizes.
func (c *logCheck) holds(h eventlog.History, r eventlog.Range, f eventlog.Filter, want ...string) {
	for _, backwards := range []bool{false, true} {
		r.Backwards = backwards
		for _, limit := range []eventlog.Limit{{Filter: f}, {Events: 2, Filter: f}, {Bytes: 1, Filter: f}} {
			if got := data(c.partAll(h, room, r, limit)); !slices.Equal(got, want) {
				c.errorf("the range %+v, %+v, holds %s, not %s", r, limit, brief(got), brief(want))
			}
		}
		want = slices.Clone(want)
		slices.Reverse(want)
	}
}

// appendEach appends each by itself, and returns the place before the first and
// the positions of all.
func (c *logCheck) appendEach(l eventlog.Log, data ...string) (at []eventlog.Position) {
	at = append(at, c.head(l, room))
	for _, d := range data {
		at = append(at, c.append(l, room, text(d)))
	}
	return at
}

func partsAreThere(c *logCheck) {
	l, h := c.history(LogSetup{})
	at := []eventlog.Position{c.head(l, room)}
	var times []time.Time
	all := []string{"a", "b", "c", "d", "e", "f"}
	for _, d := range all {
		c.pass(l, time.Minute)
		at = append(at, c.append(l, room, text(d)))
		times = append(times, time.Now())
	}
	c.pass(l, time.Minute)
	between := func(i int) time.Time { return times[i].Add(-30 * time.Second) } // before event i
	c.holds(h, eventlog.Range{}, eventlog.Filter{}, all...)
	for from := range at {
		c.holds(h, eventlog.Range{After: at[from]}, eventlog.Filter{}, all[from:]...)
		c.holds(h, eventlog.Range{Until: at[from]}, eventlog.Filter{}, all[:from]...)
		for to := from; to < len(at); to++ {
			c.holds(h, eventlog.Range{After: at[from], Until: at[to]}, eventlog.Filter{}, all[from:to]...)
		}
	}
	for i := range times {
		c.holds(h, eventlog.Range{Since: between(i)}, eventlog.Filter{}, all[i:]...)
		c.holds(h, eventlog.Range{Before: between(i)}, eventlog.Filter{}, all[:i]...)
		c.holds(h, eventlog.Range{Since: between(i), Before: between(5)}, eventlog.Filter{}, all[i:5]...)
		c.holds(h, eventlog.Range{After: at[2], Until: at[5], Since: between(i)}, eventlog.Filter{}, all[min(max(2, i), 5):5]...)
		c.holds(h, eventlog.Range{After: at[2], Until: at[5], Before: between(i)}, eventlog.Filter{}, all[2:max(2, min(i, 5))]...)
	}
	exact := c.part(h, room, eventlog.Range{}, eventlog.Limit{}).Events[2].Time
	c.holds(h, eventlog.Range{Since: exact}, eventlog.Filter{}, all[2:]...)
	c.holds(h, eventlog.Range{Before: exact.In(time.FixedZone("east", 3600))}, eventlog.Filter{}, all[:2]...)
	c.holds(h, eventlog.Range{Since: time.Now()}, eventlog.Filter{})
	c.holds(h, eventlog.Range{Before: time.Unix(1, 0)}, eventlog.Filter{})
}

func partsAreWhole(c *logCheck) {
	l, h := c.history(LogSetup{})
	start := c.head(l, room)
	messages := numbered(300, 50)
	for batch := range slices.Chunk(messages, 7) {
		c.append(l, room, batch)
	}
	want := messageData(messages)
	for _, limit := range []eventlog.Limit{{}, {Bytes: 1}, {Bytes: 500}, {Events: 7}, {Events: 1000}, {Bytes: 500, Scan: 300}} {
		for _, r := range []eventlog.Range{{}, {After: start}, {Backwards: true}, {Backwards: true, After: start}} {
			got := data(c.partAll(h, room, r, limit))
			if r.Backwards {
				slices.Reverse(got)
			}
			if !slices.Equal(got, want) {
				c.fatalf("pages of %+v, %+v hold %d events of %d, or in another order: %s", r, limit, len(got), len(want), brief(got))
			}
		}
	}
	if page := c.part(h, room, eventlog.Range{}, eventlog.Limit{Events: len(want)}); !page.Done {
		c.errorf("a page that holds all of a range does not say that it is done")
	}
	if page := c.part(h, room, eventlog.Range{Backwards: true}, eventlog.Limit{Events: 3}); page.Done || !slices.Equal(data(page.Events), []string{want[299], want[298], want[297]}) {
		c.errorf("the last 3 are %s, done %v", brief(data(page.Events)), page.Done)
	}
}

func partsAreBounded(c *logCheck) {
	l, h := c.history(LogSetup{})
	c.append(l, room, append(numbered(300, 1000), numbered(1, 10_000)...))
	for _, backwards := range []bool{false, true} {
		for _, limit := range []eventlog.Limit{{Bytes: 1}, {Bytes: 2500}, {}, {Events: 3}, {Events: 3, Bytes: 1 << 20}} {
			for r := (eventlog.Range{Backwards: backwards}); ; {
				page := c.part(h, room, r, limit)
				size := 0
				for i := range page.Events {
					size += page.Events[i].Size()
				}
				n := len(page.Events)
				if n == 0 || n > 1 && size > limit.WithDefaults().Bytes || limit.Events > 0 && n > limit.Events {
					c.fatalf("a page of %+v, %+v holds %d events of %d bytes", r, limit, n, size)
				}
				if page.Done {
					break
				}
				rest := r.Rest(&page)
				if rest == r {
					c.fatalf("a page of %+v, %+v that is not the last doesn't move on", r, limit)
				}
				r = rest
			}
		}
	}
}

func partsAreFiltered(c *logCheck) {
	l, h := c.history(LogSetup{})
	for i, m := range []eventlog.Message{
		{Type: "said", Key: "k", Tags: []string{"x", "y"}}, {}, {Type: "seen", Tags: []string{"y"}}, {Type: "said", Key: "l"}, {Type: "message", Key: "k"},
	} {
		m.Kind, m.Data = eventlog.Text, fmt.Append(nil, i)
		c.append(l, room, []eventlog.Message{m})
	}
	of := func(types, tags, keys []string) eventlog.Filter {
		return eventlog.Filter{Types: types, Tags: tags, Keys: keys}
	}
	c.holds(h, eventlog.Range{}, of([]string{"said"}, nil, nil), "0", "3")
	c.holds(h, eventlog.Range{}, of([]string{"said", "seen"}, nil, nil), "0", "2", "3")
	c.holds(h, eventlog.Range{}, of([]string{""}, nil, nil), "1", "4")
	c.holds(h, eventlog.Range{}, of([]string{"message"}, nil, nil), "1", "4")
	c.holds(h, eventlog.Range{}, of(nil, []string{"y"}, nil), "0", "2")
	c.holds(h, eventlog.Range{}, of(nil, []string{"x", "z"}, nil), "0")
	c.holds(h, eventlog.Range{}, of(nil, nil, []string{"k"}), "0", "4")
	c.holds(h, eventlog.Range{}, of(nil, nil, []string{"k", "l"}), "0", "3", "4")
	c.holds(h, eventlog.Range{}, of([]string{"said"}, []string{"y"}, []string{"k"}), "0")
	c.holds(h, eventlog.Range{}, of([]string{"seen"}, nil, []string{"k"}))
	head := c.head(l, room)
	if page := c.part(h, room, eventlog.Range{}, eventlog.Limit{Filter: of([]string{"none"}, nil, nil)}); page.Next != head || !page.Done {
		c.errorf("a page of which all is left out goes on at %v, not at the head %v, done %v", page.Next, head, page.Done)
	}
}

func partsScanABound(c *logCheck) {
	l, h := c.history(LogSetup{})
	for range 5 {
		c.append(l, room, numbered(100, 1000))
	}
	for _, backwards := range []bool{false, true} {
		r := eventlog.Range{Backwards: backwards}
		limit := eventlog.Limit{Scan: 20_000, Filter: eventlog.Filter{Types: []string{"none"}}}
		for pages := 1; ; pages++ {
			page := c.part(h, room, r, limit)
			if page.Done {
				if pages < 25 || len(page.Events) > 0 {
					c.errorf("%d pages looked through 500 events of 1 KB, 20 KB at a time, with %d events in the last", pages, len(page.Events))
				}
				break
			}
			rest := r.Rest(&page)
			if rest == r {
				c.fatalf("an empty page does not move on from %+v", r)
			}
			r = rest
		}
	}
}

func partsAreEvents(c *logCheck) {
	l, h := c.history(LogSetup{})
	start := c.head(l, room)
	c.append(l, room, []eventlog.Message{
		{Type: "said", Data: []byte(`{"a": 1}`), Key: "k", Tags: []string{"x", "y"}},
		{Kind: eventlog.Binary, Data: []byte{0, 1, 2}},
	})
	c.append(l, room, numbered(50, 10))
	read := c.readAll(l, room, start, eventlog.Limit{})
	got := c.partAll(h, room, eventlog.Range{}, eventlog.Limit{Events: 20})
	same := func(a, b eventlog.Event) bool {
		return a.At == b.At && a.Prev == b.Prev && a.Time.Equal(b.Time) && a.Type == b.Type && a.Kind == b.Kind && a.Key == b.Key &&
			slices.Equal(a.Tags, b.Tags) && string(a.Data) == string(b.Data)
	}
	if !slices.EqualFunc(got, read, same) {
		c.errorf("Range returns %d events, and Read %d, or others", len(got), len(read))
	}
	page := c.part(h, room, eventlog.Range{}, eventlog.Limit{})
	clear(page.Events)
	_ = append(page.Events, eventlog.Event{})
	if again := c.partAll(h, room, eventlog.Range{}, eventlog.Limit{}); !slices.EqualFunc(again, read, same) {
		c.errorf("a reader changed its page, and another reads something else")
	}
}

func partsTellTheEnds(c *logCheck) {
	l, h := c.history(LogSetup{Retention: eventlog.Retention{Events: 3}})
	check := func() {
		first, head := c.seek(l, room, eventlog.Start{Earliest: true}), c.head(l, room)
		for _, r := range []eventlog.Range{{}, {Backwards: true}, {After: head}} {
			if page := c.part(h, room, r, eventlog.Limit{Events: 1}); page.First != first || page.Head != head {
				c.errorf("Range of %+v tells the ends %v and %v, not %v and %v", r, page.First, page.Head, first, head)
			}
		}
	}
	check()
	for i := range 20 {
		c.append(l, room, text(fmt.Sprint(i)))
		check()
	}
}

// partLost checks that a range is lost.
func (c *logCheck) partLost(h eventlog.History, r eventlog.Range, want eventlog.Lost) {
	for _, backwards := range []bool{false, true} {
		r.Backwards = backwards
		page, err := h.Range(c.ctx, room, r, eventlog.Limit{})
		var lost *eventlog.Lost
		if !errors.As(err, &lost) || *lost != want {
			c.errorf("Range of %+v: %d events and error %v, not %v", r, len(page.Events), err, &want)
		}
	}
}

func partsAreLost(c *logCheck) {
	l, h := c.history(LogSetup{Retention: eventlog.Retention{Events: 3}})
	unborn := c.head(l, room)
	foreign := eventlog.Position{Offset: 0, Mark: unborn.Mark ^ 1}
	c.partLost(h, eventlog.Range{After: foreign}, eventlog.Lost{From: foreign, To: unborn, Reason: eventlog.Rewritten})
	c.partLost(h, eventlog.Range{Until: foreign}, eventlog.Lost{From: foreign, To: unborn, Reason: eventlog.Rewritten})
	at := c.appendEach(l, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
	head, base := at[10], c.seek(l, room, eventlog.Start{Earliest: true})
	for _, bad := range []eventlog.Position{{Offset: 9, Mark: head.Mark}, {Offset: 10, Mark: head.Mark ^ 1}, {Offset: 11, Mark: head.Mark}} {
		lost := eventlog.Lost{From: bad, To: head, Reason: eventlog.Rewritten}
		c.partLost(h, eventlog.Range{After: bad}, lost)
		c.partLost(h, eventlog.Range{Until: bad}, lost)
		c.partLost(h, eventlog.Range{After: base, Until: bad}, lost)
	}
	for _, old := range at[:base.Offset] {
		lost := eventlog.Lost{From: old, To: base, Reason: eventlog.Trimmed}
		c.partLost(h, eventlog.Range{After: old}, lost)
		c.partLost(h, eventlog.Range{After: old, Until: head}, lost)
		c.partLost(h, eventlog.Range{Until: old}, lost)
	}
	for i := int(base.Offset); i <= 10; i++ { //nolint:gosec // a small number
		if n := len(c.partAll(h, room, eventlog.Range{After: at[i]}, eventlog.Limit{})); n != 10-i {
			c.errorf("after event %d of 10 there are %d", i, n)
		}
	}
}

func partsRefuse(c *logCheck) {
	l, h := c.history(LogSetup{})
	at := c.appendEach(l, "a", "b", "c")
	now := time.Now()
	many := make([]string, eventlog.MaxFilter+1)
	for what, ask := range map[string]struct {
		ch eventlog.Channel
		r  eventlog.Range
		f  eventlog.Filter
	}{
		"positions": {ch: room, r: eventlog.Range{After: at[2], Until: at[1]}},
		"times":     {ch: room, r: eventlog.Range{Since: now, Before: now.Add(-1)}},
		"a filter":  {ch: room, f: eventlog.Filter{Tags: many}},
		"a channel": {},
	} {
		_, err := h.Range(c.ctx, ask.ch, ask.r, eventlog.Limit{Filter: ask.f})
		c.invalid(err, "Range that can't be: %s", what)
	}
	var lost *eventlog.Lost
	ended, cancel := context.WithCancel(c.ctx)
	cancel()
	if _, err := h.Range(ended, room, eventlog.Range{}, eventlog.Limit{}); err == nil || errors.As(err, &lost) {
		c.errorf("Range in an ended context: %v", err)
	}
	_ = l.Close()
	if _, err := h.Range(c.ctx, room, eventlog.Range{}, eventlog.Limit{}); !errors.Is(err, eventlog.ErrUnavailable) {
		c.errorf("Range after Close: %v", err)
	}
}

func partsCreateNothing(c *logCheck) {
	l, h := c.history(shortLived)
	look := func(at eventlog.Position) {
		for _, r := range []eventlog.Range{{}, {Backwards: true}, {After: at}, {Until: at}, {Since: time.Unix(1, 0)}} {
			page := c.part(h, room, r, eventlog.Limit{})
			if place := c.head(l, room); len(page.Events) > 0 || !page.Done || page.Next != place || page.Head != place || page.First != place {
				c.errorf("a channel that nobody wrote, %+v: %+v, and its place is %v", r, page, place)
			}
		}
	}
	first := c.head(l, room)
	look(first)
	second := c.risen(l, room) // as nothing holds it
	look(first)
	look(second)
	third := c.risen(l, room)
	c.partLost(h, eventlog.Range{After: first}, eventlog.Lost{From: first, To: third, Reason: eventlog.Rewritten})
}
