package redis

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// TestNodesShareClients: an order that one node gives ends a connection of another, and
// the members of a node that is gone without a word are present nowhere when their leases
// are over.
func TestNodesShareClients(t *testing.T) {
	const interval, grace = 300 * time.Millisecond, time.Second
	link := redistest.StartLink(t, shared.Addr())
	o := Options{Prefix: newPrefix(), CheckInterval: interval}
	serve := func(l eventlog.Log) (*server.Server, string) {
		srv, err := server.New(server.Options{
			Log: l, Logger: slog.New(slog.DiscardHandler), PresenceInterval: interval, PresenceGrace: grace,
			Authenticate: func(r *http.Request) (server.Identity, error) {
				return server.Identity{Subject: r.URL.Query().Get("as")}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ts := httptest.NewServer(srv)
		t.Cleanup(func() { _ = srv.Close(); ts.Close() })
		return srv, "ws" + ts.URL[len("http"):]
	}
	stays := open(t, o)
	t.Cleanup(func() { _ = stays.Close() })
	_, url := serve(openBy(t, link, o)) // of the node that goes
	here, _ := serve(stays)

	come := func(name string) *wireclient.WSStream {
		hello := wireclient.HelloFor("", room.Name)
		s, err := wireclient.WS(t.Context(), http.DefaultClient, url+"/realtime/ws?as="+name, &hello)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	present := func(want int) func() bool {
		return func() bool {
			_, total, err := here.Present(context.Background(), room)
			return err == nil && total == want
		}
	}
	ann, _ := come("ann"), come("bob")
	eventually(t, 10*time.Second, "both are present at the other node", present(2))
	if err := here.Disconnect(t.Context(), server.Target{Subject: "ann"}, transport.Reason{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan *wireclient.Reason, 1)
	go func() {
		for {
			it, err := ann.Next()
			if err != nil || it.Close != nil {
				ended <- it.Close
				return
			}
		}
	}()
	select {
	case why := <-ended:
		if why == nil || why.Code != transport.CodeDisconnected {
			t.Errorf("ann's connection ended with %+v", why)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("ann is connected still")
	}
	eventually(t, 5*time.Second, "bob is alone", present(1))
	link.Cut() // the node is gone, as far as anybody can see, and says nothing of its leases
	eventually(t, grace+interval+3*time.Second, "nobody is present", present(0))
}
