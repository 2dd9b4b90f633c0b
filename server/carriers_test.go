package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// A scene is a real server on a real port, as a program may run it.
type scene struct {
	o           server.Options
	tls, http2  bool
	connContext bool                            // the program sets http.Server.ConnContext
	serve       func(*http.Server)              // what else it sets
	wrap        func(http.Handler) http.Handler // its middleware

	listener net.Listener                           // instead of one on 127.0.0.1
	dial     func(address string) (net.Conn, error) // how clients reach it
}

// play opens the curtain. The world's client speaks to the scene's server,
// whatever address it is given.
func (sc scene) play(t *testing.T) *world {
	t.Helper()
	if sc.o.Logger == nil {
		sc.o.Logger = slog.New(slog.DiscardHandler)
	}
	if sc.o.Authorize == nil {
		sc.o.Authorize = allow
	}
	srv, err := server.New(sc.o)
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = srv
	if sc.wrap != nil {
		h = sc.wrap(h)
	}
	ts := httptest.NewUnstartedServer(h)
	if sc.listener != nil {
		_ = ts.Listener.Close()
		ts.Listener = sc.listener
	}
	if sc.serve != nil {
		sc.serve(ts.Config)
	}
	if sc.connContext {
		ts.Config.ConnContext = srv.ConnContext
	}
	ts.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	ts.EnableHTTP2 = sc.http2
	if sc.tls {
		ts.StartTLS()
	} else {
		ts.Start()
	}
	t.Cleanup(func() { _ = srv.Close(); ts.Close() })

	transport := ts.Client().Transport.(*http.Transport).Clone()
	transport.DisableCompression = true
	if sc.tls {
		transport.TLSClientConfig.ServerName = "example.com"
	}
	if sc.dial != nil {
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return sc.dial(ts.Listener.Addr().String())
		}
	}
	t.Cleanup(transport.CloseIdleConnections)
	target, err := url.Parse(ts.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return &world{T: t, ctx: ctx, srv: srv, http: &http.Client{Transport: elsewhere{transport, target}}}
}

// elsewhere sends requests to another server than they are for.
type elsewhere struct {
	next   http.RoundTripper
	target *url.URL
}

func (e elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = e.target.Scheme, e.target.Host
	return e.next.RoundTrip(r)
}

// everything has each carrier bring an event some time after it was opened, and
// a publish and a call taken.
func (w *world) everything(quiet time.Duration) {
	w.Helper()
	var all sync.WaitGroup
	for _, c := range carriers {
		all.Go(func() {
			begin := w.publish("room:"+c.name, "0").String()
			s, err := c.open(w, "room:"+c.name, begin)
			if err != nil {
				w.Errorf("%s: %v", c.name, err)
				return
			}
			defer s.Close()
			time.AfterFunc(quiet, func() { w.publish("room:"+c.name, "1") })
			for {
				it, err := s.Next()
				if err != nil {
					w.Errorf("%s: %v", c.name, err)
					return
				}
				if it.Event {
					return
				}
			}
		})
	}
	all.Go(func() {
		if r := w.do("POST", "/publish?channel=r", "hello"); r.StatusCode != http.StatusOK {
			w.Errorf("publish: %d", r.StatusCode)
		}
		up := `{"up":{"version":1},"publish":{"producer":"` + strings.Repeat("p", 32) + `","frames":[{"seq":1,"channel":"r","messages":[{"data":1}]}]}}`
		if r := w.do("POST", "/up", up); r.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(r.Body)
			w.Errorf("up: %d %s", r.StatusCode, b)
		}
	})
	all.Wait()
}

// timeouts are what a careful program sets, in small.
func timeouts(hs *http.Server) {
	hs.ReadHeaderTimeout, hs.ReadTimeout, hs.WriteTimeout, hs.IdleTimeout = 300*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
}

// The server's own timeouts end no stream and no poll, whatever it speaks.
func TestServersTimeoutsEndNothing(t *testing.T) {
	t.Parallel() // with itself, too: it waits
	for name, sc := range map[string]scene{
		"HTTP/1.1":             {connContext: true},
		"HTTP/1.1 over TLS":    {connContext: true, tls: true},
		"HTTP/2":               {connContext: true, tls: true, http2: true},
		"HTTP/2, plain server": {tls: true, http2: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sc.serve = timeouts
			w := sc.play(t)
			if r := w.do("GET", "/client.js", ""); (r.ProtoMajor == 2) != sc.http2 {
				t.Fatalf("speaks %s", r.Proto)
			}
			w.everything(1200 * time.Millisecond)
		})
	}
}

// unwrapping is how a middleware should wrap: it hides nothing.
type unwrapping struct {
	http.ResponseWriter
	status int
}

func (u *unwrapping) WriteHeader(status int) {
	u.status = status
	u.ResponseWriter.WriteHeader(status)
}

func (u *unwrapping) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// refusing is one that unwraps but lends no connection.
type refusing struct{ *unwrapping }

func (refusing) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("not through here")
}

// old is one from before Unwrap: it passes on what was usual then.
type old struct{ http.ResponseWriter }

func (o old) Flush() { o.ResponseWriter.(http.Flusher).Flush() }

func (o old) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return o.ResponseWriter.(http.Hijacker).Hijack()
}

// lazy is one that keeps the header back until the first byte of the body, as
// some frameworks do: nobody gets to see a 101.
type lazy struct {
	http.ResponseWriter
	status int
}

func (l *lazy) WriteHeader(status int) { l.status = status }

func (l *lazy) Write(b []byte) (int, error) {
	if l.status != 0 {
		l.ResponseWriter.WriteHeader(l.status)
		l.status = 0
	}
	return l.ResponseWriter.Write(b)
}

func (l *lazy) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// Behind every middleware each carrier either works or says in words why not.
func TestMiddlewareThatWraps(t *testing.T) {
	const works = ""
	for name, mw := range map[string]struct {
		wrap    func(http.ResponseWriter) http.ResponseWriter
		ws, sse string // the status and a word of the refusal
	}{
		"with Unwrap":        {func(w http.ResponseWriter) http.ResponseWriter { return &unwrapping{ResponseWriter: w} }, works, works},
		"with a late header": {func(w http.ResponseWriter) http.ResponseWriter { return &lazy{ResponseWriter: w} }, works, works},
		"refusing to hijack": {func(w http.ResponseWriter) http.ResponseWriter { return refusing{&unwrapping{ResponseWriter: w}} }, "501 not_found", works},
		"without Unwrap":     {func(w http.ResponseWriter) http.ResponseWriter { return old{w} }, works, "500 bad_request"},
		"with Flush only":    {func(w http.ResponseWriter) http.ResponseWriter { return opaque{w} }, "501 not_found", "500 bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			w := scene{wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(mw.wrap(w), r) })
			}}.play(t)
			for _, c := range carriers {
				want := map[byte]string{'w': mw.ws, 's': mw.sse, 'p': works}[c.name[0]]
				if err := w.try(c); fmt.Sprint(err) != want && (err != nil || want != works) {
					t.Errorf("%s: %v, want %q", c.name, err, want)
				}
			}
			if r := w.do("POST", "/publish?channel=r", "hello"); r.StatusCode != http.StatusOK {
				t.Errorf("publish: %d", r.StatusCode)
			}
		})
	}
}

// try has a carrier bring an event. The error of a refusal is short.
func (w *world) try(c carrier) error {
	w.Helper()
	begin := w.publish(c.name, "0").String()
	at := w.publish(c.name, "1").String()
	s, err := c.open(w, c.name, begin)
	for err == nil {
		var it wireclient.Item
		if it, err = s.Next(); err == nil && it.Event {
			if it.Position != at {
				w.Errorf("%s: got %+v", c.name, it)
			}
			s.Close()
			return nil
		}
	}
	if r, ok := errors.AsType[*wireclient.Refused](err); ok {
		if !strings.Contains(r.Message, "Unwrap") || r.Header.Get("Sec-WebSocket-Accept")+r.Header.Get("Upgrade") != "" {
			w.Errorf("%s: %q with %v", c.name, r.Message, r.Header)
		}
		return fmt.Errorf("%d %s", r.Status, r.Code)
	}
	return err
}

// Over HTTP/2 there is no upgrade (RFC 9113 §8.6), and the answer says so.
func TestWebSocketOverHTTP2IsRefused(t *testing.T) {
	w := scene{tls: true, http2: true}.play(t)
	r := w.do("GET", "/ws?channel=r", "")
	body, _ := io.ReadAll(r.Body)
	if r.ProtoMajor != 2 || r.StatusCode != http.StatusUpgradeRequired || !strings.Contains(string(body), `"bad_request"`) {
		t.Errorf("%s %d %s", r.Proto, r.StatusCode, body)
	}
}

// A stream says to every proxy that knows it that nothing may be kept back:
// X-Accel-Buffering to nginx, Incremental (RFC 10036) to the others.
func TestStreamsAreIncremental(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		for _, r := range []*http.Response{
			w.do("GET", "/sse?channel=r", ""),
			w.do("POST", "/sse", string(hello("r", "").Frame())),
		} {
			h := r.Header
			if h.Get("Incremental") != "?1" || h.Get("X-Accel-Buffering") != "no" || !strings.Contains(h.Get("Cache-Control"), "no-transform") {
				t.Errorf("%v", h)
			}
		}
	})
}
