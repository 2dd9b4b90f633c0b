package redistest

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// A conn is a connection from within a bubble. One goroutine reads at a time, as
// clients of Redis do. Lock order: writing, Bubble.mu, mu. No lock is held
// while something is awaited, but for writing, while the kernel takes bytes.
type conn struct {
	net.Conn // the real one

	// Static after Dial.
	bubble *Bubble
	stir   chan struct{} // of one: there is something to look at again
	done   chan struct{} // closed by Close
	close  sync.Once

	// Owned by Read.
	buf []byte // for what is read at once
	in  []byte // what came of a message that isn't complete
	out []byte // complete messages that the reader has not got yet
	err error  // what the real connection ended with

	writing sync.Mutex

	// Guarded by writing.
	command []byte // what was written of a command that isn't complete

	mu sync.Mutex

	// Guarded by mu.
	owed       int  // how many answers are under way
	looking    bool // one of them is to a PING of the rig's own
	subscribed bool // a subscription was answered
	look       bool // something may have been published
	deaf       bool // answers are owed, and nothing came for too long

	// The deadlines, of the bubble's time. Guarded by mu.
	readBy, writeBy time.Time
}

// The PING of the rig's own, and its answers, with a subscription and without.
const (
	lookout     = "*2\r\n$4\r\nPING\r\n$9\r\nredistest\r\n"
	nothing     = "*2\r\n$4\r\npong\r\n$9\r\nredistest\r\n"
	plainLookup = "$9\r\nredistest\r\n"
)

func (b *Bubble) newConn(real net.Conn) *conn {
	return &conn{Conn: real, bubble: b, buf: make([]byte, 64<<10), stir: make(chan struct{}, 1), done: make(chan struct{})}
}

// wake has Read look again at what it waits for.
func (c *conn) wake() {
	select {
	case c.stir <- struct{}{}:
	default: // it will anyway
	}
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	late := isPast(c.writeBy)
	c.mu.Unlock()
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.send(p)
}

// send writes and counts the answers that are owed for it. Callers hold writing.
func (c *conn) send(p []byte) (int, error) {
	c.command = append(c.command, p...)
	owed := 0
	for size := messageSize(c.command); size > 0; size = messageSize(c.command) {
		owed += answersTo(c.command[:size])
		c.command = c.command[size:]
	}
	c.mu.Lock()
	c.owed += owed // before an answer can come
	c.mu.Unlock()
	c.wake()
	// The kernel's deadlines are so long from now, whatever is the time here.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(c.bubble.Patience))
	return c.Conn.Write(p)
}

// lookOut asks the server for what was published, unless a command is half
// written.
func (c *conn) lookOut() bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	if len(c.command) > 0 {
		return false
	}
	c.mu.Lock()
	c.look, c.looking = false, true
	c.mu.Unlock()
	_, err := c.send([]byte(lookout))
	return err == nil
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		late, owed, deaf := isPast(c.readBy), c.owed > 0, c.deaf
		look := c.look && c.subscribed && !c.looking
		c.mu.Unlock()
		switch {
		case late:
			return 0, os.ErrDeadlineExceeded
		case len(c.out) > 0:
			n := copy(p, c.out)
			c.out = c.out[n:]
			return n, nil
		case c.err != nil:
			return 0, c.err
		case look && !deaf && c.lookOut():
		case owed && !deaf:
			c.receive()
		default:
			c.idle()
		}
	}
}

// idle waits durably until there is something to look at.
func (c *conn) idle() {
	c.mu.Lock()
	by := c.readBy
	c.mu.Unlock()
	var late <-chan time.Time
	if !by.IsZero() {
		timer := time.NewTimer(time.Until(by))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-c.stir:
	case <-late:
	case <-c.done:
		c.err = net.ErrClosed
	}
}

// receive reads from the server, while fake time stands still.
func (c *conn) receive() {
	_ = c.Conn.SetReadDeadline(time.Now().Add(c.bubble.Patience))
	n, err := c.Conn.Read(c.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.deaf = true; c.readBy.IsZero() {
			c.err = err
		}
		return
	}
	c.err = err
	c.in = append(c.in, c.buf[:n]...)
	answered := 0
	for size := messageSize(c.in); size > 0; size = messageSize(c.in) {
		if c.take(c.in[:size]) {
			answered++
		}
		c.in = c.in[size:]
	}
	if answered > 0 {
		c.bubble.answered(c)
	}
}

// take takes a message, and reports whether it answers the reader.
func (c *conn) take(message []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looking && (string(message) == nothing || string(message) == plainLookup) {
		c.looking = false
		c.owed--
		return false
	}
	c.out = append(c.out, message...)
	if published(message) {
		return false
	}
	c.owed--
	kind, _ := words(message)
	c.subscribed = c.subscribed || strings.HasSuffix(kind[0], "subscribe")
	return true
}

// mayBePublished has the connection look, if it is subscribed or will be.
func (c *conn) mayBePublished() {
	c.mu.Lock()
	c.look = true
	subscribed := c.subscribed
	c.mu.Unlock()
	if subscribed {
		c.wake()
	}
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.close.Do(func() {
		close(c.done)
		c.bubble.forget(c)
	})
	return c.Conn.Close()
}

// SetDeadline implements [net.Conn], as do the two below.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline is for the bubble's time: the kernel does not hear of it.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.readBy = t
	c.mu.Unlock()
	c.wake()
	return nil
}

// SetWriteDeadline only says after when nothing is written any more: the kernel
// takes what is written at once.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeBy = t
	return nil
}

func isPast(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }
