package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	cutFor    = 5 * time.Second // Redis, by the page's button
	killEvery = 3 * time.Second // by the page's switch
)

// names are those of the nodes.
var names = []string{"node 1", "node 2", "node 3"}

// The states of a node.
const (
	up       = "up"
	down     = "down"
	starting = "starting"
)

// A cluster is the nodes, Redis, what is between them, and who publishes.
type cluster struct {
	redis  *redisServer // nil: it is somebody else's
	relay  *relay
	orders orders
	nodes  []*node
	ctx    context.Context // ends with the cluster
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu        sync.Mutex
	closed    bool          // guarded by mu
	next      int           // guarded by mu: whose turn it is
	every     time.Duration // guarded by mu: how often one is killed; 0: never
	changed   chan struct{} // guarded by mu: closed when every changes
	kills     int           // guarded by mu
	published uint64        // guarded by mu: the last number
	repeats   int           // guarded by mu: how often one had to be sent again
}

// A node is a process, or the place of one.
type node struct {
	name string

	// Guarded by cluster.mu.
	state   string
	process *child
	address string
	open    int // connections and requests
	served  int // how many there ever were
	kills   int
}

// startCluster starts Redis, unless there is one at an address, and the nodes. If any of
// that fails, what was started is ended.
func startCluster(ctx context.Context, redis string) (*cluster, error) {
	c := &cluster{changed: make(chan struct{}), orders: orders{Secret: rand.Text()}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.begin(ctx, redis); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *cluster) begin(ctx context.Context, redis string) (err error) {
	if redis == "" {
		if c.redis, err = startRedis(ctx); err != nil {
			return err
		}
		redis = c.redis.address
	}
	if err = dials(redis); err != nil {
		return fmt.Errorf("no Redis is there: %w", err)
	}
	if c.relay, err = startRelay(redis); err != nil {
		return err
	}
	c.orders.Redis = c.relay.address()
	for _, name := range names {
		c.nodes = append(c.nodes, &node{name: name, state: down})
	}
	failed := make(chan error)
	for _, n := range c.nodes {
		go func() { failed <- c.start(ctx, n) }()
	}
	for range c.nodes {
		err = errors.Join(err, <-failed)
	}
	return err
}

// close ends all that was started: nodes first, as their clients are told then.
func (c *cluster) close() {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.work.Wait()
	var ending sync.WaitGroup
	for _, n := range c.nodes {
		c.mu.Lock()
		p := n.process
		n.state, n.process = down, nil
		c.mu.Unlock()
		if p != nil {
			ending.Go(p.end)
		}
	}
	ending.Wait()
	if c.relay != nil {
		c.relay.close()
	}
	c.redis.end()
}

// start starts a node that is down.
func (c *cluster) start(ctx context.Context, n *node) error {
	c.mu.Lock()
	if n.state != down || c.closed {
		c.mu.Unlock()
		return nil
	}
	n.state = starting
	c.mu.Unlock()
	p, address, err := startNode(ctx, n.name, c.orders)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		n.state = down
		return err
	}
	n.state, n.process, n.address = up, p, address
	if c.closed {
		n.state, n.process = down, nil
		p.kill()
		return nil
	}
	c.work.Go(func() { c.watch(n, p) })
	fmt.Printf("%s is up, as process %d\n", n.name, p.cmd.Process.Pid)
	return nil
}

// watch notices that a node has ended, whoever ended it.
func (c *cluster) watch(n *node, p *child) {
	select {
	case <-p.ended:
	case <-c.ctx.Done():
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.process == p {
		n.state, n.process = down, nil
	}
}

// kill kills a node that is up.
func (c *cluster) kill(n *node) {
	c.mu.Lock()
	if n.state != up {
		c.mu.Unlock()
		return
	}
	p := n.process
	n.state, n.process = down, nil
	n.kills++
	c.kills++
	c.mu.Unlock()
	p.kill()
	fmt.Printf("%s was killed\n", n.name)
}

// killEvery has one node killed so often, and the one before started again. 0: none.
func (c *cluster) killEvery(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.every == d || c.closed {
		return
	}
	c.every = d
	close(c.changed)
	c.changed = make(chan struct{})
	if d > 0 {
		changed := c.changed
		c.work.Go(func() { c.killOn(d, changed) })
	}
}

// killOn kills one node after the other until something changes. Each is started again
// when half of the time is over, so that one is down at a time.
func (c *cluster) killOn(d time.Duration, changed chan struct{}) {
	var victim *node
	for half := 0; ; half++ {
		if half%2 == 0 {
			victim = c.victim(victim)
			c.kill(victim)
		} else if c.start(c.ctx, victim) != nil {
			half-- // perhaps Redis is cut: try again
		}
		select {
		case <-c.ctx.Done():
			return
		case <-changed:
			_ = c.start(c.ctx, victim)
			return
		case <-time.After(d / 2):
		}
	}
}

// victim chooses a node that is up, and mostly not the same as before.
func (c *cluster) victim(before *node) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	chosen := c.nodes[0]
	for _, i := range mathrand.Perm(len(c.nodes)) {
		if n := c.nodes[i]; n.state == up && n != before {
			chosen = n
		}
	}
	return chosen
}

// turn returns the nodes that are up, beginning with the one whose turn it is.
func (c *cluster) turn() (all []*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	for i := range c.nodes {
		if n := c.nodes[(c.next+i)%len(c.nodes)]; n.state == up {
			all = append(all, n)
		}
	}
	return all
}

// A view is what the page shows of a node.
type view struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	PID    int    `json:"pid"`
	Open   int    `json:"open"`
	Served int    `json:"served"`
	Kills  int    `json:"kills"`
}

// A snapshot is what it shows of all.
type snapshot struct {
	Nodes     []view `json:"nodes"`
	Published uint64 `json:"published"`
	Repeats   int    `json:"repeats"`
	Kills     int    `json:"kills"`
	Every     int64  `json:"every"` // ms
	Cut       int64  `json:"cut"`   // ms that are left
}

func (c *cluster) snapshot() snapshot {
	cut := c.relay.left()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := snapshot{Published: c.published, Repeats: c.repeats, Kills: c.kills, Every: c.every.Milliseconds(), Cut: cut.Milliseconds()}
	for _, n := range c.nodes {
		v := view{Name: n.name, State: n.state, Open: n.open, Served: n.served, Kills: n.kills}
		if n.process != nil {
			v.PID = n.process.cmd.Process.Pid
		}
		s.Nodes = append(s.Nodes, v)
	}
	return s
}

// handler is the page, its buttons, and the way to the nodes. The page is not the
// nodes', so that it is there when they are not.
func (c *cluster) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/realtime/", c.proxy())
	mux.Handle("/", withHeaders(http.FileServerFS(page)))
	mux.HandleFunc("GET /cluster/state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(c.snapshot())
	})
	for what, do := range map[string]func(n *node) error{
		"kill":  func(n *node) error { c.kill(n); return nil },
		"start": func(n *node) error { return c.start(c.ctx, n) },
	} {
		mux.HandleFunc("POST /cluster/"+what, func(w http.ResponseWriter, r *http.Request) {
			for _, n := range c.nodes {
				if n.name == r.FormValue("node") {
					answer(w, do(n))
					return
				}
			}
			http.Error(w, fmt.Sprintf("there is no node %q", r.FormValue("node")), http.StatusNotFound)
		})
	}
	mux.HandleFunc("POST /cluster/every", func(w http.ResponseWriter, r *http.Request) {
		c.killEvery(map[string]time.Duration{"on": killEvery}[r.FormValue("switch")])
		answer(w, nil)
	})
	mux.HandleFunc("POST /cluster/cut", func(w http.ResponseWriter, _ *http.Request) {
		c.relay.cut(cutFor)
		answer(w, nil)
	})
	return http.NewCrossOriginProtection().Handler(mux) // no foreign page kills anything
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
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
