package server_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// what comes after Close is refused.
func TestPublishAfterClose(t *testing.T) {
	hooks := 0
	o := server.Options{Authorize: allow, OnPublish: func(context.Context, *server.Publication) error { hooks++; return nil }}
	inBubble(t, o, func(w *world) {
		_ = w.srv.Close()
		r := w.do("POST", "/publish?channel=a", "1")
		if r.StatusCode != http.StatusServiceUnavailable || hooks > 0 {
			t.Errorf("after Close: status %d, the hook ran %d times", r.StatusCode, hooks)
		}
	})
}

// Close waits for hooks (ARCHITECTURE, Ownership).
func TestCloseWaitsForPublishHook(t *testing.T) {
	var running atomic.Int32
	o := server.Options{Authorize: allow, OnPublish: func(context.Context, *server.Publication) error {
		running.Add(1)
		time.Sleep(3 * time.Second)
		running.Add(-1)
		return nil
	}}
	inBubble(t, o, func(w *world) {
		go func() {
			if r, err := w.http.Post(base+"/publish?channel=a", "text/plain", newReader("1")); err == nil {
				_ = r.Body.Close()
			}
		}()
		synctest.Wait()
		_ = w.srv.Close()
		if n := running.Load(); n > 0 {
			t.Errorf("Close returned and %d hooks are running", n)
		}
		time.Sleep(time.Minute)
	})
}

// own serves w.srv by an http.Server of the test's, and counts the handlers at work.
func (w *world) own(hs *http.Server) (network *memnet.Network, atWork *atomic.Int32) {
	atWork = new(atomic.Int32)
	hs.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		atWork.Add(1)
		defer atWork.Add(-1)
		w.srv.ServeHTTP(rw, r)
	})
	network = memnet.New()
	served := make(chan struct{})
	go func() { _ = hs.Serve(network); close(served) }()
	w.Cleanup(func() { _ = hs.Close(); <-served })
	return network, atWork
}

const bigCall = `{"up":{"version":1},"call":{"id":1,"name":"big","data":1}}`

// a client that does not read the answer to its call holds the handler for ever.
func TestUnreadAnswerOfACall(t *testing.T) {
	o := server.Options{Authorize: allow, WriteTimeout: 10 * time.Second, OnCall: func(context.Context, server.Request) (server.Payload, error) {
		return server.Payload{Kind: server.Binary, Data: make([]byte, 1<<20)}, nil
	}}
	inBubble(t, o, func(w *world) {
		network, atWork := w.own(&http.Server{ReadHeaderTimeout: time.Second})
		c, err := network.Dial(w.ctx, "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /up HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(bigCall), bigCall)
		time.Sleep(24 * time.Hour)
		if n := atWork.Load(); n > 0 {
			t.Errorf("R11: %d handlers still write after a day", n)
		}
	})
}

// a call takes longer than the http.Server's own WriteTimeout, and less than CallTimeout.
func TestCallLongerThanTheServersWriteTimeout(t *testing.T) {
	o := server.Options{Authorize: allow, OnCall: func(context.Context, server.Request) (server.Payload, error) {
		time.Sleep(15 * time.Second)
		return server.Payload{Data: []byte("1")}, nil
	}}
	inBubble(t, o, func(w *world) {
		network, _ := w.own(&http.Server{ReadHeaderTimeout: time.Second, WriteTimeout: 10 * time.Second})
		tr := &http.Transport{DialContext: network.Dial}
		defer tr.CloseIdleConnections()
		req, _ := http.NewRequestWithContext(w.ctx, "POST", base+"/up", newReader(bigCall))
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatalf("the answer is lost: %v", err)
		}
		_ = resp.Body.Close()
	})
}

func check(bool) *transport.Refusal { return nil }

// A program's slip: a nil *Refusal in an error. It must harm the one client (R9).
func TestNilRefusal(t *testing.T) {
	o := server.Options{Authorize: allow, OnPublish: func(context.Context, *server.Publication) error { return check(true) }}
	inBubble(t, o, func(w *world) {
		s := w.ws(hello("a", ""))
		if err := s.Send([]byte(`{"publish":` + "{\"producer\":\"pppppppppppppppppppppp\",\"frames\":[{\"seq\":1,\"channel\":\"a\",\"messages\":[{\"data\":1}]}]}}")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
	})
}
