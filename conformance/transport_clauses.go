package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

func refusalIsTold(c *transportCheck) {
	c.refuse = transport.Refuse(transport.CodeForbidden, "not for you")
	l := c.open(ask(at(3)))
	select {
	case <-l.over:
	case <-time.After(c.patience()):
		c.fatalf("the client half has not returned %v (%s) after the engine had refused with %q", c.patience(), c.time(), c.refuse)
	}
	var r *transport.Refusal
	if !errors.As(l.err, &r) || r.Code != transport.CodeForbidden {
		c.errorf("the engine refused with %q, and the client half returned %q, not a *transport.Refusal of that code", c.refuse, errorText(l.err))
	}
	if !c.handlersReturn(c.patience()) {
		c.errorf("the handler has not returned")
	}
}

func openingIsTold(c *transportCheck) {
	l, a := c.attach(ask(eventlog.Position{}))
	a.send(opening("room", at(7)))
	l.position(at(7))
}

// payloads are of every kind that has been a trouble to some carrier.
var payloads = []eventlog.Message{
	{Kind: eventlog.JSON, Data: []byte(`{"a":1,"b":[true,null,"x"],"c":"\u0000\ud83d\ude00"}`)},
	{Kind: eventlog.JSON, Data: []byte(`"one string"`)},
	{Kind: eventlog.JSON, Data: []byte(`12345678901234567890.123456789`)},
	{Kind: eventlog.Text, Data: []byte("")},
	{Kind: eventlog.Text, Data: []byte("\n")},
	{Kind: eventlog.Text, Data: []byte("two\nlines\n")},
	{Kind: eventlog.Text, Data: []byte("a\rb\r\nc")},
	{Kind: eventlog.Text, Data: []byte(" leading, and data: id: event: retry:")},
	{Kind: eventlog.Text, Data: []byte("data:;base64,aGVsbG8=")},
	{Kind: eventlog.Text, Data: []byte("\ufeffbom, \u2028, \U0001F600, <&\"\\>, \x00\x01\x7f")},
	{Kind: eventlog.Text, Data: []byte("\n\nid: forged\ndata: forged\n\n")},
	{Kind: eventlog.Binary, Data: []byte{}},
	{Kind: eventlog.Binary, Data: []byte("\x00\xff\r\n\xc3\x28")},
	{Kind: eventlog.Text, Data: []byte(strings.Repeat("x", 70_000))},
	{Kind: eventlog.Text, Data: []byte(strings.Repeat("y", 125))},
	{Kind: eventlog.Text, Data: []byte(strings.Repeat("z", 300))},
}

func payloadsArrive(c *transportCheck) {
	list := make([]eventlog.Event, len(payloads))
	for i, m := range payloads {
		m.Type = fmt.Sprintf("type.%d", i)
		list[i] = eventlog.Event{Message: m, At: at(i + 1), Prev: at(i).Mark}
	}
	l, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)), runOf("room", list))
	for i := range list {
		l.event(&list[i])
	}
}

func orderIsKept(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)))
	n := 0
	for i := range 40 {
		list := events(n, slices.Repeat([]string{fmt.Sprint("payload ", i)}, i%5+1)...)
		if i%2 == 0 && len(list) > 1 {
			a.send(runOf("room", list[:1]), runOf("room", list[1:]))
		} else {
			a.send(runOf("room", list))
		}
		n += len(list)
	}
	list := events(0, slices.Repeat([]string{""}, n)...)
	for i := range list {
		if r := l.news(fmt.Sprintf("event %d of %d, at %v", i+1, n, list[i].At)); r.Position != list[i].At.String() {
			c.fatalf("%s came, not event %d of %d, at %v", describeReceived(r), i+1, n, list[i].At)
		}
	}
	c.settle()
	l.quiet()
}

func gapIsTold(c *transportCheck) {
	l, a := c.attach(ask(at(2)))
	lost := eventlog.Lost{From: at(2), To: at(9), Reason: eventlog.Trimmed}
	list := events(9, "after the gap")
	a.send(transport.Item{Frame: &transport.Frame{Kind: transport.FrameGap, Channel: "room", Lost: lost}}, runOf("room", list))
	r := l.next("the gap")
	if r.Event || r.From != at(2).String() || r.To != at(9).String() || r.Reason != "trimmed" {
		c.fatalf("%s came, not the gap from %v to %v for %q", describeReceived(r), lost.From, lost.To, lost.Reason)
	}
	l.event(&list[0])
}

func positionMoves(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	empty := transport.Item{Run: &transport.Run{Channel: eventlog.Channel{Name: "room"}, Next: at(5)}}
	a.send(opening("room", at(0)), empty)
	awaited := fmt.Sprintf("the position %v alone", at(5))
	for r := l.next(awaited); r.Position != at(5).String(); r = l.next(awaited) {
		if r.isNews() || r.Position != at(0).String() {
			c.fatalf("%s came, not %s", describeReceived(r), awaited)
		}
	}
	if c.transport.Once {
		<-l.over
		l, a = c.attach(ask(at(5)))
	}
	list := events(5, "shown")
	part := transport.Item{Run: &transport.Run{Channel: eventlog.Channel{Name: "room"}, Events: list, Next: at(8)}}
	a.send(part)
	l.event(&list[0])
	l.position(at(8))
}

func sendBeforeAttachReturns(c *transportCheck) {
	list := events(0, "early")
	c.onAttach = func(a *attachment) {
		a.send(opening("room", at(0)), runOf("room", list))
	}
	l, _ := c.attach(ask(at(0)))
	l.event(&list[0])
}

func handlerWaitsForDone(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	if !c.transport.Once {
		a.send(opening("room", at(0)))
		l.position(at(0))
	}
	l.cancel()
	<-l.over
	time.Sleep(c.span(5*time.Minute, 300*time.Millisecond))
	if n := c.handlers.Load(); n != 1 {
		c.fatalf("the handler returned before Done")
	}
	a.end()
	if !c.handlersReturn(c.patience()) {
		c.errorf("the handler has not returned %v after Done", c.patience())
	}
}

func detachWhenClientLeaves(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	if !c.transport.Once {
		a.send(opening("room", at(0)))
		l.position(at(0))
	}
	select {
	case <-a.detached:
		c.errorf("Detach while the client was there, and silent")
	case <-time.After(c.span(30*time.Second, 100*time.Millisecond)):
	}
	l.cancel()
	select {
	case <-a.detached:
	case <-time.After(10 * time.Second):
		c.errorf("no Detach within 10 s after the client left")
	}
}

// fill sends until a Send fails, and returns its error and how long it took.
func (a *attachment) fill(each time.Duration) (error, time.Duration) { //nolint:staticcheck // the error is what is measured
	a.isOpen()
	big := strings.Repeat("x", 60_000)
	for n := range 1000 {
		began := time.Now()
		more, err := a.try(each, runOf("room", events(n, big)))
		if err != nil {
			return err, time.Since(began)
		}
		if !more {
			a.check.fatalf("the connection was spent by a Send")
		}
	}
	return nil, 0
}

func deadlineIsKept(c *transportCheck) {
	deadline, late := c.span(5*time.Second, 250*time.Millisecond), c.span(time.Second, 5*time.Second)
	stall := make(chan struct{})
	c.openStalled(ask(at(0)), stall)
	a := c.await()
	a.send(opening("room", at(0)))
	err, took := a.fill(deadline)
	switch {
	case err == nil:
		c.errorf("60 MB were taken for a client that doesn't read")
	case took < deadline || took > deadline+late:
		c.errorf("a Send with a deadline in %v returned %v after %v", deadline, err, took)
	}
}

func closeFreesSend(c *transportCheck) {
	after, late := c.span(3*time.Second, 250*time.Millisecond), c.span(time.Second, 5*time.Second)
	stall := make(chan struct{})
	c.openStalled(ask(at(0)), stall)
	a := c.await()
	a.send(opening("room", at(0)))
	timer := time.AfterFunc(after, func() { a.close(transport.CodeSlowConsumer) })
	defer timer.Stop()
	began := time.Now()
	err, _ := a.fill(c.span(10*time.Minute, 20*time.Second))
	if took := time.Since(began); err == nil || took > after+late {
		c.errorf("a Send that Close should have freed after %v returned %v after %v", after, err, took)
	}
}

func closeAnytime(c *transportCheck) {
	_, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)), runOf("room", events(0, "x")))
	var closers sync.WaitGroup
	began := time.Now()
	for range 4 {
		closers.Go(func() { a.close(transport.CodeShutdown) })
	}
	closers.Wait()
	if took := time.Since(began); took > c.span(0, time.Second) {
		c.errorf("Close blocked for %v", took)
	}
	a.end()
	if !c.handlersReturn(c.patience()) {
		c.errorf("the handler has not returned %v after Close and Done", c.patience())
	}
	a.close(transport.CodeShutdown)
}

func sendAfterClose(c *transportCheck) {
	_, a := c.attach(ask(at(0)))
	a.close(transport.CodeShutdown)
	if _, err := a.try(time.Second, runOf("room", events(0, "x"))); err == nil {
		c.errorf("a Send after Close returned no error")
	}
}

func goodbyeEnds(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	list := events(0, "last words")
	why := transport.Reason{Code: transport.CodeShutdown, Class: transport.Later, After: 3 * time.Second}
	a.send(opening("room", at(0)))
	a.send(runOf("room", list), transport.Item{Frame: &transport.Frame{Kind: transport.FrameClose, Reason: why}})
	a.end()
	l.event(&list[0])
	select {
	case <-l.over:
		if l.err != nil {
			c.errorf("the line ended with %v", l.err)
		}
	case <-time.After(c.patience()):
		c.errorf("the line has not ended %v after its goodbye", c.patience())
	}
}

func moreIsTrue(c *transportCheck) {
	_, a := c.attach(ask(at(0)))
	if more := a.send(opening("room", at(0)), runOf("room", events(0, "news"))); more == c.transport.Once {
		c.errorf("Send returned more = %v", more)
	}
}

func openingsWait(c *transportCheck) {
	l, a := c.attach(ask(at(4)))
	if !a.send(opening("room", at(4))) {
		c.fatalf("a Send of what may wait was taken for the answer")
	}
	time.Sleep(c.span(time.Second, 50*time.Millisecond))
	list := events(4, "news")
	if a.send(runOf("room", list)) {
		c.errorf("Send returned more = true after the answer")
	}
	l.event(&list[0])
	<-l.over
	if l.err != nil {
		c.errorf("the answer ended with %v", l.err)
	}
}

func waitEnds(c *transportCheck) {
	wait, late := c.span(20*time.Second, 500*time.Millisecond), c.span(time.Second, 5*time.Second)
	began := time.Now()
	l, a := c.attach(Ask{Channels: []string{"room"}, After: at(4).String(), Wait: wait})
	a.send(opening("room", at(4)))
	go func() {
		select {
		case <-a.detached:
			a.end()
		case <-c.ctx.Done():
		}
	}()
	l.position(at(4))
	<-l.over
	if took := time.Since(began); l.err != nil || took < wait-wait/20 || took > wait+late {
		c.errorf("a wait of %v ended after %v with %v", wait, took, l.err)
	}
}

func heartbeatIsSilent(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)))
	beat := (&transport.Frame{Kind: transport.FrameBeat}).Shared()
	for range 3 {
		a.send(transport.Item{Frame: beat})
		time.Sleep(c.span(time.Second, 50*time.Millisecond))
	}
	c.settle()
	l.quiet()
	list := events(0, "after")
	a.send(runOf("room", list))
	l.event(&list[0])
}

func sharedStaysTheSame(c *transportCheck) {
	shared := runOf("room", events(0, "one", "two\nlines", "three"))
	want := events(0, "one", "two\nlines", "three")
	for n := range 3 {
		l, a := c.attach(ask(at(0)))
		a.send(opening("room", at(0)), shared)
		for i := range want {
			e := &want[i]
			r := l.news(describeEvent(e, "room"))
			if wrong := wrongEvent(e, "room", r); wrong != "" || !r.Event {
				c.fatalf("line %d of 3 that share a run: %s: the event was made as %s, and came as %s", n+1, wrong, describeEvent(e, "room"), describeReceived(r))
			}
		}
		a.close(transport.CodeShutdown)
		a.end()
		<-l.over
	}
}

func channelsKeepPositions(c *transportCheck) {
	l, a := c.attach(Ask{Channels: []string{"a", "b"}, Wait: time.Minute})
	sent := map[string][]eventlog.Event{"a": events(10, "a1", "a2"), "b": events(20, "b1")}
	a.send(opening("a", at(10)), opening("b", at(20)), runOf("a", sent["a"]), runOf("b", sent["b"]))
	for range 3 {
		r := l.news(fmt.Sprintf("events at %v and %v of \"a\" and at %v of \"b\"", at(11), at(12), at(21)))
		left := sent[r.Channel]
		if len(left) == 0 {
			c.fatalf("%s came, and of that channel nothing more was sent", describeReceived(r))
		}
		l.isEvent(&left[0], r.Channel, r)
		sent[r.Channel] = left[1:]
	}
}

// cutAnywhere cuts the first line after each byte, and goes on with a second
// one from the last position that was received.
func cutAnywhere(c *transportCheck) {
	list := events(0, "first", "second\nline", "third", "fourth")
	c.onAttach = func(a *attachment) {
		n := int(a.hello.Channels[0].After.Offset)
		items := []transport.Item{opening("room", at(n))}
		if n < len(list) {
			items = append(items, runOf("room", list[n:]))
		}
		if !c.transport.Once { // an end in good order: what Close throws away was never promised
			items = append(items, transport.Item{Frame: &transport.Frame{Kind: transport.FrameClose, Reason: transport.Reason{Code: transport.CodeShutdown, Class: transport.Now}}})
		}
		if _, err := a.try(time.Second, items...); err != nil {
			a.close(transport.CodeBroken) // it was cut
		}
		a.end()
	}
	cut := -1
	c.network.cutAfter = func() int { return cut }
	if got, _, l := c.readOn(at(0).String()); len(got) != len(list) {
		c.fatalf("already without a cut, of %d events came those at %q, and the client half returned %q; sent was %s", len(list), got, errorText(l.err), c.lastSent())
	}
	whole := 0
	for cut = 0; whole < 2 && cut < 5000; cut += max(1, c.cutEach) {
		if c.cutOnce(list, &cut) {
			whole++
		}
	}
	if whole == 0 {
		c.errorf("the line brought nothing even when cut after %d bytes", cut)
	}
}

// cutOnce reports whether the first line brought everything.
func (c *transportCheck) cutOnce(list []eventlog.Event, cut *int) (whole bool) {
	got, position, l := c.readOn(at(0).String())
	whole = len(got) == len(list)
	k := *cut
	*cut = -1
	more, _, again := c.readOn(position)
	*cut = k
	got = append(got, more...)
	if len(got) != len(list) {
		c.fatalf("cut after byte %d, then resumed after %q: %d of %d events came, at %q; the client half returned %q, then %q",
			k, position, len(got), len(list), got, errorText(l.err), errorText(again.err))
	}
	for i := range list {
		if got[i] != list[i].At.String() {
			c.fatalf("cut after byte %d, then resumed after %q: the events at %q came", k, position, got)
		}
	}
	return whole
}

// readOn reads a line of a new connection to its end. It returns where the
// events were that came, and the last position that was given.
func (c *transportCheck) readOn(after string) (got []string, position string, l *line) {
	c.http.CloseIdleConnections()
	position = after
	l = c.open(Ask{Channels: []string{"room"}, After: after, Wait: time.Second})
	for r := range l.got {
		if r.Event {
			got = append(got, r.Position)
		}
		if r.Position != "" {
			position = r.Position
		}
	}
	return got, position, l
}
