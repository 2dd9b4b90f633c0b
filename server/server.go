package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

// A Server is an [http.Handler] that can be mounted under any prefix and behind
// any router. Its methods may be called concurrently.
type Server struct {
	o       Options
	origins origins
	engine  *core.Engine
	log     eventlog.Log
	store   session.Store
	rules   map[string]rules
	own     []io.Closer // what New made
	metrics *metrics
	router  *mux.Router
	info    eventlog.Info
}

// New returns a running server. The error tells which option can't be used.
func New(o Options) (*Server, error) {
	allowed, err := parseOrigins(o.AllowedOrigins)
	if err != nil {
		return nil, err
	}
	for name := range o.Transports {
		if _, taken := methods[name]; taken || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("server: Options.Transports: the name %q is taken, or no element of a path", name)
		}
	}
	rules, err := compile(o.Namespaces)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, origins: allowed, log: o.Log, store: o.Store, rules: rules, metrics: newMetrics()}
	keys, err := newKeyring(&o, func() session.Store { return s.store })
	if err != nil {
		return nil, err
	}
	if s.log == nil {
		s.log = eventlog.NewMemory(eventlog.MemoryOptions{})
		s.own = append(s.own, s.log)
	}
	if s.store == nil {
		s.store = session.NewMemory(session.MemoryOptions{})
		s.own = append(s.own, s.store)
	}
	if s.o.Logger == nil {
		s.o.Logger = slog.Default()
	}
	if s.o.Authorize == nil {
		s.o.Authorize = DefaultAuthorize
		s.o.Logger.Info("throughline: anybody of the same origin may subscribe to channels without $ in their names, and nothing else; Options.Authorize says otherwise")
	}
	if s.o.AttachTimeout == 0 {
		s.o.AttachTimeout = 10 * time.Second
	}
	if s.o.MaxFrame == 0 {
		s.o.MaxFrame = 64 << 10
	}
	if s.o.HelloTimeout == 0 {
		s.o.HelloTimeout = 10 * time.Second
	}
	s.info = s.log.Info()
	s.engine = core.New(core.Options{
		Log:       s.log,
		Store:     s.store,
		Keys:      keys.get,
		Authorize: s.authorize,
		From:      s.from,
		Policy:    s.policy,
		Hooks: core.Hooks{
			OnConnect: o.OnConnect, OnSubscribe: o.OnSubscribe, OnPublish: o.OnPublish, OnCall: o.OnCall, OnDisconnect: o.OnDisconnect,
		},
		PublishTimeout:    o.PublishTimeout,
		CallTimeout:       o.CallTimeout,
		MaxCalls:          o.MaxCalls,
		DisconnectTimeout: o.DisconnectTimeout,
		StoreTimeout:      o.StoreTimeout,
		PresenceGrace:     o.PresenceGrace,
		PresenceInterval:  o.PresenceInterval,
		MaxPresent:        o.MaxPresent,
		FrameLimit:        s.o.MaxFrame,

		Heartbeat:      o.Heartbeat,
		WriteTimeout:   o.WriteTimeout,
		GoodbyeTimeout: o.GoodbyeTimeout,
		AttachTimeout:  o.AttachTimeout,
		ReadTimeout:    o.ReadTimeout,
		RetryDelay:     o.RetryDelay,
		PageBytes:      o.PageBytes,
		MaxChannels:    o.MaxChannels,
		MaxLag:         o.MaxLag,
		LagWindow:      o.LagWindow,
		EvictionDelay:  o.EvictionDelay,
		Observer:       s.metrics,
		Logger:         s.o.Logger,
	})
	s.router = s.routes()
	return s, nil
}

// Close ends all connections with a word of goodbye and waits for them; what
// comes later is refused. [http.Server.Shutdown] waits for streams, which only
// Close ends, and knows nothing of WebSockets. So have the one call the other,
// and wait for both:
//
//	closed := make(chan error, 1)
//	hs.RegisterOnShutdown(func() { closed <- srv.Close() })
//	err := errors.Join(hs.Shutdown(ctx), <-closed)
func (s *Server) Close() error {
	s.engine.Close()
	var errs []error
	for _, c := range s.own {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ServeHTTP implements [http.Handler]. The last element of the path says what
// is asked for, so that it does not matter what stands before it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// Publish appends a message to a channel of the default namespace and returns
// its position. It does not wait for any client. Errors are those of
// [eventlog.Log.Append].
func (s *Server) Publish(ctx context.Context, channel string, m Message) (Position, error) {
	return s.PublishTo(ctx, Channel{Name: channel}, m)
}

// PublishTo is Publish for a channel of any namespace; several messages are
// appended together or not at all, and the position is the last one's.
func (s *Server) PublishTo(ctx context.Context, ch Channel, messages ...Message) (Position, error) {
	at, duplicate, err := s.log.Append(ctx, ch, eventlog.Batch{Messages: messages})
	s.metrics.Published(err, duplicate)
	return at, err
}

func (s *Server) routes() *mux.Router {
	r := mux.NewRouter().SkipClean(true)
	add := func(name string, h http.Handler, methods ...string) {
		r.MatcherFunc(lastElement(name)).Methods(methods...).Handler(h)
	}
	carrier := func(a Transport) http.Handler {
		return s.checked(func(w http.ResponseWriter, r *http.Request, peer transport.Peer) { a.Serve(w, r, peer) })
	}
	add("sse", carrier(sse.New(s.engine, sse.Options{
		Retry: s.o.Retry, MaxHello: s.o.MaxFrame, HelloTimeout: s.o.HelloTimeout, GoodbyeTimeout: s.o.GoodbyeTimeout,
	})), "GET", "POST", "OPTIONS")
	add("poll", carrier(longpoll.New(s.engine, longpoll.Options{
		MaxWait: s.o.MaxWait, WriteTimeout: s.o.WriteTimeout, MaxHello: s.o.MaxFrame, HelloTimeout: s.o.HelloTimeout,
	})), "GET", "POST", "OPTIONS")
	add("ws", carrier(ws.New(s.engine, ws.Options{
		HelloTimeout: s.o.HelloTimeout, WriteTimeout: s.o.GoodbyeTimeout, CloseTimeout: s.o.CloseTimeout, MaxFrame: s.o.MaxFrame,
	})), "GET")
	add("publish", s.checked(s.servePublish), "POST", "OPTIONS")
	add("up", s.checked(s.serveUp), "POST", "OPTIONS")
	for name, make := range s.o.Transports {
		add(name, carrier(make(s.engine)), "GET", "POST", "OPTIONS")
	}
	for name, b := range bundles {
		add(name, b, "GET", "HEAD")
	}
	r.NotFoundHandler = http.HandlerFunc(notFound)
	r.MethodNotAllowedHandler = http.HandlerFunc(methodNotAllowed)
	return r
}

// lastElement matches paths that end with an element, whatever stands before.
func lastElement(name string) mux.MatcherFunc {
	return func(r *http.Request, _ *mux.RouteMatch) bool { return last(r.URL.Path) == name }
}

func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func notFound(w http.ResponseWriter, _ *http.Request) {
	transport.WriteRefusal(w, transport.Refuse(transport.CodeNotFound,
		"here are sse, ws, poll, publish, up, client.js, call.js, presence.js and client.global.js"))
}

// methods are what the paths take.
var methods = map[string]string{
	"sse": "GET, POST", "poll": "GET, POST", "ws": "GET", "publish": "POST", "up": "POST",
	"client.js": "GET, HEAD", "call.js": "GET, HEAD", "presence.js": "GET, HEAD", "client.global.js": "GET, HEAD",
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allowed, ok := methods[last(r.URL.Path)]
	if !ok {
		allowed = "GET, POST" // of Options.Transports
	}
	w.Header().Set("Allow", allowed) // RFC 9110 §15.5.6
	transport.WriteRefusalStatus(w, http.StatusMethodNotAllowed,
		transport.Refuse(transport.CodeBadRequest, "%.20s is not for this path, which takes %s", r.Method, allowed))
}

// checked wraps what needs to know who asks: it checks the origin, answers
// preflights, and authenticates.
func (s *Server) checked(next func(http.ResponseWriter, *http.Request, transport.Peer)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.origins.admit(w, r); err != nil {
			transport.WriteRefusal(w, err)
			return
		}
		if r.Method == http.MethodOptions {
			preflight(w)
			return
		}
		peer, err := s.identify(r)
		if err != nil {
			transport.WriteRefusal(w, err)
			return
		}
		next(w, r, peer)
	})
}

func (s *Server) identify(r *http.Request) (transport.Peer, error) {
	addr, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		addr = r.RemoteAddr
	}
	peer := transport.Peer{Addr: addr}
	if s.o.Authenticate == nil {
		return peer, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.o.AttachTimeout)
	defer cancel()
	id, err := s.o.Authenticate(r.WithContext(ctx))
	if err != nil {
		s.o.Logger.DebugContext(r.Context(), "not authenticated", "addr", addr, "error", err)
		return peer, transport.Refuse(transport.CodeUnauthorized, "Options.Authenticate of this server does not know you")
	}
	if err := id.Check(); err != nil {
		s.o.Logger.ErrorContext(r.Context(), "Authenticate gave an identity that can't be", "addr", addr, "error", err)
		return peer, transport.Refuse(transport.CodeUnauthorized, "Options.Authenticate of this server gave you a name that can't be")
	}
	peer.Namespace, peer.Subject, peer.Claims = id.Namespace, id.Subject, id.Claims
	return peer, nil
}
