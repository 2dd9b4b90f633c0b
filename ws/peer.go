package ws

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/transport"
)

// A vigil notices that a client is dead: one from which nothing was read since
// it was asked for a sign, by a ping (RFC 6455 §5.5.2). It needs neither
// a goroutine nor a timer of its own: while a sign is awaited, the reader, which
// waits anyway, has a deadline.
type vigil struct {
	timeout time.Duration // static

	asked time.Time // owned by Send: when the last ping was, or the handshake

	mu       sync.Mutex
	awaiting bool // guarded by mu: nothing was read since a ping
}

// due reports whether a ping goes with what is sent now: with a heartbeat, and
// on a line that is never silent once in the timeout, as there what is sent
// proves nothing: it lies in buffers on the way.
func (v *vigil) due(now time.Time, beat bool) bool {
	if !beat && now.Sub(v.asked) < v.timeout {
		return false
	}
	v.asked = now
	return true
}

// await gives the reader a deadline, before the ping is written, so that its
// answer can't come before. One that is running stays: pings may come more often
// than the timeout.
func (g *gate) await(now time.Time) {
	g.vigil.mu.Lock()
	defer g.vigil.mu.Unlock()
	if !g.vigil.awaiting {
		g.vigil.awaiting = true
		_ = g.SetReadDeadline(now.Add(g.vigil.timeout)) // fails only if the connection is closed
	}
}

// Read is the library's. Whatever comes is a sign of life.
func (g *gate) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if n > 0 {
		g.heard()
	}
	if g.vigil.timedOut(err) {
		err = fmt.Errorf("%w: nothing came for %v after a ping", transport.ErrDead, g.vigil.timeout)
	}
	return n, err
}

// timedOut reports whether a read failed because a ping was left unanswered.
func (v *vigil) timedOut(err error) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.awaiting && errors.Is(err, os.ErrDeadlineExceeded)
}

func (g *gate) heard() {
	g.vigil.mu.Lock()
	defer g.vigil.mu.Unlock()
	if g.vigil.awaiting {
		g.vigil.awaiting = false
		_ = g.SetReadDeadline(time.Time{})
	}
}

// wasCut marks an error by which the connection ended without a close frame of
// the client's, which every client sends that leaves.
func wasCut(err error) error {
	if err == nil || websocket.CloseStatus(err) != -1 ||
		errors.Is(err, transport.ErrClosed) || errors.Is(err, transport.ErrDead) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", transport.ErrCut, err)
}
