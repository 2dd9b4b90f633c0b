// Command cluster shows many nodes over one Redis: three of them, a proxy that
// sends each request to the next one, and a page that says which one serves it.
// One kills nodes, and watches that nothing is missing.
//
//	go run ./examples/cluster
//	go run ./examples/cluster -kill 3s          kills one of them every 3 seconds
//	go run ./examples/cluster -redis HOST:PORT  uses a Redis that is there
//
// Nodes are processes of their own, of this program, so killing one is kill -9.
// What a node does is in node.go; the rest stands around it.
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
	redis := flag.String("redis", "", "the address of a Redis (default: one is started)")
	kill := flag.Duration("kill", 0, "kill a node so often, and start it again (default: only the page's buttons do)")
	node := flag.String("node", "", "be the node of this name, which is what the program starts others of itself as")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *node != "" {
		err = beNode(ctx, *node, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, *addr, *redis, *kill)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, addr, redis string, kill time.Duration) error {
	l, err := listen(addr, firstPort, lastPort)
	if err != nil {
		return err
	}
	c, err := startCluster(ctx, redis)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	c.killEvery(kill)
	fmt.Printf("Three nodes are to be killed: %s (Ctrl-C ends it)\n", link(l.Addr()))
	fmt.Printf("Without a browser: curl -N '%srealtime/sse?channel=ticks'\n", link(l.Addr()))
	return serve(ctx, l, c)
}

// serve serves the page, and what the nodes serve, until ctx is done, and then ends
// the nodes and Redis.
func serve(ctx context.Context, l net.Listener, c *cluster) error {
	hs := &http.Server{Handler: c.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(l) }()
	c.publish(link(l.Addr()))
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	c.close()
	_ = hs.Close() // all that went through it was of nodes that have ended
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
