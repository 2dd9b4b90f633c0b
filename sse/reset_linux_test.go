package sse_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
)

// A history is a server on a real socket, and a channel "r" with more events than
// any kernel takes for a client that does not read.
type history struct {
	*httptest.Server
	engine *core.Engine
	log    eventlog.Log
	port   int
}

func (h *history) publish(t *testing.T, channel, data string) {
	t.Helper()
	if _, _, err := h.log.Append(t.Context(), eventlog.Channel{Name: channel}, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(data)}}}); err != nil {
		t.Fatal(err)
	}
}

const writeTimeout = 500 * time.Millisecond

func newHistory(t *testing.T, start func(*httptest.Server)) *history {
	t.Helper()
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	data := []byte(`"` + strings.Repeat("x", 64<<10) + `"`)
	for range 200 {
		if _, _, err := log.Append(t.Context(), eventlog.Channel{Name: "r"}, eventlog.Batch{Messages: []eventlog.Message{{Data: data}}}); err != nil {
			t.Fatal(err)
		}
	}
	store := session.NewMemory(session.MemoryOptions{})
	h := &history{log: log, engine: core.New(core.Options{Log: log, Store: store, WriteTimeout: writeTimeout})}
	streams := sse.New(h.engine, sse.Options{})
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streams.Serve(w, r, transport.Peer{Subject: "ada", Addr: r.RemoteAddr})
	}))
	h.Config.ConnContext = sse.ConnContext
	start(h.Server)
	h.port = h.Listener.Addr().(*net.TCPAddr).Port
	t.Cleanup(func() {
		h.engine.Close()
		h.Close()
		_ = store.Close()
		_ = log.Close()
	})
	return h
}

// held is how many bytes the kernel holds for clients of the server, also of
// connections that nobody has any more.
func (h *history) held(t *testing.T) (bytes int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		var n, state, sending, receiving int
		var local, remote string
		if _, err := fmt.Sscanf(line, "%d: %s %s %x %x:%x", &n, &local, &remote, &state, &sending, &receiving); err != nil {
			continue // the line of titles
		}
		const listens = 0x0A
		if state != listens && strings.HasSuffix(local, fmt.Sprintf(":%04X", h.port)) {
			bytes += sending
		}
	}
	return bytes
}

// What the kernel holds for a client that does not read is given back as soon as
// it is evicted, and the stream is over then, over TLS, too.
func TestEvictionGivesBackWhatTheKernelHolds(t *testing.T) {
	for name, c := range map[string]struct {
		start func(*httptest.Server)
		dial  func(addr string) (net.Conn, error)
	}{
		"plain": {(*httptest.Server).Start, func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }},
		"TLS": {(*httptest.Server).StartTLS, func(addr string) (net.Conn, error) {
			return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a server of the test
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, c.start)
			client, err := c.dial(h.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := io.WriteString(client, "GET /?channel=r&after=earliest HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			until(t, 5*time.Second, "the client does not stall", func() bool { return h.held(t) > 0 })
			until(t, writeTimeout+5*time.Second, "it was not evicted", func() bool { return h.engine.Evicted().Open > 0 })
			until(t, time.Second, "the kernel holds what nobody will read", func() bool { return h.held(t) == 0 })
		})
	}
}

func until(t *testing.T, within time.Duration, otherwise string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", within, otherwise)
		}
	}
}

// A connection of HTTP/2 is shared: only the stream ends that nobody reads.
func TestEvictionSparesASharedConnection(t *testing.T) {
	t.Parallel()
	h := newHistory(t, func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() })
	dials := 0
	hc := h.Client()
	hc.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	open := func(after string) *bufio.Reader {
		r, err := hc.Get(h.URL + "/?channel=r&after=" + after)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Body.Close() })
		if r.ProtoMajor != 2 {
			t.Fatalf("%s", r.Proto)
		}
		return bufio.NewReader(r.Body)
	}
	good := open("latest")
	stalled := open("earliest")
	until(t, writeTimeout+5*time.Second, "it was not evicted", func() bool { return h.engine.Evicted().Open > 0 })
	if _, err := io.Copy(io.Discard, stalled); err == nil {
		t.Error("the stalled stream ended as if it were whole")
	}
	h.engine.Close() // tells the other to come back, by what it still has
	if rest, err := io.ReadAll(good); err != nil || !strings.Contains(string(rest), "retry: ") || dials != 1 {
		t.Errorf("the other stream of the connection: %q, %v, %d connections", rest, err, dials)
	}
}

// A server's WriteTimeout ends no stream, with a socket as without one.
func TestWriteTimeoutOfTheServerEndsNoStream(t *testing.T) {
	t.Parallel()
	h := newHistory(t, func(s *httptest.Server) { s.Config.WriteTimeout = 200 * time.Millisecond; s.Start() })
	r, err := http.Get(h.URL + "/?channel=other")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body := bufio.NewReader(r.Body)
	read := func() string {
		for {
			line, err := body.ReadString('\n')
			if err != nil {
				t.Fatalf("the stream ended: %v", err)
			}
			if text, ok := strings.CutPrefix(line, "data: "); ok {
				return text
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	for n := range 2 {
		h.publish(t, "other", fmt.Sprint(n))
		if got := read(); got != fmt.Sprintln(n) {
			t.Errorf("%q came, not %d", got, n)
		}
	}
}
