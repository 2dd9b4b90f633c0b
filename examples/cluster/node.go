package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/store/redis"
	"github.com/throughline/throughline/transport"
)

const (
	// ticks is the channel that all pages read; each event has a number.
	ticks = "ticks"
	// ownPrefix begins the name of each page's own channel, in which nodes tell it that
	// they serve it.
	ownPrefix = "$page:"
	// publisher is who may publish.
	publisher = "publisher"
	// addressPrefix begins the line in which a node says where it listens.
	addressPrefix = "listening on "
)

// orders are what a node is told on its standard input. When that ends, so does it.
type orders struct {
	Redis  string `json:"redis"`
	Secret string `json:"secret"` // that the publisher shows
}

// beNode is a whole node: it serves until ctx is done, or stdin ends.
func beNode(ctx context.Context, name string, stdin io.Reader, stdout io.Writer) (err error) {
	var o orders
	orders := json.NewDecoder(stdin)
	if err := orders.Decode(&o); err != nil {
		return fmt.Errorf("a node is told by the program what to do: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()

	logger := slog.New(slog.DiscardHandler) // it would be about what is done to it
	client := goredis.NewClient(&goredis.Options{Addr: o.Redis})
	events, err := redis.Open(ctx, client, redis.Options{
		Prefix: "throughline-example",
		Logger: logger,
		Retain: func(ch eventlog.Channel) eventlog.Retention {
			if strings.HasPrefix(ch.Name, ownPrefix) {
				return eventlog.Retention{Events: 4, Age: time.Hour}
			}
			return eventlog.Retention{}
		},
	})
	if err != nil {
		return errors.Join(err, client.Close())
	}
	defer func() { err = errors.Join(err, events.Close(), client.Close()) }()
	var srv *server.Server
	srv, err = server.New(server.Options{
		Log:          events,
		Authenticate: func(r *http.Request) (server.Identity, error) { return authenticate(r, o.Secret) },
		Authorize:    authorize,
		OnConnect: func(ctx context.Context, who server.Client) (server.Welcome, error) {
			return server.Welcome{}, welcome(ctx, srv, name, who)
		},
		DrainTime: time.Second,
		Logger:    logger,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		return errors.Join(err, srv.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)
	mux.Handle("/readyz", srv.Readyz())
	hs := &http.Server{Handler: mux, ConnContext: srv.ConnContext, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	_, _ = fmt.Fprintln(stdout, addressPrefix+l.Addr().String())
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	return errors.Join(err, srv.Shutdown(soon), hs.Shutdown(soon))
}

var isPage = regexp.MustCompile(`^page-[0-9a-f]{32}$`)

// authenticate knows pages by a random name that each makes for itself, and the
// publisher by a secret. Others are nobody.
func authenticate(r *http.Request, secret string) (server.Identity, error) {
	switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); {
	case token == "":
		return server.Identity{}, nil
	case token == secret:
		return server.Identity{Subject: publisher}, nil
	case isPage.MatchString(token):
		return server.Identity{Subject: token}, nil
	}
	return server.Identity{}, errors.New("neither a page nor the publisher")
}

// authorize lets all read the ticks, a page its own channel, and one publish.
func authorize(_ context.Context, who server.Identity, what server.Action, ch server.Channel) error {
	switch reads := what == server.Subscribe || what == server.History; {
	case reads && ch.Name == ticks,
		reads && who.Subject != "" && ch.Name == ownPrefix+who.Subject,
		what == server.Publish && ch.Name == ticks && who.Subject == publisher:
		return nil
	}
	return errors.New("only what the page needs is open")
}

// welcome tells a page which node serves it. Each connection is welcomed, so the last
// word is true; it is an event as any other, and waits for nobody.
func welcome(ctx context.Context, srv *server.Server, name string, who server.Client) error {
	if who.Subject == "" {
		return nil
	}
	data, err := json.Marshal(map[string]string{"node": name, "transport": who.Transport})
	if err != nil {
		return err
	}
	if _, err = srv.Publish(ctx, ownPrefix+who.Subject, server.Message{Type: "welcome", Data: data}); err != nil {
		// Any other error is a no for good. This one says to come back.
		return transport.RefuseFor(time.Second, transport.CodeUnavailable, "Redis does not answer").Because(err)
	}
	return nil
}
