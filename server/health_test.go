package server_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

// A soundedLog counts how often it is asked for its head, and may be slow, deaf
// or down.
type soundedLog struct {
	eventlog.Log
	asked atomic.Int32
	slow  atomic.Int64 // how long a question takes
	deaf  atomic.Bool  // it doesn't heed its context
	down  atomic.Bool
}

func (l *soundedLog) open() eventlog.Log {
	l.Log = eventlog.NewMemory(eventlog.MemoryOptions{})
	return l
}

func (l *soundedLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	l.asked.Add(1)
	if l.deaf.Load() {
		time.Sleep(time.Duration(l.slow.Load()))
	} else if d := time.Duration(l.slow.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return eventlog.Position{}, eventlog.ErrUnavailable
		}
	}
	if l.down.Load() {
		return eventlog.Position{}, eventlog.ErrUnavailable
	}
	return l.Log.Seek(ctx, ch, s)
}

func probe(h http.Handler, method string) (status int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
	text, _ := io.ReadAll(w.Result().Body)
	return w.Code, strings.TrimSpace(string(text))
}

const ready = `{"ready":true}`

// TestReady: by the log, the store, and whether the server stays.
func TestReady(t *testing.T) {
	var book logbook
	log, store := &soundedLog{}, &flakyStore{}
	inBubbleWith(t, log.open, server.Options{Store: store, Logger: book.logger()}, func(w *world) {
		store.Store = w.store
		live, ready := w.srv.Healthz(), w.srv.Readyz()
		expect := func(when string, status int, want string) {
			t.Helper()
			time.Sleep(1100 * time.Millisecond)
			if s, b := probe(ready, "GET"); s != status || b != want {
				t.Errorf("%s: readyz %d %s, not %d %s", when, s, b, status, want)
			}
			if s, b := probe(live, "GET"); s != 200 || b != `{"ready":true}` {
				t.Errorf("%s: healthz %d %s", when, s, b)
			}
		}
		expect("at first", 200, `{"ready":true}`)
		log.down.Store(true)
		expect("the log is down", 503, `{"ready":false,"failing":{"log":{"for":0}}}`)
		store.down.Store(true)
		expect("both are", 503, `{"ready":false,"failing":{"log":{"for":1.1},"store":{"for":0}}}`)
		log.down.Store(false)
		expect("the store is down", 503, `{"ready":false,"failing":{"store":{"for":1.1}}}`)
		store.down.Store(false)
		expect("neither", 200, `{"ready":true}`)
		log.slow.Store(int64(1900 * time.Millisecond))
		expect("the log is slow", 200, `{"ready":true}`)
		log.slow.Store(int64(2100 * time.Millisecond))
		expect("the log is too slow", 503, `{"ready":false,"failing":{"log":{"for":0}}}`)
		log.slow.Store(0)
		expect("again", 200, `{"ready":true}`)
		if n := len(book.lines(t, "msg", "not ready", "level", "WARN")); n != 3 {
			t.Errorf("%d lines say that something is not ready", n)
		}
		if lines := book.lines(t, "msg", "ready again"); len(lines) != 3 || lines[0]["part"] != "log" || lines[0]["after"] != 2.2e9 {
			t.Errorf("%v", lines)
		}
		if s, _ := probe(ready, "HEAD"); s != 200 {
			t.Errorf("HEAD is answered %d", s)
		}
		if s, _ := probe(ready, "POST"); s != 405 {
			t.Errorf("POST is answered %d", s)
		}
	})
}

// TestReadyAsksSeldom: however often it is asked, and by however many at once.
func TestReadyAsksSeldom(t *testing.T) {
	log := &soundedLog{}
	inBubbleWith(t, log.open, server.Options{}, func(w *world) {
		synctest.Wait()
		before := log.asked.Load()
		log.slow.Store(int64(500 * time.Millisecond))
		h := w.srv.Readyz()
		for range 15 { // a second and a half each
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if s, b := probe(h, "GET"); s != 200 || b != ready {
						t.Errorf("%d %s", s, b)
					}
				})
			}
			all.Wait()
			time.Sleep(1000 * time.Millisecond)
		}
		if n := log.asked.Load() - before; n != 15 {
			t.Errorf("the log was asked %d times by 1500 probes in 22 s", n)
		}
	})
}

// TestReadyOfADeafLog: one question waits, not one for each probe, and it is
// over when the server is.
func TestReadyOfADeafLog(t *testing.T) {
	log := &soundedLog{}
	inBubbleWith(t, log.open, server.Options{}, func(w *world) {
		synctest.Wait()
		before := log.asked.Load()
		log.deaf.Store(true)
		log.slow.Store(int64(time.Minute))
		for range 10 {
			began := time.Now()
			if s, b := probe(w.srv.Readyz(), "GET"); s != 503 || !strings.Contains(b, `"log"`) {
				t.Errorf("%d %s", s, b)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
			time.Sleep(2 * time.Second)
		}
		if n := log.asked.Load() - before; n != 1 {
			t.Errorf("the log was asked %d times", n)
		}
		time.Sleep(time.Minute)
		log.deaf.Store(false)
		log.slow.Store(0)
		probe(w.srv.Readyz(), "GET")
		time.Sleep(2 * time.Second)
		if s, b := probe(w.srv.Readyz(), "GET"); s != 200 {
			t.Errorf("later: %d %s", s, b)
		}
		log.deaf.Store(true)
		log.slow.Store(int64(time.Minute))
		probe(w.srv.Readyz(), "GET")
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		began := time.Now()
		_ = w.srv.Shutdown(ctx)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("shutting down took %v", took)
		}
		time.Sleep(time.Minute)
	})
}

// TestHealthWhileDraining: no more clients are to come, and nobody is to be
// restarted, until all is over.
func TestHealthWhileDraining(t *testing.T) {
	var call chan struct{} // of the bubble
	o := server.Options{Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error { <-call; return nil }}
	inBubble(t, o, func(w *world) {
		call = make(chan struct{})
		live, ready := w.srv.Healthz(), w.srv.Readyz()
		probe(ready, "GET") // is kept
		go func() {
			if resp, err := w.http.Get(base + "/sse?channel=r"); err == nil {
				_ = resp.Body.Close()
			}
		}()
		synctest.Wait()
		over := make(chan struct{})
		go func() { _ = w.srv.Close(); close(over) }()
		synctest.Wait()
		for _, h := range []struct {
			name   string
			h      http.Handler
			status int
		}{{"readyz", ready, 503}, {"healthz", live, 200}} {
			if s, b := probe(h.h, "GET"); s != h.status || (s == 503) != strings.Contains(b, `"server"`) {
				t.Errorf("while draining %s says %d %s", h.name, s, b)
			}
		}
		close(call)
		<-over
		for name, h := range map[string]http.Handler{"readyz": ready, "healthz": live} {
			if s, b := probe(h, "GET"); s != 503 {
				t.Errorf("when closed %s says %d %s", name, s, b)
			}
		}
	})
}

// TestNothingForOperatorsIsRouted: neither health, nor metrics, nor anything
// for debugging is among what clients can ask for.
func TestNothingForOperatorsIsRouted(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		resp := w.do("GET", "/nothing", "")
		text, _ := io.ReadAll(resp.Body)
		_, list, _ := strings.Cut(string(text), "here are ")
		list, _, _ = strings.Cut(list, `"`)
		routed := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
		if len(routed) < 10 {
			t.Fatalf("the server says it has %q", routed)
		}
		for _, path := range routed {
			for _, word := range []string{"health", "ready", "live", "metric", "debug", "pprof", "var", "stat", "admin"} {
				if strings.Contains(path, word) {
					t.Errorf("%q is among what clients can ask for", path)
				}
			}
		}
		for _, path := range []string{
			"/healthz", "/readyz", "/health", "/ready", "/livez", "/metrics", "/debug", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile", "/debug/vars", "/debug/requests", "/vars", "/status", "/stats", "/config", "/",
		} {
			for _, method := range []string{"GET", "POST", "HEAD"} {
				if resp := w.do(method, path, ""); resp.StatusCode != http.StatusNotFound {
					t.Errorf("%s %s is answered %d", method, path, resp.StatusCode)
				}
			}
		}
	})
}
