package main

import (
	"context"
	"net"
	"sync"
	"time"
)

// A tap is what a client reads its network through: it may be shut, or let only
// so much through.
type tap struct {
	rate int // bytes a second; 0: all that comes

	mu     sync.Mutex
	opened chan struct{} // guarded by mu: closed while the tap is open
}

func newTap(rate int) *tap {
	opened := make(chan struct{})
	close(opened)
	return &tap{rate: rate, opened: opened}
}

func (t *tap) isOpen() bool {
	select {
	case <-t.way():
		return true
	default:
		return false
	}
}

// way is closed as soon as the tap is open.
func (t *tap) way() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened
}

// turn opens or shuts the tap, and reports whether it was the other way round.
func (t *tap) turn(open bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.opened:
		if open {
			return false
		}
		t.opened = make(chan struct{})
	default:
		if !open {
			return false
		}
		close(t.opened)
	}
	return true
}

// dial connects through the tap.
func (t *tap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &tapped{Conn: c, tap: t, over: make(chan struct{})}, nil
}

// tapped is a connection that is read through a tap.
type tapped struct {
	net.Conn
	tap   *tap
	close sync.Once
	over  chan struct{} // closed when it is
}

// Read implements [net.Conn].
func (c *tapped) Read(p []byte) (int, error) {
	select {
	case <-c.tap.way():
	case <-c.over:
		return 0, net.ErrClosed
	}
	if c.tap.rate == 0 {
		return c.Conn.Read(p)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.tap.rate/10)])
	turn := time.NewTimer(time.Second * time.Duration(n) / time.Duration(c.tap.rate))
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-c.over:
	}
	return n, err
}

// Close implements [net.Conn].
func (c *tapped) Close() error {
	c.close.Do(func() { close(c.over) })
	return c.Conn.Close()
}
