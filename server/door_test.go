package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// send posts a body.
func (w *world) send(path, body string) (int, string) {
	r, _ := http.NewRequestWithContext(w.ctx, "POST", base+path, strings.NewReader(body))
	resp, err := w.http.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b := make([]byte, 300)
	n, _ := resp.Body.Read(b)
	return resp.StatusCode, string(b[:n])
}

// TestUpPaysForWhatItBrings: a request is one, and what is in it counts.
func TestUpPaysForWhatItBrings(t *testing.T) {
	var calls atomic.Int32
	inBubble(t, server.Options{
		Authorize: allow, AddressRates: server.Rates{Publishes: server.Rate{PerSecond: 1, Burst: 5}, Calls: server.Rate{PerSecond: 1, Burst: 1}},
		OnCall: func(context.Context, server.Request) (server.Payload, error) {
			calls.Add(1)
			return server.Payload{}, nil
		},
	}, func(w *world) {
		msgs := strings.TrimSuffix(strings.Repeat(`{"data":1},`, 100), ",")
		var fr []string
		for i := range 64 {
			fr = append(fr, fmt.Sprintf(`{"seq":%d,"channel":"c%d","messages":[%s]}`, i+1, i, msgs))
		}
		st, b := w.send("/up", `{"up":{"version":1},"publish":{"producer":"aaaaaaaaaaaaaaaaaaaaaaaa","frames":[`+strings.Join(fr, ",")+`]}}`)
		total := 0
		for i := range 64 {
			p, _ := w.srv.Last(w.ctx, server.Channel{Name: fmt.Sprintf("c%d", i)}, 1000)
			total += len(p.Events)
		}
		t.Logf("status %d %.80s: %d messages appended, burst 5", st, b, total)
		if total > 5+100 {
			t.Errorf("%d messages by one address with a burst of 5", total)
		}
		for i := range 4 {
			w.send("/up", fmt.Sprintf(`{"up":{"version":1},"call":{"id":%d,"name":"x","data":1}}`, i+1))
		}
		if calls.Load() > 1 {
			t.Errorf("%d calls with a burst of 1", calls.Load())
		}
	})
}

// TestStreamsAreHellos, whatever their address says.
func TestStreamsAreHellos(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, AddressRates: server.Rates{Hellos: server.Rate{PerSecond: 1, Burst: 2}}}, func(w *world) {
		n := 0
		for range 50 {
			r, _ := http.NewRequestWithContext(w.ctx, "POST", base+"/sse?wait=1", strings.NewReader(`{"hello":{"version":1,"line":1}}`))
			resp, err := w.http.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 200 {
				n++
			}
			resp.Body.Close()
		}
		if n > 2 {
			t.Errorf("%d hellos with burst 2", n)
		}
	})
}

// TestPollsThatBeginPayForIt: a poll is a resume, but not the first of a session.
func TestPollsThatBeginPayForIt(t *testing.T) {
	var connects atomic.Int32
	inBubble(t, server.Options{
		Authorize: allow, AddressRates: server.Rates{Hellos: server.Rate{PerSecond: 1, Burst: 2}},
		OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
			connects.Add(1)
			return server.Welcome{}, nil
		},
	}, func(w *world) {
		for range 50 {
			w.send("/poll?wait=1", `{"hello":{"version":1,"line":1}}`)
		}
		if connects.Load() > 2 {
			t.Errorf("%d new sessions with a burst of 2 hellos", connects.Load())
		}
	})
}

// slowPresent is a store that is slow to say who is present.
type slowPresent struct{ session.Store }

func (s slowPresent) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	return nil, 0, ctx.Err()
}

// TestShutdownAgain returns, also if a question to the store was under way.
func TestShutdownAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := session.NewMemory(session.MemoryOptions{})
		defer mem.Close()
		srv, err := server.New(server.Options{Store: slowPresent{mem}, Authorize: allow})
		if err != nil {
			t.Fatal(err)
		}
		go probe(srv.Readyz(), "GET")
		synctest.Wait()
		_ = srv.Shutdown(context.Background())
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		began := time.Now()
		err = srv.Shutdown(ctx) // Close() would hang for ever
		if d := time.Since(began); d > time.Minute {
			t.Errorf("second Shutdown took %v: %v", d, err)
		}
	})
}

// TestShutdownMidHello: who has not said yet what he wants is not waited for.
func TestShutdownMidHello(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		c, _, err := websocket.Dial(w.ctx, base+"/ws", &websocket.DialOptions{HTTPClient: w.http})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
		defer cancel()
		began := time.Now()
		err = w.srv.Shutdown(ctx)
		t.Logf("Shutdown took %v: %v", time.Since(began), err)
		// is who is left cut off?
		rctx, cancel2 := context.WithTimeout(w.ctx, time.Second)
		defer cancel2()
		_, _, rerr := c.Read(rctx)
		t.Logf("read after Shutdown: %v", rerr)
		if err != nil {
			t.Error("Shutdown waited for a socket that never said hello")
		}
		if rctx.Err() != nil {
			t.Error("and the socket is open after Shutdown returned: not cut off")
		}
	})
}

// TestShutdownIsNotKeptBusy by those who come back meanwhile.
func TestShutdownIsNotKeptBusy(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		stop := make(chan struct{})
		var g sync.WaitGroup
		for i := range 10 {
			g.Go(func() {
				time.Sleep(time.Duration(i) * 37 * time.Millisecond)
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, _, err := websocket.Dial(w.ctx, base+"/ws", &websocket.DialOptions{HTTPClient: w.http})
					if err == nil {
						time.Sleep(300 * time.Millisecond) // a round trip of a phone
						_ = c.Write(w.ctx, websocket.MessageText, []byte(`{"hello":{"version":1,"line":1}}`))
						rctx, cancel := context.WithTimeout(w.ctx, time.Second)
						_, _, _ = c.Read(rctx)
						cancel()
						c.CloseNow()
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Minute)
		defer cancel()
		began := time.Now()
		err := w.srv.Shutdown(ctx)
		if d := time.Since(began); d > 30*time.Second {
			t.Errorf("Shutdown took %v: %v", d, err)
		}
		close(stop)
		g.Wait()
	})
}

// TestDisconnectMeetsTheSilent: who is let in is known when the hello comes, and
// not before: an order in between reaches nobody.
func TestDisconnectMeetsTheSilent(t *testing.T) {
	var revoked atomic.Bool
	inBubble(t, server.Options{Authorize: allow, Authenticate: func(*http.Request) (server.Identity, error) {
		if revoked.Load() {
			return server.Identity{}, fmt.Errorf("revoked")
		}
		return server.Identity{Subject: "eve"}, nil
	}}, func(w *world) {
		c, _, err := websocket.Dial(w.ctx, base+"/ws", &websocket.DialOptions{HTTPClient: w.http})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		time.Sleep(time.Second)
		revoked.Store(true)
		if err := w.srv.Disconnect(w.ctx, server.Target{Subject: "eve"}, transport.Reason{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * time.Second)
		_ = c.Write(w.ctx, websocket.MessageText, []byte(`{"hello":{"version":1,"line":1,"channels":[{"channel":"r"}]}}`))
		got := make(chan string, 1)
		go func() {
			for {
				_, b, err := c.Read(w.ctx)
				if err != nil {
					got <- "ended: " + err.Error()
					return
				}
				if strings.Contains(string(b), "secret") {
					got <- string(b)
					return
				}
			}
		}()
		time.Sleep(time.Hour)
		w.publish("r", `"secret"`)
		if g := <-got; !strings.HasPrefix(g, "ended") {
			t.Errorf("an hour after it was revoked and disconnected: %s", g)
		} else {
			t.Log(g)
		}
	})
}

// TestDisconnectMeetsASlowHello: the same for the body of a request.
func TestDisconnectMeetsASlowHello(t *testing.T) {
	var revoked atomic.Bool
	inBubble(t, server.Options{Authorize: allow, Authenticate: func(*http.Request) (server.Identity, error) {
		if revoked.Load() {
			return server.Identity{}, fmt.Errorf("revoked")
		}
		return server.Identity{Subject: "eve"}, nil
	}}, func(w *world) {
		pr, pw := io.Pipe()
		r, _ := http.NewRequestWithContext(w.ctx, "POST", base+"/sse", pr)
		got := make(chan string, 1)
		go func() {
			resp, err := w.http.Do(r)
			if err != nil {
				got <- err.Error()
				return
			}
			b := make([]byte, 4096)
			all := ""
			for {
				n, err := resp.Body.Read(b)
				all += string(b[:n])
				if strings.Contains(all, "secret") {
					got <- "secret"
					return
				}
				if err != nil {
					got <- "ended " + all
					return
				}
			}
		}()
		_, _ = pw.Write([]byte(`{"hello":{"version":1,`))
		time.Sleep(time.Second)
		revoked.Store(true)
		_ = w.srv.Disconnect(w.ctx, server.Target{Subject: "eve"}, transport.Reason{})
		time.Sleep(5 * time.Second)
		_, _ = pw.Write([]byte(`"line":1,"channels":[{"channel":"r"}]}}`))
		_ = pw.Close()
		time.Sleep(time.Hour)
		w.publish("r", `"secret"`)
		if g := <-got; g == "secret" {
			t.Error("an hour after")
		} else {
			t.Log(g)
		}
	})
}

// TestExpiredCannotPublish by any path.
func TestExpiredCannotPublish(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Authenticate: func(*http.Request) (server.Identity, error) {
		return server.Identity{Subject: "eve", Expires: time.Now().Add(-time.Hour)}, nil
	}}, func(w *world) {
		st, b := w.send("/publish?channel=r", `1`)
		st2, b2 := w.send("/up", `{"up":{"version":1},"publish":{"producer":"aaaaaaaaaaaaaaaaaaaaaaaa","frames":[{"seq":1,"channel":"r","messages":[{"data":1}]}]}}`)
		t.Logf("publish: %d %s; up: %d %s", st, b, st2, b2)
		if st == 200 {
			t.Error("expired identity published by /publish")
		}
	})
}

// slowBody is the body of a request that does not come.
type slowBody struct {
	in  chan struct{}
	out chan struct{}
}

func (b slowBody) Read([]byte) (int, error) { b.in <- struct{}{}; <-b.out; return 0, io.EOF }

// TestRequestsAreConnections while their bodies come.
func TestRequestsAreConnections(t *testing.T) {
	srv, err := server.New(server.Options{Authorize: allow, MaxConnections: 1, MaxConnectionsPerAddress: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := slowBody{make(chan struct{}), make(chan struct{})}
	var g sync.WaitGroup
	for range 500 {
		g.Go(func() {
			r, _ := http.NewRequest("POST", "http://x/up", b)
			r.RemoteAddr = "192.0.2.1:1"
			srv.ServeHTTP(httptest.NewRecorder(), r)
		})
	}
	n := 0
	for late := time.After(time.Second); n < 500 && late != nil; {
		select {
		case <-b.in:
			n++
		case <-late:
			late = nil
		}
	}
	close(b.out)
	g.Wait()
	_ = srv.Close()
	if n > 1 {
		t.Errorf("%d bodies of up to 6 MB are being read at once with MaxConnections 1", n)
	}
}

// TestFramesPayForQuestions: what asks the program or the store for a client is
// charged, also on a connection that stands.
func TestFramesPayForQuestions(t *testing.T) {
	var asked, known atomic.Int64
	few := server.Rates{Resumes: server.Rate{PerSecond: 1, Burst: 10}}
	inBubble(t, server.Options{
		Authenticate: func(*http.Request) (server.Identity, error) {
			known.Add(1)
			return server.Identity{Subject: "eve"}, nil
		},
		Authorize:     func(context.Context, server.Identity, server.Action, server.Channel) error { asked.Add(1); return nil },
		IdentityRates: few,
	}, func(w *world) {
		for name, frame := range map[string]string{
			"presence": `{"presence":[{"channel":"p%d"}]}`, "subscribe": `{"subscribe":[{"channel":"s%d"}]}`, "credentials": `{"credentials":"x%d"}`,
		} {
			s := w.ws(wireclient.Hello{Version: 1, Line: 1})
			if _, err := s.Next(); err != nil {
				t.Fatal(err)
			}
			go func() {
				for _, err := s.Next(); err == nil; _, err = s.Next() {
				}
			}()
			asked.Store(0)
			known.Store(0)
			for n := range 50 {
				_ = s.Send([]byte(fmt.Sprintf(frame, n)))
				synctest.Wait()
			}
			if a, k := asked.Load(), known.Load(); a+k < 1 || a+k > 20 {
				t.Errorf("50 frames of %s asked Authorize %d times, Authenticate %d times", name, a, k)
			}
			s.Close()
			time.Sleep(time.Minute)
		}
	})
}
