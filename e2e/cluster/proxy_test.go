//go:build unix

package cluster

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy sends each connection to the next node that is ready; if none is, to the next
// one. It remembers nothing of clients.
type proxy struct {
	// Static.
	listener net.Listener
	backends []*backend
	turn     atomic.Uint32
	all      sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]*backend // guarded by mu: of clients
	closed bool                  // guarded by mu
}

type backend struct {
	address string
	ready   atomic.Bool
}

func startProxy(t testing.TB, ctx context.Context, addresses []string) *proxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, conns: make(map[net.Conn]*backend)}
	for _, address := range addresses {
		b := &backend{address: address}
		p.backends = append(p.backends, b)
		p.all.Go(func() { b.look(ctx) })
	}
	p.all.Go(p.accept)
	return p
}

func (p *proxy) base() string { return "http://" + p.listener.Addr().String() + "/realtime" }

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

// look asks a node again and again whether it is ready.
func (b *backend) look(ctx context.Context) {
	hc := &http.Client{Timeout: time.Second}
	defer hc.CloseIdleConnections()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.address+"/readyz", nil)
		if err != nil {
			return
		}
		resp, err := hc.Do(req)
		b.ready.Store(err == nil && resp.StatusCode == http.StatusOK)
		if err == nil {
			_ = resp.Body.Close()
		}
		pause(ctx, 150*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (p *proxy) next() *backend {
	turn := int(p.turn.Add(1))
	for i := range p.backends {
		if b := p.backends[(turn+i)%len(p.backends)]; b.ready.Load() {
			return b
		}
	}
	return p.backends[turn%len(p.backends)]
}

func (p *proxy) allReady() bool {
	for _, b := range p.backends {
		if !b.ready.Load() {
			return false
		}
	}
	return true
}

// cut breaks the connections to a node for which a choice says so.
func (p *proxy) cut(address string, choose func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, b := range p.conns {
		if b.address == address && choose() {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.all.Go(func() { p.carry(c) })
	}
}

func (p *proxy) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	b := p.next()
	node, err := net.DialTimeout("tcp", b.address, time.Second)
	if err != nil {
		b.ready.Store(false)
		return
	}
	defer func() { _ = node.Close() }()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.conns[client] = b
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, client)
		p.mu.Unlock()
	}()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(node, client)
		_ = node.Close()
		_ = client.Close()
	})
	_, _ = io.Copy(client, node)
	_ = client.Close()
	_ = node.Close()
	up.Wait()
}
