// Command chat is a chat of rooms, and the shortest useful way to embed
// Throughline: one server, one function that says who may do what, one page.
//
//	go run ./examples/chat
//	go run ./examples/chat -data DIR   what was said survives the program, however that ends
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
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/store/bolt"
	"github.com/throughline/throughline/transport"
)

// Where the chat listens unless told otherwise: only this machine gets in.
const (
	host      = "127.0.0.1"
	firstPort = 8080
	lastPort  = 8099
)

// endWithin bounds the orderly end: a client that reads nothing does not hold
// the program up for longer.
const endWithin = 4 * time.Second

//go:embed index.html style.css app.js
var page embed.FS

func main() {
	addr := flag.String("addr", "", fmt.Sprintf("the address to listen on (default %s:%d, or the next port that is free)", host, firstPort))
	data := flag.String("data", "", "the folder where events are kept (default: in memory)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *data); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, addr, data string) (err error) {
	var events eventlog.Log // nil: the server's own, in memory
	if data != "" {
		if events, err = openEvents(data); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, events.Close()) }()
	}
	srv, err := newServer(events)
	if err != nil {
		return err
	}
	l, err := listen(addr, firstPort, lastPort)
	if err != nil {
		return errors.Join(err, srv.Close())
	}
	fmt.Printf("The chat is open: %s (Ctrl-C ends it)\n", link(l.Addr()))
	return serve(ctx, l, srv)
}

// openEvents opens the events in a folder, or begins there.
func openEvents(folder string) (eventlog.Log, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	return bolt.Open(filepath.Join(folder, "events.db"), bolt.Options{})
}

func newServer(events eventlog.Log) (*server.Server, error) {
	var srv *server.Server
	srv, err := server.New(server.Options{
		Log:          events,
		Authenticate: authenticate,
		Authorize:    authorize,
		OnConnect:    welcome,
		OnCall: func(ctx context.Context, r server.Request) (server.Payload, error) {
			// The name is in the cookie, which is read when a client connects.
			again := transport.Reason{Code: "renamed", Class: transport.Now, Message: "come back under the new name"}
			return server.Payload{Data: []byte("true")}, srv.Disconnect(ctx, server.Target{Session: r.Client.Session}, again)
		},
	})
	return srv, err
}

// authenticate takes everybody for who they say they are, in a cookie of the
// page's: a chat among friends. A program that has a login asks that instead.
func authenticate(r *http.Request) (server.Identity, error) {
	cookie, err := r.Cookie("chat-name")
	if err != nil {
		return server.Identity{}, nil //nolint:nilerr // a visitor without a name, as curl is
	}
	name, err := url.QueryUnescape(cookie.Value)
	if err != nil || len(name) > 200 {
		name = ""
	}
	return server.Identity{Claims: name}, nil
}

// welcome says what others see of who is here.
func welcome(_ context.Context, who server.Client) (server.Welcome, error) {
	info, err := json.Marshal(map[string]any{"name": who.Claims})
	return server.Welcome{Info: info}, err
}

// authorize opens the rooms to everybody and nothing else to anybody. Each
// action is named, so that one that is added later is not granted unawares.
func authorize(_ context.Context, _ server.Identity, what server.Action, ch server.Channel) error {
	switch what {
	case server.Subscribe, server.History, server.Publish, server.Presence:
		if strings.HasPrefix(ch.Name, "room:") {
			return nil
		}
	case server.Call:
		if ch.Name == "rename" {
			return nil
		}
	}
	return errors.New("only rooms are open")
}

// handler is all that the program serves.
func handler(srv *server.Server) http.Handler {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(srv)

	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("/", withHeaders(http.FileServerFS(page)))
	return mux
}

// withHeaders says what the page may do, which is little: run its own script
// and speak with its own server.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
			"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache") // a new version of the program is a new page
		next.ServeHTTP(w, r)
	})
}

// serve serves on l until ctx is done, and then ends what is open with a word of
// goodbye, so that clients know to come back.
func serve(ctx context.Context, l net.Listener, srv *server.Server) error {
	// No WriteTimeout: a stream may last for days, and srv has deadlines of its
	// own for each write.
	hs := &http.Server{
		Handler:           handler(srv),
		ConnContext:       srv.ConnContext, // so that dead clients are noticed
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	select {
	case err := <-failed:
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	// Clients are told when to come back first: hs knows nothing of WebSockets,
	// and would wait for streams.
	err := srv.Shutdown(soon)
	if hs.Shutdown(soon) != nil {
		_ = hs.Close() // whoever still holds on is cut off
	}
	return err
}

// listen takes the address given, or, if none is, the first free port from
// first to last.
func listen(addr string, first, last int) (net.Listener, error) {
	if addr != "" {
		l, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("another program listens on %s; give another address with -addr, or none for any port that is free", addr)
		}
		return l, err
	}
	var err error
	for port := first; port <= last; port++ {
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no port from %d to %d is free (%w); give an address with -addr", first, last, err)
}

// link is the address of the page, to be clicked on.
func link(addr net.Addr) string {
	name, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String() + "/"
	}
	if ip := net.ParseIP(name); ip != nil && ip.IsUnspecified() {
		name = "localhost"
	}
	return "http://" + net.JoinHostPort(name, port) + "/"
}
