package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/conformance/faultproxy"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
)

// A serverCheck is one run of a clause over one form of reading.
type serverCheck struct {
	findings
	t      *testing.T
	ctx    context.Context // ends with the clause
	cancel context.CancelFunc
	server Server
	setup  ServerSetup
	form   form
	*site  // the server that clients reach
	sites  []*site
	later  []func()     // run at the end, the last first
	said   atomic.Value // a publication: the last one
}

// A site is a server that runs, and the way to it.
type site struct {
	testee *Testee
	base   string // "http://127.0.0.1:1/realtime"
	http   *http.Client
	listen net.Listener // of the proxy
	// dial connects to it as http does.
	dial func(ctx context.Context) (net.Conn, error)
	// direct is dial past the proxy.
	direct func(ctx context.Context) (net.Conn, error)
	// proxy is what all that reaches it comes through. It changes nothing,
	// unless a clause adds a rule.
	proxy  *faultproxy.Proxy
	serve  *http.Server
	served chan struct{}
}

// Deadlines of a clause: in fake time, and in real time.
const (
	fakeDeadline = 30 * 24 * time.Hour
	realDeadline = 30 * time.Second
)

func newServerCheck(t *testing.T, s Server, setup ServerSetup, f form) *serverCheck {
	c := &serverCheck{t: t, server: s, setup: setup, form: f}
	deadline := fakeDeadline
	if s.TCP {
		deadline = realDeadline
	}
	c.ctx, c.cancel = context.WithTimeout(context.Background(), deadline)
	c.site = c.open(s.Start(t, setup))
	return c
}

// errorf notes how the clause failed, and where in it.
func (c *serverCheck) errorf(format string, args ...any) {
	c.findings.errorf("%s%s", fmt.Sprintf(format, args...), c.place())
}

// fatalf ends the clause. It must be called by the goroutine that runs it.
func (c *serverCheck) fatalf(format string, args ...any) {
	c.errorf(format, args...)
	panic(endOfCheck)
}

// place is the line of the clause that is run, " (server_plain.go:12)"; nothing in
// its goroutines.
func (c *serverCheck) place() string {
	stack := make([]uintptr, 64)
	frames := runtime.CallersFrames(stack[:runtime.Callers(2, stack)])
	for clause := ""; ; {
		frame, more := frames.Next()
		if strings.Contains(frame.Function, ".(*serverClause).try.") {
			return clause
		}
		clause = fmt.Sprintf(" (%s:%d)", filepath.Base(frame.File), frame.Line)
		if !more {
			return ""
		}
	}
}

// open serves a testee behind a proxy, at an address of its own.
func (c *serverCheck) open(testee *Testee) *site {
	s := &site{testee: testee, served: make(chan struct{})}
	inner, through := c.openPort()
	if c.server.TCP && c.server.Through != nil {
		through = dialTCP(c.server.Through(c.t, inner.Addr().String()))
	}
	outer, dial := c.openPort()
	s.listen, s.dial, s.direct = outer, dial, through
	s.proxy = faultproxy.New(faultproxy.Options{Listener: outer, Dial: through})
	s.serve = &http.Server{Handler: testee.Handler, ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { defer close(s.served); _ = s.serve.Serve(inner) }()
	s.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
	}}
	s.base = "http://" + outer.Addr().String() + testee.Base
	c.sites = append(c.sites, s)
	return s
}

// openPort listens in memory, or on a free port, and returns how one connects
// to it.
func (c *serverCheck) openPort() (net.Listener, func(ctx context.Context) (net.Conn, error)) {
	if !c.server.TCP {
		network := memnet.New()
		return network, func(ctx context.Context) (net.Conn, error) { return network.Dial(ctx, "", "") }
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	return l, dialTCP(l.Addr().String())
}

func dialTCP(address string) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", address) }
}

// tearDown ends everything: the goroutines of a bubble have to end before it
// does.
func (c *serverCheck) tearDown() {
	for _, f := range slices.Backward(c.later) {
		f()
	}
	for _, s := range c.sites {
		s.testee.Close()
		_ = s.serve.Close()
		<-s.served
		s.proxy.Close()
	}
	c.cancel()
	for _, s := range c.sites {
		s.http.CloseIdleConnections()
	}
	if !c.server.TCP {
		time.Sleep(time.Minute) // net/http lingers over connections it ended
	}
}

// How long a clause waits for what has to come: in fake time, and in real time.
const (
	fakePatience = time.Hour
	realPatience = 10 * time.Second
)

func (c *serverCheck) patience() time.Duration {
	if c.server.TCP {
		return realPatience
	}
	return fakePatience
}

// waited says how long that is, and in whose time.
func (c *serverCheck) waited() string {
	if c.server.TCP {
		return fmt.Sprint(c.patience(), " of real time")
	}
	return fmt.Sprint(c.patience(), " of the bubble's time")
}

// atEnd has something run when the clause ends.
func (c *serverCheck) atEnd(f func()) { c.later = append(c.later, f) }

// another opens one more server over the same log and store.
func (c *serverCheck) another() *site { return c.open(c.testee.Another()) }

// settle waits until nothing more happens by itself.
func (c *serverCheck) settle() {
	if c.server.TCP {
		time.Sleep(20 * time.Millisecond)
		return
	}
	synctest.Wait()
}

// A publication is what the program said last, for whoever wonders why nothing
// comes.
type publication struct{ channel, data, position string }

func (p publication) String() string {
	return fmt.Sprintf("the program published last %.60q to %q, at %q", p.data, p.channel, p.position)
}

// publish publishes JSON as the program does, and returns its position.
func (c *serverCheck) publish(channel, data string) (position string) {
	return c.publishMessage(channel, eventlog.Message{Type: "said", Data: []byte(data)})
}

func (c *serverCheck) publishMessage(channel string, m eventlog.Message) (position string) {
	position, err := c.testee.Publish(c.ctx, channel, m)
	if err != nil {
		c.fatalf("Testee.Publish of %.60q to %q: %v", m.Data, channel, err)
	}
	c.said.Store(publication{channel, string(m.Data), position})
	return position
}

// publishMany publishes the numbers from first to last, and returns their
// positions.
func (c *serverCheck) publishMany(channel string, first, last int) (positions []string) {
	for n := first; n <= last; n++ {
		positions = append(positions, c.publish(channel, fmt.Sprint(n)))
	}
	return positions
}
