package conformance

import (
	"reflect"
	"strings"
	"time"

	"github.com/throughline/throughline/transport"
)

// The clauses about what a client says on its line.

// upFrames are of each kind that a client says on a line.
var upFrames = []string{
	`{"subscribe":[{"channel":"b","after":"` + at(3).String() + `"},{"channel":"c","after":"last=5","paused":true}]}`,
	`{"publish":{"producer":"a-producer-of-22-chars","frames":[{"seq":1,"channel":"room","messages":[{"type":"said","data":{"n":12345678901234567890.5}},{"data":"AP8K","encoding":"base64"},{"data":"two\nlines \ud83d\ude00","encoding":"text"}]},{"seq":2,"channel":"b","messages":[{"data":null}],"repeat":true}]}}`,
	`{"call":{"id":1,"name":"add","data":[1,2],"key":"k0123456789"}}`,
	`{"unsubscribe":["b","c \"quoted\" \u00fc"]}`,
	`{"call":{"id":2,"name":"add","data":"a text","encoding":"text"}}`,
	`{"presence":[{"channel":"room","seen":"v1"}]}`,
	`{"pause":["room"]}`,
	`{"credentials":"eyJhbGciOiJub25lIn0.e30."}`,
}

// receives checks that a frame of the client came up.
func (a *attachment) receives(text string) {
	up, err := transport.ParseUp([]byte(text))
	if err != nil {
		panic(err)
	}
	if f := a.nextUp(text); !reflect.DeepEqual(f, *up.Frame) {
		a.check.fatalf("the client said %s, and Receive got %s", shorten(text), describeUp(&f))
	}
}

// nextUp returns what came up next.
func (a *attachment) nextUp(said string) transport.Frame {
	select {
	case f := <-a.received:
		return f
	case <-a.detached:
		a.check.fatalf("the client said %s, and Detach came, not Receive", shorten(said))
	case <-time.After(a.check.patience()):
		a.check.fatalf("the client said %s, and nothing was given to Receive within %v (%s)", shorten(said), a.check.patience(), a.check.time())
	}
	return transport.Frame{}
}

func framesComeUp(c *transportCheck) {
	c.onAttach = func(*attachment) { time.Sleep(c.span(time.Second, 50*time.Millisecond)) } // what comes meanwhile has to wait
	early, later := upFrames[:3], upFrames[3:]
	l := c.openUp(nil, early...)
	a := c.await()
	a.send(opening("room", at(0)))
	for _, text := range early {
		a.receives(text)
	}
	l.position(at(0))
	for range 20 {
		for _, text := range later {
			l.say(text)
		}
	}
	for range 20 {
		for _, text := range later {
			a.receives(text)
		}
	}
	list := events(0, "and the line goes on")
	a.send(runOf("room", list))
	l.event(&list[0])
}

func framesComeUpDuringSend(c *transportCheck) {
	stall := make(chan struct{})
	l := c.openUp(stall)
	a := c.await()
	a.send(opening("room", at(0)))
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		big := strings.Repeat("x", 60_000)
		for n := range 1000 {
			if more, err := a.try(c.span(10*time.Minute, 20*time.Second), runOf("room", events(n, big))); err != nil || !more {
				return
			}
		}
	}()
	time.Sleep(c.span(time.Second, 300*time.Millisecond))
	for _, text := range upFrames {
		l.say(text)
	}
	for _, text := range upFrames {
		a.receives(text)
	}
	select {
	case <-filled:
		c.errorf("the Send didn't wait: 60 MB were taken for a client that doesn't read, or it failed")
	default:
	}
	a.close(transport.CodeShutdown)
	<-filled
}

// sized returns a frame of so many bytes.
func sized(n int) string {
	const begin, end = `{"unsubscribe":["`, `"]}`
	return begin + strings.Repeat("x", n-len(begin)-len(end)) + end
}

func tooLargeIsRefused(c *transportCheck) {
	limit := c.transport.MaxFrame
	if limit == 0 {
		limit = 64 << 10
	}
	largest := sized(limit)
	l := c.openUp(nil, largest)
	a := c.await()
	a.send(opening("room", at(0)))
	if f := a.nextUp(largest); f.Kind != transport.FrameUnsubscribe {
		c.fatalf("a frame of %d bytes, the largest there may be (Transport.MaxFrame), was given to Receive as %s", limit, describeUp(&f))
	}
	l.position(at(0))
	larger := sized(limit + 1)
	l.say(larger)
	a.refuses(l, larger, transport.CodeTooLarge)
}

func malformedIsRefused(c *transportCheck) {
	for _, text := range []string{
		`{"subscribe":7}`,
		`{"hello":{"version":1,"line":2,"channels":[]}}`,
		`{"unsubscribe":["a"],"pause":["a"]}`,
	} {
		l := c.openUp(nil)
		a := c.await()
		a.send(opening("room", at(0)))
		l.position(at(0))
		l.say(upFrames[0])
		a.receives(upFrames[0])
		l.say(text)
		a.refuses(l, text, transport.CodeBadRequest)
	}
}

// refuses checks that an adapter has refused what the client said, and ends the
// line as an engine does.
func (a *attachment) refuses(l *line, text, code string) {
	f := a.nextUp(text)
	if f.Kind != transport.FrameClose || f.Reason.Code != code {
		a.check.fatalf("the client said %s (%d bytes), and Receive got %s, not a close frame with %s", shorten(text), len(text), describeUp(&f), code)
	}
	a.sayGoodbye(l, f.Reason)
}

// sayGoodbye ends a line whose client said something wrong. The adapter has to
// leave it open for that.
func (a *attachment) sayGoodbye(l *line, why transport.Reason) {
	time.Sleep(a.check.span(time.Second, 50*time.Millisecond)) // an engine has a flush to wait for
	select {
	case <-a.detached:
		a.check.errorf("Detach came before the goodbye was sent: the client is still there, and never hears why")
	default:
	}
	goodbye := &transport.Frame{Kind: transport.FrameClose, Reason: why}
	a.send(transport.Item{Frame: goodbye})
	a.end()
	l.frame(goodbye)
	l.ends()
}

func receiveRefuses(c *transportCheck) {
	refused := transport.Refuse(transport.CodeTooManyChannels, "no more of that")
	c.onReceive = func(f transport.Frame) error {
		if f.Kind == transport.FrameUnsubscribe {
			return refused
		}
		return nil
	}
	bad := `{"unsubscribe":["bad"]}`
	l := c.openUp(nil, upFrames[0], bad, upFrames[2], upFrames[2])
	a := c.await()
	a.send(opening("room", at(0)))
	a.receives(upFrames[0])
	a.receives(bad)
	l.position(at(0))
	l.say(upFrames[2])
	a.sayGoodbye(l, refused.Reason)
	select {
	case f := <-a.received:
		c.errorf("after its error for %s, Receive got %s", bad, describeUp(&f))
	default:
	}
}
