package longpoll_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/conform"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/transport"
)

const target = "http://127.0.0.1:1/poll"

func mount(engine transport.Engine) http.Handler {
	h := longpoll.New(engine, longpoll.Options{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.Serve(w, r, transport.Peer{}) })
}

func TestConformance(t *testing.T) {
	forms := map[string]func(ctx context.Context, hc *http.Client, ask conformance.Ask) (*wireclient.Answer, error){
		"plain": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (*wireclient.Answer, error) {
			return wireclient.PlainPoll(ctx, hc, target+wireclient.Query(ask.After, ask.Channels...)+"&wait="+ask.Wait.String())
		},
		"session": func(ctx context.Context, hc *http.Client, ask conformance.Ask) (*wireclient.Answer, error) {
			return wireclient.SessionPoll(ctx, hc, target+"?wait="+ask.Wait.String(), wireclient.HelloFor(ask.After, ask.Channels...))
		},
	}
	for name, poll := range forms {
		tr := conformance.Transport{
			Mount:      mount,
			Once:       true,
			OneChannel: name == "plain",
			Plain:      name == "plain",
			Client: func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
				answer, err := poll(ctx, hc, ask)
				return conform.Drain(answer, err, received)
			},
		}
		t.Run(name, func(t *testing.T) { conformance.TestTransport(t, tr) })
		t.Run("tcp/"+name, func(t *testing.T) {
			tr.TCP = true
			conformance.TestTransport(t, tr)
		})
	}
}
