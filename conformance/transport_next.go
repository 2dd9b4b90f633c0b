package conformance

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/throughline/throughline/transport"
)

// The clauses about what outlives a line: its connection, and deadlines.

// exchange opens a line after the nth event, has it bring the next one, and
// ends it in good order.
func (c *transportCheck) exchange(n int) *attachment {
	l, a := c.attach(ask(at(n)))
	list := events(n, fmt.Sprint("event ", n+1))
	items := []transport.Item{opening("room", at(n)), runOf("room", list)}
	if !c.transport.Once {
		goodbye := &transport.Frame{Kind: transport.FrameClose, Reason: transport.Reason{Code: transport.CodeShutdown, Class: transport.Now}}
		items = append(items, transport.Item{Frame: goodbye})
	}
	a.send(items...)
	a.end()
	l.event(&list[0])
	l.ends()
	if !c.handlersReturn(c.patience()) {
		c.fatalf("the handler has not returned %v (%s) after Done", c.patience(), c.time())
	}
	return a
}

// lateCloseHarmsNobody closes lines that are over: while their connection is
// idle, while the next request waits on it, and while that is answered.
func lateCloseHarmsNobody(c *transportCheck) {
	first, second := c.exchange(0), c.exchange(1)
	kept := c.network.dials.Load() == 1
	second.close(transport.CodeShutdown)
	c.settle()
	third := c.exchange(2)
	if n := c.network.dials.Load(); kept && n != 1 {
		c.fatalf("net/http had kept the connection for the next request, and a Close after the handler had returned broke it (%d connections now)", n)
	}
	l, a := c.attach(ask(at(3)))
	third.close(transport.CodeShutdown)
	select {
	case <-a.detached:
		c.fatalf("a Close after its handler had returned ended the next request on the same connection")
	case <-time.After(c.span(10*time.Second, 100*time.Millisecond)):
	}
	c.closeDuring(first, l, a)
}

// closeDuring closes a line that is over while another is written to a client
// that reads slowly.
func (c *transportCheck) closeDuring(over *attachment, l *line, a *attachment) {
	n := 5 // more than a network in memory holds
	if c.transport.TCP {
		n = 250
	}
	payloads := make([]string, n)
	for i := range payloads {
		payloads[i] = fmt.Sprint(i, strings.Repeat("x", 60_000))
	}
	list := events(3, payloads...)
	release := c.network.hold()
	defer release()
	sent := make(chan error, 1)
	go func() {
		more, err := a.try(time.Minute, opening("room", at(3)), runOf("room", list))
		if !more {
			a.end()
		}
		sent <- err
	}()
	time.Sleep(c.span(time.Second, 100*time.Millisecond))
	over.close(transport.CodeShutdown)
	time.Sleep(c.span(time.Second, 100*time.Millisecond))
	release()
	if err := <-sent; err != nil {
		c.fatalf("a Close after its handler had returned made a Send of the next request on the same connection fail: %v", err)
	}
	for i := range list {
		l.event(&list[i])
	}
}

func deadlinePasses(c *transportCheck) {
	within := c.span(2*time.Second, 200*time.Millisecond)
	l, a := c.attach(ask(at(0)))
	if _, err := a.try(within, opening("room", at(0))); err != nil {
		c.fatalf("Send: %v", err)
	}
	l.position(at(0))
	silence := c.span(5*time.Minute, 500*time.Millisecond)
	select {
	case <-l.over:
		c.fatalf("the deadline of a Send that had returned ended the line: the client half returned %q", errorText(l.err))
	case <-a.detached:
		c.fatalf("the deadline of a Send that had returned ended the line: Detach came")
	case <-time.After(silence):
	}
	list := events(0, "after the deadline")
	if _, err := a.try(time.Minute, runOf("room", list)); err != nil {
		c.fatalf("a Send %v (%s) after one with a deadline in %v returned %v", silence, c.time(), within, err)
	}
	l.event(&list[0])
}

// nextRequestIsServed asks a neighbour of the adapter's, which touches no
// deadline, over the connection that the adapter left.
func nextRequestIsServed(c *transportCheck) {
	c.exchange(0)
	c.neighbour()
	c.exchange(1)
	if c.network.dials.Load() != 1 {
		return // connections are not kept
	}
	later := c.span(5*time.Minute, time.Second)
	time.Sleep(later)
	c.neighbour()
	if c.network.dials.Load() != 1 {
		c.fatalf("the connection was kept after two requests, and the next request on it, %v later (%s), found it broken: a deadline or a timer was left behind", later, c.time())
	}
	c.exchange(2)
}

// neighbourPath is served by the suite itself.
const neighbourPath = "/neighbour-of-the-transport"

// neighbour asks for it.
func (c *transportCheck) neighbour() {
	req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://127.0.0.1:1"+neighbourPath, nil)
	if err != nil {
		c.fatalf("%v", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.fatalf("a request to another handler of the server failed: %v", err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); string(text) != neighbourPath || err != nil {
		c.fatalf("a request to another handler of the server was answered %q, %v", text, err)
	}
}
