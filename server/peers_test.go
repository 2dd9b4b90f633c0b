package server_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// metric returns the sum of a server's series that have a label of this value.
func metric(t testing.TB, srv *server.Server, name, label string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(srv)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// connections is how many are attached, by transport.
func connections(t testing.TB, srv *server.Server, transport string) int {
	return int(metric(t, srv, "throughline_connections", transport))
}

// Cables are the world's network with its connections in hand.
type cables struct {
	mu    sync.Mutex
	conns []*memnet.Conn // guarded by mu
}

// wired has the world's client dial through cables. Each new connection is shown
// to met, if that is not nil.
func (w *world) wired(met func(*memnet.Conn)) *cables {
	wr := &cables{}
	transport := &http.Transport{DisableCompression: true}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := w.net.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		wr.mu.Lock()
		defer wr.mu.Unlock()
		wr.conns = append(wr.conns, c.(*memnet.Conn))
		if met != nil {
			met(c.(*memnet.Conn))
		}
		return c, nil
	}
	w.http = &http.Client{Transport: transport}
	w.Cleanup(transport.CloseIdleConnections)
	return wr
}

// mute has nothing more come through from the clients, as behind a proxy that
// takes everything and doesn't know that its client is gone.
func (wr *cables) mute() {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	for _, c := range wr.conns {
		c.HoldWrites()
	}
}

// A WebSocket whose client no longer answers is dead, whether it is silent or
// has much to tell; what the network on the way takes proves nothing.
func TestDeadWebSocketIsNoticed(t *testing.T) {
	const heartbeat, peer = 25 * time.Second, 20 * time.Second
	for _, busy := range []bool{false, true} {
		for _, c := range carriers {
			if !strings.HasPrefix(c.name, "ws") {
				continue
			}
			t.Run(fmt.Sprintf("%s busy=%v", c.name, busy), func(t *testing.T) {
				inBubble(t, server.Options{}, func(w *world) {
					wr := w.wired(nil)
					s := w.must(c, "r", "")
					w.next(s)
					time.Sleep(10 * time.Minute) // alive it stays
					w.publish("r", "1")
					w.next(s)
					wr.mute()
					began := time.Now()
					noticed := make(chan struct{})
					go func() {
						defer close(noticed)
						for _, err := s.Next(); err == nil; _, err = s.Next() {
						}
					}()
					within := heartbeat + peer
					if busy {
						within = 2 * peer
						go func() {
							for range 600 {
								select {
								case <-noticed:
									return
								case <-time.After(time.Second):
									w.publish("r", "1")
								}
							}
						}()
					}
					enough := time.AfterFunc(time.Hour, s.Close)
					defer enough.Stop()
					<-noticed
					if took := time.Since(began); took < peer || took > within+time.Second {
						t.Errorf("noticed after %v, not within %v", took, within)
					}
					synctest.Wait()
					if n := metric(t, w.srv, "throughline_connections_ended_total", "dead"); n != 1 {
						t.Errorf("%v connections ended as dead", n)
					}
				})
			})
		}
	}
}

// Any frame is a sign of life, not only a pong; when none comes, that is that.
func TestFramesAreSignsOfLife(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Heartbeat: 5 * time.Second, PeerTimeout: 12 * time.Second}, func(w *world) {
		c, _, err := websocket.Dial(w.ctx, base+"/ws", &websocket.DialOptions{
			HTTPClient:     w.http,
			OnPingReceived: func(context.Context, []byte) bool { return false },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		if err := c.Write(w.ctx, websocket.MessageText, hello("r", "").Frame()); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for _, _, err := c.Read(w.ctx); err == nil; _, _, err = c.Read(w.ctx) {
			}
		}()
		for range 60 {
			time.Sleep(10 * time.Second)
			if err := c.Write(w.ctx, websocket.MessageText, []byte(`{"unsubscribe":["none"]}`)); err != nil {
				t.Fatalf("a client that speaks was cut off: %v", err)
			}
		}
		began := time.Now()
		enough := time.AfterFunc(time.Hour, func() { _ = c.CloseNow() })
		defer enough.Stop()
		<-gone
		if took := time.Since(began); took < 12*time.Second || took > 18*time.Second {
			t.Errorf("silent for %v", took)
		}
	})
}

// A poll that waits writes nothing, so all that is known of its client is that
// it will have its answer: nothing is held for it longer than that.
func TestPollOfDeadClientIsOverWithItsWait(t *testing.T) {
	inBubble(t, server.Options{MaxWait: 30 * time.Second}, func(w *world) {
		at := w.publish("r", "1")
		wr := w.wired(nil)
		go func() {
			_, _ = wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r&wait=1h&after="+at.String())
		}()
		synctest.Wait()
		if n := connections(t, w.srv, "poll"); n != 1 {
			t.Fatalf("%d polls wait", n)
		}
		wr.mute()
		wr.conns[0].HoldReads()
		time.Sleep(31 * time.Second)
		if n := connections(t, w.srv, "poll"); n != 0 {
			t.Errorf("%d polls wait after their time", n)
		}
		wr.conns[0].Reset()
	})
}

// A proxy that cuts every connection when it has lived for 30 s, some with
// a reset and some as if it were the end, some amid a frame: whoever goes on from
// the last position misses nothing and gets nothing twice.
func TestProxyThatCutsEveryConnection(t *testing.T) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, server.Options{Authorize: allow}, func(w *world) {
				cuts := 0
				w.wired(func(conn *memnet.Conn) {
					cuts++
					end := []func(){conn.Reset, func() { _ = conn.Close() }, func() { conn.CutAfter(37) }}[cuts%3]
					w.Cleanup(func() { _ = conn.Close() })
					time.AfterFunc(30*time.Second, end)
				})
				w.endure(c, 600)
				if cuts < 10 {
					t.Errorf("only %d connections in ten minutes", cuts)
				}
			})
		})
	}
}

// endure publishes an event a second, and reads them all over lines that break.
func (w *world) endure(c carrier, events int) {
	w.Helper()
	at := w.seekEarliest("r")
	go func() {
		for n := range events {
			time.Sleep(time.Second)
			w.publish("r", fmt.Sprint(n))
		}
	}()
	var s wireclient.Stream
	defer func() { s.Close() }()
	for n := 0; n < events; {
		if s == nil {
			var err error
			if s, err = c.open(w, "r", at); err != nil {
				w.Fatal(err)
			}
		}
		it, err := s.Next()
		switch {
		case err != nil:
			s.Close()
			s = nil
			time.Sleep(time.Second) // as clients do
		case it.Gap != nil:
			w.Fatalf("a gap after event %d: %+v", n, it.Gap)
		case it.Event && string(it.Data) != fmt.Sprint(n):
			w.Fatalf("event %s came, not %d", it.Data, n)
		case it.Event:
			n++
			at = it.Position
		case it.Opening:
			at = it.Position
		}
	}
}
