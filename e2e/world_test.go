package e2e

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"path"
	"sync"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

// replace puts another server, with the same log, in place of this one, and
// then ends this one in good order, as a rolling deployment does.
func (w *world) replace(o server.Options) {
	w.Helper()
	o.Log = w.log
	srv := serve(w.T, o)
	w.mu.Lock()
	w.next = srv
	w.mu.Unlock()
	old := w.srv
	w.srv = srv
	_ = old.Close()
}

// A world is a real server on a real port, with a gate before it, that also
// serves the test page. Everybody may do everything, unless a test says
// otherwise.
type world struct {
	*testing.T
	*gate
	srv    *server.Server
	log    eventlog.Log
	origin string // http://127.0.0.1:port
	base   string // where the server is mounted
}

func start(t *testing.T, o server.Options) *world {
	t.Helper()
	if o.Log == nil {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		t.Cleanup(func() { _ = log.Close() })
		o.Log = log
	}
	srv := serve(t, o)
	g := newGate(srv)
	origin := listen(t, g)
	w := &world{T: t, gate: g, srv: srv, log: o.Log, origin: origin, base: origin + "/realtime"}
	t.Cleanup(func() { _ = w.srv.Close() }) // before the listener, so that its goodbyes are heard
	return w
}

func serve(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Authorize == nil {
		o.Authorize = func(context.Context, server.Identity, server.Action, server.Channel) error { return nil }
	}
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return srv
}

// listen serves the test page at /, and at /realtime/ what the gate lets through.
func listen(t *testing.T, g *gate) (origin string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir("testdata"))
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			r.URL.Path = "/page.html"
		}
		files.ServeHTTP(w, r)
	})
	if g != nil {
		mux.Handle("/realtime/", g)
		l = gateListener{l, g}
	}
	hs := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ConnContext: withLine}
	served := make(chan struct{})
	go func() { _ = hs.Serve(l); close(served) }()
	t.Cleanup(func() { _ = hs.Close(); <-served })
	return "http://" + l.Addr().String()
}

// publish appends a JSON payload to a channel.
func (w *world) publish(channel, data string) server.Position {
	w.Helper()
	at, err := w.srv.Publish(w.Context(), channel, server.Message{Data: []byte(data)})
	if err != nil {
		w.Fatal(err)
	}
	return at
}

// head returns where a channel is now.
func (w *world) head(channel string) string {
	w.Helper()
	at, err := w.log.Seek(w.Context(), server.Channel{Name: channel}, eventlog.Start{})
	if err != nil {
		w.Fatal(err)
	}
	return at.String()
}

// A gate stands before a server and does what networks and proxies do: it
// forbids carriers (named as the last element of their path: ws, sse, poll,
// up, publish), kills their connections, and spoils single ones.
type gate struct {
	mu        sync.Mutex
	next      http.Handler                  // guarded by mu
	forbidden map[string]bool               // guarded by mu
	lines     map[*line]string              // guarded by mu: those that are open, and their carrier
	meet      func(carrier string, l *line) // guarded by mu: called with each request
}

func newGate(next http.Handler) *gate {
	return &gate{next: next, lines: map[*line]string{}, forbidden: map[string]bool{}}
}

// forbid closes the gate to carriers and breaks the connections they have.
func (g *gate) forbid(carriers ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range carriers {
		g.forbidden[c] = true
		g.killLocked(c)
	}
}

// allow opens the gate to everything again.
func (g *gate) allow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.forbidden)
}

// kill breaks the connections of a carrier.
func (g *gate) kill(carrier string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.killLocked(carrier)
}

func (g *gate) killLocked(carrier string) {
	for l, c := range g.lines {
		if c == carrier {
			l.reset()
		}
	}
}

// onRequest has f called with each request that is let through, before it is
// answered.
func (g *gate) onRequest(f func(carrier string, l *line)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.meet = f
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	carrier, l := path.Base(r.URL.Path), r.Context().Value(lineKey{}).(*line)
	next := g.admit(carrier, l)
	if next == nil {
		if carrier == "ws" {
			http.Error(w, "no upgrades here", http.StatusForbidden) // as proxies do
			return
		}
		l.reset()
		panic(http.ErrAbortHandler)
	}
	next.ServeHTTP(w, r)
	if carrier != "ws" { // whose handler returns while the connection lives on
		g.mu.Lock()
		defer g.mu.Unlock()
		if _, open := g.lines[l]; open {
			g.lines[l] = ""
		}
	}
}

func (g *gate) admit(carrier string, l *line) http.Handler {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.forbidden[carrier] {
		return nil
	}
	g.lines[l] = carrier
	if g.meet != nil {
		g.meet(carrier, l)
	}
	return g.next
}

type gateListener struct {
	net.Listener
	g *gate
}

func (gl gateListener) Accept() (net.Conn, error) {
	c, err := gl.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, g: gl.g, left: -1}, nil
}

type lineKey struct{}

func withLine(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, lineKey{}, c)
}

// A line is a connection of the server that can break after any byte.
type line struct {
	net.Conn
	g *gate

	mu     sync.Mutex
	left   int                   // guarded by mu: bytes until it breaks; negative: it doesn't
	rough  bool                  // guarded by mu: it breaks with a reset, not an end
	headed bool                  // guarded by mu: the headers of the response to break were written
	alter  func(b []byte) []byte // guarded by mu: makes of each write another
}

// cutAfter has the connection break after n more bytes of the server. Within
// the headers it breaks roughly: Chromium takes an end there for the end of the
// headers, and an EventSource without a Content-Type gives up for good.
func (l *line) cutAfter(n int, rough bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.rough, l.headed = n, rough, false
}

// spoil has alter make something else of each write.
func (l *line) spoil(alter func([]byte) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alter = alter
}

func (l *line) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alter != nil {
		if _, err := l.Conn.Write(l.alter(b)); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	sent := b
	if l.left >= 0 {
		sent = b[:min(l.left, len(b))]
	}
	l.headed = l.headed || bytes.Contains(sent, []byte("\r\n\r\n"))
	if l.left < 0 || len(b) < l.left {
		if l.left > 0 {
			l.left -= len(b)
		}
		return l.Conn.Write(b)
	}
	n, err := l.Conn.Write(b[:l.left])
	if err != nil {
		return n, err
	}
	if l.rough || !l.headed {
		l.reset()
	} else {
		_ = l.Conn.Close() // the http.Server closes the line itself
	}
	return n, net.ErrClosed
}

// reset breaks the connection without a goodbye.
func (l *line) reset() {
	_ = l.Conn.(*net.TCPConn).SetLinger(0)
	_ = l.Conn.Close()
}

// Close implements [net.Conn].
func (l *line) Close() error {
	l.g.mu.Lock()
	delete(l.g.lines, l)
	l.g.mu.Unlock()
	return l.Conn.Close()
}
