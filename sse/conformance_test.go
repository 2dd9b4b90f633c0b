package sse_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/conform"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
)

const target = "http://127.0.0.1:1/sse"

func mount(engine transport.Engine) http.Handler {
	h := sse.New(engine, sse.Options{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Serve(w, r, transport.Peer{}) })
}

func TestConformance(t *testing.T) {
	forms := map[string]func(ctx context.Context, hc *http.Client, ask conformance.Ask) (wireclient.Stream, error){
		"plain": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (wireclient.Stream, error) {
			return wireclient.SSE(ctx, hc, target+wireclient.Query(ask.After, ask.Channels...)+"&events=named", "")
		},
		"object": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (wireclient.Stream, error) {
			return wireclient.SSE(ctx, hc, target+wireclient.Query("", ask.Channels...)+"&as=event", ask.After)
		},
		"session": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (wireclient.Stream, error) {
			return wireclient.SSESession(ctx, hc, target, wireclient.HelloFor(ask.After, ask.Channels...))
		},
	}
	for name, open := range forms {
		tr := conformance.Transport{
			Mount:      mount,
			OneChannel: name != "session", // several plain channels have a vector for an id: see TestVector
			Plain:      name != "session",
			Client: func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
				s, err := open(ctx, hc, ask)
				return conform.Drain(s, err, received)
			},
		}
		t.Run(name, func(t *testing.T) { conformance.TestTransport(t, tr) })
		t.Run("tcp/"+name, func(t *testing.T) {
			tr.TCP = true
			conformance.TestTransport(t, tr)
		})
	}
}
