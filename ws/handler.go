package ws

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/transport"
)

// Name is how the transport is called in logs and metrics.
const Name = "ws"

// Options of a Handler. The zero value works.
type Options struct {
	// HelloTimeout is how long a client of the session protocol may take to
	// send its hello. Default 10 s.
	HelloTimeout time.Duration
	// WriteTimeout bounds what is written outside the engine's Sends: control
	// frames, and the refusal of a hello. Default 1 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long a client may take to answer a close frame.
	// Default 1 s.
	CloseTimeout time.Duration
	// MaxFrame is the most bytes of a message from a client. Default 64 KiB.
	MaxFrame int64
}

// A Handler answers requests with WebSockets.
type Handler struct {
	engine transport.Engine
	o      Options
}

// New returns a handler that attaches its WebSockets to an engine.
func New(engine transport.Engine, o Options) *Handler {
	if o.HelloTimeout == 0 {
		o.HelloTimeout = 10 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = time.Second
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = time.Second
	}
	if o.MaxFrame == 0 {
		o.MaxFrame = 64 << 10
	}
	return &Handler{engine: engine, o: o}
}

// Serve answers a WebSocket handshake: one with channels in its query plainly,
// any other by the session protocol. It returns when the connection is over.
// Who mounts it has checked the origin and knows the peer.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = Name
	plain := r.URL.Query().Has("channel")
	var hello transport.Hello
	if plain {
		var err error
		if hello, err = transport.PlainHello(r, 1, r.URL.Query().Get("after")); err != nil {
			transport.WriteRefusal(w, err)
			return
		}
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		transport.WriteRefusalStatus(w, http.StatusUpgradeRequired, errNoUpgrade)
		return
	}
	c := &conn{session: !plain, closeTimeout: h.o.CloseTimeout, gate: gate{timeout: h.o.WriteTimeout}}
	hijack := &hijacker{ResponseWriter: w, gate: &c.gate}
	lib, err := websocket.Accept(hijack, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the origin was checked by who mounted us
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	lib.SetReadLimit(-1) // read has a limit that the client is told of
	s := &socket{handler: h, lib: lib, peer: peer, conn: c}
	defer lib.CloseNow() //nolint:errcheck // nothing is left to be done about it
	if plain {
		s.servePlain(hello)
	} else {
		s.serveSession()
	}
}

var errNoUpgrade = transport.Refuse(transport.CodeBadRequest,
	"this path takes WebSocket handshakes; a proxy on the way may have left out the Upgrade header")

// A socket is one accepted WebSocket; its methods run on the handler's
// goroutine.
type socket struct {
	handler *Handler
	lib     *websocket.Conn
	conn    *conn
	peer    transport.Peer
	cut     bool // a message was not read to its end, so no other can be
}

func (s *socket) servePlain(hello transport.Hello) {
	session, err := s.attach(hello)
	if err != nil {
		return
	}
	_, err = s.read(context.Background())
	if err == nil {
		err = transport.Refuse(transport.CodeBadRequest, "nothing may be sent on a plain WebSocket")
	}
	s.leave(session, s.refuse(session, err))
}

func (s *socket) serveSession() {
	ctx, cancel := context.WithTimeout(context.Background(), s.handler.o.HelloTimeout)
	hello, err := s.readHello(ctx)
	cancel()
	if err != nil {
		return
	}
	session, err := s.attach(hello)
	for probing := hello.Probe; err == nil; {
		var up transport.Up
		if up, err = s.readUp(context.Background()); err != nil {
			err = s.refuse(session, err)
			break
		}
		switch {
		case up.Hello != nil && probing && !up.Hello.Probe:
			session.Detach(nil)
			<-session.Done()
			session, err = s.attach(*up.Hello)
			probing = false
		case up.Hello != nil:
			err = s.refuse(session, transport.Refuse(transport.CodeBadRequest, "a line has one hello, but for one that follows a probe"))
		default:
			if err = session.Receive(*up.Frame); err != nil {
				s.drain(nil) // the engine says goodbye
			}
		}
	}
	s.leave(session, err)
}

// attach begins a line, or tells the client why not.
func (s *socket) attach(hello transport.Hello) (transport.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.handler.o.HelloTimeout)
	defer cancel()
	session, err := s.handler.engine.Attach(ctx, s.peer, hello, s.conn)
	if err != nil {
		s.goodbye(err)
		return nil, err
	}
	return session, nil
}

// goodbye tells why there is no line, and waits for the close frame.
func (s *socket) goodbye(err error) {
	var r *transport.Refusal
	if !errors.As(err, &r) {
		return // the connection is broken
	}
	_, err = s.conn.Send([]transport.Item{{Frame: &transport.Frame{Kind: transport.FrameClose, Reason: r.Reason}}},
		time.Now().Add(s.handler.o.WriteTimeout))
	s.drain(err)
}

// drain reads until the client has answered the close frame, or the time for
// that is over.
func (s *socket) drain(err error) {
	for err == nil && !s.cut {
		_, err = s.read(context.Background())
		if _, refused := errors.AsType[*transport.Refusal](err); refused {
			err = nil // nobody listens any more
		}
	}
	if s.cut {
		_, _ = io.Copy(io.Discard, s.conn.gate.Conn)
	}
}

// refuse has the line end because of what the client sent, if that is what err
// says, and waits for the end.
func (s *socket) refuse(session transport.Session, err error) error {
	if r, ok := errors.AsType[*transport.Refusal](err); ok {
		s.drain(session.Receive(transport.Frame{Kind: transport.FrameClose, Reason: r.Reason}))
	}
	return err
}

// leave ends a line whose client is gone.
func (s *socket) leave(session transport.Session, err error) {
	if session == nil {
		return
	}
	session.Detach(err)
	_ = s.conn.gate.Close() // frees a Send in progress
	<-session.Done()
}

func (s *socket) readHello(ctx context.Context) (transport.Hello, error) {
	up, err := s.readUp(ctx)
	if err == nil && up.Hello == nil {
		err = transport.Refuse(transport.CodeBadRequest, "the first frame of a line is a hello")
	}
	if err != nil {
		s.goodbye(err)
		return transport.Hello{}, err
	}
	return *up.Hello, nil
}

func (s *socket) readUp(ctx context.Context) (transport.Up, error) {
	text, err := s.read(ctx)
	if err != nil {
		return transport.Up{}, err
	}
	return transport.ParseUp(text)
}

// read reads one message. The client's pings are answered meanwhile. What the
// client sent wrongly is a *Refusal.
func (s *socket) read(ctx context.Context) ([]byte, error) {
	kind, r, err := s.lib.Reader(ctx)
	if err != nil {
		return nil, err
	}
	limit := s.handler.o.MaxFrame
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		s.cut = true
		return nil, transport.Refuse(transport.CodeTooLarge, "a frame is longer than %d bytes (Options.MaxFrame)", limit)
	case kind != websocket.MessageText:
		return nil, transport.Refuse(transport.CodeBadRequest, "frames are text")
	}
	return data, nil
}

// A hijacker hands the library a gate in place of the connection.
type hijacker struct {
	http.ResponseWriter
	gate *gate
}

// controlBuffer makes the library write each control frame (at most 127 bytes
// by RFC 6455 §5.5) in one call.
const controlBuffer = 128

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = raw.SetDeadline(time.Time{}) // those of the server
	h.gate.Conn = raw
	return h.gate, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.gate, controlBuffer)), nil
}
