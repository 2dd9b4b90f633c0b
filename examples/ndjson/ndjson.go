// Package ndjson is a transport of one's own, whole: one JSON object a line
// (NDJSON), down in the response of a POST, and up in its body for as long as
// the client keeps that open. It uses nothing that is not public.
// docs/writing-a-transport.md walks through it.
package ndjson

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// Bounds of what a client says, and of the waits that are the adapter's own.
const (
	maxFrame       = 64 << 10
	helloTimeout   = 10 * time.Second
	goodbyeTimeout = time.Second
)

// codec is how events and frames look: the JSON of the protocol, and a line end.
type codec struct{}

func (codec) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	return append(transport.AppendEventJSON(dst, channel, e), '\n')
}

func (codec) AppendFrame(dst []byte, f *transport.Frame) []byte {
	return append(transport.AppendFrameJSON(dst, f), '\n')
}

// A conn is what the engine sends by: it writes to one response.
type conn struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool // owned by Send

	mu     sync.Mutex
	closed bool // guarded by mu: the response is not touched any more
}

// Send implements [transport.Conn].
func (c *conn) Send(items []transport.Item, deadline time.Time) (more bool, err error) {
	if err := c.setDeadline(deadline); err != nil {
		return false, err
	}
	if !c.begun {
		c.begun = true
		c.w.Header().Set("Content-Type", "application/x-ndjson")
		c.w.Header().Set("Cache-Control", "no-store")
		c.w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it all back
		c.w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	for _, item := range items {
		var lines []byte
		if item.Run != nil {
			lines = item.Run.As(codec{}).Bytes // made once for all clients
		} else {
			lines = item.Frame.As(codec{})
		}
		if _, err := c.w.Write(lines); err != nil {
			return false, err
		}
	}
	if err := c.rc.Flush(); err != nil {
		return false, err
	}
	return true, c.setDeadline(time.Time{}) // over HTTP/2 one that passes ends the stream, write or no write
}

// Close implements [transport.Conn]: a write in progress fails.
func (c *conn) Close(transport.Reason) { c.end(time.Unix(1, 0)) }

func (c *conn) setDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return transport.ErrClosed
	}
	return c.rc.SetWriteDeadline(t)
}

// end is the last that touches the response. What is still to be written, or to
// be read of the body, has until then.
func (c *conn) end(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		_ = c.rc.SetWriteDeadline(by)
		_ = c.rc.SetReadDeadline(by)
	}
}

// A Handler answers requests with lines. It is a server.Transport.
type Handler struct{ engine transport.Engine }

// New returns a handler that attaches its lines to an engine.
func New(engine transport.Engine) *Handler { return &Handler{engine} }

// Serve answers a POST. It returns when the line is over: until then the engine
// writes to w. Who mounts it has checked the origin and knows the peer.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = "ndjson"
	if r.Method != http.MethodPost {
		transport.WriteRefusalStatus(w, http.StatusMethodNotAllowed, transport.Refuse(transport.CodeBadRequest, "this path takes POST"))
		return
	}
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // nothing can follow a body that is not read to its end
	}
	c := &conn{w: w, rc: http.NewResponseController(w)}
	defer func() { c.end(time.Now().Add(goodbyeTimeout)) }()
	said := bufio.NewScanner(r.Body)
	said.Buffer(nil, maxFrame+1) // and the line end
	hello, err := readHello(c.rc, said)
	if err != nil {
		peer.Refused(err) // for logs: the engine doesn't know of it
		transport.WriteRefusal(w, err)
		return
	}
	session, err := h.engine.Attach(r.Context(), peer, hello, c)
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	var listener sync.WaitGroup
	listener.Go(func() { listen(said, session) })
	select {
	case <-session.Done(): // the engine has ended the line, its goodbye is sent
	case <-r.Context().Done(): // the client is gone
		session.Detach(r.Context().Err())
		c.Close(transport.Reason{Code: transport.CodeLeft})
		<-session.Done()
	}
	_ = c.rc.SetReadDeadline(time.Unix(1, 0)) // frees the listener
	listener.Wait()
}

// readHello reads the first line of the body. The error is a *Refusal.
func readHello(rc *http.ResponseController, said *bufio.Scanner) (transport.Hello, error) {
	if err := errors.Join(rc.EnableFullDuplex(), rc.SetReadDeadline(time.Now().Add(helloTimeout))); err != nil {
		return transport.Hello{}, transport.Refuse(transport.CodeNotFound, "a middleware of this server wraps its http.ResponseWriter without an Unwrap method").Because(err)
	}
	up, err := read(said)
	if _, refused := errors.AsType[*transport.Refusal](err); err == nil && up.Hello == nil || err != nil && !refused {
		err = transport.Refuse(transport.CodeBadRequest, "the first line of the body has to be a hello, and to come within %v", helloTimeout)
	}
	if err != nil {
		return transport.Hello{}, err
	}
	return *up.Hello, rc.SetReadDeadline(time.Time{}) // from now on a client may be silent
}

// listen hands on what the client says after its hello, until it says no more.
func listen(said *bufio.Scanner, session transport.Session) {
	for {
		up, err := read(said)
		if err == nil && up.Hello != nil {
			err = transport.Refuse(transport.CodeBadRequest, "a line has one hello")
		}
		switch refusal, refused := errors.AsType[*transport.Refusal](err); {
		case refused: // the engine tells the client, and ends the line
			_ = session.Receive(transport.Frame{Kind: transport.FrameClose, Reason: refusal.Reason})
			return
		case errors.Is(err, io.EOF): // it has said all, and goes on reading
			return
		case err != nil:
			session.Detach(err)
			return
		case session.Receive(*up.Frame) != nil: // the line is over
			return
		}
	}
}

// read reads one line of the body. What a broken connection left of one is none.
func read(said *bufio.Scanner) (transport.Up, error) {
	more, err := said.Scan(), said.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return transport.Up{}, transport.Refuse(transport.CodeTooLarge, "a line is longer than %d bytes", maxFrame)
	case err != nil:
		return transport.Up{}, err
	case !more:
		return transport.Up{}, io.EOF
	}
	return transport.ParseUp(said.Bytes())
}
