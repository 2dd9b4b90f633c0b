package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
)

// A world is a proxy in a bubble, between ends that a test scripts by the byte.
type world struct {
	t           *testing.T
	proxy       *Proxy
	front, back *memnet.Network
	start       time.Time
	ends        []*end
}

func inWorld(t *testing.T, o Options, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, front: memnet.New(), back: memnet.New(), start: time.Now()}
		o.Listener = w.front
		if o.Dial == nil {
			o.Dial = func(ctx context.Context) (net.Conn, error) { return w.back.Dial(ctx, "", "") }
		}
		w.proxy = New(o)
		defer func() {
			w.proxy.Close()
			w.proxy.Close()
			for _, e := range w.ends {
				e.Close()
			}
		}()
		test(w)
	})
}

// An end is a connection, and what came over it.
type end struct {
	*memnet.Conn
	w    *world
	name string

	mu   sync.Mutex
	seen []arrival
}

// An arrival is what came at one time.
type arrival struct {
	at   time.Duration
	text string
	end  string
}

func (w *world) end(name string, c net.Conn) *end {
	e := &end{Conn: c.(*memnet.Conn), w: w, name: name}
	w.ends = append(w.ends, e)
	go e.read()
	return e
}

// client connects to the proxy and sends a request.
func (w *world) client(request string) *end {
	w.t.Helper()
	c, err := w.front.Dial(w.t.Context(), "", "")
	if err != nil {
		w.t.Fatal(err)
	}
	e := w.end("the client", c)
	e.send(request)
	return e
}

// server is the end of the next connection that the proxy made.
func (w *world) server() *end {
	w.t.Helper()
	c, err := w.back.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.end("the server", c)
}

// open brings a request to a server.
func (w *world) open(request string) (client, server *end) {
	w.t.Helper()
	client = w.client(request)
	server = w.server()
	synctest.Wait()
	return client, server
}

// upgraded brings an upgrade about.
func (w *world) upgraded() (client, server *end) {
	w.t.Helper()
	client, server = w.open(upgrade)
	server.send(switching)
	synctest.Wait()
	return client, server
}

func (w *world) add(r Rule) { w.proxy.Add(r) }

// until lets time pass until so long after the start.
func (w *world) until(d time.Duration) { time.Sleep(d - time.Since(w.start)) }

func (e *end) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := e.Read(buf)
		e.note(string(buf[:n]), err)
		if err != nil {
			return
		}
	}
}

func (e *end) note(text string, err error) {
	a := arrival{at: time.Since(e.w.start), text: text}
	switch {
	case errors.Is(err, io.EOF):
		a.end = "EOF"
	case err != nil:
		a.end = "reset"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if k := len(e.seen); k > 0 && e.seen[k-1].at == a.at {
		a.text = e.seen[k-1].text + a.text
		e.seen = e.seen[:k-1]
	}
	e.seen = append(e.seen, a)
}

func (e *end) send(text string) {
	e.w.t.Helper()
	if _, err := e.Write([]byte(text)); err != nil {
		e.w.t.Fatalf("%s sends: %v", e.name, err)
	}
}

// wants compares what came, and when: "1s a, 2s b EOF".
func (e *end) wants(want ...string) {
	e.w.t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	var got []string
	for _, a := range e.seen {
		got = append(got, strings.TrimRight(fmt.Sprintf("%v %s %s", a.at, short.Replace(a.text), a.end), " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		e.w.t.Errorf("%s got\n  %s\nnot\n  %s\nlog:\n%s", e.name, strings.Join(got, "\n  "), strings.Join(want, "\n  "), e.w.history())
	}
}

// forget makes wants begin anew.
func (e *end) forget() {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = nil
}

func (w *world) history() string {
	var b strings.Builder
	for _, entry := range w.proxy.Log() {
		b.WriteString("  " + entry.String() + "\n")
	}
	return b.String()
}

// logs checks that the log holds a text.
func (w *world) logs(text string) {
	w.t.Helper()
	if h := w.history(); !strings.Contains(h, text) {
		w.t.Errorf("the log does not say %q:\n%s", text, h)
	}
}

// What the ends say, and how wants shows it.
const (
	get       = "GET /poll?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"
	answer    = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews"
	stream    = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	endless   = "HTTP/1.1 200 OK\r\n\r\n"
	upgrade   = "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"
	switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
	post      = "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
)

var short = strings.NewReplacer(get, "<get>", answer, "<answer>", stream, "<stream>", endless, "<endless>",
	upgrade, "<upgrade>", switching, "<switching>", post, "<post>", "\r\n", "↵")
