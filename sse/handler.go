package sse

import (
	"errors"
	"net/http"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// Name is how the transport is called in logs and metrics.
const Name = "sse"

// MaxPlainChannels is how many channels a plain request takes (PROTOCOL P3.1).
const MaxPlainChannels = 16

// Options of a Handler. The zero value works.
type Options struct {
	// Retry is how soon an EventSource comes back after its stream ended
	// without a reason to wait. Default 1 s.
	Retry time.Duration
	// MaxHello is the most bytes of a session's hello. Default 64 KiB.
	MaxHello int64
	// HelloTimeout is how long reading a hello may take. Default 10 s.
	HelloTimeout time.Duration
	// GoodbyeTimeout is how long the end of a response may take. Default 1 s.
	GoodbyeTimeout time.Duration
}

// A Handler answers requests with streams.
type Handler struct {
	engine transport.Engine
	o      Options
}

// New returns a handler that attaches its streams to an engine.
func New(engine transport.Engine, o Options) *Handler {
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.MaxHello == 0 {
		o.MaxHello = 64 << 10
	}
	if o.HelloTimeout == 0 {
		o.HelloTimeout = 10 * time.Second
	}
	if o.GoodbyeTimeout == 0 {
		o.GoodbyeTimeout = time.Second
	}
	return &Handler{engine: engine, o: o}
}

// Serve answers a GET with plain events and a POST by the session protocol. It
// returns when the stream has ended. Who mounts it has checked the origin and
// knows the peer.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = Name
	hello, c, err := h.prepare(w, r)
	if err != nil {
		peer.Refused(err)
		transport.WriteRefusal(w, err)
		return
	}
	if errors.Is(c.rc.SetWriteDeadline(time.Time{}), http.ErrNotSupported) {
		peer.Refused(errNoDeadlines)
		transport.WriteRefusalStatus(w, http.StatusInternalServerError, errNoDeadlines)
		return
	}
	_ = c.rc.SetReadDeadline(time.Time{}) // the request is read: Server.ReadTimeout would end the stream
	defer c.over(h.o.GoodbyeTimeout)
	session, err := h.engine.Attach(r.Context(), peer, hello, c)
	if err != nil {
		c.refuse(err)
		return
	}
	select {
	case <-session.Done():
	case <-r.Context().Done():
		session.Detach(r.Context().Err())
		c.Close(transport.Reason{Code: transport.CodeLeft})
		<-session.Done()
	}
}

var errNoDeadlines = transport.Refuse(transport.CodeBadRequest,
	"a middleware of this server wraps its http.ResponseWriter without an Unwrap method, so a client that does not read could not be cut off")

// Refuse answers a request that is not let in. An EventSource would take a 503
// for the end of it all, so that it is told in its own way to return later
// (PROTOCOL P3.11).
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	c := newConn(w, r, plainCodec{})
	if r.Method != http.MethodPost {
		c.retry = h.o.Retry
	}
	c.refuse(err)
}

func (h *Handler) prepare(w http.ResponseWriter, r *http.Request) (transport.Hello, *conn, error) {
	if r.Method == http.MethodPost {
		hello, err := transport.ReadHello(w, r, h.o.MaxHello, h.o.HelloTimeout)
		return hello, newConn(w, r, sessionCodec{}), err
	}
	hello, err := plainHello(r)
	if err != nil {
		return hello, nil, err
	}
	query := r.URL.Query()
	codec := plainCodec{
		vector: len(hello.Channels) > 1,
		named:  query.Get("events") == "named",
		object: query.Get("as") == "event",
	}
	c := newConn(w, r, codec)
	c.retry = h.o.Retry
	if codec.vector {
		c.vector = newVector(hello.Channels)
	}
	return hello, c, nil
}

// plainHello reads the query and Last-Event-ID, which wins over after.
func plainHello(r *http.Request) (transport.Hello, error) {
	after := r.URL.Query().Get("after")
	id := r.Header.Get("Last-Event-ID")
	if id == "" && after != "" && after[0] == vectorVersion {
		id = after
	}
	if id == "" {
		return transport.PlainHello(r, MaxPlainChannels, after)
	}
	hello, err := transport.PlainHello(r, MaxPlainChannels, "")
	if err != nil {
		return hello, err
	}
	at, err := parseID(id, hello.Channels)
	for i := range at {
		hello.Channels[i].After = at[i]
	}
	return hello, err
}

// parseID reads the id of a stream: a position, or a vector if it has several
// channels. The error is a *Refusal.
func parseID(id string, subs []transport.Subscription) ([]eventlog.Position, error) {
	if len(subs) > 1 {
		return parseVector(id, subs)
	}
	at, err := eventlog.ParsePosition(id)
	if err != nil {
		return nil, transport.Refuse(transport.CodeBadPosition, "the Last-Event-ID %.40q is no position", id)
	}
	return []eventlog.Position{at}, nil
}
