package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/throughline/throughline/server"
)

// Packets vanish in the network between, in both directions, and nobody says so.
// With ConnContext each transport notices within Heartbeat and PeerTimeout,
// over TLS and HTTP/2, too. Without it a WebSocket does, by its pings; a stream
// does not, which is why ConnContext is recommended.
func TestBlackHoleIsNoticed(t *testing.T) {
	const heartbeat, peer, slack = time.Second, 2 * time.Second, 1500 * time.Millisecond
	t.Parallel() // it waits, mostly
	f := newFar(t)
	o := server.Options{Heartbeat: heartbeat, PeerTimeout: peer, MaxWait: heartbeat + peer}
	scenes := map[string]scene{
		"ConnContext":                     {connContext: true},
		"ConnContext, TLS":                {connContext: true, tls: true},
		"ConnContext, TLS and HTTP/2":     {connContext: true, tls: true, http2: true},
		"pings alone":                     {},
		"pings alone, TLS, WebSockets h1": {tls: true},
	}
	worlds := map[string]*world{}
	for name, sc := range scenes {
		sc.o, sc.listener, sc.dial = o, f.listen(), f.dial
		w := sc.play(t)
		worlds[name] = w
		for _, c := range carriers {
			go w.listen(c)
		}
		w.until(10*time.Second, func() bool {
			return connections(t, w.srv, "sse") == 2 && connections(t, w.srv, "ws") == 2 && connections(t, w.srv, "poll") == 2
		})
	}
	time.Sleep(2 * heartbeat) // a heartbeat each, and what asks for signs of life has heard some

	f.forward(false)
	began := time.Now()
	took := map[string]time.Duration{}
	for time.Since(began) < heartbeat+peer+2*slack {
		for name, w := range worlds {
			for _, transport := range []string{"sse", "ws", "poll"} {
				key := name + ": " + transport
				if took[key] == 0 && connections(t, w.srv, transport) == 0 {
					took[key] = time.Since(began)
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	for name, sc := range scenes {
		for _, transport := range []string{"sse", "ws", "poll"} {
			key := name + ": " + transport
			t.Logf("%s: %v", key, took[key])
			if !sc.connContext && transport == "sse" {
				if took[key] != 0 {
					t.Errorf("%s: noticed after %v: then what is ConnContext for?", key, took[key])
				}
				continue
			}
			if took[key] == 0 || took[key] > heartbeat+peer+slack {
				t.Errorf("%s: noticed after %v, not within %v", key, took[key], heartbeat+peer)
			}
		}
	}
}

// listen reads until the line breaks, and leaves it at that.
func (w *world) listen(c carrier) {
	s, err := c.open(w, "r", "")
	if err != nil {
		return
	}
	defer s.Close()
	for _, err := s.Next(); err == nil; _, err = s.Next() {
	}
}

// until waits for a condition.
func (w *world) until(within time.Duration, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(within); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("waited in vain")
		}
	}
}

// What a client that reads nothing swallows before a write blocks and its time
// begins to count: megabytes, if nobody tells the kernel otherwise.
func TestClientThatReadsNothingSwallowsLittle(t *testing.T) {
	const size = 16 << 10
	swallowed := map[bool]int{}
	for _, connContext := range []bool{false, true} {
		t.Run(fmt.Sprintf("ConnContext=%v", connContext), func(t *testing.T) {
			w := scene{connContext: connContext, o: server.Options{WriteTimeout: time.Minute}}.play(t)
			conn, err := net.Dial("tcp", w.http.Transport.(elsewhere).target.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /sse?channel=r HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			w.until(5*time.Second, func() bool { return connections(t, w.srv, "sse") == 1 })
			delivered := func() int { return int(metric(t, w.srv, "throughline_deliveries_total", "sse")) }
			for n, quiet := 0, 0; quiet < 20; n++ {
				before := delivered()
				if _, err := w.srv.Publish(w.ctx, "r", server.Message{Kind: server.Text, Data: make([]byte, size)}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Millisecond)
				if quiet++; delivered() > before {
					quiet = 0
				}
			}
			swallowed[connContext] = delivered() * size
			t.Logf("swallowed %d KB", swallowed[connContext]>>10)
		})
	}
	if with := swallowed[true]; with > 512<<10 || with*4 > swallowed[false] {
		t.Errorf("swallowed %d KB, without ConnContext %d KB", with>>10, swallowed[false]>>10)
	}
}

// Connections that are no TCP are let be, and of those that are it doesn't matter
// what is made of them.
func TestConnContextSetsOptions(t *testing.T) {
	srv, err := server.New(server.Options{Logger: slog.New(slog.DiscardHandler), PeerTimeout: 7 * time.Second, Heartbeat: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	pipe, _ := net.Pipe()
	srv.ConnContext(t.Context(), pipe)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	type key struct{}
	mine := context.WithValue(t.Context(), key{}, "mine")
	if ctx := srv.ConnContext(mine, tls.Server(c, &tls.Config{})); ctx.Value(key{}) != "mine" {
		t.Error("the context is another")
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{
		unix.TCP_USER_TIMEOUT:  21_000, // three times that, while there is no stream
		unix.TCP_NOTSENT_LOWAT: 16 << 10,
		unix.TCP_KEEPIDLE:      307, // longer than our own silence
		unix.TCP_KEEPINTVL:     2,   // a quarter of PeerTimeout, in whole seconds
		unix.TCP_KEEPCNT:       4,
	} {
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); got != want || err != nil {
				t.Errorf("option %d is %d, not %d: %v", option, got, want, err)
			}
		})
	}
}
