package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/transport"
)

// clauseTime is how much fake time a clause has. What takes longer hangs.
const clauseTime = time.Hour

// A transportCheck is one run of a clause: a server of the transport in fake
// time, and an engine that the clause plays.
type transportCheck struct {
	transport Transport
	ctx       context.Context
	cancel    context.CancelFunc
	network   *memnet.Network
	server    *http.Server
	served    chan struct{}
	http      *http.Client
	attached  chan *attachment
	handlers  atomic.Int32 // handlers that have not returned
	refuse    *transport.Refusal
	onAttach  func(*attachment)
	lines     sync.WaitGroup

	mu          sync.Mutex
	failures    []string      // guarded by mu
	attachments []*attachment // guarded by mu
}

func newTransportCheck(t *testing.T, tr Transport) *transportCheck {
	ctx, cancel := context.WithTimeout(t.Context(), clauseTime)
	c := &transportCheck{
		transport: tr,
		ctx:       ctx,
		cancel:    cancel,
		network:   memnet.New(),
		served:    make(chan struct{}),
		attached:  make(chan *attachment, 1000),
	}
	mounted := tr.Mount(c)
	c.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.handlers.Add(1)
			defer c.handlers.Add(-1)
			mounted.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func() {
		defer close(c.served)
		_ = c.server.Serve(c.network)
	}()
	c.http = &http.Client{Transport: &http.Transport{DialContext: c.network.Dial, DisableCompression: true}}
	return c
}

func (c *transportCheck) tearDown() {
	c.cancel()
	c.mu.Lock()
	attachments := c.attachments
	c.mu.Unlock()
	for _, a := range attachments {
		a.conn.Close(transport.Reason{Code: transport.CodeShutdown})
		a.end()
	}
	_ = c.server.Close()
	<-c.served
	c.lines.Wait()
	for range 100 { // the goroutines of a bubble have to end before it does
		if c.handlers.Load() == 0 {
			break
		}
		time.Sleep(time.Minute)
	}
	c.http.CloseIdleConnections()
}

func (c *transportCheck) errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failures) < 10 {
		c.failures = append(c.failures, fmt.Sprintf(format, args...))
	}
}

// fatalf ends the clause. It must be called by the goroutine that runs it.
func (c *transportCheck) fatalf(format string, args ...any) {
	c.errorf(format, args...)
	panic(endOfCheck)
}

// Attach implements [transport.Engine].
func (c *transportCheck) Attach(_ context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (transport.Session, error) {
	a := &attachment{
		check: c, peer: peer, hello: hello, conn: conn,
		detached: make(chan struct{}), done: make(chan struct{}),
	}
	if c.refuse != nil {
		return nil, c.refuse
	}
	c.mu.Lock()
	c.attachments = append(c.attachments, a)
	c.mu.Unlock()
	if c.onAttach != nil {
		c.onAttach(a)
	}
	select {
	case c.attached <- a:
	default: // a clause that attaches often looks at none
	}
	return a, nil
}

// Receive implements [transport.Engine]. What comes up by requests is no part of
// a transport.
func (c *transportCheck) Receive(context.Context, transport.Peer, transport.Upstream) (*transport.Frame, error) {
	return nil, transport.Refuse(transport.CodeBadRequest, "the suite takes nothing by request")
}

// An attachment is the engine's end of one line.
type attachment struct {
	check    *transportCheck
	peer     transport.Peer
	hello    transport.Hello
	conn     transport.Conn
	detached chan struct{}
	done     chan struct{}
	once     sync.Once
	ended    sync.Once
}

// Receive implements [transport.Session].
func (a *attachment) Receive(transport.Frame) error { return nil }

// Detach implements [transport.Session].
func (a *attachment) Detach(error) { a.once.Do(func() { close(a.detached) }) }

// Done implements [transport.Session].
func (a *attachment) Done() <-chan struct{} { return a.done }

// end says that there will be no further Send.
func (a *attachment) end() { a.ended.Do(func() { close(a.done) }) }

// send sends what must be taken. If the connection is spent then, the line is
// over.
func (a *attachment) send(items ...transport.Item) (more bool) {
	more, err := a.conn.Send(items, time.Now().Add(time.Minute))
	if err != nil {
		a.check.fatalf("Send: %v", err)
	}
	if !more {
		a.end()
	}
	return more
}

// A line is the client's end.
type line struct {
	check  *transportCheck
	got    chan Received
	stall  chan struct{} // received waits for it, if it isn't nil
	cancel context.CancelFunc
	over   chan struct{}
	err    error // set when over is closed
}

// ask returns what a clause asks for one channel, at a position.
func ask(after eventlog.Position) Ask {
	a := Ask{Channels: []string{"room"}, Wait: time.Minute}
	if !after.IsZero() {
		a.After = after.String()
	}
	return a
}

func (c *transportCheck) open(a Ask) *line { return c.openStalled(a, nil) }

// openStalled opens a line whose client reads nothing until stall closes.
func (c *transportCheck) openStalled(a Ask, stall chan struct{}) *line {
	ctx, cancel := context.WithCancel(c.ctx)
	l := &line{check: c, got: make(chan Received, 10_000), cancel: cancel, stall: stall, over: make(chan struct{})}
	c.lines.Go(func() {
		defer cancel()
		l.err = c.transport.Client(ctx, c.http, a, l.receive)
		close(l.over)
		close(l.got)
	})
	return l
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

func (c *transportCheck) await() *attachment {
	select {
	case a := <-c.attached:
		return a
	case <-time.After(time.Minute):
		c.fatalf("no Attach within a minute")
		return nil
	}
}

// next returns what came next.
func (l *line) next() Received {
	select {
	case r, ok := <-l.got:
		if !ok {
			l.check.fatalf("the line ended (%v) before it brought what was sent", l.err)
		}
		return r
	case <-time.After(time.Minute):
		l.check.fatalf("nothing came within a minute")
		return Received{}
	}
}

// news returns the next thing that is no position alone.
func (l *line) news() Received {
	for {
		if r := l.next(); r.Event || r.To != "" {
			return r
		}
	}
}

// event checks that an event of the channel "room" came.
func (l *line) event(e *eventlog.Event) {
	r := l.news()
	switch {
	case !r.Event:
		l.check.fatalf("a gap from %q to %q came, not event %v", r.From, r.To, e.At)
	case r.Position != e.At.String():
		l.check.fatalf("the event at %q came, not that at %v", r.Position, e.At)
	case !samePayload(e, r):
		l.check.fatalf("event %v: the payload %.60q came as %.60q %.60s", e.At, e.Data, r.Data, r.JSON)
	case r.Type != "" && r.Type != e.Type:
		l.check.fatalf("event %v: type %q came as %q", e.At, e.Type, r.Type)
	case r.Channel != "" && r.Channel != "room":
		l.check.fatalf("event %v of \"room\" came as one of %q", e.At, r.Channel)
	}
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

// quiet checks that nothing but positions came.
func (l *line) quiet() {
	for {
		select {
		case r, ok := <-l.got:
			if !ok {
				return
			}
			if r.Event || r.To != "" {
				l.check.fatalf("%+v came, which was not sent", r)
			}
		default:
			return
		}
	}
}

// at is the position of a numbered event of a made-up channel; 0 is the place
// before the first.
func at(n int) eventlog.Position {
	return eventlog.Position{Offset: uint64(n), Mark: 1000 + uint64(n)}
}

// events makes a piece of a made-up history: one event after the position n for
// each payload.
func events(n int, payloads ...string) []eventlog.Event {
	list := make([]eventlog.Event, len(payloads))
	for i, p := range payloads {
		list[i] = eventlog.Event{
			Message: eventlog.Message{Type: "said", Kind: eventlog.Text, Data: []byte(p)},
			At:      at(n + i + 1), Prev: at(n + i).Mark,
		}
	}
	return list
}

func runOf(channel string, list []eventlog.Event) transport.Item {
	return transport.Item{Run: &transport.Run{
		Channel: eventlog.Channel{Name: channel}, Events: list, Next: list[len(list)-1].At,
	}}
}

func opening(channel string, p eventlog.Position) transport.Item {
	return transport.Item{Frame: &transport.Frame{Kind: transport.FrameOpening, Channel: channel, At: p}}
}
