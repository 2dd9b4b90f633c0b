package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

func refusalIsTold(c *transportCheck) {
	c.refuse = transport.Refuse(transport.CodeForbidden, "not for you")
	l := c.open(ask(at(3)))
	<-l.over
	var r *transport.Refusal
	if !errors.As(l.err, &r) || r.Code != transport.CodeForbidden {
		c.errorf("the client was told %v", l.err)
	}
	synctest.Wait()
	if n := c.handlers.Load(); n > 0 {
		c.errorf("the handler has not returned")
	}
}

func openingIsTold(c *transportCheck) {
	l, a := c.attach(ask(eventlog.Position{}))
	a.send(opening("room", at(7)))
	if r := l.next(); r.Position != at(7).String() || r.Event || r.To != "" {
		c.errorf("%+v came, not the position %v alone", r, at(7))
	}
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
		if r := l.news(); r.Position != list[i].At.String() {
			c.fatalf("the event at %q came, not that at %v", r.Position, list[i].At)
		}
	}
	synctest.Wait()
	l.quiet()
}

func gapIsTold(c *transportCheck) {
	l, a := c.attach(ask(at(2)))
	lost := eventlog.Lost{From: at(2), To: at(9), Reason: eventlog.Trimmed}
	list := events(9, "after the gap")
	a.send(transport.Item{Frame: &transport.Frame{Kind: transport.FrameGap, Channel: "room", Lost: lost}}, runOf("room", list))
	r := l.next()
	if r.Event || r.From != at(2).String() || r.To != at(9).String() || r.Reason != "trimmed" {
		c.fatalf("%+v came, not %v", r, &lost)
	}
	l.event(&list[0])
}

func positionMoves(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	empty := transport.Item{Run: &transport.Run{Channel: eventlog.Channel{Name: "room"}, Next: at(5)}}
	a.send(opening("room", at(0)), empty)
	for r := l.next(); r.Position != at(5).String(); r = l.next() {
		if r.Event || r.To != "" || r.Position != at(0).String() {
			c.fatalf("%+v came, not the position %v", r, at(5))
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
	if r := l.next(); r.Position != at(8).String() || r.Event {
		c.errorf("%+v came, not the position %v", r, at(8))
	}
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
		l.next()
	}
	l.cancel()
	<-l.over
	time.Sleep(5 * time.Minute)
	if n := c.handlers.Load(); n != 1 {
		c.fatalf("the handler returned before Done")
	}
	a.end()
	time.Sleep(time.Minute)
	if n := c.handlers.Load(); n != 0 {
		c.errorf("the handler has not returned a minute after Done")
	}
}

func detachWhenClientLeaves(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	if !c.transport.Once {
		a.send(opening("room", at(0)))
		l.next()
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
	big := strings.Repeat("x", 60_000)
	for n := range 1000 {
		began := time.Now()
		_, err := a.conn.Send([]transport.Item{runOf("room", events(n, big))}, began.Add(each))
		if err != nil {
			return err, time.Since(began)
		}
	}
	return nil, 0
}

func deadlineIsKept(c *transportCheck) {
	stall := make(chan struct{})
	c.openStalled(ask(at(0)), stall)
	a := c.await()
	a.send(opening("room", at(0)))
	err, took := a.fill(5 * time.Second)
	switch {
	case err == nil:
		c.errorf("60 MB were taken for a client that doesn't read")
	case took < 5*time.Second || took > 6*time.Second:
		c.errorf("a Send with a deadline in 5 s returned %v after %v", err, took)
	}
}

func closeFreesSend(c *transportCheck) {
	stall := make(chan struct{})
	c.openStalled(ask(at(0)), stall)
	a := c.await()
	a.send(opening("room", at(0)))
	timer := time.AfterFunc(3*time.Second, func() { a.conn.Close(transport.Reason{Code: transport.CodeSlowConsumer}) })
	defer timer.Stop()
	began := time.Now()
	err, _ := a.fill(10 * time.Minute)
	if took := time.Since(began); err == nil || took > 4*time.Second {
		c.errorf("a Send that Close should have freed after 3 s returned %v after %v", err, took)
	}
}

func closeAnytime(c *transportCheck) {
	_, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)), runOf("room", events(0, "x")))
	var closers sync.WaitGroup
	began := time.Now()
	for range 4 {
		closers.Go(func() { a.conn.Close(transport.Reason{Code: transport.CodeShutdown}) })
	}
	closers.Wait()
	if took := time.Since(began); took > 0 {
		c.errorf("Close blocked for %v", took)
	}
	a.end()
	time.Sleep(time.Minute)
	if n := c.handlers.Load(); n != 0 {
		c.errorf("the handler has not returned a minute after Close and Done")
	}
	a.conn.Close(transport.Reason{Code: transport.CodeShutdown})
}

func sendAfterClose(c *transportCheck) {
	_, a := c.attach(ask(at(0)))
	a.conn.Close(transport.Reason{Code: transport.CodeShutdown})
	if _, err := a.conn.Send([]transport.Item{runOf("room", events(0, "x"))}, time.Now().Add(time.Second)); err == nil {
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
	case <-time.After(time.Minute):
		c.errorf("the line has not ended a minute after its goodbye")
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
	time.Sleep(time.Second)
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
	began := time.Now()
	l, a := c.attach(Ask{Channels: []string{"room"}, After: at(4).String(), Wait: 20 * time.Second})
	a.send(opening("room", at(4)))
	go func() {
		<-a.detached
		a.end()
	}()
	if r := l.next(); r.Position != at(4).String() || r.Event {
		c.errorf("%+v came, not the position %v", r, at(4))
	}
	<-l.over
	if took := time.Since(began); l.err != nil || took < 19*time.Second || took > 21*time.Second {
		c.errorf("a wait of 20 s ended after %v with %v", took, l.err)
	}
}

func heartbeatIsSilent(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)))
	beat := (&transport.Frame{Kind: transport.FrameBeat}).Shared()
	for range 3 {
		a.send(transport.Item{Frame: beat})
		time.Sleep(time.Second)
	}
	synctest.Wait()
	l.quiet()
	list := events(0, "after")
	a.send(runOf("room", list))
	l.event(&list[0])
}

func sharedStaysTheSame(c *transportCheck) {
	shared := runOf("room", events(0, "one", "two\nlines", "three"))
	want := events(0, "one", "two\nlines", "three")
	for range 3 {
		l, a := c.attach(ask(at(0)))
		a.send(opening("room", at(0)), shared)
		for i := range want {
			l.event(&want[i])
		}
		a.conn.Close(transport.Reason{Code: transport.CodeShutdown})
		a.end()
		<-l.over
	}
}

func channelsKeepPositions(c *transportCheck) {
	l, a := c.attach(Ask{Channels: []string{"a", "b"}, Wait: time.Minute})
	ofA, ofB := events(10, "a1", "a2"), events(20, "b1")
	a.send(opening("a", at(10)), opening("b", at(20)), runOf("a", ofA), runOf("b", ofB))
	last := map[string]string{}
	for range 3 {
		r := l.news()
		last[r.Channel] = r.Position
	}
	if last["a"] != ofA[1].At.String() || last["b"] != ofB[0].At.String() {
		c.errorf("the last positions were %v", last)
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
		_, _ = a.conn.Send(items, time.Now().Add(time.Second)) // it may be cut
		a.conn.Close(transport.Reason{Code: transport.CodeShutdown})
		a.end()
	}
	cut := 0
	c.network.CutAfter = func() int { return cut }
	whole := 0
	for ; whole < 2 && cut < 5000; cut++ {
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
	var got []string
	position := at(0).String()
	read := func() {
		c.http.CloseIdleConnections()
		l := c.open(Ask{Channels: []string{"room"}, After: position, Wait: time.Second})
		for r := range l.got {
			if r.Event {
				got = append(got, r.Position)
			}
			if r.Position != "" {
				position = r.Position
			}
		}
	}
	read()
	whole = len(got) == len(list)
	k := *cut
	*cut = -1
	read()
	*cut = k
	if len(got) != len(list) {
		c.fatalf("cut after byte %d, then resumed: %v came of %d events", k, got, len(list))
	}
	for i := range list {
		if got[i] != list[i].At.String() {
			c.fatalf("cut after byte %d, then resumed: %v came", k, got)
		}
	}
	return whole
}
