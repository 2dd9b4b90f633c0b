package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/model"
)

// A way leads to whatever server is the primary.
type way struct {
	mu      sync.Mutex
	address string     // guarded by mu; "": nowhere
	conns   []net.Conn // guarded by mu
}

func (w *way) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.address == "" {
		return nil, &net.OpError{Op: "dial", Net: network, Err: io.ErrUnexpectedEOF}
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, w.address)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

// lead has the way lead elsewhere.
func (w *way) lead(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.address = address
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// A cluster is two servers, of which one is the primary, and two nodes, that serve
// the channel of a trace. What the replica has, it has of a copy that was made when it
// was to be in sync.
type cluster struct {
	t        *testing.T
	servers  [2]*goredis.Client
	primary  int // which of them
	way      *way
	nodes    [2]*Log
	clients  [2]*goredis.Client
	confirms bool
	o        Options
	logs     byte // that were begun
}

func newCluster(t *testing.T, servers [2]*redistest.Server) *cluster {
	c := &cluster{t: t, way: &way{}}
	for i, s := range servers {
		c.servers[i] = s.Client(t)
	}
	for i := range c.clients {
		o := servers[0].Options()
		o.Dialer, o.MaxRetries, o.DialerRetries, o.PoolSize = c.way.dial, -1, 1, 1000 // which is also how many dials may fail
		c.clients[i] = goredis.NewClient(o)
		t.Cleanup(func() { _ = c.clients[i].Close() })
	}
	return c
}

// begin makes the cluster one that is new, for a trace.
func (c *cluster) begin(setup model.Setup) {
	c.end()
	for _, s := range c.servers {
		c.must(s.FlushAll(c.t.Context()).Err())
	}
	c.primary, c.confirms = 0, setup.Confirms
	c.must(c.lead())
	prefix := newPrefix()
	c.o = Options{
		Prefix: prefix, Buckets: 1, CheckInterval: time.Hour, Generation: 1000 * time.Hour, Logger: slog.New(slog.DiscardHandler),
		Retain:     func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: setup.Events, Age: -1} },
		Durability: func(eventlog.Channel) Durability { return Durability{} },
		tests:      tests{sweep: time.Hour},
	}
	c.must(c.anew())
	for i := range c.nodes {
		var err error
		c.nodes[i], err = Open(c.t.Context(), c.clients[i], c.o)
		c.must(err)
		c.nodes[i].Watch(room, func() {})
	}
	c.must(c.Do(model.DeedSync))
}

func (c *cluster) end() {
	for i, n := range c.nodes {
		if n != nil {
			c.must(n.Close())
			c.nodes[i] = nil
		}
	}
}

func (c *cluster) must(err error) {
	if err != nil {
		c.t.Helper()
		c.t.Fatal(err)
	}
}

func (c *cluster) Append(event string, number int) (a model.Answer, err error) {
	b := eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte(event)}}}
	if number > 0 {
		b.Producer = eventlog.Producer{Owner: "owner", ID: "p", Seq: uint64(number)}
	}
	n := c.nodes[rand.N(2)]
	if c.confirms { // without waiting
		r, err := n.pipe.ask(c.t.Context(), n.appending(room, &b, true))
		if err != nil {
			return a, err
		}
		switch r.kind {
		case "appended":
			return model.Answer{Events: []string{event}}, nil
		case "duplicate", "stale":
			return model.Answer{Note: r.kind}, nil
		}
		return a, fmt.Errorf("answered %s", r.kind)
	}
	last, duplicate, err := n.Append(c.t.Context(), room, b)
	switch {
	case errors.Is(err, eventlog.ErrStale):
		return model.Answer{Note: "stale"}, nil
	case err != nil:
		return a, err
	case duplicate:
		return model.Answer{Next: last.String(), Note: "duplicate"}, nil
	}
	return model.Answer{Events: []string{event}, Next: last.String()}, nil
}

func (c *cluster) Seek(node int) (a model.Answer, err error) {
	at, err := c.nodes[node-1].Seek(c.t.Context(), room, eventlog.Start{})
	return model.Answer{Next: at.String()}, err
}

func (c *cluster) Read(node int, after string, limit int) (a model.Answer, err error) {
	at, err := eventlog.ParsePosition(after)
	if err != nil {
		return a, err
	}
	page, err := c.nodes[node-1].Read(c.t.Context(), room, at, eventlog.Limit{Events: limit})
	lost, isLost := errors.AsType[*eventlog.Lost](err)
	switch {
	case isLost && lost.From == at:
		return model.Answer{Lost: string(lost.Reason), Next: lost.To.String()}, nil
	case errors.Is(err, eventlog.ErrUnavailable) && !isLost:
		return model.Answer{Later: true}, nil
	case err != nil:
		return a, err
	}
	a = model.Answer{Next: page.Next.String(), Head: page.Head.String()}
	for _, e := range page.Events {
		a.Events = append(a.Events, string(e.Data))
	}
	return a, nil
}

// trimScript trims the oldest event, as if it was too old and swept.
var trimScript = newScript("#!lua", preludeText, `
local c = channel(ARGV[1])
local m = load(c)
local e = entry(c, m.base + 1)
redis.call('HSET', c.meta, 'base', str(e.offset), 'basemark', str(e.mark), 'basesum', str(e.sum))
redis.call('XTRIM', c.events, 'MINID', str(e.offset + 1))
if e.offset == m.head then
  redis.call('DEL', c.events)
  redis.call('ZADD', EMPTY, str(m.written), c.name)
end
return {'ok'}`)

func (c *cluster) Do(deed string) error {
	here, there := c.servers[c.primary], c.servers[1-c.primary]
	ask := func(s *script, args ...any) error {
		_, err := c.nodes[0].ask(c.t.Context(), s, room, args...)
		return err
	}
	switch deed {
	case model.DeedTrim:
		return ask(trimScript)
	case model.DeedRise:
		return ask(sweepScript, secret(), secret(), 0, 1000, int64(1e15), 100)
	case model.DeedSync:
		return c.copyTo(here, there)
	case model.DeedFailover:
		c.primary = 1 - c.primary
		if err := c.copyTo(there, here); err != nil {
			return err
		}
		return c.lead()
	case model.DeedWipe:
		if err := here.FlushAll(c.t.Context()).Err(); err != nil {
			return err
		}
		return c.anew()
	case model.DeedAway:
		c.way.lead("")
	case model.DeedBack:
		return c.lead()
	case model.DeedConfirm:
		return c.confirm(there)
	}
	return nil
}

// anew begins a log on the primary, as the first node that reads does, but with bits
// of its own that no other had: of two logs 1 in 255 has the same.
func (c *cluster) anew() error {
	c.logs++
	own := secret()
	own[0] = c.logs
	key := c.o.Prefix + ":{0}"
	return c.servers[c.primary].Eval(c.t.Context(), beginScript.text, []string{key}, "", "", own, secret()).Err()
}

// lead has the nodes know which server is the primary.
func (c *cluster) lead() error {
	c.way.lead(c.servers[c.primary].Options().Addr)
	for _, client := range c.clients {
		for inARow, began := 0, time.Now(); inARow < 3; inARow++ {
			_, err := client.Pipelined(c.t.Context(), func(p goredis.Pipeliner) error { return p.Ping(c.t.Context()).Err() })
			if err != nil && time.Since(began) > 10*time.Second {
				return err
			}
			if err != nil { // of a dial that began before
				inARow = -1
				time.Sleep(time.Millisecond)
			}
		}
	}
	return nil
}

// copyTo makes one server's data those of another.
func (c *cluster) copyTo(from, to *goredis.Client) error {
	ctx := c.t.Context()
	if err := to.FlushAll(ctx).Err(); err != nil {
		return err
	}
	keys, err := from.Keys(ctx, "*").Result()
	for _, key := range keys {
		var data string
		if data, err = from.Dump(ctx, key).Result(); err == nil {
			err = to.Restore(ctx, key, 0, data).Err()
		}
		if err != nil {
			break
		}
	}
	return err
}

// confirm has the primary hear that the replica has what that has.
func (c *cluster) confirm(replica *goredis.Client) error {
	n := c.nodes[0]
	last, err := lastScript.command(c.t.Context(), n.bucketKey(0), n.args(chanText(room))).Cmd, error(nil)
	if err = replica.Process(c.t.Context(), last); isUnknown(last.Err()) {
		c.must(replica.ScriptLoad(c.t.Context(), lastScript.text).Err())
		last = lastScript.command(c.t.Context(), n.bucketKey(0), n.args(chanText(room))).Cmd
		err = replica.Process(c.t.Context(), last)
	}
	if err != nil {
		return err
	}
	r, err := newReply(last.Val())
	if err != nil || r.kind != "at" {
		return err
	}
	return n.confirm(c.t.Context(), room, r.position())
}

// nodeTraces is how many random traces of each kind are run.
const nodeTraces = 40

// TestNodesAnswerAsTheModel: in the shortest counterexamples of all weak rules, and in
// long random traces, two nodes over a primary and a replica that may take over answer
// as the model.
func TestNodesAnswerAsTheModel(t *testing.T) {
	servers := [2]*redistest.Server{redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})}
	c := newCluster(t, servers)
	defer c.end()
	traces := model.Counterexamples(model.Rules{})
	confirms := model.NodeScope()
	confirms.Confirms = true
	for seed := range uint64(nodeTraces) {
		traces = append(traces,
			model.RandomNodeTrace(model.Rules{}, model.NodeScope(), rand.New(rand.NewPCG(seed, 0)), 100),
			model.RandomNodeTrace(model.Rules{}, confirms, rand.New(rand.NewPCG(seed, 1)), 100))
	}
	for i, trace := range traces {
		c.begin(trace.Setup)
		if err := trace.Run(c); err != nil {
			t.Errorf("trace %d %s: %v\n%s", i, trace.Name, err, trace)
		}
		if t.Failed() {
			return
		}
	}
}
