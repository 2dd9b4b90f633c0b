package ws

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

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
	// PeerTimeout is how long a client may leave a ping unanswered, and send
	// nothing else, before it counts as dead. A ping goes with each heartbeat,
	// and once in PeerTimeout where there is no silence. Default 20 s. Danger:
	// what the buffers on the way hold for a slow client goes before the ping, so
	// one that needs longer for that is taken for dead, too. It comes back, and
	// misses nothing.
	PeerTimeout time.Duration
	// MaxFrame is the most bytes of a message from a client. Default 64 KiB.
	MaxFrame int64
	// Stop, if not nil, ends when who has said no hello is not to be waited for.
	Stop context.Context
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
	if o.PeerTimeout == 0 {
		o.PeerTimeout = 20 * time.Second
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
			peer.Refused(err)
			transport.WriteRefusal(w, err)
			return
		}
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		peer.Refused(errNoUpgrade)
		w.Header().Set("Upgrade", "websocket")
		transport.WriteRefusalStatus(w, http.StatusUpgradeRequired, errNoUpgrade)
		return
	}
	c := &conn{session: !plain, closeTimeout: h.o.CloseTimeout, gate: newGate(h.o.WriteTimeout), proofs: make(chan struct{}, 1)}
	c.gate.vigil.timeout, c.gate.vigil.asked = h.o.PeerTimeout, time.Now()
	hijack := &hijacker{ResponseWriter: w, gate: c.gate}
	lib, err := websocket.Accept(hijack, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the origin was checked by who mounted us
		CompressionMode:    websocket.CompressionDisabled,
		OnPongReceived:     c.ponged,
	})
	if hijack.refused {
		peer.Refused(errNoHijack)
		transport.WriteRefusalStatus(w, http.StatusNotImplemented, errNoHijack)
		return
	}
	if err != nil {
		peer.Refused(errBadHandshake)
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

var errNoHijack = transport.Refuse(transport.CodeNotFound,
	"there are no WebSockets here: a middleware of this server wraps its http.ResponseWriter without an Unwrap or Hijack method")

var errBadHandshake = transport.Refuse(transport.CodeBadRequest, "the WebSocket handshake is not one that can be accepted")

var (
	errNotUTF8 = transport.Refuse(transport.CodeBadRequest, "a text frame is not UTF-8")
	errBroken  = transport.Refuse(transport.CodeBadRequest, "a frame is not one of RFC 6455: it is unmasked, fragmented, too long, or of a kind that is not allowed there")
)

// A socket is one accepted WebSocket; its methods run on the handler's
// goroutine.
type socket struct {
	handler *Handler
	lib     *websocket.Conn
	conn    *conn
	peer    transport.Peer
	// credentials are the last that came in a frame (PROTOCOL P6.21).
	credentials string
	cut         bool // a message was not read to its end, so no other can be
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
	hello, err := s.readHello()
	if err != nil {
		s.peer.Refused(err)
		s.goodbye(err)
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
			if up.Frame.Kind == transport.FrameCredentials {
				s.credentials = up.Frame.Credentials // for the hello that may follow a probe
			}
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
	hello.Credentials = s.credentials
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
		go func() { // the line may be over without a goodbye of ours: the library has sent a close frame, too
			<-session.Done()
			time.AfterFunc(s.handler.o.CloseTimeout, func() { _ = s.conn.gate.Close() })
		}()
		s.drain(session.Receive(transport.Frame{Kind: transport.FrameClose, Reason: r.Reason}))
	}
	return err
}

// leave ends a line whose client is gone. Nobody waits for what the kernel still
// holds for one that is dead.
func (s *socket) leave(session transport.Session, err error) {
	if session == nil {
		return
	}
	session.Detach(err)
	if errors.Is(err, transport.ErrDead) {
		s.conn.Close(transport.Reason{Code: transport.CodeDead})
	} else {
		_ = s.conn.gate.Close() // frees a Send in progress
	}
	<-session.Done()
}

// readHello reads the hello, and credentials that may come before it. A deadline
// of the connection bounds it: the library would close one whose context is
// over, and the client would not hear why.
func (s *socket) readHello() (hello transport.Hello, err error) {
	ctx, raw, within := context.Background(), s.conn.gate.Conn, s.handler.o.HelloTimeout
	_ = raw.SetReadDeadline(time.Now().Add(within))
	stopped := func() bool { return true }
	if s.handler.o.Stop != nil {
		stopped = context.AfterFunc(s.handler.o.Stop, func() { _ = raw.SetReadDeadline(time.Unix(1, 0)) })
	}
	up, err := s.readUp(ctx)
	if err == nil && up.Frame != nil && up.Frame.Kind == transport.FrameCredentials {
		s.credentials = up.Frame.Credentials
		up, err = s.readUp(ctx)
	}
	if !stopped() {
		return hello, transport.RefuseFor(time.Second, transport.CodeShutdown, "this server is going away")
	}
	_ = raw.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return hello, transport.Refuse(transport.CodeBadRequest, "no hello came within %v (Options.HelloTimeout)", within)
	case err != nil:
		return hello, err
	case up.Hello == nil:
		return hello, transport.Refuse(transport.CodeBadRequest, "the first frame of a line is a hello")
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
		return nil, s.broken(err)
	}
	limit := s.handler.o.MaxFrame
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, s.broken(err)
	case int64(len(data)) > limit:
		s.cut = true
		return nil, transport.Refuse(transport.CodeTooLarge, "a frame is longer than %d bytes (Options.MaxFrame)", limit)
	case kind != websocket.MessageText:
		return nil, transport.Refuse(transport.CodeBadRequest, "frames are text")
	case !utf8.Valid(data): // the library doesn't look
		return nil, errNotUTF8
	}
	return data, nil
}

// broken turns the library's error into a refusal if what came is no frame of
// RFC 6455. Mostly the library has sent a close frame itself then. What follows
// can't be told apart.
func (s *socket) broken(err error) error {
	if websocket.CloseStatus(err) == -1 && strings.Contains(err.Error(), "received ") { // it has no type for that
		s.cut = true
		return errBroken
	}
	return wasCut(err)
}
