package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// A Server is an [http.Handler] that can be mounted under any prefix and behind
// any router. Its methods may be called concurrently.
type Server struct {
	o       Options
	origins origins
	door    *admission

	requests requests
	engine   *core.Engine
	log      eventlog.Log
	past     eventlog.History // what log holds, in parts; nil: it can't be read so
	store    session.Store
	rules    map[string]rules
	own      []io.Closer // what New made
	metrics  *metrics
	sampler  *sampler
	memory   *memory
	// dependencies are what breakers stand before; nil: there are none.
	dependencies *dependencies
	health       *health
	peers        peers
	router       *mux.Router
	info         eventlog.Info
	inspector    inspector
}

// New returns a running server. The error tells which option can't be used.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := noneNegative("Options.Dependencies", &o.Dependencies); err != nil {
		return nil, err
	}
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
	door, err := newAdmission(&o)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, origins: allowed, door: door, log: o.Log, store: o.Store, rules: rules, metrics: newMetrics(newLabels(&o))}
	keys, err := newKeys(&o)
	if err != nil {
		return nil, err
	}
	limit := findMemoryLimit(o.MemoryLimit, "/")
	if err := s.keep(&limit); err != nil {
		return nil, err
	}
	s.oversee(limit)
	s.fill()
	s.peers.within, s.peers.logger = s.o.PeerTimeout, s.o.Logger
	s.info = s.log.Info()
	s.engine = core.New(s.engineOptions(keys))
	s.metrics.follow(s.engine)
	s.router = s.routes()
	s.memory.start()
	return s, nil
}

// keep finds the log and the store, and makes those that nobody gave.
func (s *Server) keep(limit *memoryLimit) error {
	if s.log == nil {
		s.log = eventlog.NewMemory(eventlog.MemoryOptions{MaxBytes: limit.logBytes()})
		s.own = append(s.own, s.log)
	}
	if both, is := s.log.(session.Store); is && s.store == nil {
		s.store = both
	}
	if s.store == nil {
		s.store = session.NewMemory(session.MemoryOptions{})
		s.own = append(s.own, s.store)
	}
	if err := s.o.fit(s.log.Info()); err != nil {
		for _, c := range s.own {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	return nil
}

// oversee puts before the log and the store what measures, guards and tells. What
// the log can do beside is found first: what stands before it hides that.
func (s *Server) oversee(limit memoryLimit) {
	s.store = &timedStore{Store: s.store, metrics: s.metrics}
	s.metrics.measure(s.log)
	s.inspector.lookInto(s)
	if s.o.Logger == nil {
		s.o.Logger = slog.Default()
	}
	s.o.Logger, s.sampler = newLogger(s.o.Logger)
	s.memory = newMemory(limit, s.log, s.o.Logger, func(n int) int { return s.engine.EvictLagging(n) })
	s.memory.forget = func() { s.engine.ForgetBatches() }
	s.metrics.collectors = append(s.metrics.collectors, s.memory.collectors()...)
	s.past, _ = s.log.(eventlog.History)
	s.depend()
	s.log = s.memory.count(s.log)
	s.health = newHealth(s)
}

// fill gives the options their defaults that others don't.
func (s *Server) fill() {
	if s.o.Authorize == nil {
		s.o.Authorize = DefaultAuthorize
		s.o.Logger.Info("default rights", "note", "anybody of the same origin may subscribe to channels without $ in their names, and nothing else but what Options.Namespaces allow: Options.Authorize says otherwise")
	}
	def(&s.o.AttachTimeout, 10*time.Second)
	def(&s.o.WriteTimeout, 10*time.Second)
	def(&s.o.MaxFrame, 64<<10)
	def(&s.o.HelloTimeout, 10*time.Second)
	def(&s.o.MaxName, eventlog.MaxChannelName)
	def(&s.o.PeerTimeout, 20*time.Second)
	def(&s.o.HistoryMaxAge, time.Hour)
	def(&s.o.CompressOver, 1<<10)
}

// engineOptions are the options as the engine knows them.
func (s *Server) engineOptions(keys *session.Keys) core.Options {
	o := &s.o
	return core.Options{
		Log:       s.log,
		History:   s.past,
		Store:     s.store,
		Keys:      keys,
		Authorize: s.authorize,
		From:      s.from,
		Admit:     s.door.admit,
		Policy:    s.policy,
		Hooks: core.Hooks{
			OnConnect: o.OnConnect, OnSubscribe: o.OnSubscribe, OnPublish: o.OnPublish, OnCall: o.OnCall, OnDisconnect: o.OnDisconnect,
		},
		TokenLifetime:     o.TokenLifetime,
		PublishTimeout:    o.PublishTimeout,
		CallTimeout:       o.CallTimeout,
		MaxCalls:          o.MaxCalls,
		HistoryEvents:     o.HistoryEvents,
		HistoryBytes:      o.HistoryBytes,
		HistoryScan:       o.HistoryScan,
		DisconnectTimeout: o.DisconnectTimeout,
		StoreTimeout:      o.StoreTimeout,
		PresenceGrace:     o.PresenceGrace,
		PresenceInterval:  o.PresenceInterval,
		MaxPresent:        o.MaxPresent,
		FrameLimit:        o.MaxFrame,
		MaxMessage:        o.MaxMessage,

		Heartbeat:      o.Heartbeat,
		WriteTimeout:   o.WriteTimeout,
		GoodbyeTimeout: o.GoodbyeTimeout,
		AttachTimeout:  o.AttachTimeout,
		DrainTime:      o.DrainTime,
		RefreshLead:    o.RefreshLead,
		ReadTimeout:    o.ReadTimeout,
		RetryDelay:     o.RetryDelay,
		PageBytes:      o.PageBytes,
		MaxChannels:    o.MaxChannels,
		MaxLag:         o.MaxLag,
		LagWindow:      o.LagWindow,
		MaxLagBytes:    o.MaxLagBytes,
		MaxLagAge:      o.MaxLagAge,
		Slow:           o.Slow,
		EvictionDelay:  o.EvictionDelay,

		MaxEvictionDelay: o.MaxEvictionDelay,
		EvictionMemory:   o.EvictionMemory,
		MaxEvicted:       o.MaxEvicted,
		BrokenLines:      o.BrokenLines,
		BrokenWithin:     o.BrokenWithin,
		LaggardBytes:     o.LaggardBytes,
		Transports:       o.carriers(),
		Observer:         s.metrics,
		Logger:           o.Logger,
	}
}

// newKeys returns the keys of the options, or nil for one of the Store's secret.
func newKeys(o *Options) (*session.Keys, error) {
	if o.TokenLifetime == 0 {
		o.TokenLifetime = 24 * time.Hour
	}
	if len(o.Keys) > 0 {
		return session.NewKeys(o.Keys, o.TokenLifetime)
	}
	if o.TokenLifetime < time.Second {
		return nil, fmt.Errorf("server: Options.TokenLifetime is %v, not at least a second", o.TokenLifetime)
	}
	return nil, nil
}

// Shutdown stops in good order: each client is told to come back at a time of its
// own within DrainTime, polls that wait are answered, WebSockets are closed, calls
// and publishes under way are done or broken off, and what comes later is
// refused as unavailable for now. It returns when all of that is over. When ctx
// ends before, who is left is cut off, and its error is returned.
//
// Nothing is lost: clients go on from their positions, here or elsewhere. Readyz
// says at once that no more are to be sent here. Shut down the http.Server after
// it, which knows nothing of WebSockets, and by itself would wait for streams:
//
//	err := errors.Join(srv.Shutdown(ctx), hs.Shutdown(ctx))
func (s *Server) Shutdown(ctx context.Context) error {
	s.requests.stop()
	s.health.drain()
	return errors.Join(s.engine.Shutdown(ctx), s.over(ctx))
}

// Close is Shutdown without a bound but those of the options: the clients'
// WriteTimeout, and how long the program's functions take.
func (s *Server) Close() error { return s.Shutdown(context.Background()) }

// over waits for the requests at work, and closes what New has made.
func (s *Server) over(ctx context.Context) error {
	errs := []error{s.inspector.close(ctx)}
	if !s.requests.wait(ctx) {
		errs = append(errs, ctx.Err())
	}
	s.memory.close()
	s.health.close(ctx)
	s.peers.close()
	s.sampler.close()
	for _, c := range s.own {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ServeHTTP implements [http.Handler]. The last element of the path says what
// is asked for, so that it does not matter what stands before it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// Publish appends a message to a channel of the default namespace and returns
// its position. It does not wait for any client.
//
// Errors are those of [eventlog.Log.Append]. Where one is a [*breaker.NotAsked]
// (found by errors.As), the log fails and was not asked: nothing was appended. After
// any other that is [eventlog.ErrUnavailable], or none of the log's own, it may have
// been, unless it is [eventlog.ErrNotAppended], too. To repeat that without harm, see
// [Server.PublishBatch].
func (s *Server) Publish(ctx context.Context, channel string, m Message) (Position, error) {
	return s.PublishTo(ctx, Channel{Name: channel}, m)
}

// PublishTo is Publish for a channel of any namespace; several messages are
// appended together or not at all, and the position is the last one's.
func (s *Server) PublishTo(ctx context.Context, ch Channel, messages ...Message) (Position, error) {
	at, _, err := s.engine.Append(ctx, ch, eventlog.Batch{Messages: messages})
	return at, err
}

// PublishBatch is PublishTo with all that a batch may say. With a Producer it may be
// repeated after any error, also by another node, for as long as the log remembers: if it
// was appended before, duplicate is true, and the position is what it was then. With
// Expect it is appended only if nothing came since.
//
//	by := eventlog.Producer{ID: order.ID + " shipped", Seq: 1}
//	at, duplicate, err := srv.PublishBatch(ctx, ch, eventlog.Batch{Messages: messages, Producer: by})
func (s *Server) PublishBatch(ctx context.Context, ch Channel, b eventlog.Batch) (at Position, duplicate bool, err error) {
	return s.engine.Append(ctx, ch, b)
}
