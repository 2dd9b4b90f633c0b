// Package testee starts Throughline's own server as the conformance suite wants
// it.
package testee

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// Server is the server as it is.
func Server() conformance.Server { return conformance.Server{Start: Variant{}.Start} }

// A Variant is the server with something in it changed: to be a worse one, that
// the suite has to catch.
type Variant struct {
	Log func(eventlog.Log) eventlog.Log // that all nodes share
	// Node is the log as one node sees it; nth counts from 0.
	Node func(l eventlog.Log, nth int) eventlog.Log
	// Open, if set, returns what opens the log of each node, which is its store, too,
	// if it is one.
	Open    func(t *testing.T, s conformance.ServerSetup) func() eventlog.Log
	Options func(*server.Options)
	Handler func(http.Handler) http.Handler
}

// Start is a conformance.Server's.
func (v Variant) Start(t *testing.T, s conformance.ServerSetup) *conformance.Testee {
	t.Helper()
	if v.Open != nil {
		return (&house{t: t, variant: v, setup: s, open: v.Open(t, s)}).node()
	}
	var log eventlog.Log = eventlog.NewMemory(eventlog.MemoryOptions{
		Retain:                 func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: s.Keep, Age: s.KeepFor} },
		Generation:             s.Forget,
		RememberProducers:      s.Remember,
		MaxProducersPerChannel: s.MaxProducers,
	})
	if v.Log != nil {
		log = withHistory(v.Log(log), log)
	}
	outage := &failingLog{Log: log}
	h := &house{t: t, variant: v, setup: s, log: outage, outage: outage, store: session.NewMemory(session.MemoryOptions{})}
	first := h.node()
	end := first.Close
	first.Close = func() {
		end()
		_ = h.log.Close()
		_ = h.store.Close()
	}
	return first
}

// A house is what several nodes share.
type house struct {
	t       *testing.T
	variant Variant
	setup   conformance.ServerSetup
	log     eventlog.Log
	store   session.Store
	outage  *failingLog
	open    func() eventlog.Log // the log of the next node; nil: they share one
	nodes   int                 // how many were started
}

// node starts one more server.
func (h *house) node() *conformance.Testee {
	o := h.options()
	log, outage, end := h.log, h.outage, func() {}
	if h.open != nil {
		own := h.open()
		o.Store, _ = own.(session.Store)
		outage = &failingLog{Log: own}
		log, end = outage, func() { _ = own.Close() }
	}
	view := newLaggingLog(log)
	o.Log = view
	if h.variant.Node != nil {
		o.Log = withHistory(h.variant.Node(view, h.nodes), view)
	}
	h.nodes++
	if h.variant.Options != nil {
		h.variant.Options(&o)
	}
	srv, err := server.New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	var handler http.Handler = srv
	if h.variant.Handler != nil {
		handler = h.variant.Handler(srv)
	}
	return &conformance.Testee{
		Handler: handler,
		Base:    "/realtime",
		Publish: func(ctx context.Context, channel string, m eventlog.Message) (string, error) {
			at, err := srv.Publish(ctx, channel, m)
			return at.String(), err
		},
		Subscribe: func(ctx context.Context, subject, channel string) error {
			return srv.Subscribe(ctx, server.Target{Subject: subject}, channel)
		},
		Unsubscribe: func(ctx context.Context, subject, channel string) error {
			return srv.Unsubscribe(ctx, server.Target{Subject: subject}, channel)
		},
		Disconnect: func(ctx context.Context, subject string) error {
			return srv.Disconnect(ctx, server.Target{Subject: subject}, transport.Reason{})
		},
		Another:  h.node,
		Shutdown: srv.Shutdown,
		Outage:   outage.set,
		Lag:      view.lag,
		Close:    func() { _ = srv.Close(); end() },
	}
}

func (h *house) options() server.Options {
	s := h.setup
	o := server.Options{
		Store: h.store, Logger: slog.New(slog.DiscardHandler),
		AddressRates: server.Unlimited, IdentityRates: server.Unlimited, // in fake time all is done at once
		Authorize:    h.authorize,
		Heartbeat:    s.Heartbeat,
		WriteTimeout: s.WriteTimeout, GoodbyeTimeout: s.WriteTimeout, CloseTimeout: s.WriteTimeout,
		PeerTimeout: s.PeerTimeout, MaxWait: s.MaxWait, EvictionDelay: s.EvictFor, CallTimeout: s.CallTimeout,
		PresenceGrace: s.Grace, PresenceInterval: s.Interval,
		MaxLag: s.MaxLag, MaxChannels: s.MaxChannels, MaxFrame: int64(s.MaxFrame), MaxMessage: s.MaxMessage,
		MaxCalls: s.MaxCalls, MaxPresent: s.MaxMembers, BrokenLines: s.BrokenLines,
	}
	if s.Subjects {
		o.Authenticate = authenticate
	}
	if s.Info != nil {
		o.OnConnect = func(_ context.Context, who server.Client) (server.Welcome, error) {
			return server.Welcome{Info: s.Info(who.Subject, who.Transport)}, nil
		}
	}
	if s.Answer != nil {
		o.OnCall = h.answer
	}
	return o
}

func authenticate(r *http.Request) (server.Identity, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || name == "" {
		return server.Identity{}, transport.Refuse(transport.CodeUnauthorized, "say who you are: Authorization: Bearer NAME")
	}
	who, ends, ok := strings.Cut(name, "@")
	if !ok {
		return server.Identity{Subject: name}, nil
	}
	at, err := strconv.ParseInt(ends, 10, 64)
	return server.Identity{Subject: who, Expires: time.UnixMilli(at)}, err
}

func (h *house) authorize(_ context.Context, who server.Identity, what server.Action, ch server.Channel) error {
	if h.setup.Refuse == nil {
		return nil
	}
	return refusal(h.setup.Refuse(string(what), who.Subject, ch.Name))
}

// refusal makes an error of a code.
func refusal(code string) error {
	if code, delay, later := strings.Cut(code, " "); later {
		ms, _ := strconv.Atoi(delay)
		return transport.RefuseFor(time.Duration(ms)*time.Millisecond, code, "as the test wants it")
	}
	switch code {
	case "":
		return nil
	case transport.CodeBusy:
		return &transport.Refusal{Reason: transport.Reason{Code: code, Class: transport.Later}}
	}
	return transport.Refuse(code, "as the test wants it")
}

func (h *house) answer(ctx context.Context, r server.Request) (server.Payload, error) {
	answer, code := h.setup.Answer(ctx, r.Name, r.Key, r.Data)
	if code == transport.CodeFailed {
		return server.Payload{}, errors.New("a secret of the program's")
	}
	return server.Payload{Kind: r.Kind, Data: answer}, refusal(code)
}

// withHistory gives a log that was changed the history of what it was made of,
// unless it has one of its own.
func withHistory(changed, inner eventlog.Log) eventlog.Log {
	if _, ok := changed.(eventlog.History); ok || changed == nil {
		return changed // nil: the server makes one of its own
	}
	return struct {
		eventlog.Log
		eventlog.History
	}{changed, inner.(eventlog.History)} //nolint:forcetypeassert // all of these are
}

// rangeOf asks the log that another stands before.
func rangeOf(ctx context.Context, l eventlog.Log, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	return l.(eventlog.History).Range(ctx, ch, r, limit) //nolint:forcetypeassert // all of these are
}

// failingLog is a log that doesn't answer for a while. Every second append is
// done all the same.
type failingLog struct {
	eventlog.Log
	down    atomic.Bool
	appends atomic.Int64
}

func (l *failingLog) set(down bool) { l.down.Store(down) }

func (l *failingLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	if !l.down.Load() {
		return l.Log.Append(ctx, ch, b)
	}
	if l.appends.Add(1)%2 == 1 {
		_, _, _ = l.Log.Append(ctx, ch, b)
	}
	return eventlog.Position{}, false, eventlog.ErrUnavailable
}

func (l *failingLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if l.down.Load() {
		return eventlog.Page{}, eventlog.ErrUnavailable
	}
	return l.Log.Read(ctx, ch, after, limit)
}

// Range implements [eventlog.History].
func (l *failingLog) Range(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	if l.down.Load() {
		return eventlog.RangePage{}, eventlog.ErrUnavailable
	}
	return rangeOf(ctx, l.Log, ch, r, limit)
}

func (l *failingLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if l.down.Load() {
		return eventlog.Position{}, eventlog.ErrUnavailable
	}
	return l.Log.Seek(ctx, ch, s)
}
