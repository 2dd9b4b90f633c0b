package conformance

import (
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// The clauses about what the session protocol says beside events, and about
// what a client asks for.

func openIsWhole(c *transportCheck) {
	open := &transport.Frame{Kind: transport.FrameOpen, Open: &transport.Open{
		Line: 1, Heartbeat: 25 * time.Second, Remembered: 10 * time.Minute, Limit: 65_536, Token: "a.k1.e30.c2ln",
	}}
	l, a := c.attach(ask(eventlog.Position{}))
	a.send(transport.Item{Frame: open}, opening("room", at(7)))
	l.isFrame(open, l.next(describeFrame(open)+", first of all (a form that shows no such frames says so by Transport.Plain)"))
	l.position(at(7))
}

func heartbeatCrosses(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	a.send(opening("room", at(0)))
	l.position(at(0))
	beat := (&transport.Frame{Kind: transport.FrameBeat}).Shared()
	for n := range 3 {
		c.settle()
		before := c.network.down.Load()
		a.send(transport.Item{Frame: beat})
		if !c.within(func() bool { return c.network.down.Load() > before }) {
			c.fatalf("heartbeat %d of 3, and nothing else, was sent, and no byte came within %v (%s): a silent line would be taken for dead", n+1, c.patience(), c.time())
		}
		if !c.transport.Plain {
			l.frame(beat)
		}
	}
}

// within reports whether something comes true while a clause is patient.
func (c *transportCheck) within(is func() bool) bool {
	const looks = 1000
	for range looks {
		if is() {
			return true
		}
		time.Sleep(c.patience() / looks)
	}
	return is()
}

// wholeReasons are of each class, with what they can have.
var wholeReasons = []transport.Reason{
	{Code: transport.CodeForbidden, Class: transport.Never, Message: "not for \"you\",\nnor for \U0001F600 <&>"},
	{Code: transport.CodeBusy, Class: transport.Later, After: 1500 * time.Millisecond, Message: "come back"},
	{Code: transport.CodeSuperseded, Class: transport.Now},
	{Code: "a_code_of_the_program", Class: transport.Later, After: 90 * time.Second},
}

func endIsTold(c *transportCheck) {
	list := events(0, "after the ends")
	var ends []*transport.Frame
	items := []transport.Item{opening("room", at(0))}
	for i, why := range wholeReasons {
		f := &transport.Frame{Kind: transport.FrameEnd, Channel: fmt.Sprint("other ", i), Reason: why}
		ends = append(ends, f)
		items = append(items, transport.Item{Frame: f})
	}
	l, a := c.attach(ask(at(0)))
	a.send(append(items, runOf("room", list))...)
	l.gather(ends, list)
	if c.transport.Once {
		return
	}
	a.send(transport.Item{Frame: ends[0]})
	l.frame(ends[0])
	list = events(1, "and goes on")
	a.send(runOf("room", list))
	l.event(&list[0])
}

// gather checks that frames and events of the channel "room" came, those of each
// kind in order.
func (l *line) gather(frames []*transport.Frame, list []eventlog.Event) {
	for len(frames)+len(list) > 0 {
		awaited := fmt.Sprintf("%d frames and %d events more", len(frames), len(list))
		if len(frames) > 0 {
			awaited += ", and next of them " + describeFrame(frames[0])
		}
		r := l.news(awaited)
		if r.Event && len(list) > 0 {
			l.isEvent(&list[0], "room", r)
			list = list[1:]
			continue
		}
		i := 0 // in an answer those of a kind are together
		for i < len(frames)-1 && r.Frame != nil && frames[i].Kind != r.Frame.Kind {
			i++
		}
		if len(frames) == 0 {
			l.check.fatalf("%s came, when all that was sent had come but for %d events", describeReceived(r), len(list))
		}
		l.isFrame(frames[i], r)
		frames = append(frames[:i:i], frames[i+1:]...)
	}
}

func goodbyeIsWhole(c *transportCheck) {
	list := events(0, "last words")
	for _, why := range wholeReasons {
		goodbye := &transport.Frame{Kind: transport.FrameClose, Reason: why}
		l, a := c.attach(ask(at(0)))
		a.send(opening("room", at(0)))
		a.send(runOf("room", list), transport.Item{Frame: goodbye})
		a.end()
		l.event(&list[0])
		l.frame(goodbye)
		l.ends()
		l.quiet()
	}
}

func answersArrive(c *transportCheck) {
	refused, later := transport.Refuse(transport.CodeForbidden, "no"), transport.RefuseFor(time.Second, transport.CodeUnavailable, "not now")
	answer := func(a transport.Answer) *transport.Frame {
		return &transport.Frame{Kind: transport.FrameAnswer, Answer: &a}
	}
	l := c.openUp(nil)
	a := c.await()
	a.send(opening("room", at(0)))
	for i, f := range []*transport.Frame{
		{Kind: transport.FramePublished, Published: []transport.Published{
			{Seq: 7, At: at(1)}, {Seq: 8, At: at(2), Duplicate: true}, {Seq: 9, Refused: refused}, {Seq: 1<<53 - 1, Retry: later, Tried: true},
		}},
		answer(transport.Answer{ID: 1, Payload: transport.Payload{Data: []byte(`[12345678901234567890.5,{"a":null}]`)}}),
		answer(transport.Answer{ID: 2, Payload: transport.Payload{Kind: eventlog.Text, Data: []byte("two\nlines \"\U0001F600\"")}}),
		answer(transport.Answer{ID: 3, Payload: transport.Payload{Kind: eventlog.Binary, Data: []byte("\x00\xff\n")}}),
		answer(transport.Answer{ID: 4, Refused: refused}),
	} {
		list := events(2*i, "before the answer", "after the answer")
		a.send(runOf("room", list[:1]), transport.Item{Frame: f}, runOf("room", list[1:]))
		l.event(&list[0])
		l.frame(f)
		l.event(&list[1])
	}
}

func presenceArrives(c *transportCheck) {
	presence := func(p transport.Presence) *transport.Frame {
		return &transport.Frame{Kind: transport.FramePresence, Channel: "room", Presence: &p}
	}
	ann := transport.Member{ID: "1", Subject: "ann \"a\"", Info: []byte(`{"deep":[1,null]}`)}
	frames := []*transport.Frame{
		presence(transport.Presence{Version: "v1", Total: 2, Members: []transport.Member{ann, {ID: "2"}}}),
		presence(transport.Presence{Version: "v2", Total: 2, Joined: []transport.Member{{ID: "3"}}, Left: []string{"1"}}),
		presence(transport.Presence{Version: "v3", Total: 10_000}),
		presence(transport.Presence{Refused: transport.Refuse(transport.CodeForbidden, "not for you")}),
		{Kind: transport.FrameRefresh, Left: time.Minute},
	}
	items := []transport.Item{opening("room", at(0))}
	for _, f := range frames {
		items = append(items, transport.Item{Frame: f})
	}
	l, a := c.attach(ask(at(0)))
	a.send(items...)
	l.gather(frames, nil)
}

func helloIsTold(c *transportCheck) {
	names := []string{"room"}
	if !c.transport.OneChannel {
		names = []string{"zebra", "room", "a b/ü?&=#\"%"}
	}
	for _, after := range []eventlog.Position{{}, at(3)} {
		a := Ask{Channels: names, Wait: time.Minute}
		if !after.IsZero() {
			a.After = after.String()
		}
		l, got := c.attach(a)
		c.isHello(names, after, got.hello)
		got.close(transport.CodeShutdown)
		got.end()
		<-l.over
	}
}

func (c *transportCheck) isHello(names []string, after eventlog.Position, hello transport.Hello) {
	version := transport.Version
	if c.transport.Plain {
		version = 0
	}
	if hello.Version != version {
		c.errorf("Attach was told version %d, not %d (Transport.Plain is %v)", hello.Version, version, c.transport.Plain)
	}
	if len(hello.Channels) != len(names) {
		c.fatalf("the client asked for %q, and Attach was told %+v", names, hello.Channels)
	}
	for i, s := range hello.Channels {
		if s.Channel != names[i] || s.After != after || s.Start != (eventlog.Start{}) || s.Paused || s.Bad != nil {
			c.errorf("the client asked for %q after %v (zero is the latest), and Attach was told %+v", names[i], after, s)
		}
	}
}

func nameIsTold(c *transportCheck) {
	_, a := c.attach(ask(at(0)))
	if a.peer.Transport == "" {
		c.errorf("Peer.Transport was empty: logs and metrics tell transports by it, so an adapter sets it before Attach")
	}
}
