package e2e

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/internal/wireclient"
)

// behind are the proxies that the suite is run behind. lacks are the forms of
// reading that can't come through, with the reason why.
var behind = map[string]struct {
	start func(t *testing.T, server string) (address string)
	lacks map[conformance.Feature]string
	few   bool // only the groups that say most
}{
	"nginx": { // as it comes: nothing but proxy_pass
		start: func(t *testing.T, server string) string {
			return startNginx(t, "http://"+server, snippet(t, "nginx-plain.conf"))
		},
		lacks: noUpgrade,
	},
	"nginx for websocket": {
		start: func(t *testing.T, server string) string {
			return startNginx(t, "http://"+server, snippet(t, "nginx-websocket.conf"))
		},
	},
	"nginx that buffers": { // speaking HTTP/1.0 to the server: over 1.1 it passes on each chunk even so
		start: func(t *testing.T, server string) string {
			lines := strings.Replace(snippet(t, "nginx-plain.conf"), "}", "    proxy_ignore_headers X-Accel-Buffering;\n}", 1)
			return startNginx(t, "http://"+server, lines)
		},
		lacks: merged(noUpgrade, keptBack),
	},
	"haproxy": { // as it comes it holds each piece of a response back for 200 ms
		start: func(t *testing.T, server string) string { return startHAProxy(t, server, "") },
		few:   true,
	},
	"haproxy without delay": {
		start: func(t *testing.T, server string) string { return startHAProxy(t, server, "option http-no-delay") },
	},
	"haproxy that buffers": {
		start: func(t *testing.T, server string) string {
			return startHAProxy(t, server, "http-response wait-for-body time 10s if { status 200 }")
		},
		lacks: keptBack,
	},
}

var (
	oneServer = map[conformance.Feature]string{
		conformance.Nodes:   "a proxy has one server behind it here",
		conformance.Several: "a proxy has one server behind it here",
	}
	noUpgrade = map[conformance.Feature]string{
		conformance.PlainWS:   "without the lines for WebSocket nginx passes on no upgrade",
		conformance.SessionWS: "without the lines for WebSocket nginx passes on no upgrade",
	}
	keptBack = map[conformance.Feature]string{
		conformance.PlainSSE:   "the proxy keeps a stream back until it ends",
		conformance.SessionSSE: "the proxy keeps a stream back until it ends",
	}
)

func merged(all ...map[conformance.Feature]string) map[conformance.Feature]string {
	m := map[conformance.Feature]string{}
	for _, one := range all {
		maps.Copy(m, one)
	}
	return m
}

// throughProxies are the groups that say what comes through.
var throughProxies = []string{"order", "payloads", "resume", "switch", "lost answers", "plain use", "upstream", "calls", "channels", "proxies"}

// TestConformanceBehindProxies: each form of reading that a proxy lets through
// brings everything, once and in order.
func TestConformanceBehindProxies(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, p := range behind {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			r := newRelay(t)
			address := p.start(t, r.address())
			s := testee.Server()
			s.TCP, s.Groups, s.Lacks = true, throughProxies, merged(p.lacks, oneServer)
			if p.few {
				s.Groups = []string{"order", "switch", "lost answers"}
			}
			s.Through = func(_ *testing.T, server string) string {
				r.point(server)
				return address
			}
			conformance.TestServer(t, s)
			for f, open := range lackingForms {
				if _, claimed := p.lacks[f]; claimed {
					t.Run("lacks "+string(f), func(t *testing.T) { bringsNothing(t, s, open) })
				}
			}
		})
	}
}

// lackingForms are the forms that some proxy lacks.
var lackingForms = map[conformance.Feature]func(ctx context.Context, base string) (wireclient.Stream, error){
	conformance.PlainSSE: func(ctx context.Context, base string) (wireclient.Stream, error) {
		return wireclient.SSE(ctx, http.DefaultClient, base+"/sse?channel=r", "")
	},
	conformance.SessionSSE: func(ctx context.Context, base string) (wireclient.Stream, error) {
		return wireclient.SSESession(ctx, http.DefaultClient, base+"/sse", wireclient.HelloFor("", "r"))
	},
	conformance.PlainWS: func(ctx context.Context, base string) (wireclient.Stream, error) {
		return wireclient.WS(ctx, http.DefaultClient, base+"/ws?channel=r", nil)
	},
	conformance.SessionWS: func(ctx context.Context, base string) (wireclient.Stream, error) {
		h := wireclient.HelloFor("", "r")
		return wireclient.WS(ctx, http.DefaultClient, base+"/ws", &h)
	},
}

// bringsNothing shows that a proxy really lacks a form: what is claimed to be
// lacking, and works, would hide clauses. A proxy that buffers may let the first
// bytes through, with the header: that is no news.
func bringsNothing(t *testing.T, s conformance.Server, open func(ctx context.Context, base string) (wireclient.Stream, error)) {
	running := s.Start(t, conformance.ServerSetup{})
	ts := httptest.NewServer(running.Handler)
	defer func() { running.Close(); ts.Close() }()
	address := s.Through(t, ts.Listener.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	stream, err := open(ctx, "http://"+address+running.Base)
	if err != nil {
		return
	}
	defer stream.Close()
	first, err := stream.Next()
	if err != nil {
		return
	}
	if _, err := running.Publish(ctx, "r", eventlog.Message{Data: []byte(`"news"`)}); err != nil {
		t.Fatal(err)
	}
	for it := first; err == nil; it, err = stream.Next() {
		if it.Event {
			t.Errorf("it works: %+v came", it)
		}
	}
}

// A relay has one address, and passes on to whichever server it points to: so one
// proxy serves all clauses, each of which has a server of its own.
type relay struct {
	listener net.Listener

	mu     sync.Mutex
	server string // guarded by mu
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) point(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = server
}

// pass passes on until either end is through.
func (r *relay) pass(client net.Conn) {
	r.mu.Lock()
	address := r.server
	r.mu.Unlock()
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return // as when nobody listens
	}
	var down sync.WaitGroup
	down.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	down.Wait()
}

// startHAProxy starts an haproxy before a server, with a line more for its
// frontend, and returns its address.
func startHAProxy(t *testing.T, server, line string) (address string) {
	t.Helper()
	need(t, haproxyPath() != "", "haproxy", "apt-get install haproxy")
	address = freeAddress(t)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyConfig, address, line, server), 0o600); err != nil {
		t.Fatal(err)
	}
	startProxy(t, address, "", haproxyPath(), "-db", "-f", file)
	return address
}

// haproxyConfig is what its manual begins with.
const haproxyConfig = `
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
frontend front
    bind %s
    %s
    default_backend back
backend back
    server s %s
`
