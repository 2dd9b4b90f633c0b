// Command slow shows what becomes of slow clients: a publisher, clients that keep
// up, and some that one stalls from the page. One watches them be evicted, wait,
// come back, and miss nothing.
//
//	go run ./examples/slow
//
// The clients run in this process and reach the server over TCP, as any others
// do. A client stalls by not reading its connection any more.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Where the program listens unless told otherwise: only this machine gets in.
const (
	host      = "127.0.0.1"
	firstPort = 8080
	lastPort  = 8099
)

// endWithin bounds the orderly end.
const endWithin = 4 * time.Second

//go:embed index.html style.css app.js
var page embed.FS

func main() {
	addr := flag.String("addr", "", fmt.Sprintf("the address to listen on (default %s:%d, or the next port that is free)", host, firstPort))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr); err != nil {
		fmt.Fprintln(os.Stderr, "slow:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, addr string) error {
	d, err := newDemo()
	if err != nil {
		return err
	}
	l, err := listen(addr, firstPort, lastPort)
	if err != nil {
		return errors.Join(err, d.close(ctx))
	}
	fmt.Printf("Slow clients are to be watched: %s (Ctrl-C ends it)\n", link(l.Addr()))
	return serve(ctx, l, d)
}

// handler is all that the program serves.
func handler(d *demo) http.Handler {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(d.srv)

	mux := http.NewServeMux()
	mux.Handle("/realtime/", d.srv)
	mux.Handle("/inspect/", d.srv.Inspector()) // only this machine gets in; elsewhere it belongs behind a login
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

// serve serves on l until ctx is done, with the demonstration's clients coming to
// l as well.
func serve(ctx context.Context, l net.Listener, d *demo) error {
	hs := &http.Server{
		Handler:           handler(d),
		ConnContext:       d.srv.ConnContext, // so that the kernel keeps little for who doesn't read
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	d.begin(link(l.Addr()) + "realtime/")
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	soon, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	err = errors.Join(err, d.close(soon))
	if hs.Shutdown(soon) != nil {
		_ = hs.Close() // whoever still holds on is cut off
	}
	return err
}

// listen takes the address given, or, if none is, the first free port from
// first to last.
func listen(addr string, first, last int) (net.Listener, error) {
	if addr != "" {
		return net.Listen("tcp", addr)
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
