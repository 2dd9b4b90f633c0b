package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/store/redis"
)

// balancers are started from the files that people are told to copy.
var balancers = map[string]func(t *testing.T, nodes ...string) (address string){
	"nginx": func(t *testing.T, nodes ...string) string {
		need(t, nginxPath() != "", "nginx", "apt-get install nginx")
		address, dir := freeAddress(t), t.TempDir()
		config := strings.Replace(balancerConfig(t, "nginx.conf", nodes), "listen 80;", "listen "+address+";", 1)
		head, _, _ := strings.Cut(fmt.Sprintf(nginxConfig, dir, address, "", "http://"+nodes[0]), "    server {")
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(head+config+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		log := filepath.Join(dir, "error.log")
		startProxy(t, address, log, nginxPath(), "-p", dir, "-c", file, "-e", log)
		return address
	},
	"haproxy": func(t *testing.T, nodes ...string) string {
		need(t, haproxyPath() != "", "haproxy", "apt-get install haproxy")
		address := freeAddress(t)
		config := strings.Replace(balancerConfig(t, "haproxy.cfg", nodes), "bind :80", "bind "+address, 1)
		file := filepath.Join(t.TempDir(), "haproxy.cfg")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		startProxy(t, address, "", haproxyPath(), "-db", "-f", file)
		return address
	},
}

// balancerConfig reads a file of docs/deploying, with the nodes of a test.
func balancerConfig(t *testing.T, file string, nodes []string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/deploying/" + file)
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for i, node := range nodes {
		there := fmt.Sprintf("10.0.0.1%d:8080", i+1)
		if strings.Count(config, there) != 1 {
			t.Fatalf("%s has no node %s", file, there)
		}
		config = strings.Replace(config, there, node, 1)
	}
	return config
}

// A redisNode is a server over Redis, at an address that stays the same.
type redisNode struct {
	t       *testing.T
	redis   *redistest.Server
	address string

	client *goredis.Client
	events *redis.Log
	srv    *server.Server
	hs     *http.Server
}

func (n *redisNode) begin() {
	n.t.Helper()
	l, err := net.Listen("tcp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.address = l.Addr().String()
	n.client = goredis.NewClient(n.redis.Options())
	if n.events, err = redis.Open(n.t.Context(), n.client, redis.Options{}); err != nil {
		n.t.Fatal(err)
	}
	n.srv, err = server.New(server.Options{
		Log:       n.events,
		DrainTime: 500 * time.Millisecond,
		Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error { return nil },
		// All clients are one address here, and come back without a pause.
		AddressRates: server.Unlimited, IdentityRates: server.Unlimited,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/realtime/", n.srv)
	mux.Handle("/readyz", n.srv.Readyz())
	n.hs = &http.Server{Handler: mux, ConnContext: n.srv.ConnContext}
	go func() { _ = n.hs.Serve(l) }() // ends with hs
}

// drain ends it as a deploy does.
func (n *redisNode) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := errors.Join(n.srv.Shutdown(ctx), n.hs.Shutdown(ctx)); err != nil {
		n.t.Error(err)
	}
	n.end()
}

// die breaks all of its connections first, so that nobody is told anything.
func (n *redisNode) die() {
	_ = n.hs.Close()
	n.drain()
}

func (n *redisNode) end() {
	if err := errors.Join(n.events.Close(), n.client.Close()); err != nil {
		n.t.Error(err)
	}
}

// A resumer reads a channel of numbers by one carrier, plainly or in session, and goes
// on from its position whenever it is cut off.
type resumer struct {
	carrier string
	session bool

	mu       sync.Mutex
	position string // guarded by mu, as all below
	token    string
	line     uint64
	numbers  []int
	gaps     int
}

func (r *resumer) String() string {
	return map[bool]string{true: "session ", false: "plain "}[r.session] + r.carrier
}

func (r *resumer) run(ctx context.Context, base string) {
	for ctx.Err() == nil {
		s, err := r.open(ctx, base)
		for err == nil {
			var it wireclient.Item
			if it, err = s.Next(); err == nil {
				r.take(it)
			}
		}
		if s != nil {
			s.Close()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (r *resumer) open(ctx context.Context, base string) (s wireclient.Stream, err error) {
	r.mu.Lock()
	r.line++
	h := wireclient.Hello{Version: 1, Line: r.line, Token: r.token, Channels: []wireclient.Channel{{Channel: "numbers", After: r.position}}}
	query := wireclient.Query(r.position, "numbers")
	r.mu.Unlock()
	socket := strings.Replace(base, "http", "ws", 1) + "/ws"
	switch fmt.Sprint(r) {
	case "plain ws":
		return opened(wireclient.WS(ctx, http.DefaultClient, socket+query, nil))
	case "session ws":
		return opened(wireclient.WS(ctx, http.DefaultClient, socket, &h))
	case "plain sse":
		return opened(wireclient.SSE(ctx, http.DefaultClient, base+"/sse"+query, ""))
	case "session sse":
		return opened(wireclient.SSESession(ctx, http.DefaultClient, base+"/sse", h))
	case "plain poll":
		return opened(wireclient.PlainPoll(ctx, http.DefaultClient, base+"/poll"+query+"&wait=5s"))
	}
	a, err := wireclient.SessionPoll(ctx, http.DefaultClient, base+"/poll?wait=5s", h)
	if err == nil && a.Open != nil {
		r.take(wireclient.Item{Open: a.Open})
	}
	return opened(a, err)
}

// opened keeps a nil pointer from being a stream.
func opened[S interface {
	comparable
	wireclient.Stream
}](s S, err error) (wireclient.Stream, error) {
	var none S
	if s == none {
		return nil, err
	}
	return s, err
}

func (r *resumer) take(it wireclient.Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if it.Open != nil && it.Open.Token != "" {
		r.token = it.Open.Token
	}
	if it.Position != "" {
		r.position = it.Position
	}
	if it.Gap != nil {
		r.gaps++
	}
	if it.Event {
		n, _ := strconv.Atoi(string(it.Data))
		r.numbers = append(r.numbers, n)
	}
}

func (r *resumer) last() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.numbers) == 0 {
		return 0
	}
	return r.numbers[len(r.numbers)-1]
}

// publishNumber publishes one, and repeats it until a node has said that it is there.
func publishNumber(ctx context.Context, base string, n int) {
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/publish?channel=numbers", bytes.NewBufferString(strconv.Itoa(n)))
		if err != nil {
			return
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "0123456789abcdef")
		r.Header.Set("Producer-Seq", strconv.Itoa(n))
		if answer, err := http.DefaultClient.Do(r); err == nil {
			var body struct{ Position string }
			err = json.NewDecoder(answer.Body).Decode(&body)
			_ = answer.Body.Close()
			if err == nil && body.Position != "" {
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestBalancersWithoutStickiness: behind the nginx and the haproxy of docs/deploying, two
// nodes over one Redis are deployed one after the other, and killed, while clients read
// over each carrier and a publisher publishes. Nobody misses anything.
func TestBalancersWithoutStickiness(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, start := range balancers {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			store := redistest.Start(t, redistest.Options{})
			nodes := []*redisNode{{t: t, redis: store, address: freeAddress(t)}, {t: t, redis: store, address: freeAddress(t)}}
			for _, n := range nodes {
				n.begin()
			}
			defer func() {
				for _, n := range nodes {
					n.drain()
				}
			}()
			base := "http://" + start(t, nodes[0].address, nodes[1].address) + "/realtime"
			ctx, stop := context.WithCancel(t.Context())
			var work sync.WaitGroup
			defer work.Wait()
			defer stop()
			var readers []*resumer
			for _, carrier := range []string{"ws", "sse", "poll"} {
				for _, session := range []bool{false, true} {
					r := &resumer{carrier: carrier, session: session}
					readers = append(readers, r)
					work.Go(func() { r.run(ctx, base) })
				}
			}
			var mu sync.Mutex
			published := 0
			work.Go(func() {
				for n := 1; ctx.Err() == nil; n++ {
					publishNumber(ctx, base, n)
					mu.Lock()
					published = n
					mu.Unlock()
					time.Sleep(20 * time.Millisecond)
				}
			})
			goOn := func(what string) {
				t.Helper()
				mu.Lock()
				from := published
				mu.Unlock()
				began := time.Now()
				for _, r := range readers {
					for r.last() < from+20 {
						if time.Since(began) > patience {
							t.Fatalf("%v does not go on after %s", r, what)
						}
						time.Sleep(10 * time.Millisecond)
					}
				}
			}
			goOn("the beginning")
			for i, n := range nodes {
				n.drain()
				goOn(fmt.Sprintf("a deploy of node %d", i+1))
				n.begin()
				goOn(fmt.Sprintf("node %d is back", i+1))
				time.Sleep(2 * time.Second) // what balancers take to see that it is
			}
			for i, n := range nodes {
				n.die()
				goOn(fmt.Sprintf("the death of node %d", i+1))
				n.begin()
				time.Sleep(2 * time.Second)
			}
			goOn("all")
			stop()
			work.Wait()
			for _, r := range readers {
				t.Logf("%v: %d numbers by %d lines", r, len(r.numbers), r.line)
				if r.gaps > 0 {
					t.Errorf("%v: %d gaps", r, r.gaps)
				}
				for i := 1; i < len(r.numbers); i++ {
					if r.numbers[i] != r.numbers[i-1]+1 {
						t.Errorf("%v: %d came after %d", r, r.numbers[i], r.numbers[i-1])
					}
				}
			}
		})
	}
}
