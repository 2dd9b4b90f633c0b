package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A line is the client's end.
type line struct {
	check  *transportCheck
	got    chan Received
	stall  chan struct{} // received waits for it, if it isn't nil
	cancel context.CancelFunc
	over   chan struct{}
	err    error // set when over is closed

	mu   sync.Mutex
	up   chan []byte // what Ask.Up brings; nil: nothing
	mute bool        // guarded by mu: up is closed
}

// ask returns what a clause asks for one channel, at a position.
func ask(after eventlog.Position) Ask {
	a := Ask{Channels: []string{"room"}, Wait: time.Minute}
	if !after.IsZero() {
		a.After = after.String()
	}
	return a
}

func (c *transportCheck) open(a Ask) *line { return c.openLine(a, &line{}) }

// openStalled opens a line whose client reads nothing until stall closes.
func (c *transportCheck) openStalled(a Ask, stall chan struct{}) {
	c.openLine(a, &line{stall: stall})
}

// openUp opens a line whose client says frames at once, and may say more. It
// reads nothing until stall closes, if that isn't nil.
func (c *transportCheck) openUp(stall chan struct{}, frames ...string) *line {
	l := &line{stall: stall, up: make(chan []byte, 1000)}
	for _, frame := range frames {
		l.up <- []byte(frame)
	}
	return c.openLine(ask(at(0)), l)
}

// openLine runs the client half.
func (c *transportCheck) openLine(a Ask, l *line) *line {
	ctx, cancel := context.WithCancel(c.ctx)
	l.check, l.cancel = c, cancel
	l.got, l.over = make(chan Received, 10_000), make(chan struct{})
	if l.up != nil {
		a.Up = l.up
		context.AfterFunc(ctx, l.shutUp)
	}
	c.last = l
	c.lines.Go(func() {
		defer cancel()
		l.err = c.transport.Client(ctx, c.http, a, l.receive)
		close(l.over)
		close(l.got)
	})
	return l
}

// say gives the client a frame to say.
func (l *line) say(frame string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mute {
		l.up <- []byte(frame)
	}
}

// shutUp says that the client has nothing more to say.
func (l *line) shutUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mute {
		l.mute = true
		close(l.up)
	}
}

func (l *line) receive(r Received) {
	if l.stall != nil {
		select {
		case <-l.stall:
		case <-l.check.ctx.Done():
		}
	}
	l.got <- r
}

// attach opens a line and waits until the engine has it.
func (c *transportCheck) attach(a Ask) (*line, *attachment) {
	l := c.open(a)
	return l, c.await()
}

// await waits until the engine has a line.
func (c *transportCheck) await() *attachment {
	select {
	case a := <-c.attached:
		return a
	case <-c.last.over:
	case <-time.After(c.patience()):
		c.fatalf("no Attach came within %v (%s), and the client half still waits: "+
			"did its request arrive, and did the adapter read the hello to its end?", c.patience(), c.time())
	}
	c.settle()
	select {
	case a := <-c.attached:
		return a
	default:
		c.fatalf("no Attach came: the client half returned %q before", errorText(c.last.err))
		return nil
	}
}

func errorText(err error) string {
	if err == nil {
		return "nil"
	}
	return err.Error()
}

// next returns what came next, in place of what is awaited.
func (l *line) next(awaited string) Received {
	select {
	case r, ok := <-l.got:
		if !ok {
			l.check.fatalf("the client half returned %q before it handed over %s; sent was %s", errorText(l.err), awaited, l.check.lastSent())
		}
		return r
	case <-time.After(l.check.patience()):
		l.check.fatalf("the client half handed over nothing within %v (%s), and has not returned; sent was %s; awaited is %s. "+
			"Most often a flush is missing (http.ResponseController.Flush after each Send), or the client half reads on before it hands over what is whole",
			l.check.patience(), l.check.time(), l.check.lastSent(), awaited)
		return Received{}
	}
}

// news returns the next thing that is neither a position alone nor a heartbeat.
func (l *line) news(awaited string) Received {
	for {
		if r := l.next(awaited); r.isNews() {
			return r
		}
	}
}

func (r *Received) isNews() bool {
	if r.Frame != nil {
		return r.Frame.Kind != transport.FrameBeat
	}
	return r.Event || r.To != ""
}

// position checks that a position came alone.
func (l *line) position(p eventlog.Position) {
	if r := l.next(fmt.Sprintf("the position %v alone", p)); r.Position != p.String() || r.isNews() {
		l.check.fatalf("%s came, not the position %v alone", describeReceived(r), p)
	}
}

// event checks that an event of the channel "room" came.
func (l *line) event(e *eventlog.Event) {
	l.isEvent(e, "room", l.news(describeEvent(e, "room")))
}

func (l *line) isEvent(e *eventlog.Event, channel string, r Received) {
	switch wrong := wrongEvent(e, channel, r); {
	case !r.Event:
		l.check.fatalf("%s came, not %s", describeReceived(r), describeEvent(e, channel))
	case wrong != "":
		l.check.fatalf("%s: sent was %s, and %s came", wrong, describeEvent(e, channel), describeReceived(r))
	}
}

// wrongEvent says what is wrong with an event that came.
func wrongEvent(e *eventlog.Event, channel string, r Received) string {
	switch {
	case r.Position != e.At.String():
		return "another position"
	case !samePayload(e, r):
		return "another payload"
	case r.Type != "" && r.Type != e.Type:
		return "another type"
	case r.Channel != "" && r.Channel != channel:
		return "another channel"
	}
	return ""
}

// samePayload reports whether a payload came unchanged, in whichever form.
func samePayload(e *eventlog.Event, r Received) bool {
	if r.JSON == nil {
		return string(r.Data) == string(e.Data)
	}
	if e.Kind == eventlog.JSON {
		return string(r.JSON) == string(e.Data)
	}
	var text string
	return json.Unmarshal(r.JSON, &text) == nil && text == string(e.Data)
}

// frame checks that a frame of the session protocol came. Only for another
// heartbeat none is passed over.
func (l *line) frame(want *transport.Frame) {
	awaited := describeFrame(want)
	r := l.next(awaited)
	for want.Kind != transport.FrameBeat && !r.isNews() {
		r = l.next(awaited)
	}
	l.isFrame(want, r)
}

func (l *line) isFrame(want *transport.Frame, r Received) {
	if r.Frame == nil || !sameFrame(want, r.Frame) {
		l.check.fatalf("%s came, not %s", describeReceived(r), describeFrame(want))
	}
}

// sameFrame compares what the protocol says of frames.
func sameFrame(a, b *transport.Frame) bool {
	return a.Kind == b.Kind && reflect.DeepEqual(frameValue(a), frameValue(b))
}

func frameValue(f *transport.Frame) (v any) {
	d := json.NewDecoder(bytes.NewReader(transport.AppendFrameJSON(nil, f)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	return v
}

// quiet checks that nothing but positions and heartbeats came.
func (l *line) quiet() {
	for {
		select {
		case r, ok := <-l.got:
			if !ok {
				return
			}
			if r.isNews() {
				l.check.fatalf("%s came, which was not sent", describeReceived(r))
			}
		default:
			return
		}
	}
}

// ends waits until the line has ended in good order.
func (l *line) ends() {
	select {
	case <-l.over:
		if l.err != nil {
			l.check.fatalf("the client half returned %q, not nil, after the line had ended in good order", l.err)
		}
	case <-time.After(l.check.patience()):
		l.check.fatalf("the client half has not returned %v (%s) after Done; sent was %s", l.check.patience(), l.check.time(), l.check.lastSent())
	}
}
