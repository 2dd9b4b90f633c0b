// Package memnet is a network in memory for tests: connections with a window,
// as the kernel's have, deadlines that obey the fake clock of a
// testing/synctest bubble, and lines that can be cut after any byte.
package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Window is how many bytes a direction holds before a write blocks.
const Window = 64 << 10

// A Network has one listener, which all that dial reach.
type Network struct {
	// CutAfter, if not nil, is called for each connection that is dialled, and
	// says after how many bytes of the server's it breaks; negative: never.
	CutAfter func() int

	incoming chan net.Conn
	done     chan struct{}
	close    sync.Once
}

// New returns a network.
func New() *Network {
	return &Network{incoming: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements [net.Listener], as do Close and Addr.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.incoming:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (n *Network) Close() error {
	n.close.Do(func() { close(n.done) })
	return nil
}

// Addr returns a made-up address.
func (n *Network) Addr() net.Addr { return addr{} }

// Dial connects to the listener. Its form is that of http.Transport.DialContext.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := Pipe()
	if n.CutAfter != nil {
		if k := n.CutAfter(); k >= 0 {
			client.in.cutAfter(k)
		}
	}
	select {
	case n.incoming <- server:
		return client, nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Pipe returns the two ends of a connection.
func Pipe() (client, server *Conn) {
	down, up := newHalf(), newHalf()
	return &Conn{in: down, out: up}, &Conn{in: up, out: down}
}

type addr struct{}

func (addr) Network() string { return "memory" }
func (addr) String() string  { return "127.0.0.1:1" }

// A Conn is one end.
type Conn struct{ in, out *half }

// Read implements [net.Conn], as do the methods below.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close ends both directions: the peer reads what was written, then EOF.
func (c *Conn) Close() error {
	c.out.end()
	c.in.fail(net.ErrClosed)
	return nil
}

// Reset breaks both directions at once: the peer can't say any more that it
// noticed.
func (c *Conn) Reset() {
	c.in.fail(errReset)
	c.out.fail(errReset)
}

// CutAfter breaks the connection after so many bytes more of the peer's.
func (c *Conn) CutAfter(k int) {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.cutAfter(k)
}

// HoldWrites keeps what is written at this end, and its close, from the peer
// until release is called. A Reset loses what is held.
func (c *Conn) HoldWrites() (release func()) { return c.out.hold() }

// HoldReads is HoldWrites at the peer's end.
func (c *Conn) HoldReads() (release func()) { return c.in.hold() }

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return addr{} }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { c.in.readers.set(c.in, t); return nil }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { c.out.writers.set(c.out, t); return nil }

var errReset = errors.New("memnet: connection reset")

// A half is one direction.
type half struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	ended   bool  // no more will be written
	err     error // both ends fail
	left    int   // bytes until it is cut; negative: it isn't
	held    bool  // the reader sees nothing of it
	readers deadline
	writers deadline
}

func newHalf() *half {
	h := &half{left: -1}
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *half) cutAfter(k int) { h.left = k }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case errors.Is(h.err, net.ErrClosed):
			return 0, h.err
		case h.held && h.readers.over():
			return 0, os.ErrDeadlineExceeded
		case h.held:
			h.changed.Wait()
			continue
		case len(h.buf) > 0 && len(p) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.err != nil:
			return 0, h.err
		case h.ended:
			return 0, io.EOF
		case h.readers.over():
			return 0, os.ErrDeadlineExceeded
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(p) > 0 {
		room := Window - len(h.buf)
		switch {
		case h.err != nil:
			return n, io.ErrClosedPipe
		case h.ended:
			return n, net.ErrClosed
		case h.writers.over():
			return n, os.ErrDeadlineExceeded
		case room <= 0:
			h.changed.Wait()
			continue
		}
		k := min(room, len(p))
		if h.left >= 0 && k >= h.left {
			h.buf = append(h.buf, p[:h.left]...)
			n += h.left
			h.err = errReset
			h.changed.Broadcast()
			return n, io.ErrClosedPipe
		}
		if h.left >= 0 {
			h.left -= k
		}
		h.buf = append(h.buf, p[:k]...)
		n, p = n+k, p[k:]
		h.changed.Broadcast()
	}
	return n, nil
}

func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.changed.Broadcast()
}

func (h *half) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
	if h.held {
		h.buf, h.held = nil, false
	}
	h.changed.Broadcast()
}

func (h *half) hold() (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held = false
		h.changed.Broadcast()
	}
}

// A deadline of the readers or writers of a half; guarded by its mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(h *half, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	// One that is over needs no timer; and with the race detector on, Go 1.26
	// crashes now and then on a bubble's timer that fires at once.
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, h.wake)
	}
	h.changed.Broadcast()
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changed.Broadcast()
}
