package conformance_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

func TestConformance(t *testing.T) {
	conformance.TestServer(t, conformance.Server{
		Start: start,
		Lacks: map[conformance.Feature]string{
			conformance.Nodes:   "there is one node",
			conformance.Several: "there is one log",
			conformance.Lagging: "there is one node",
			conformance.Outages: "the log is in memory",
		},
	})
}

func start(t *testing.T, s conformance.ServerSetup) *conformance.Testee {
	t.Helper()
	log := eventlog.NewMemory(eventlog.MemoryOptions{
		Retain:                 func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: s.Keep, Age: s.KeepFor} },
		Generation:             s.Forget,
		RememberProducers:      s.Remember,
		MaxProducersPerChannel: s.MaxProducers,
	})
	srv, err := server.New(options(s, log))
	if err != nil {
		t.Fatal(err)
	}
	return &conformance.Testee{
		Handler: srv, // or whatever of yours it is mounted in
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
		Shutdown: srv.Shutdown,
		Close:    func() { _ = srv.Close(); _ = log.Close() },
	}
}

func options(s conformance.ServerSetup, log eventlog.Log) server.Options {
	o := server.Options{
		Log: log, Logger: slog.New(slog.DiscardHandler),
		AddressRates: server.Unlimited, IdentityRates: server.Unlimited, // in fake time all is done at once

		Heartbeat: s.Heartbeat, PeerTimeout: s.PeerTimeout, MaxWait: s.MaxWait, CallTimeout: s.CallTimeout,
		WriteTimeout: s.WriteTimeout, GoodbyeTimeout: s.WriteTimeout, CloseTimeout: s.WriteTimeout,
		EvictionDelay: s.EvictFor, PresenceGrace: s.Grace, PresenceInterval: s.Interval,
		MaxLag: s.MaxLag, MaxChannels: s.MaxChannels, MaxFrame: int64(s.MaxFrame), MaxMessage: s.MaxMessage,
		MaxCalls: s.MaxCalls, MaxPresent: s.MaxMembers, BrokenLines: s.BrokenLines,

		Authorize: func(_ context.Context, who server.Identity, what server.Action, ch server.Channel) error {
			if s.Refuse == nil {
				return nil
			}
			return refused(s.Refuse(string(what), who.Subject, ch.Name))
		},
	}
	if s.Subjects {
		o.Authenticate = whoAsks
	}
	if s.Info != nil {
		o.OnConnect = func(_ context.Context, who server.Client) (server.Welcome, error) {
			return server.Welcome{Info: s.Info(who.Subject, who.Transport)}, nil
		}
	}
	if s.Answer != nil {
		o.OnCall = func(ctx context.Context, r server.Request) (server.Payload, error) {
			answer, code := s.Answer(ctx, r.Name, r.Key, r.Data)
			if code == "failed" {
				return server.Payload{}, errors.New("a secret of the program's")
			}
			return server.Payload{Kind: r.Kind, Data: answer}, refused(code)
		}
	}
	return o
}

// whoAsks reads "Authorization: Bearer NAME" or "Bearer NAME@MS".
func whoAsks(r *http.Request) (server.Identity, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || name == "" {
		return server.Identity{}, transport.Refuse(transport.CodeUnauthorized, "say who you are")
	}
	name, ends, ok := strings.Cut(name, "@")
	if !ok {
		return server.Identity{Subject: name}, nil
	}
	ms, err := strconv.ParseInt(ends, 10, 64)
	return server.Identity{Subject: name, Expires: time.UnixMilli(ms)}, err
}

// refused makes an error of a code: "", "forbidden", "busy", "full 1500".
func refused(code string) error {
	code, delay, later := strings.Cut(code, " ")
	switch ms, _ := strconv.Atoi(delay); {
	case code == "":
		return nil
	case later:
		return transport.RefuseFor(time.Duration(ms)*time.Millisecond, code, "as the test wants it")
	case code == transport.CodeBusy:
		return &transport.Refusal{Reason: transport.Reason{Code: code, Class: transport.Later}}
	}
	return transport.Refuse(code, "as the test wants it")
}
