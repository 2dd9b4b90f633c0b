package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// serveTLS returns a server behind HTTP/2 with a WriteTimeout of its own.
func serveTLS(t *testing.T, o server.Options, writeTimeout time.Duration) (*server.Server, *httptest.Server) {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	srv, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(srv)
	ts.EnableHTTP2 = true
	ts.Config.WriteTimeout = writeTimeout
	ts.StartTLS()
	t.Cleanup(func() { _ = srv.Close(); ts.Close() })
	return srv, ts
}

// TestHTTP2OutlivesDeadlines: over HTTP/2 a deadline that passes resets
// a stream, also an idle one.
func TestHTTP2OutlivesDeadlines(t *testing.T) {
	srv, ts := serveTLS(t, server.Options{WriteTimeout: 200 * time.Millisecond, Heartbeat: 10 * time.Second}, 300*time.Millisecond)
	at, err := srv.Publish(t.Context(), "r", server.Message{Data: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan error, 1)
	go func() {
		a, err := wireclient.PlainPoll(t.Context(), ts.Client(), ts.URL+"/poll?channel=r&wait=10s&after="+at.String())
		if err == nil && len(a.Items) != 1 {
			err = errors.New("the poll brought nothing")
		}
		polled <- err
	}()
	r, err := ts.Client().Get(ts.URL + "/sse?channel=r")
	if err != nil || r.ProtoMajor != 2 {
		t.Fatal(err, r)
	}
	defer r.Body.Close()
	timer := time.AfterFunc(time.Second, func() { _, _ = srv.Publish(context.Background(), "r", server.Message{Data: []byte("2")}) })
	defer timer.Stop()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() && lines.Text() != "data: 2" {
	}
	if err := lines.Err(); err != nil || lines.Text() != "data: 2" {
		t.Errorf("an idle stream ended: %v", err)
	}
	if err := <-polled; err != nil {
		t.Errorf("a parked poll: %v", err)
	}
}

// TestEventSourceIsNotKilledByAnOutage: it would take a 503 for the end.
func TestEventSourceIsNotKilledByAnOutage(t *testing.T) {
	flaky := newFlakyLog()
	inBubbleWith(t, flaky.open, server.Options{}, func(w *world) {
		at := w.publish("r", "1")
		flaky.down.Store(true)
		r := w.do("GET", "/sse?channel=r", "", "Last-Event-ID", at.String())
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != 200 || !strings.HasPrefix(string(body), "retry: ") {
			t.Errorf("P3.11: %d %q", r.StatusCode, body)
		}
		r = w.do("POST", "/sse", string(hello("r", at.String()).Frame()))
		if r.StatusCode != 503 {
			t.Errorf("P8.1: %d", r.StatusCode)
		}
	})
}

// TestFaultOfAuthorizeHarmsOne: a panic, at attach and in flight.
func TestFaultOfAuthorizeHarmsOne(t *testing.T) {
	bug := func(_ context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
		if ch.Name == "bug" {
			panic("a fault of the program's")
		}
		return nil
	}
	inBubble(t, server.Options{Authorize: bug}, func(w *world) {
		s := w.ws(hello("r", ""))
		w.next(s)
		if r := w.do("GET", "/poll?channel=bug", ""); r.StatusCode != 503 {
			t.Errorf("at attach: %d", r.StatusCode)
		}
		if err := s.Send([]byte(`{"subscribe":[{"channel":"bug"}]}`)); err != nil {
			t.Fatal(err)
		}
		if it := w.next(s); it.End == nil || it.End.Code != "unavailable" || it.End.Class != "later" {
			t.Errorf("in flight: %+v", it)
		}
		at := w.publish("r", "1")
		if it := w.next(s); it.Position != at.String() {
			t.Errorf("the line after that: %+v", it)
		}
	})
}

// TestSlowAuthorizeEnds: it is bounded, and neither a client that left nor the
// server's end waits for it.
func TestSlowAuthorizeEnds(t *testing.T) {
	var calls atomic.Int32
	slow := func(ctx context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
		if ch.Name != "r" {
			calls.Add(1)
			<-ctx.Done()
		}
		return ctx.Err()
	}
	inBubble(t, server.Options{Authorize: slow, AttachTimeout: 5 * time.Second}, func(w *world) {
		began := time.Now()
		if r := w.do("GET", "/poll?channel=slow", ""); r.StatusCode != 503 || time.Since(began) > 6*time.Second {
			t.Errorf("%d after %v", r.StatusCode, time.Since(began))
		}
		s := w.ws(hello("r", ""))
		w.next(s)
		names := `{"channel":"x"}`
		for i := range 50 {
			names += `,{"channel":"x` + string(rune('a'+i%26)) + string(rune('a'+i/26)) + `"}`
		}
		if err := s.Send([]byte(`{"subscribe":[` + names + `]}`)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.Close()
		synctest.Wait()
		calls.Store(0)
		time.Sleep(time.Hour)
		if n := calls.Load(); n > 1 {
			t.Errorf("after the client left, Authorize was asked %d times more", n)
		}
		answered := make(chan int, 1)
		go func() { answered <- w.do("GET", "/poll?channel=slow", "").StatusCode }()
		synctest.Wait()
		began = time.Now()
		_ = w.srv.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}
		<-answered
	})
}

// TestFloodOfFramesIsBounded: a client that asks and does not read.
func TestFloodOfFramesIsBounded(t *testing.T) {
	srv, err := server.New(server.Options{Authorize: allow, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(srv)
	defer func() { _ = srv.Close(); ts.Close() }()
	for range 200 { // plenty to read, so that the worker stands in Send
		if _, err := srv.Publish(t.Context(), "r", server.Message{Kind: server.Binary, Data: make([]byte, 100<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := websocket.Dial(t.Context(), ts.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	h := hello("r", "earliest")
	if err := c.Write(t.Context(), websocket.MessageText, h.Frame()); err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	frame := []byte(`{"unsubscribe":["` + strings.TrimSuffix(strings.Repeat(`","`, 21000), `","`) + `"]}`)
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := c.Write(ctx, websocket.MessageText, frame)
		cancel()
		if err != nil {
			break // it was cut off, or is no longer read: both bound it
		}
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("a flood of frames holds %d MB", grown>>20)
	}
}

func TestWrongMessagesAreAnsweredByCode(t *testing.T) {
	inBubble(t, server.Options{MaxFrame: 1000}, func(w *world) {
		dial := func(path string) *websocket.Conn {
			c, _, err := websocket.Dial(w.ctx, base+path, &websocket.DialOptions{HTTPClient: w.http})
			if err != nil {
				t.Fatal(err)
			}
			w.Cleanup(func() { _ = c.CloseNow() })
			return c
		}
		end := func(c *websocket.Conn) (websocket.StatusCode, string) {
			for {
				_, _, err := c.Read(w.ctx)
				if ce, ok := errors.AsType[websocket.CloseError](err); ok {
					return ce.Code, ce.Reason
				} else if err != nil {
					t.Fatal(err)
				}
			}
		}
		c := dial("/ws?channel=r")
		_ = c.Write(w.ctx, websocket.MessageBinary, []byte("x"))
		if code, reason := end(c); code != 4002 || reason != "bad_request" {
			t.Errorf("P4.3: a binary message on a plain WebSocket: %d %s", code, reason)
		}
		c = dial("/ws")
		_ = c.Write(w.ctx, websocket.MessageText, hello("r", "").Frame())
		_ = c.Write(w.ctx, websocket.MessageText, []byte(`{"unsubscribe":["`+strings.Repeat("x", 1000)+`"]}`))
		if code, reason := end(c); code != 4002 || reason != "too_large" {
			t.Errorf("P6.14: a frame that is too large: %d %s", code, reason)
		}
	})
}

// raw serves a handler over memnet, with what a careful program sets.
func raw(t *testing.T, o server.Options, wrap func(http.Handler) http.Handler, hs *http.Server, body func(*testing.T, *memnet.Network, *server.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Logger = slog.New(slog.DiscardHandler)
		srv, err := server.New(o)
		if err != nil {
			t.Fatal(err)
		}
		network := memnet.New()
		hs.Handler = wrap(srv)
		hs.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		served := make(chan struct{})
		go func() { _ = hs.Serve(network); close(served) }()
		body(t, network, srv)
		_ = srv.Close()
		_ = hs.Close()
		<-served
		time.Sleep(time.Minute)
	})
}

func asItIs(h http.Handler) http.Handler { return h }

func dial(t *testing.T, n *memnet.Network, request string) net.Conn {
	c, err := n.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestGetWithBodyIsRefused: it would escape the deadlines of reading.
func TestGetWithBodyIsRefused(t *testing.T) {
	raw(t, server.Options{}, asItIs, &http.Server{ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}, func(t *testing.T, n *memnet.Network, _ *server.Server) {
		for _, path := range []string{"/sse?channel=r", "/poll?channel=r"} {
			head := "GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
			c := dial(t, n, head+"123456789")
			if answer, _ := io.ReadAll(c); !strings.Contains(string(answer), "bad_request") {
				t.Errorf("GET %s with a body: %q", path, answer)
			}
			_ = c.Close()
			c = dial(t, n, head)
			began := time.Now()
			_, _ = io.ReadAll(c)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("GET %s with a body that never came was held for %v", path, took)
			}
			_ = c.Close()
		}
	})
}

// TestUnreadAnswersEnd: who pipelines polls and reads none is cut off.
func TestUnreadAnswersEnd(t *testing.T) {
	raw(t, server.Options{WriteTimeout: 5 * time.Second}, asItIs, &http.Server{}, func(t *testing.T, n *memnet.Network, _ *server.Server) {
		c := dial(t, n, "")
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for {
				if _, err := io.WriteString(c, "GET /poll?channel=r HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
					return
				}
			}
		}()
		select {
		case <-gone:
		case <-time.After(time.Hour):
			t.Error("a client that reads no answers is still served after an hour")
			_ = c.Close()
			<-gone
		}
	})
}

// opaque is a middleware's writer that can flush and nothing else.
type opaque struct{ http.ResponseWriter }

func (o opaque) Flush() { o.ResponseWriter.(http.Flusher).Flush() }

// TestWriterWithoutDeadlinesIsRefused: a client that doesn't read could not be
// cut off.
func TestWriterWithoutDeadlinesIsRefused(t *testing.T) {
	wrap := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(opaque{w}, r) })
	}
	raw(t, server.Options{}, wrap, &http.Server{}, func(t *testing.T, n *memnet.Network, _ *server.Server) {
		c := dial(t, n, "GET /sse?channel=r HTTP/1.0\r\n\r\n")
		answer, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(answer), "HTTP/1.0 500") || !strings.Contains(string(answer), "Unwrap") {
			t.Errorf("%q", answer)
		}
		_ = c.Close()
	})
}

// TestMiddlewareEndsAPoll: by a context with a deadline; the answer is whole.
func TestMiddlewareEndsAPoll(t *testing.T) {
	wrap := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
			defer cancel()
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
	raw(t, server.Options{}, wrap, &http.Server{}, func(t *testing.T, n *memnet.Network, srv *server.Server) {
		at, err := srv.Publish(t.Context(), "r", server.Message{Data: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, n, "GET /poll?channel=r&wait=20s&after="+at.String()+" HTTP/1.0\r\n\r\n")
		answer, _ := io.ReadAll(c)
		if !strings.Contains(string(answer), `"positions":{"r":"`+at.String()+`"}`) {
			t.Errorf("%q", answer)
		}
		_ = c.Close()
	})
}

// TestCacheDoesNotOutliveRetention: what the log may no longer keep isn't
// served from a batch that a topic remembers.
func TestCacheDoesNotOutliveRetention(t *testing.T) {
	log := func() eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{
			Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Age: time.Minute} },
		})
	}
	inBubbleWith(t, log, server.Options{}, func(w *world) {
		before := w.publish("r", "0")
		live := w.must(carriers[0], "r", before.String())
		w.next(live)
		w.publish("r", `"old"`)
		w.next(live)
		time.Sleep(time.Hour)
		a, err := wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r&after="+before.String())
		if err != nil || len(a.Items) != 1 || a.Items[0].Gap == nil || a.Items[0].Gap.Reason != "trimmed" {
			t.Errorf("an hour later: %+v, %v", a, err)
		}
	})
}
