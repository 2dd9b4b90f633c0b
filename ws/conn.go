package ws

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/throughline/throughline/transport"
)

// Close codes of PROTOCOL P4.5.
var closeCodes = map[transport.Class]uint16{
	transport.Now:   4000,
	transport.Later: 4001,
	transport.Never: 4002,
}

// ownCodes are for what RFC 6455 has a code of its own for (§§7.4.1, 8.1).
var ownCodes = map[transport.Reason]uint16{errNotUTF8.Reason: 1007, errBroken.Reason: 1002}

var ping = appendFrame(nil, opPing, nil)

// A conn sends to one WebSocket.
type conn struct {
	gate *gate

	// Static after the handshake.
	session      bool
	closeTimeout time.Duration // how long a client may take to answer a close frame

	// proofs has a value when the client has answered the last ping that asks for a proof.
	proofs chan struct{}

	pieces net.Buffers // owned by Send
}

var _ transport.Prover = (*conn)(nil)

// Send implements [transport.Conn].
func (c *conn) Send(items []transport.Item, deadline time.Time) (more bool, err error) {
	last, beat := false, false
	pieces := c.pieces[:0]
	for _, item := range items {
		switch {
		case item.Run != nil:
			pieces = append(pieces, item.Run.As(codec{}).Bytes) // those that all get, as they are
		case item.Frame.Kind == transport.FrameClose:
			pieces = append(pieces, c.goodbye(item.Frame))
			last = true
		case item.Frame.Kind == transport.FrameBeat && !c.session:
			beat = true
		default:
			pieces = append(pieces, item.Frame.As(codec{}))
			beat = beat || item.Frame.Kind == transport.FrameBeat
		}
	}
	if now := time.Now(); !last && c.gate.vigil.due(now, beat) {
		pieces = append(pieces, ping)
		c.gate.await(now)
	}
	c.pieces = pieces
	err = wasCut(c.gate.send(pieces, deadline, last))
	clear(c.pieces)
	if last {
		time.AfterFunc(c.closeTimeout, func() { _ = c.gate.Close() }) // a client that does not answer
	}
	return true, err
}

// proof is a ping whose answer shows that the client has read all that came before it
// (RFC 6455 §5.5.3): pongs bring back what their pings held.
var (
	proof     = []byte("read")
	proofPing = appendFrame(nil, opPing, proof)
)

// Prove implements [transport.Prover].
func (c *conn) Prove(deadline time.Time) error {
	if err := c.gate.send(net.Buffers{proofPing}, deadline, false); err != nil {
		return wasCut(err)
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-c.proofs:
		return nil
	case <-c.gate.over:
		return transport.ErrClosed
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

// ponged is called by the library with what a pong holds.
func (c *conn) ponged(_ context.Context, payload []byte) {
	if bytes.Equal(payload, proof) {
		select {
		case c.proofs <- struct{}{}:
		default: // nobody asked
		}
	}
}

// goodbye is the close frame, before it the reason if the client speaks the
// session protocol.
func (c *conn) goodbye(f *transport.Frame) []byte {
	var b []byte
	if c.session {
		b = append(b, f.As(codec{})...)
	}
	reason := f.Reason.Code
	if f.Reason.Class == transport.Later {
		reason = fmt.Sprintf("%s %d", reason, f.Reason.After.Milliseconds())
	}
	code, ok := ownCodes[f.Reason]
	if !ok {
		code = closeCodes[f.Reason.Class]
	}
	return appendFrame(b, opClose, append([]byte{byte(code >> 8), byte(code)}, reason...))
}

// Close implements [transport.Conn]. What the kernel still holds for a client
// that does not read is thrown away. TLS is not asked to say goodbye, as that
// may block.
func (c *conn) Close(transport.Reason) {
	raw := c.gate.Conn
	if wrapped, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = wrapped.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
	c.gate.end()
}
