package server_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/server"
)

// Half a header pins a connection as long as http.Server.ReadHeaderTimeout says,
// and nothing of ours: we hear of a request when its header is whole.
func TestSlowHeadersPinNothing(t *testing.T) {
	raw(t, server.Options{}, asItIs, &http.Server{ReadHeaderTimeout: 5 * time.Second}, func(t *testing.T, n *memnet.Network, srv *server.Server) {
		for _, path := range []string{"/sse?channel=r", "/poll?channel=r&wait=30s", "/ws?channel=r"} {
			c := dial(t, n, "GET "+path+" HTTP/1.1\r\nHost: h\r\nX-Long: ")
			began := time.Now()
			trickled := make(chan struct{})
			go func() { // a byte a second
				defer close(trickled)
				for _, err := c.Write([]byte("x")); err == nil; _, err = c.Write([]byte("x")) {
					time.Sleep(time.Second)
				}
			}()
			_, _ = io.ReadAll(c)
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("GET %s was held for %v", path, took)
			}
			_ = c.Close()
			<-trickled
		}
		if n := connections(t, srv, "sse") + connections(t, srv, "poll") + connections(t, srv, "ws"); n != 0 {
			t.Errorf("%d connections of requests that were never whole", n)
		}
	})
}

// A body that comes too slowly is refused in words when HelloTimeout is over,
// on a server that has no ReadTimeout, wherever there are bodies.
func TestSlowBodiesAreRefusedInWords(t *testing.T) {
	raw(t, server.Options{Authorize: allow, HelloTimeout: 7 * time.Second}, asItIs, &http.Server{ReadHeaderTimeout: time.Second}, func(t *testing.T, n *memnet.Network, srv *server.Server) {
		for _, path := range []string{"/sse", "/poll", "/publish?channel=r", "/up"} {
			c := dial(t, n, "POST "+path+" HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
			began := time.Now()
			trickled := make(chan struct{})
			go func() {
				defer close(trickled)
				for _, err := c.Write([]byte(" ")); err == nil; _, err = c.Write([]byte(" ")) {
					time.Sleep(time.Second)
				}
			}()
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("POST %s: %v", path, err)
			}
			body, _ := io.ReadAll(answer.Body)
			if took := time.Since(began); answer.StatusCode != 400 || took < 7*time.Second || took > 8*time.Second ||
				!strings.Contains(string(body), `"bad_request"`) || !strings.Contains(string(body), "HelloTimeout") {
				t.Errorf("POST %s: %d %s after %v", path, answer.StatusCode, body, took)
			}
			_ = c.Close()
			<-trickled
		}
	})
}

// A WebSocket without a hello is refused in words, too, and so is one whose
// hello comes a byte at a time.
func TestSlowHelloOfWebSocketIsRefusedInWords(t *testing.T) {
	for _, begun := range []string{"", "\x81\xfe\x10\x00mask"} { // nothing; the head of a frame of 4 KiB
		raw(t, server.Options{HelloTimeout: 7 * time.Second}, asItIs, &http.Server{}, func(t *testing.T, n *memnet.Network, srv *server.Server) {
			c := dial(t, n, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"+begun)
			began := time.Now()
			if begun != "" {
				go func() {
					for _, err := c.Write([]byte("x")); err == nil; _, err = c.Write([]byte("x")) {
						time.Sleep(time.Second)
					}
				}()
			}
			answer, _ := io.ReadAll(c)
			head, frames, _ := strings.Cut(string(answer), "\r\n\r\n")
			if took := time.Since(began); !strings.HasPrefix(head, "HTTP/1.1 101 ") || took < 7*time.Second || took > 9*time.Second ||
				!strings.Contains(frames, "HelloTimeout") || !strings.HasSuffix(frames, "\x0f\xa2bad_request") {
				t.Errorf("after %v: %q %q", took, head, frames)
			}
			_ = c.Close()
			synctest.Wait()
			if n := connections(t, srv, "ws"); n != 0 {
				t.Errorf("%d connections without a hello", n)
			}
		})
	}
}

// Over HTTP/2, too, where the connection is not ours alone.
func TestSlowBodiesOverHTTP2AreRefusedInWords(t *testing.T) {
	w := scene{tls: true, http2: true, o: server.Options{HelloTimeout: 300 * time.Millisecond}}.play(t)
	for _, path := range []string{"/sse", "/poll", "/publish?channel=r", "/up"} {
		body, never := io.Pipe()
		req, err := http.NewRequestWithContext(w.ctx, "POST", base+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.http.Do(req)
		if err != nil {
			t.Fatalf("POST %s: %v", path, err)
		}
		answer, _ := io.ReadAll(r.Body)
		if r.ProtoMajor != 2 || r.StatusCode != 400 || !strings.Contains(string(answer), "HelloTimeout") {
			t.Errorf("POST %s: %s %d %s", path, r.Proto, r.StatusCode, answer)
		}
		_ = never.Close()
		_ = r.Body.Close()
	}
}
