package server_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// A world is a server in a bubble of fake time, behind a network in memory.
type world struct {
	*testing.T
	ctx  context.Context
	srv  *server.Server
	log  eventlog.Log
	net  *memnet.Network
	http *http.Client

	store session.Store
}

const base = "http://127.0.0.1:1/realtime"

// inBubble runs a test in fake time, at most a year of it.
func inBubble(t *testing.T, o server.Options, body func(*world)) {
	t.Helper()
	inBubbleWith(t, func() eventlog.Log { return eventlog.NewMemory(eventlog.MemoryOptions{}) }, o, body)
}

// inBubbleWith is inBubble with a log of the test's own, made in the bubble.
func inBubbleWith(t *testing.T, makeLog func() eventlog.Log, o server.Options, body func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 365*24*time.Hour)
		o.Log = makeLog()
		store := session.NewMemory(session.MemoryOptions{})
		if o.Store == nil {
			o.Store = store
		}
		if o.AddressRates == (server.Rates{}) && o.IdentityRates == (server.Rates{}) { // in fake time all is done at once
			o.AddressRates, o.IdentityRates = server.Unlimited, server.Unlimited
		}
		if o.Logger == nil {
			o.Logger = slog.New(slog.DiscardHandler)
		}
		if o.MemoryLimit == 0 {
			o.MemoryLimit = -1 // whatever this machine says; a watcher would tick through a year
		}
		srv, err := server.New(o)
		if err != nil {
			t.Fatal(err)
		}
		network := memnet.New()
		hs := &http.Server{Handler: srv, ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		served := make(chan struct{})
		go func() { _ = hs.Serve(network); close(served) }()
		transport := &http.Transport{DialContext: network.Dial, DisableCompression: true}
		defer func() {
			_ = srv.Close()
			_ = o.Log.Close()
			_ = store.Close()
			_ = hs.Close()
			<-served
			cancel()
			transport.CloseIdleConnections()
			time.Sleep(time.Second) // net/http lingers over a connection whose body was too large
		}()
		body(&world{T: t, ctx: ctx, srv: srv, log: o.Log, net: network, http: &http.Client{Transport: transport}, store: store})
	})
}

// restart returns a client of another server over the same log, which stands for
// one that was started anew, or for another node. Its store is its own unless
// the options name one.
func (w *world) restart(o server.Options) *http.Client {
	w.Helper()
	_, hc := w.node(o)
	return hc
}

// node is restart, with the server.
func (w *world) node(o server.Options) (*server.Server, *http.Client) {
	w.Helper()
	o.Log = w.log
	o.Logger = slog.New(slog.DiscardHandler)
	o.AddressRates, o.IdentityRates = server.Unlimited, server.Unlimited
	if o.MemoryLimit == 0 {
		o.MemoryLimit = -1
	}
	srv, err := server.New(o)
	if err != nil {
		w.Fatal(err)
	}
	network := memnet.New()
	hs := &http.Server{Handler: srv, ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	served := make(chan struct{})
	go func() { _ = hs.Serve(network); close(served) }()
	transport := &http.Transport{DialContext: network.Dial, DisableCompression: true}
	w.Cleanup(func() {
		_ = srv.Close()
		_ = hs.Close()
		<-served
		transport.CloseIdleConnections()
	})
	return srv, &http.Client{Transport: transport}
}

// allow allows everything.
func allow(context.Context, server.Identity, server.Action, server.Channel) error { return nil }

// A carrier is one way to read a channel.
type carrier struct {
	name string
	open func(w *world, channel, after string) (wireclient.Stream, error)
}

var carriers = []carrier{
	{"sse", func(w *world, channel, after string) (wireclient.Stream, error) {
		return wireclient.SSE(w.ctx, w.http, base+"/sse"+wireclient.Query(after, channel), "")
	}},
	{"ws", func(w *world, channel, after string) (wireclient.Stream, error) {
		return wireclient.WS(w.ctx, w.http, base+"/ws"+wireclient.Query(after, channel), nil)
	}},
	{"poll", func(w *world, channel, after string) (wireclient.Stream, error) {
		return wireclient.NewPollStream(w.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at[channel]; ok {
				after = p
			}
			return wireclient.PlainPoll(ctx, w.http, base+"/poll"+wireclient.Query(after, channel)+"&wait=25s")
		}), nil
	}},
	{"sse session", func(w *world, channel, after string) (wireclient.Stream, error) {
		return wireclient.SSESession(w.ctx, w.http, base+"/sse", hello(channel, after))
	}},
	{"ws session", func(w *world, channel, after string) (wireclient.Stream, error) {
		h := hello(channel, after)
		return wireclient.WS(w.ctx, w.http, base+"/ws", &h)
	}},
	{"poll session", func(w *world, channel, after string) (wireclient.Stream, error) {
		return wireclient.NewPollStream(w.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at[channel]; ok {
				after = p
			}
			return wireclient.SessionPoll(ctx, w.http, base+"/poll?wait=25s", hello(channel, after))
		}), nil
	}},
}

func hello(channel, after string) wireclient.Hello {
	return wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: channel, After: after}}}
}

// onEach runs a test in a bubble of its own for each carrier.
func onEach(t *testing.T, o server.Options, body func(*world, carrier)) {
	t.Helper()
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, o, func(w *world) { body(w, c) })
		})
	}
}

// must opens a stream.
func (w *world) must(c carrier, channel, after string) wireclient.Stream {
	w.Helper()
	s, err := c.open(w, channel, after)
	if err != nil {
		w.Fatalf("open %s: %v", c.name, err)
	}
	w.Cleanup(s.Close)
	return s
}

// next returns the next item that isn't a heartbeat or the answer to a hello.
func (w *world) next(s wireclient.Stream) wireclient.Item {
	w.Helper()
	for {
		it, err := s.Next()
		if err != nil {
			w.Fatalf("next: %v", err)
		}
		if !it.Beat && it.Open == nil {
			return it
		}
	}
}

func (w *world) publish(channel, data string) server.Position {
	w.Helper()
	at, err := w.srv.Publish(w.ctx, channel, server.Message{Type: "said", Data: []byte(data)})
	if err != nil {
		w.Fatal(err)
	}
	return at
}

// get sends a request with headers given as name, value, …
func (w *world) do(method, path, body string, headers ...string) *http.Response {
	w.Helper()
	req, err := http.NewRequestWithContext(w.ctx, method, base+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	if body != "" {
		req.Body = io.NopCloser(newReader(body))
		req.ContentLength = int64(len(body))
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := w.http.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

var _ net.Listener = (*memnet.Network)(nil)
