package longpoll

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/throughline/throughline/transport"
)

// Name is how the transport is called in logs and metrics.
const Name = "poll"

// Options of a Handler. The zero value works.
type Options struct {
	// MaxWait cuts how long a poll may ask to wait. Default 55 s: many
	// proxies give a request 60 s.
	MaxWait time.Duration
	// WriteTimeout is how long writing an answer may take. Default 10 s.
	WriteTimeout time.Duration
	// MaxHello is the most bytes of a session's hello. Default 64 KiB.
	MaxHello int64
	// HelloTimeout is how long reading a hello may take. Default 10 s.
	HelloTimeout time.Duration
	// CompressOver is how many bytes of events an answer may have before it is
	// compressed, if the client takes gzip. Default 1 KiB.
	CompressOver int
}

// A Handler answers polls.
type Handler struct {
	engine transport.Engine
	o      Options
}

// New returns a handler that attaches its polls to an engine.
func New(engine transport.Engine, o Options) *Handler {
	if o.MaxWait == 0 {
		o.MaxWait = 55 * time.Second
	}
	if o.WriteTimeout == 0 {
		o.WriteTimeout = 10 * time.Second
	}
	if o.MaxHello == 0 {
		o.MaxHello = 64 << 10
	}
	if o.HelloTimeout == 0 {
		o.HelloTimeout = 10 * time.Second
	}
	if o.CompressOver == 0 {
		o.CompressOver = 1 << 10
	}
	return &Handler{engine: engine, o: o}
}

// Serve answers one poll: a GET plainly, a POST by the session protocol. Who
// mounts it has checked the origin and knows the peer.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	peer.Transport = Name
	hello, wait, err := h.parse(w, r)
	if err != nil {
		peer.Refused(err)
		transport.WriteRefusal(w, err)
		return
	}
	// The server's own timeouts would end the wait; the answer has its own. Those
	// of the next request on this connection are net/http's again.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{})
	_ = rc.SetWriteDeadline(time.Time{})
	c, err := h.poll(r.Context(), peer, hello, wait)
	_ = rc.SetWriteDeadline(time.Now().Add(h.o.WriteTimeout))
	if err != nil {
		transport.WriteRefusal(w, err)
	} else {
		h.write(w, r, c)
	}
	_ = rc.Flush() // under that deadline: what is left in buffers would be written without one
	_ = rc.SetWriteDeadline(time.Time{})
}

func (h *Handler) write(w http.ResponseWriter, r *http.Request, c *conn) {
	w.Header().Add("Vary", "Accept-Encoding")
	if c.size() <= h.o.CompressOver || !transport.AcceptsGzip(r.Header) || !c.compresses() {
		transport.WriteJSON(w, http.StatusOK, c.answer())
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	transport.WriteJSON(w, http.StatusOK, c.compressed())
}

func (h *Handler) parse(w http.ResponseWriter, r *http.Request) (hello transport.Hello, wait time.Duration, err error) {
	if r.Method == http.MethodPost {
		hello, err = transport.ReadHello(w, r, h.o.MaxHello, h.o.HelloTimeout)
	} else {
		hello, err = transport.PlainHello(r, 1, r.URL.Query().Get("after"))
	}
	if err != nil {
		return hello, 0, err
	}
	wait, err = parseWait(r.URL.Query().Get("wait"))
	return hello, min(wait, h.o.MaxWait), err
}

// parseWait reads PROTOCOL P5.2.
func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, transport.Refuse(transport.CodeBadRequest, "wait takes a duration like 25s, not %.40q", text)
	}
	return d, nil
}

// waits reports whether a poll may wait: it knows where it is in all its
// channels, so that what there is now is not the answer (PROTOCOL P5.4).
func waits(hello transport.Hello) bool {
	for _, s := range hello.Channels {
		if s.After.IsZero() && s.Bad == nil && !s.Paused {
			return false
		}
	}
	return !hello.Probe && len(hello.Channels)+len(hello.Presence) > 0
}

// poll returns what holds the answer. If the request's context ends first, that is what
// there was: either nobody reads it, or a middleware has ended the wait.
func (h *Handler) poll(ctx context.Context, peer transport.Peer, hello transport.Hello, wait time.Duration) (*conn, error) {
	hello.EachMove = true
	c := &conn{session: hello.Version > 0, mayHold: wait > 0 && waits(hello), spent: make(chan struct{})}
	session, err := h.engine.Attach(ctx, peer, hello, c)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	expired := timer.C
	if !c.mayHold {
		expired = nil // the first Send is the answer
	}
	select {
	case <-c.spent:
	case <-session.Done():
	case <-expired:
		session.Detach(transport.ErrSpent)
	case <-ctx.Done():
		session.Detach(ctx.Err())
	}
	<-session.Done()
	return c, nil
}
