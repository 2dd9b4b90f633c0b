package conformance

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
)

func pagesAreWhole(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	messages := numbered(300, 50)
	for batch := range slices.Chunk(messages, 7) {
		c.append(l, room, batch)
	}
	for _, bytes := range []int{1, 500, 5000, 0} {
		all := c.readAll(l, room, start, eventlog.Limit{Bytes: bytes})
		if got := data(all); !slices.Equal(got, messageData(messages)) {
			c.fatalf("pages of %d bytes hold %d events of %d, or in another order: %s", bytes, len(got), len(messages), brief(got))
		}
		for i, e := range all {
			if after := e.Before(); i%50 == 0 {
				if page := c.read(l, room, after, eventlog.Limit{Bytes: 1}); len(page.Events) == 0 || page.Events[0].At != e.At {
					c.errorf("the event after %v is not %v", after, e.At)
				}
			}
		}
	}
}

func pagesAreBounded(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	c.append(l, room, append(numbered(300, 1000), numbered(1, 10_000)...))
	for _, bytes := range []int{1, 2500, 0} {
		bound, after := bytes, start
		if bytes == 0 {
			bound = 64 << 10
		}
		for {
			page := c.read(l, room, after, eventlog.Limit{Bytes: bytes})
			size := 0
			for i := range page.Events {
				size += page.Events[i].Size()
			}
			if len(page.Events) == 0 || len(page.Events) > 1 && size > bound {
				c.fatalf("a page of %d bytes after %v holds %d events of %d bytes", bytes, after, len(page.Events), size)
			}
			if after = page.Next; !page.More() {
				break
			}
		}
	}
}

func nextAndHead(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	if page := c.read(l, room, start, eventlog.Limit{}); page.Next != start || page.Head != start || len(page.Events) > 0 {
		c.errorf("the page of an unborn channel after %v is %+v", start, page)
	}
	last := c.append(l, room, numbered(10, 100))
	for after := start; after != last; {
		page := c.read(l, room, after, eventlog.Limit{Bytes: 1000})
		if len(page.Events) == 0 || page.Next != page.Events[len(page.Events)-1].At || page.Head != last {
			c.fatalf("after %v, with the head at %v: %d events, Next %v, Head %v", after, last, len(page.Events), page.Next, page.Head)
		}
		after = page.Next
	}
	if page := c.read(l, room, last, eventlog.Limit{}); page.Next != last || page.Head != last || len(page.Events) > 0 {
		c.errorf("the page at the head %v has %d events, Next %v, Head %v", last, len(page.Events), page.Next, page.Head)
	}
}

func behindFalls(c *logCheck) {
	l := c.open(LogSetup{})
	after := c.head(l, room)
	c.append(l, room, numbered(100, 500))
	last := int64(1 << 60)
	for {
		page := c.read(l, room, after, eventlog.Limit{Bytes: 5000})
		switch {
		case page.Behind >= last, page.More() && page.Behind <= 0, !page.More() && page.Behind != 0:
			c.fatalf("Behind is %d at %v of %v, after %d", page.Behind, page.Next, page.Head, last)
		case !page.More():
			return
		}
		after, last = page.Next, page.Behind
	}
}

func pagesAreStable(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Events: 20}})
	start := c.head(l, room)
	messages := numbered(10, 20)
	c.append(l, room, messages)
	first := c.read(l, room, start, eventlog.Limit{})
	second := c.read(l, room, start, eventlog.Limit{})
	events := slices.Clone(first.Events)
	unchanged := func() {
		same := func(a, b eventlog.Event) bool { return a.At == b.At && string(a.Data) == string(b.Data) }
		if !slices.EqualFunc(first.Events, events, same) || !slices.Equal(data(first.Events), messageData(messages)) {
			c.fatalf("a page changed after it was read: %s", brief(data(first.Events)))
		}
	}
	for i := range second.Events {
		second.Events[i] = eventlog.Event{}
	}
	_ = append(second.Events, eventlog.Event{})
	unchanged()
	if got := data(c.readAll(l, room, start, eventlog.Limit{})); !slices.Equal(got, messageData(messages)) {
		c.errorf("a reader changed its page, and another reads %s", brief(got))
	}
	for range 10 {
		c.append(l, room, numbered(10, 30))
		c.readAll(l, room, c.seek(l, room, eventlog.Start{Earliest: true}), eventlog.Limit{})
	}
	unchanged()
}

func typesAreFiltered(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	types := []string{"a", "b", "", "message", "c"}
	want := make(map[string][]string)
	for i := range 200 {
		m := text(fmt.Sprint(i))
		m[0].Type = types[i%len(types)]
		want[m[0].Type] = append(want[m[0].Type], fmt.Sprint(i))
		if m[0].Type == "message" || m[0].Type == "" {
			want["default"] = append(want["default"], fmt.Sprint(i))
		}
		c.append(l, room, m)
	}
	check := func(want []string, types ...string) {
		for _, bytes := range []int{1, 1000, 0} {
			if got := data(c.readAll(l, room, start, eventlog.Limit{Bytes: bytes, Filter: eventlog.Filter{Types: types}})); !slices.Equal(got, want) {
				c.errorf("types %q in pages of %d bytes: %s, not %s", types, bytes, brief(got), brief(want))
			}
		}
	}
	check(want["a"], "a")
	check(want["c"], "c", "none")
	check(want["default"], "")
	check(want["default"], "message")
	check(nil, "none")
	if page := c.read(l, room, c.head(l, room), eventlog.Limit{Filter: eventlog.Filter{Types: []string{"a"}}}); page.More() {
		c.errorf("a filtered page at the head says that there is more")
	}
}

func scanIsBounded(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	for range 10 {
		c.append(l, room, numbered(100, 3000))
	}
	page := c.read(l, room, start, eventlog.Limit{Bytes: 1, Filter: eventlog.Filter{Types: []string{"none"}}})
	if !page.More() {
		c.errorf("one read of a byte's page looked through 1000 events and 3 MB")
	}
	if got := c.readAll(l, room, start, eventlog.Limit{Bytes: 10_000, Filter: eventlog.Filter{Types: []string{"none"}}}); len(got) > 0 {
		c.errorf("%d events that nobody wanted", len(got))
	}
}

func seekFinds(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	all := []eventlog.Start{{}, {Earliest: true}, {Last: 1}, {Last: 100}}
	for _, s := range all {
		if at := c.seek(l, room, s); at != start {
			c.errorf("in an unborn channel %+v is %v, and the latest %v", s, at, start)
		}
	}
	last := c.append(l, room, text("a", "b", "c", "d"))
	for s, want := range map[eventlog.Start][]string{
		{}: nil, {Earliest: true}: {"a", "b", "c", "d"},
		{Last: 1}: {"d"}, {Last: 3}: {"b", "c", "d"}, {Last: 4}: {"a", "b", "c", "d"}, {Last: 1 << 40}: {"a", "b", "c", "d"},
	} {
		c.expect(l, room, c.seek(l, room, s), want...)
	}
	if at := c.head(l, room); at != last {
		c.errorf("the latest is %v, not %v", at, last)
	}
	now := time.Now()
	for _, s := range []eventlog.Start{
		{Last: -1},
		{Earliest: true, Last: 1},
		{Earliest: true, Last: -1},
		{Since: now, Earliest: true},
		{Since: now, Last: 1},
		{Since: now, Last: -1},
	} {
		_, err := l.Seek(c.ctx, room, s)
		c.invalid(err, "Seek to %+v", s)
	}
}

func seekFindsSince(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Events: 6, Age: time.Hour}})
	start, began := c.head(l, room), time.Now()
	since := func(t time.Time) eventlog.Position { return c.seek(l, room, eventlog.Start{Since: t}) }
	for _, t := range []time.Time{time.Unix(1, 0), began, began.Add(time.Hour)} {
		if at := since(t); at != start {
			c.errorf("in an unborn channel since %v is %v, and the latest %v", t, at, start)
		}
	}
	for _, batch := range [][]string{{"a", "b"}, {"c"}, {"d", "e", "f"}} {
		c.append(l, room, text(batch...))
		c.pass(l, time.Minute)
	}
	all := c.readAll(l, room, start, eventlog.Limit{})
	if len(all) != 6 {
		c.fatalf("%d events are there of 6 that were appended", len(all))
	}
	check := func(t time.Time) {
		var want []string
		if i := slices.IndexFunc(all, func(e eventlog.Event) bool { return !e.Time.Before(t) }); i >= 0 {
			want = data(all[i:])
		}
		c.expect(l, room, since(t), want...)
	}
	for _, e := range all {
		for _, off := range []time.Duration{-time.Second, 0, time.Second} {
			check(e.Time.Add(off))
			check(e.Time.Add(off).In(time.FixedZone("east", 3600)))
		}
	}
	check(time.Unix(-1, 0))
	check(time.Now())
	check(time.Now().Add(24 * time.Hour))

	c.append(l, room, text("g", "h", "i")) // "a", "b" and "c" are trimmed
	earliest := c.seek(l, room, eventlog.Start{Earliest: true})
	for _, e := range all[:4] {
		if at := since(e.Time); at != earliest {
			c.errorf("since %v, and what was there then is trimmed, is %v, and the earliest %v", e.Time, at, earliest)
		}
	}
	c.pass(l, 2*time.Hour) // and then all are
	for _, t := range []time.Time{began, time.Now()} {
		if at, head := since(t), c.head(l, room); at != head {
			c.errorf("in an empty channel since %v is %v, and the latest %v", t, at, head)
		}
	}
}

func appendWakes(c *logCheck) {
	l := c.open(LogSetup{})
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	defer l.Watch(room, wake)()
	for i := range 20 {
		c.append(l, room, numbered(1+i%3, 10))
		if !within(time.Hour, woken) {
			c.fatalf("append %d was followed by no wake within an hour", i+1)
		}
		c.pass(l, time.Minute) // so that a late wake isn't taken for the next
		select {
		case <-woken:
		default:
		}
	}
}

func wakeHoldsNoLock(c *logCheck) {
	l := c.open(LogSetup{})
	other := eventlog.Channel{Name: "other"}
	woken, appended := make(chan struct{}, 1), make(chan struct{})
	var over atomic.Bool // a wake for nothing may meet a log that is closed
	defer over.Store(true)
	wake := func() {
		at, err := l.Seek(c.ctx, room, eventlog.Start{Earliest: true})
		if err == nil {
			_, err = l.Read(c.ctx, room, at, eventlog.Limit{})
		}
		if err == nil {
			_, _, err = l.Append(c.ctx, other, eventlog.Batch{Messages: text("from a wake")})
		}
		l.Watch(room, func() {})()
		if err != nil && !over.Load() {
			c.errorf("a wake that calls the log: %v", err)
		}
		select {
		case woken <- struct{}{}:
		default:
		}
	}
	defer l.Watch(room, wake)()
	go func() {
		defer close(appended)
		if _, _, err := l.Append(c.ctx, room, eventlog.Batch{Messages: text("a")}); err != nil {
			c.errorf("Append while a wake calls the log: %v", err)
		}
	}()
	const long = 2 * 365 * 24 * time.Hour // past the contexts
	if !within(long, appended) || !within(long, woken) {
		c.fatalf("a wake that calls the log doesn't return, or wasn't called")
	}
}

func stopStops(c *logCheck) {
	l := c.open(LogSetup{})
	woken := make([]int, 3)
	var stops []func()
	counts := make(chan int, 1000)
	for i := range woken {
		stops = append(stops, l.Watch(room, func() { counts <- i }))
	}
	count := func() {
		clear(woken)
		for range 5 {
			c.append(l, room, text("a"))
			c.pass(l, time.Minute)
		}
		synctest.Wait()
		for len(counts) > 0 {
			woken[<-counts]++
		}
	}
	stops[1]()
	stops[1]()
	count()
	if woken[1] > 1 || woken[0] == 0 || woken[2] == 0 {
		c.errorf("after the second of three stopped, 5 appends woke them %d times", woken)
	}
	stops[0]()
	stops[1]()
	stops[2]()
	count()
	if woken[0] > 1 || woken[1] > 0 || woken[2] > 1 {
		c.errorf("after all stopped, 5 appends woke them %d times", woken)
	}
}
