package ws_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/conform"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

const target = "http://127.0.0.1:1/ws"

func mount(engine transport.Engine) http.Handler {
	h := ws.New(engine, ws.Options{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Serve(w, r, transport.Peer{}) })
}

func TestConformance(t *testing.T) {
	forms := map[string]func(ctx context.Context, hc *http.Client, ask conformance.Ask) (*wireclient.WSStream, error){
		"plain": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (*wireclient.WSStream, error) {
			return wireclient.WS(ctx, hc, target+wireclient.Query(ask.After, ask.Channels...), nil)
		},
		"session": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (*wireclient.WSStream, error) {
			h := wireclient.HelloFor(ask.After, ask.Channels...)
			return wireclient.WS(ctx, hc, target, &h)
		},
	}
	for name, open := range forms {
		tr := conformance.Transport{
			Mount:      mount,
			OneChannel: name == "plain",
			Plain:      name == "plain",
			Up:         name == "session",
			Proves:     true,
			Client: func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
				s, err := open(ctx, hc, ask)
				if err == nil && ask.Up != nil {
					go conform.Say(s, ask.Up)
				}
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
