package sse

import (
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A conn writes to one response, whose handler waits meanwhile.
type conn struct {
	// Static after newConn.
	w     http.ResponseWriter
	rc    *http.ResponseController
	http1 bool
	// socket is that of the connection, to reset it. nil: it is shared, or not
	// known.
	socket *net.TCPConn
	codec  transport.Codec
	retry  time.Duration // of a plain stream; 0: this is a session

	// Owned by Send.
	vector *vector // of a plain stream of several channels
	begun  bool
	alarm  *time.Timer // resets the connection; set by the first Send, if there is a socket

	mu     sync.Mutex
	closed bool // guarded by mu: Close was called, or the handler returned
}

var _ transport.Conn = (*conn)(nil)

// buffers are what several items are written from at once. One is used during
// a Send only, so an idle stream has none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is twice the usual page.
const maxPooled = 128 << 10

func newConn(w http.ResponseWriter, r *http.Request, codec transport.Codec) *conn {
	http1 := r.ProtoMajor == 1
	return &conn{w: w, rc: http.NewResponseController(w), http1: http1, socket: socketOf(r.Context(), http1), codec: codec}
}

// Send implements [transport.Conn].
func (c *conn) Send(items []transport.Item, deadline time.Time) (more bool, err error) {
	if err := c.setDeadline(deadline); err != nil {
		return false, err
	}
	err = c.write(items)
	if err == nil {
		err = c.rc.Flush()
	}
	if c.socket != nil {
		if late := c.stopAlarm(); late != nil {
			err = late
		}
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	return true, c.setDeadline(time.Time{}) // over HTTP/2 a deadline that passes resets the stream, write or no write
}

func (c *conn) write(items []transport.Item) error {
	if c.begun && len(items) == 1 && items[0].Run != nil && c.vector == nil {
		_, err := c.w.Write(items[0].Run.As(c.codec).Bytes) // the bytes that all get, as they are
		return err
	}
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	b := (*pooled)[:0]
	if !c.begun {
		c.begun = true
		b = c.begin(b, items)
	}
	for _, item := range items {
		if item.Run != nil {
			b = c.appendRun(b, item.Run)
		} else {
			b = c.appendFrame(b, item.Frame)
		}
	}
	_, err := c.w.Write(b)
	if cap(b) <= maxPooled {
		*pooled = b
	}
	return err
}

// begin writes the headers, and what a plain stream begins with: its retry and,
// if it has several channels, one id for all their openings. The vector holds
// for each channel the position presented until its gap is said, so that the
// stream can be resumed from anywhere.
func (c *conn) begin(b []byte, items []transport.Item) []byte {
	c.writeHeader()
	if c.retry == 0 {
		return b
	}
	b = appendRetry(b, c.retry)
	if c.vector == nil {
		return b
	}
	for _, item := range items {
		if f := item.Frame; f != nil && f.Kind == transport.FrameOpening {
			c.vector.set(f.Channel, f.At)
		}
	}
	return c.vector.appendBlockEnd(b)
}

func (c *conn) writeHeader() {
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx keeps a stream back without it
	h.Set("Incremental", "?1")       // the same for every proxy that knows RFC 10036
	h.Set("X-Content-Type-Options", "nosniff")
	if c.http1 {
		h.Set("Connection", "close") // so that the deadline of the end may stay: nothing follows
	}
	c.w.WriteHeader(http.StatusOK)
}

// refuse answers for a line that was never attached. An EventSource would take
// a 503 for the end of it all, so one that may return later is told that by
// a stream (PROTOCOL P3.11).
func (c *conn) refuse(err error) {
	r, ok := errors.AsType[*transport.Refusal](err)
	if !ok || c.retry == 0 || r.Class != transport.Later {
		transport.WriteRefusal(c.w, err)
		return
	}
	c.writeHeader()
	_, _ = c.w.Write(c.appendGoodbye(nil, r.Reason))
}

func appendRetry(b []byte, d time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, d.Milliseconds(), 10)
	return append(b, '\n')
}

func (c *conn) appendRun(b []byte, run *transport.Run) []byte {
	encoded := run.As(c.codec)
	if c.vector == nil {
		return append(b, encoded.Bytes...)
	}
	from := 0
	for i, end := range encoded.Ends {
		b = append(b, encoded.Bytes[from:end]...)
		b = c.endBlock(b, run.Channel.Name, run.Events[i].At)
		from = end
	}
	if n := len(run.Events); n == 0 || run.Events[n-1].At != run.Next {
		b = c.endBlock(b, run.Channel.Name, run.Next)
	}
	return b
}

func (c *conn) endBlock(b []byte, channel string, at eventlog.Position) []byte {
	c.vector.set(channel, at)
	return c.vector.appendBlockEnd(b)
}

func (c *conn) appendFrame(b []byte, f *transport.Frame) []byte {
	if c.retry > 0 && f.Kind == transport.FrameClose {
		return c.appendGoodbye(b, f.Reason)
	}
	encoded := f.As(c.codec)
	b = append(b, encoded...)
	if c.vector != nil && f.Kind == transport.FrameGap {
		b = c.endBlock(b, f.Channel, f.Lost.To)
	}
	return b
}

// appendGoodbye tells an EventSource when to come back. It has no other way to
// hear a reason (PROTOCOL P3.11).
func (c *conn) appendGoodbye(b []byte, why transport.Reason) []byte {
	if why.Class != transport.Later {
		return b
	}
	after := why.After
	if after <= 0 { // the program didn't say: not at once, again and again
		after = c.retry
	}
	return append(appendRetry(b, after), '\n')
}

// setDeadline bounds the writes of one Send. A server's WriteTimeout, which
// would end the stream, no longer counts then.
func (c *conn) setDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return transport.ErrClosed
	}
	if c.socket != nil {
		c.setAlarm(t)
		return nil
	}
	return c.rc.SetWriteDeadline(t)
}

// Close implements [transport.Conn]: a write in progress fails. What the kernel
// still holds for a client that does not read is thrown away, where the
// connection is not shared.
func (c *conn) Close(transport.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case c.socket != nil:
		c.closed = true
		c.reset()
	default:
		c.closed = true
		_ = c.rc.SetWriteDeadline(time.Unix(1, 0))
	}
}

// over is called when the handler is about to return: from then on the
// response isn't touched, and net/http writes its end.
func (c *conn) over(within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		_ = c.rc.SetWriteDeadline(time.Now().Add(within))
	}
}
