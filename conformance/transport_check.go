package conformance

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// clauseTime is how much fake time a clause has, and realClauseTime how much
// real time. What takes longer hangs.
const (
	clauseTime     = 10 * time.Hour
	realClauseTime = 30 * time.Second
)

// A transportCheck is one run of a clause: a server of the transport, and an
// engine that the clause plays.
type transportCheck struct {
	findings
	transport Transport
	ctx       context.Context
	cancel    context.CancelFunc
	server    *http.Server
	served    chan struct{}
	http      *http.Client
	network   transportNet
	cutEach   int // cutAnywhere leaves out all cuts but each nth; 0: none
	attached  chan *attachment
	handlers  atomic.Int32 // handlers that have not returned
	refuse    *transport.Refusal
	onAttach  func(*attachment)
	onReceive func(transport.Frame) error
	lines     sync.WaitGroup
	last      *line // owned by the clause: that was opened last

	mu          sync.Mutex
	attachments []*attachment // guarded by mu
	sent        []string      // guarded by mu: what the last Sends were given, in words
}

func newTransportCheck(t *testing.T, tr Transport) *transportCheck {
	c := &transportCheck{
		transport: tr,
		served:    make(chan struct{}),
		attached:  make(chan *attachment, 1000),
	}
	c.ctx, c.cancel = context.WithTimeout(t.Context(), c.span(clauseTime, realClauseTime))
	listener, dial := c.network.listen(t, tr.TCP)
	mounted := tr.Mount(c)
	c.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == neighbourPath {
				_, _ = io.WriteString(w, neighbourPath)
				return
			}
			c.handlers.Add(1)
			defer c.handlers.Add(-1)
			defer c.tellPanic()
			mounted.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func() {
		defer close(c.served)
		_ = c.server.Serve(listener)
	}()
	c.http = &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}
	return c
}

// span is how long something takes: in fake time, and in real time.
func (c *transportCheck) span(fake, real time.Duration) time.Duration {
	if c.transport.TCP {
		return real
	}
	return fake
}

// patience is how long a clause waits for what has to come.
func (c *transportCheck) patience() time.Duration { return c.span(time.Minute, 10*time.Second) }

// tellPanic tells of a handler that panics, and leaves the rest to net/http.
func (c *transportCheck) tellPanic() {
	if r := recover(); r != nil {
		if r != any(http.ErrAbortHandler) && r != any(endOfCheck) {
			c.errorf("the handler panicked: %v", r)
		}
		panic(http.ErrAbortHandler)
	}
}

// time says in whose time something is measured.
func (c *transportCheck) time() string {
	if c.transport.TCP {
		return "real time"
	}
	return "fake time"
}

// settle waits until nothing more happens by itself.
func (c *transportCheck) settle() {
	if c.transport.TCP {
		time.Sleep(20 * time.Millisecond)
		return
	}
	synctest.Wait()
}

// handlersReturn reports whether all handlers have returned within a time.
func (c *transportCheck) handlersReturn(within time.Duration) bool {
	const looks = 1000
	for range looks {
		if c.handlers.Load() == 0 {
			return true
		}
		time.Sleep(within / looks)
	}
	return c.handlers.Load() == 0
}

func (c *transportCheck) tearDown() {
	c.cancel()
	c.mu.Lock()
	attachments := c.attachments
	c.mu.Unlock()
	for _, a := range attachments {
		func() {
			defer func() { _ = recover() }() // T12 and T35 tell
			a.conn.Close(transport.Reason{Code: transport.CodeShutdown})
		}()
		a.end()
	}
	_ = c.server.Close()
	<-c.served
	c.linesEnd()
	c.handlersReturn(c.span(100*time.Minute, 10*time.Second)) // the goroutines of a bubble have to end before it does
	c.http.CloseIdleConnections()
	time.Sleep(c.span(time.Minute, 0)) // net/http lingers over connections it ended
}

// linesEnd waits for the client half.
func (c *transportCheck) linesEnd() {
	ended := make(chan struct{})
	go func() {
		c.lines.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(c.patience()):
		c.errorf("the client half has not returned %v (%s) after its ctx had ended", c.patience(), c.time())
	}
}

// Attach implements [transport.Engine].
func (c *transportCheck) Attach(_ context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (transport.Session, error) {
	a := &attachment{
		check: c, peer: peer, hello: hello, conn: conn,
		detached: make(chan struct{}), done: make(chan struct{}), received: make(chan transport.Frame, 1000),
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
	received chan transport.Frame
	once     sync.Once
	ended    sync.Once
}

// Receive implements [transport.Session].
func (a *attachment) Receive(f transport.Frame) error {
	select {
	case a.received <- f:
	default: // nobody looks at so many
	}
	if a.check.onReceive != nil {
		return a.check.onReceive(f)
	}
	return nil
}

// Detach implements [transport.Session].
func (a *attachment) Detach(error) { a.once.Do(func() { close(a.detached) }) }

// Done implements [transport.Session].
func (a *attachment) Done() <-chan struct{} { return a.done }

// end says that there will be no further Send.
func (a *attachment) end() { a.ended.Do(func() { close(a.done) }) }

// send sends what must be taken. If the connection is spent then, the line is
// over.
func (a *attachment) send(items ...transport.Item) (more bool) {
	a.isOpen()
	more, err := a.try(time.Minute, items...)
	if err != nil {
		a.check.fatalf("Send of %s returned %v", describeAll(items), err)
	}
	if !more {
		a.end()
	}
	return more
}

// try sends within a time.
func (a *attachment) try(within time.Duration, items ...transport.Item) (more bool, err error) {
	a.check.noteSent(items)
	defer a.check.tell("Send", &err)
	return a.conn.Send(items, time.Now().Add(within))
}

// close closes the connection.
func (a *attachment) close(code string) {
	var err error
	defer a.check.tell("Close", &err)
	a.conn.Close(transport.Reason{Code: code})
}

// tell tells of an adapter that panics, deferred.
func (c *transportCheck) tell(method string, err *error) {
	if r := recover(); r != nil {
		c.errorf("%s panicked: %v", method, r)
		*err = fmt.Errorf("panic: %v", r)
	}
}

// isOpen checks that there may be another Send.
func (a *attachment) isOpen() {
	select {
	case <-a.done:
		a.check.fatalf("the connection was spent by an earlier Send")
	default:
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
