package conformance

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/throughline/throughline/internal/memnet"
)

// A transportNet is what a clause sees of the network, and does to it.
type transportNet struct {
	cutAfter func() int   // for each connection: after how many bytes of the server's it breaks; negative, nil: never
	dials    atomic.Int64 // connections that were opened
	down     atomic.Int64 // bytes that reached the client

	mu   sync.Mutex
	held chan struct{} // guarded by mu: until it closes the client's end reads nothing; nil: it reads
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// listen returns where the server listens, and the way there.
func (n *transportNet) listen(t *testing.T, tcp bool) (net.Listener, dialer) {
	if !tcp {
		memory := memnet.New()
		memory.CutAfter = n.cut
		return memory, n.tapped(memory.Dial)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener, n.tapped(func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
		if k := n.cut(); err == nil && k >= 0 {
			conn = &cutConn{Conn: conn, left: k}
		}
		return conn, err
	})
}

func (n *transportNet) cut() int {
	if n.cutAfter == nil {
		return -1
	}
	return n.cutAfter()
}

func (n *transportNet) tapped(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		n.dials.Add(1)
		return &tapConn{Conn: conn, net: n, closed: make(chan struct{})}, nil
	}
}

// hold keeps the client's ends from reading until release is called, as if the
// client's machine were busy.
func (n *transportNet) hold() (release func()) {
	held := make(chan struct{})
	n.setHeld(held)
	return sync.OnceFunc(func() {
		n.setHeld(nil)
		close(held)
	})
}

func (n *transportNet) setHeld(held chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = held
}

// A tapConn is the client's end of a connection.
type tapConn struct {
	net.Conn
	net    *transportNet
	closed chan struct{}
	once   sync.Once
}

func (c *tapConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.net.mu.Lock()
	held := c.net.held
	c.net.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-c.closed:
		}
	}
	c.net.down.Add(int64(n))
	return n, err
}

func (c *tapConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A cutConn breaks after so many bytes more of the peer's.
type cutConn struct {
	net.Conn
	left int // owned by Read
}

var errCut = errors.New("conformance: the connection is cut here")

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		_ = c.Conn.(*net.TCPConn).SetLinger(0) // a reset
		_ = c.Conn.Close()
		return 0, errCut
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
