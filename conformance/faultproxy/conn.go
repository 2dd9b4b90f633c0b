package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// An Ending is how a connection ends, at both its ends.
type Ending uint8

const (
	// Reset breaks it: either end reads an error. The last bytes that were
	// under way may be lost, as in life.
	Reset Ending = iota
	// Orderly closes it: either end reads an end after the last byte. TCP makes
	// a reset of it for an end that sent what wasn't read yet.
	Orderly
	// HalfOpen tells nobody: nothing goes either way any more, not even the news
	// that an end has left. The kernel of this machine still acknowledges what
	// it buffers, so TCP's own keep-alive finds nothing.
	HalfOpen
)

// String returns the name.
func (e Ending) String() string {
	switch e {
	case Reset:
		return "Reset"
	case Orderly:
		return "Orderly"
	default:
		return "HalfOpen"
	}
}

// A verdict is how a pair of connections ends. HalfOpen is for both or none.
type verdict struct {
	client, server Ending
	answer         []byte // goes to the client before
	why            string
}

func both(how Ending, why string) verdict {
	return verdict{client: how, server: how, why: why + " (" + how.String() + ")"}
}

// longAgo frees a write in progress.
var longAgo = time.Unix(1, 0)

// A conn is a client's connection, and the one to the server that goes with it.
type conn struct {
	// Static.
	p      *Proxy
	number int
	client *side
	over   chan struct{} // closes with the verdict
	killed chan struct{} // closes when nothing is waited for any more
	quiet  chan struct{} // closes when nothing passes any more
	ctx    context.Context
	cancel context.CancelFunc

	last    atomic.Int64   // when a byte last came, of either side
	readers sync.WaitGroup // of the two sides

	mu      sync.Mutex // guards what follows
	verdict *verdict
	dead    bool // killed is closed
	server  *side
	current *exchange
}

func newConn(p *Proxy, number int, client net.Conn) *conn {
	c := &conn{
		p: p, number: number, client: newSide(client),
		over: make(chan struct{}), killed: make(chan struct{}), quiet: make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	c.readers.Go(func() { c.client.read(&c.last) })
	return c
}

// serve owns the connection: it returns when all of it has ended.
func (c *conn) serve() {
	defer c.p.forget(c)
	for c.exchange() {
	}
	c.finish()
	c.readers.Wait()
}

// end gives the verdict, unless there is one, and frees whoever waits.
func (c *conn) end(v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verdict != nil {
		return
	}
	c.verdict = &v
	close(c.over)
	c.cancel()
	_ = c.client.SetWriteDeadline(longAgo)
	if c.server != nil {
		_ = c.server.SetWriteDeadline(longAgo)
	}
}

// kill is an end that waits for nothing, unless it is a HalfOpen.
func (c *conn) kill(v verdict) {
	c.end(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.client != HalfOpen && !c.dead {
		c.dead = true
		close(c.killed)
		_ = c.client.SetWriteDeadline(longAgo) // of last words
	}
}

// write writes to a side of the connection.
func (c *conn) write(to *side, p []byte) (int, error) {
	c.mu.Lock()
	if c.verdict != nil {
		c.mu.Unlock()
		return 0, errOver
	}
	err := to.SetWriteDeadline(time.Now().Add(c.p.options.Timeout))
	c.mu.Unlock()
	if err != nil {
		return 0, writeError{err}
	}
	n, err := to.Write(p)
	switch {
	case c.isOver():
		return n, errOver
	case err != nil:
		return n, writeError{err}
	}
	return n, nil
}

func (c *conn) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// now returns what the connection is about, nil when it is idle.
func (c *conn) now() *exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

func (c *conn) become(x *exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = x
}

// dial sees to it that there is a connection to the server.
func (c *conn) dial() error {
	if c.server != nil { // only this goroutine sets it
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.p.options.Timeout)
	defer cancel()
	conn, err := c.p.options.Dial(ctx)
	if err != nil {
		return err
	}
	s := newSide(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = s
	c.readers.Go(func() { s.read(&c.last) })
	return nil
}

// broke ends the connection after reading from one side failed. What one end
// did the other is told.
func (c *conn) broke(who string, err error) {
	switch {
	case errors.Is(err, errOver):
	case errors.Is(err, io.EOF):
		c.end(both(Orderly, who+" left"))
	case errors.Is(err, io.ErrUnexpectedEOF):
		c.end(both(Orderly, who+" left amid a head"))
	default:
		c.end(both(Reset, who+": "+err.Error()))
	}
}

// finish carries the verdict out. Nothing else writes any more.
func (c *conn) finish() {
	c.mu.Lock()
	v := *c.verdict
	c.mu.Unlock()
	if v.answer != nil {
		c.lastWords(v.answer)
	}
	if v.client == HalfOpen {
		c.note("ended: " + v.why)
		close(c.quiet)
		c.hold()
		v = both(Reset, "no longer held")
	} else {
		defer close(c.quiet)
	}
	close(c.client.stop)
	c.client.finish(v.client)
	if c.server != nil {
		close(c.server.stop)
		c.server.finish(v.server)
	}
	c.note("ended: " + v.why)
	c.become(nil)
}

// hold keeps a half-open connection.
func (c *conn) hold() {
	var over <-chan time.Time
	if d := c.p.options.Hold; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-c.killed:
	}
}

// lastWords writes an answer. It then waits for the client to leave, if it can
// say that no more follows: closing a connection of TCP with something unread
// may take the answer along.
func (c *conn) lastWords(answer []byte) {
	timer := time.NewTimer(c.p.options.Timeout)
	defer timer.Stop()
	c.mu.Lock()
	if !c.dead {
		_ = c.client.SetWriteDeadline(time.Now().Add(c.p.options.Timeout))
	}
	c.mu.Unlock()
	if _, err := c.client.Write(answer); err != nil || !c.client.halfClose() {
		return
	}
	for {
		select {
		case _, ok := <-c.client.pieces:
			if !ok {
				return
			}
		case <-timer.C:
			return
		case <-c.killed:
			return
		}
	}
}

func (c *conn) note(what string) {
	request := ""
	if x := c.now(); x != nil {
		request = x.name
	}
	c.p.note(c.number, request, what)
}
