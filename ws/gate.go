package ws

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/throughline/throughline/transport"
)

// Opcodes of RFC 6455 §5.2.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

const finBit = 0x80

var errNotControl = errors.New("ws: only control frames are written through the library")

// A gate is the net.Conn that the library has, and the way past it. The library
// writes control frames through Write, each by exactly one call, as its buffer
// holds the largest of them; data frames go through send. Whoever finds the
// gate occupied leaves its control frame in a slot, one for each opcode (RFC
// 6455 §5.5.3 lets the latest ping be answered alone), and the one who writes
// sends it at the next frame boundary. So the library's own timer never cuts off
// a client that pings while it stalls: its fate is the engine's to decide.
type gate struct {
	net.Conn
	timeout time.Duration // of the write of a control frame
	vigil   vigil

	writing turn          // held while writing to Conn
	over    chan struct{} // closes when Conn was closed
	ended   sync.Once     // of over

	mu     sync.Mutex
	slots  [3][]byte // guarded by mu: the close, ping and pong that wait
	ending bool      // guarded by mu: the library gave a close frame
	closed bool      // guarded by mu: a close frame was written, nothing may follow
}

func newGate(timeout time.Duration) *gate {
	return &gate{timeout: timeout, writing: newTurn(), over: make(chan struct{})}
}

// A turn is a mutex that may be waited for while time passes, which one of
// package sync may not in a bubble of testing/synctest. It holds one value at
// most.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take() { t <- struct{}{} }

func (t turn) give() { <-t }

func (t turn) tryTake() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

// Write takes a control frame from the library. It blocks only while no flush
// is under way, and for no longer than the timeout.
func (g *gate) Write(frame []byte) (int, error) {
	opcode := frame[0] & 0xF
	if opcode < opClose || opcode > opPong {
		return 0, errNotControl
	}
	g.mu.Lock()
	g.slots[opcode-opClose] = append([]byte(nil), frame...)
	g.ending = g.ending || opcode == opClose
	g.mu.Unlock()
	g.drain()
	return len(frame), nil
}

// Close closes the connection. The library does, once it has given the close frame
// that answers the client's; that may wait behind a Send, and both then have
// until the timeout.
func (g *gate) Close() error {
	g.mu.Lock()
	ending := g.ending
	g.mu.Unlock()
	if ending {
		_ = g.Conn.SetWriteDeadline(time.Now().Add(g.timeout)) // of a Send that is under way
		g.writing.take()
		g.drainLocked()
		g.writing.give()
	}
	defer g.end()
	return g.Conn.Close()
}

// end frees who waits for what can't come any more.
func (g *gate) end() { g.ended.Do(func() { close(g.over) }) }

// send writes whole frames, in one call where the connection can. The last of
// them may be a close frame, which closes the gate.
func (g *gate) send(frames net.Buffers, deadline time.Time, last bool) error {
	g.writing.take()
	err := g.sendLocked(frames, deadline, last)
	g.writing.give()
	g.drain()
	return err
}

func (g *gate) sendLocked(frames net.Buffers, deadline time.Time, last bool) error {
	g.mu.Lock()
	closed := g.closed
	g.closed = g.closed || last
	g.mu.Unlock()
	if closed {
		return transport.ErrClosed
	}
	_ = g.Conn.SetWriteDeadline(deadline) // fails only if the connection is closed: so will the write
	if len(frames) == 1 {
		_, err := g.Conn.Write(frames[0])
		return err
	}
	_, err := frames.WriteTo(g.Conn)
	return err
}

// drain writes the control frames that wait, unless somebody is writing, who
// will do it. A frame that comes while this writes is seen again in the loop.
func (g *gate) drain() {
	for {
		if !g.waiting() || !g.writing.tryTake() {
			return
		}
		g.drainLocked()
		g.writing.give()
	}
}

// drainLocked writes what waits; g.writing is held.
func (g *gate) drainLocked() {
	for frame, ok := g.take(); ok; frame, ok = g.take() {
		g.writeControl(frame)
	}
}

// writeControl writes a frame or nothing. One that was written in part would
// swallow the beginning of what follows, so then the connection ends.
func (g *gate) writeControl(frame []byte) {
	_ = g.Conn.SetWriteDeadline(time.Now().Add(g.timeout))
	if n, err := g.Conn.Write(frame); err != nil && n > 0 {
		_ = g.Conn.Close()
	}
}

func (g *gate) waiting() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, frame := range g.slots {
		if frame != nil {
			return true
		}
	}
	return false
}

// take takes the frame that goes first: a pong, a ping, and a close when
// nothing else is left. After a close there are no more.
func (g *gate) take() (frame []byte, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		g.slots = [3][]byte{}
		return nil, false
	}
	for i := len(g.slots) - 1; i >= 0; i-- {
		if frame = g.slots[i]; frame != nil {
			g.slots[i] = nil
			g.closed = i == 0
			return frame, true
		}
	}
	return nil, false
}

// appendFrame appends an unmasked frame (RFC 6455 §5.2).
func appendFrame(dst []byte, opcode byte, payload []byte) []byte {
	return append(appendHeader(dst, opcode, len(payload)), payload...)
}

func appendHeader(dst []byte, opcode byte, n int) []byte {
	dst = append(dst, finBit|opcode)
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return append(dst, 126, byte(n>>8), byte(n))
	default:
		return append(dst, 127, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32),
			byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
}
