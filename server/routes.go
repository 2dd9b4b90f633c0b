package server

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

func (s *Server) routes() *mux.Router {
	r := mux.NewRouter().SkipClean(true)
	add := func(name string, h http.Handler, methods ...string) {
		r.MatcherFunc(lastElement(name)).Methods(methods...).Handler(h)
	}
	engine := entrance{s.engine, s.door, s.memory}
	add("sse", aStream(s.carrier(sse.New(engine, sse.Options{
		Retry: s.o.Retry, MaxHello: s.o.MaxFrame, HelloTimeout: s.o.HelloTimeout, GoodbyeTimeout: s.o.GoodbyeTimeout,
	}))), "GET", "POST", "OPTIONS")
	add("poll", s.carrier(longpoll.New(engine, longpoll.Options{
		MaxWait: s.o.MaxWait, WriteTimeout: s.o.WriteTimeout, MaxHello: s.o.MaxFrame, HelloTimeout: s.o.HelloTimeout,
		CompressOver: s.o.CompressOver,
	})), "GET", "POST", "OPTIONS")
	add("ws", aStream(s.carrier(ws.New(engine, ws.Options{
		HelloTimeout: s.o.HelloTimeout, WriteTimeout: s.o.GoodbyeTimeout, CloseTimeout: s.o.CloseTimeout, MaxFrame: s.o.MaxFrame,
		PeerTimeout: s.o.PeerTimeout, Stop: s.health.ctx,
	}))), "GET")
	add("publish", s.request(s.servePublish), "POST", "OPTIONS")
	add("up", s.request(s.serveUp), "POST", "OPTIONS")
	add(historyName, s.request(s.serveHistory), "GET", "HEAD", "OPTIONS")
	for name, make := range s.o.Transports {
		add(name, aStream(s.carrier(make(engine))), "GET", "POST", "OPTIONS")
	}
	for name, b := range bundles {
		add(name, b, "GET", "HEAD")
	}
	r.NotFoundHandler = http.HandlerFunc(s.notFound)
	r.MethodNotAllowedHandler = http.HandlerFunc(s.methodNotAllowed)
	return r
}

// carriers are the transports, by the last elements of their paths.
func (o *Options) carriers() []string {
	return append([]string{"sse", "ws", "poll"}, slices.Sorted(maps.Keys(o.Transports))...)
}

// lastElement matches paths that end with an element, whatever stands before.
func lastElement(name string) mux.MatcherFunc {
	return func(r *http.Request, _ *mux.RouteMatch) bool { return last(r.URL.Path) == name }
}

func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	refusal := transport.Refuse(transport.CodeNotFound,
		"here are %s, publish, up, history, client.js, call.js, presence.js, auth.js, history.js and client.global.js", strings.Join(s.o.carriers(), ", "))
	peer, _ := s.peerOf(r)
	s.refused(&peer, "request", refusal)
	transport.WriteRefusal(w, refusal)
}

// methods are what the paths take.
var methods = map[string]string{
	"sse": "GET, POST", "poll": "GET, POST", "ws": "GET", "publish": "POST", "up": "POST", historyName: "GET, HEAD",
	"client.js": "GET, HEAD", "call.js": "GET, HEAD", "presence.js": "GET, HEAD", "auth.js": "GET, HEAD", "history.js": "GET, HEAD", "client.global.js": "GET, HEAD",
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allowed, ok := methods[last(r.URL.Path)]
	if !ok {
		allowed = "GET, POST" // of Options.Transports
	}
	w.Header().Set("Allow", allowed) // RFC 9110 §15.5.6
	refusal := transport.Refuse(transport.CodeBadRequest, "%.20s is not for this path, which takes %s", r.Method, allowed)
	peer, _ := s.peerOf(r)
	s.refused(&peer, "request", refusal)
	transport.WriteRefusalStatus(w, http.StatusMethodNotAllowed, refusal)
}

// A refuser tells in its own way that a request is not let in.
type refuser interface {
	Refuse(w http.ResponseWriter, r *http.Request, err error)
}

// carrier wraps a transport, whose requests are connections.
func (s *Server) carrier(a Transport) http.Handler {
	refuse := func(w http.ResponseWriter, _ *http.Request, err error) { transport.WriteRefusal(w, err) }
	if own, ok := a.(refuser); ok {
		refuse = own.Refuse
	}
	return s.checked(func(w http.ResponseWriter, r *http.Request, peer transport.Peer, from address) error {
		effort := core.EffortHello
		if last(r.URL.Path) == longpoll.Name {
			effort = core.EffortResume // a poll, each of which goes on where the one before was
		}
		if err := s.door.check(r, from, effort); err != nil {
			return err
		}
		if err := s.door.connect(from); err != nil {
			return err
		}
		defer s.door.release(from)
		peer, err := s.identify(r, peer)
		if err != nil {
			return err
		}
		a.Serve(w, r, peer)
		return nil
	}, refuse)
}

// request wraps what answers a request at once.
func (s *Server) request(serve func(http.ResponseWriter, *http.Request, transport.Peer)) http.Handler {
	return s.checked(func(w http.ResponseWriter, r *http.Request, peer transport.Peer, from address) error {
		if err := s.door.check(r, from, core.EffortResume); err != nil {
			return err
		}
		if err := s.door.connect(from); err != nil {
			return err
		}
		defer s.door.release(from)
		peer, err := s.identify(r, peer)
		if err != nil {
			return err
		}
		serve(w, r, peer)
		return nil
	}, func(w http.ResponseWriter, _ *http.Request, err error) { transport.WriteRefusal(w, err) })
}

// checked checks the origin first, answers preflights, and has the rest done or
// refused.
func (s *Server) checked(serve func(http.ResponseWriter, *http.Request, transport.Peer, address) error, refuse func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, from := s.peerOf(r)
		if err := s.origins.admit(w, r); err != nil {
			s.refused(&peer, "request", err)
			transport.WriteRefusal(w, err)
			return
		}
		if r.Method == http.MethodOptions {
			preflight(w)
			return
		}
		err := error(transport.RefuseFor(jittered(time.Second), transport.CodeShutdown, "this server is going away"))
		if s.requests.begin() {
			defer s.requests.end()
			err = serve(w, r, peer, from)
		}
		if err != nil {
			s.refused(&peer, "request", err)
			refuse(w, r, err)
		}
	})
}

// An entrance lets in so many lines at a time.
type entrance struct {
	*core.Engine
	door   *admission
	memory *memory
}

// Attach implements [transport.Engine].
func (e entrance) Attach(ctx context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (session transport.Session, err error) {
	if err := e.memory.admit(&hello); err != nil {
		peer.Refused(err)
		return nil, err
	}
	asked := false
	err = e.door.handshake(func() error {
		asked = true
		session, err = e.Engine.Attach(ctx, peer, hello, conn)
		return err
	})
	if !asked {
		peer.Refused(err)
	}
	return session, err
}
