//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/store/redis"
)

// roleOfNode has the test binary be a node: its value is a site.
const roleOfNode = "THROUGHLINE_CLUSTER_NODE"

func TestMain(m *testing.M) {
	if text := os.Getenv(roleOfNode); text != "" {
		var s site
		err := json.Unmarshal([]byte(text), &s)
		if err == nil {
			err = s.serve()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "node:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A site is what a node is told.
type site struct {
	Address  string
	Redis    string
	Replicas int // that must have an event
}

// logOptions are those of all who open the log.
func logOptions(replicas int) redis.Options {
	return redis.Options{
		Timeout:       time.Second,
		CheckInterval: time.Second,
		AppendWait:    500 * time.Millisecond,
		Logger:        slog.New(slog.DiscardHandler),
		Durability:    func(eventlog.Channel) redis.Durability { return redis.Durability{Replicas: replicas} },
	}
}

// redisClient is one that a program would have.
func redisClient(address string) *goredis.Client {
	return goredis.NewClient(&goredis.Options{
		Addr:                     address,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		ContextTimeoutEnabled:    true,
		DialTimeout:              time.Second,
		ReadTimeout:              2 * time.Second,
		WriteTimeout:             2 * time.Second,
	})
}

// serve is a node's main function. It serves until it is killed, or told to end by
// SIGTERM, or the test is gone.
func (s *site) serve() error {
	go func() { // the test has the other end
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(2)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client := redisClient(s.Redis)
	defer func() { _ = client.Close() }()
	events, err := redis.Open(ctx, client, logOptions(s.Replicas))
	for ; err != nil; events, err = redis.Open(ctx, client, logOptions(s.Replicas)) {
		select { // whoever runs a program starts it again
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
	srv, err := server.New(server.Options{
		Log:          events, // and the Store, if it is one
		Logger:       slog.New(slog.DiscardHandler),
		Authorize:    func(context.Context, server.Identity, server.Action, server.Channel) error { return nil },
		Keys:         []server.Key{{ID: "a", Secret: []byte(strings.Repeat("k", 32))}},
		AddressRates: server.Unlimited, // all clients have the same
		Heartbeat:    time.Second,
		MaxWait:      3 * time.Second,
		RetryDelay:   200 * time.Millisecond,
		Retry:        100 * time.Millisecond,
		DrainTime:    500 * time.Millisecond,
		Dependencies: server.Dependencies{OpenFor: 300 * time.Millisecond},

		PresenceInterval: time.Second,
		PresenceGrace:    4 * time.Second,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/realtime/", srv)
	mux.Handle("/readyz", srv.Readyz())
	hs := &http.Server{Addr: s.Address, Handler: mux, ConnContext: srv.ConnContext, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- hs.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = errors.Join(srv.Shutdown(patience), hs.Shutdown(patience)) // who is left is cut off
	return events.Close()
}

// A node is one that runs, or did.
type node struct {
	site site

	mu      sync.Mutex
	command *exec.Cmd      // guarded by mu; nil: it is down
	exited  chan struct{}  // guarded by mu; of command
	lifted  io.WriteCloser // guarded by mu; its standard input
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start starts the node, if it is down.
func (n *node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.command != nil {
		return nil
	}
	text, err := json.Marshal(n.site)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleOfNode+"="+string(text))
	cmd.Stderr = os.Stderr
	if n.lifted, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { // ends with the process
		_ = cmd.Wait()
		close(exited)
	}()
	n.command, n.exited = cmd, exited
	return nil
}

// signal signals the node, if it is up.
func (n *node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.command != nil {
		_ = n.command.Process.Signal(s)
	}
}

// end ends the node by a signal: SIGKILL is kill -9. It waits, but not for ever.
func (n *node) end(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.command == nil {
		return
	}
	_ = n.command.Process.Signal(s)
	patience := time.NewTimer(5 * time.Second)
	defer patience.Stop()
	select {
	case <-n.exited:
	case <-patience.C:
		_ = n.command.Process.Kill()
		<-n.exited
	}
	_ = n.lifted.Close()
	n.command = nil
}
