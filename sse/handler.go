package sse

import (
	"net/http"
	"time"

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
	return &Handler{engine: engine, o: o}
}

// Serve answers a GET with plain events and a POST by the session protocol. It
// returns when the stream has ended. Who mounts it has checked the origin and
// knows the peer.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = Name
	hello, c, err := h.prepare(w, r)
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the request is read: Server.ReadTimeout would end the stream
	defer c.over()
	session, err := h.engine.Attach(r.Context(), peer, hello, c)
	if err != nil {
		transport.WriteRefusal(w, err)
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

func (h *Handler) prepare(w http.ResponseWriter, r *http.Request) (transport.Hello, *conn, error) {
	if r.Method == http.MethodPost {
		hello, err := transport.ReadHello(w, r, h.o.MaxHello)
		return hello, newConn(w, sessionCodec{}, nil), err
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
	c := newConn(w, codec, nil)
	c.retry = h.o.Retry
	if codec.vector {
		c.vector = newVector(hello.Channels)
	}
	return hello, c, nil
}

// plainHello reads the query and Last-Event-ID, which wins over after.
func plainHello(r *http.Request) (transport.Hello, error) {
	query := r.URL.Query()
	id := r.Header.Get("Last-Event-ID")
	after := query.Get("after")
	if id == "" && len(after) > 0 && after[0] == vectorVersion {
		id = after
	}
	if id == "" {
		return transport.PlainHello(r, MaxPlainChannels)
	}
	query.Del("after")
	r.URL.RawQuery = query.Encode()
	hello, err := transport.PlainHello(r, MaxPlainChannels)
	if err != nil {
		return hello, err
	}
	if len(hello.Channels) == 1 {
		s := &hello.Channels[0]
		s.After, s.Start, err = transport.ParseAfter(id)
		return hello, err
	}
	at, err := parseVector(id, hello.Channels)
	for i := range at {
		hello.Channels[i].After = at[i]
	}
	return hello, err
}
