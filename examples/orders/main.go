// Command orders is a service whose only truth is its log: commands are decided on,
// events are appended, and a table is made of them, which pages see live.
//
//	go run ./examples/orders -data /tmp/orders
//
// Kill it in any way and start it again: nothing is missing. Delete orders.json in its
// folder: the table is made again. docs/event-sourcing.md walks through it.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/store/bolt"
)

// endWithin bounds the orderly end.
const endWithin = 4 * time.Second

//go:embed index.html style.css app.js
var page embed.FS

func main() {
	addr := flag.String("addr", "", "the address to listen on (default 127.0.0.1:8080, or the next port that is free)")
	data := flag.String("data", "", "the folder of the events and of the table made of them (default: one in the folder for temporary files)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *data); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, addr, data string) error {
	if data == "" {
		data = filepath.Join(os.TempDir(), "throughline-orders")
	}
	s, err := open(ctx, data)
	if err != nil {
		return err
	}
	l, err := listen(addr)
	if err != nil {
		return errors.Join(err, s.close())
	}
	fmt.Printf("Orders are taken: http://%s/ (Ctrl-C ends it; events and table are in %s)\n", l.Addr(), data)
	return s.serve(ctx, l)
}

// A service is all parts of the program.
type service struct {
	events *bolt.Log
	table  *Projection
	srv    *server.Server

	stop context.CancelFunc // ends the projection
	done chan error         // its end
}

func open(ctx context.Context, folder string) (*service, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	events, err := bolt.Open(filepath.Join(folder, "events.db"), bolt.Options{
		// What is true is kept for ever.
		Retain: eventlog.RetainBy(map[string]eventlog.Retention{orders.Name: {Events: -1, Bytes: -1, Age: -1}}),
	})
	if err != nil {
		return nil, err
	}
	table, err := NewProjection(ctx, events, filepath.Join(folder, "orders.json"))
	if err != nil {
		return nil, errors.Join(err, events.Close())
	}
	desk := &Desk{log: events, table: table}
	srv, err := server.New(server.Options{Log: events, Authorize: authorize, OnCall: desk.answer})
	if err != nil {
		return nil, errors.Join(err, events.Close())
	}
	running, stop := context.WithCancel(context.Background())
	s := &service{events: events, table: table, srv: srv, stop: stop, done: make(chan error, 1)}
	go func() { s.done <- table.Run(running) }()
	return s, nil
}

// authorize lets everybody read and give commands, and nobody write past the desk.
func authorize(_ context.Context, _ server.Identity, what server.Action, ch server.Channel) error {
	switch {
	case ch == orders && (what == server.Subscribe || what == server.History), what == server.Call:
		return nil
	}
	return errors.New("orders are read, and changed by calls")
}

// close ends all that open began. It may follow srv.Shutdown.
func (s *service) close() error {
	err := s.srv.Close()
	s.stop()
	return errors.Join(err, <-s.done, s.events.Close())
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/realtime/", s.srv)
	mux.HandleFunc("GET /orders", s.list)
	mux.Handle("/", http.FileServerFS(page))
	return mux
}

// list answers with the table and its position: a page that subscribes after that
// position misses nothing, and hears nothing twice.
func (s *service) list(w http.ResponseWriter, _ *http.Request) {
	all, at, events := s.table.All()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"position": at, "orders": all, "events": events})
}

// serve serves on l until ctx is done, and then ends what is open with a word of
// goodbye, so that clients know to come back.
func (s *service) serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{Handler: s.handler(), ConnContext: s.srv.ConnContext, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	var err error
	select {
	case err = <-failed:
	case err = <-s.done: // the projection can't go on: nor can we
		s.done <- nil
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	err = errors.Join(err, s.srv.Shutdown(soon))
	if hs.Shutdown(soon) != nil {
		_ = hs.Close()
	}
	return errors.Join(err, s.close())
}

// listen takes the address given, or the first free port from 8080 on.
func listen(addr string) (net.Listener, error) {
	if addr != "" {
		return net.Listen("tcp", addr)
	}
	var err error
	for port := 8080; port < 8100; port++ {
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no port from 8080 to 8099 is free (%w); give an address with -addr", err)
}
