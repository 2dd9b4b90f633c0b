package ws

import (
	"fmt"
	"net"
	"time"

	"github.com/throughline/throughline/transport"
)

// closeTimeout is how long a client may take to answer a close frame.
const closeTimeout = time.Second

// Close codes of PROTOCOL P4.5.
var closeCodes = map[transport.Class]uint16{
	transport.Now:   4000,
	transport.Later: 4001,
	transport.Never: 4002,
}

var ping = appendFrame(nil, opPing, nil)

// A conn sends to one WebSocket.
type conn struct {
	// Static after newConn.
	gate    *gate
	session bool

	buf []byte // owned by Send
}

var _ transport.Conn = (*conn)(nil)

// Send implements [transport.Conn].
func (c *conn) Send(items []transport.Item, deadline time.Time) (more bool, err error) {
	if len(items) == 1 && items[0].Run != nil {
		frames := items[0].Run.As(codec{}).Bytes // the bytes that all get, as they are
		return true, c.gate.send(frames, deadline, false)
	}
	b := c.buf[:0]
	last := false
	for _, item := range items {
		switch {
		case item.Run != nil:
			b = append(b, item.Run.As(codec{}).Bytes...)
		case item.Frame.Kind == transport.FrameClose:
			b = c.appendGoodbye(b, item.Frame)
			last = true
		case item.Frame.Kind == transport.FrameBeat && !c.session:
			b = append(b, ping...)
		default:
			b = append(b, item.Frame.As(codec{})...)
		}
	}
	if cap(b) <= 4096 {
		c.buf = b
	}
	if last {
		time.AfterFunc(closeTimeout, func() { _ = c.gate.Close() }) // a client that does not answer
	}
	return true, c.gate.send(b, deadline, last)
}

// appendGoodbye appends the close frame, before it the reason if the client
// speaks the session protocol.
func (c *conn) appendGoodbye(b []byte, f *transport.Frame) []byte {
	if c.session {
		b = append(b, f.As(codec{})...)
	}
	reason := f.Reason.Code
	if f.Reason.Class == transport.Later {
		reason = fmt.Sprintf("%s %d", reason, f.Reason.After.Milliseconds())
	}
	code := closeCodes[f.Reason.Class]
	return appendFrame(b, opClose, append([]byte{byte(code >> 8), byte(code)}, reason...))
}

// Close implements [transport.Conn]. What the kernel still holds for a client
// that does not read is thrown away.
func (c *conn) Close(transport.Reason) {
	if tcp, ok := c.gate.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.gate.Close()
}
