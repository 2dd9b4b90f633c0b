//go:build unix

package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/store/redis"
)

// A house is the Redis servers, the ways to them, and the nodes.
type house struct {
	run   *run
	nodes []*node
	links []*redistest.Link // of the nodes to the primary

	// Owned by whoever troubles Redis.
	primary, replica *redistest.Server
	replication      *redistest.Link // from the replica to the primary
}

func newHouse(t testing.TB, r *run, nodes, replicas int) *house {
	h := &house{run: r}
	h.primary = redistest.Start(t, redistest.Options{AppendOnly: true, AppendFsync: "always"})
	h.replica = redistest.Start(t, redistest.Options{AppendOnly: true, AppendFsync: "always"})
	h.replication = redistest.StartLink(t, h.primary.Addr())
	if err := h.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range nodes {
		link := redistest.StartLink(t, h.primary.Addr())
		n := &node{site: site{Address: freeAddress(t), Redis: link.Addr(), Replicas: replicas}}
		h.links, h.nodes = append(h.links, link), append(h.nodes, n)
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.end(syscall.SIGKILL) })
	}
	return h
}

// on asks a Redis server something.
func on(s *redistest.Server, ask func(c *goredis.Client) error) error {
	c := goredis.NewClient(s.Options())
	defer func() { _ = c.Close() }()
	return ask(c)
}

// follow makes the replica one of the primary, and waits until it has what that has.
func (h *house) follow(ctx context.Context) error {
	address := strings.Split(h.replication.Addr(), ":")
	err := on(h.replica, func(c *goredis.Client) error { return c.ReplicaOf(ctx, address[0], address[1]).Err() })
	if err != nil {
		return err
	}
	return told(ctx, h.replica, "master_link_status:up")
}

// told waits until a server says all of some things about itself.
func told(ctx context.Context, s *redistest.Server, all ...string) error {
	return on(s, func(c *goredis.Client) error {
		for end := time.Now().Add(20 * time.Second); ; pause(ctx, 10*time.Millisecond) {
			info, err := c.Info(ctx, "replication", "persistence").Result()
			missing := slices.DeleteFunc(slices.Clone(all), func(text string) bool { return strings.Contains(info, text) })
			if err == nil && len(missing) == 0 {
				return nil
			}
			if ctx.Err() != nil || time.Now().After(end) {
				return fmt.Errorf("redis never says %q: %w\n%s", missing, err, info)
			}
		}
	})
}

// durable waits until a primary that was a replica has on its disk what it has: until
// then a restart loses it.
func (h *house) durable(ctx context.Context) error {
	return told(ctx, h.primary, "aof_enabled:1", "aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0")
}

// An era is what the log held of each channel when it was lost, or at the end.
type era struct {
	name   string
	events map[string]*line
}

// A line is one channel of an era.
type line struct {
	begin  string
	oracle *conformance.Oracle
	facts  []fact
	at     map[string]int // the number of the event at a position
}

type fact struct {
	n        int
	by       string
	position string
}

// look reads all that a server holds, past all links and nodes.
func look(ctx context.Context, s *redistest.Server, name string) (*era, error) {
	client := goredis.NewClient(s.Options())
	defer func() { _ = client.Close() }()
	o := logOptions(0)
	o.Timeout = 10 * time.Second // the machine may be busy
	log, err := redis.Open(ctx, client, o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	e := &era{name: name, events: map[string]*line{}}
	for _, channel := range channels {
		if e.events[channel], err = lookAt(ctx, log, channel); err != nil {
			return nil, fmt.Errorf("%s: %w", channel, err)
		}
	}
	return e, nil
}

func lookAt(ctx context.Context, log eventlog.History, channel string) (*line, error) {
	l := &line{at: map[string]int{}}
	for r := (eventlog.Range{}); ; {
		page, err := log.Range(ctx, eventlog.Channel{Name: channel}, r, eventlog.Limit{Bytes: 1 << 20})
		if err != nil {
			return nil, err
		}
		if l.oracle == nil {
			l.begin = page.First.String()
			l.oracle = conformance.NewOracle(l.begin)
		}
		for _, e := range page.Events {
			if err := l.add(e.At.String(), e.Data); err != nil {
				return nil, err
			}
		}
		if page.Done {
			return l, nil
		}
		r = r.Rest(&page)
	}
}

// A trouble is one thing that goes wrong for a while.
type trouble struct {
	name string
	do   func(ctx context.Context, dice *rand.Rand) error
}

// some is a random time from about a tenth of most to most.
func some(dice *rand.Rand, most time.Duration) time.Duration {
	return most/10 + time.Duration(dice.Int64N(int64(most)*9/10))
}

// nodeTroubles are those of one node, of its way to Redis, and of its clients' to it.
func (h *house) nodeTroubles(i int) []trouble {
	n, link := h.nodes[i], h.links[i]
	during := func(begin func(dice *rand.Rand), end func() error, most time.Duration) func(context.Context, *rand.Rand) error {
		return func(ctx context.Context, dice *rand.Rand) error {
			begin(dice)
			pause(ctx, some(dice, most))
			return end()
		}
	}
	restore := func() error { link.Restore(); return nil }
	cut := during(func(*rand.Rand) { link.Cut() }, restore, 1500*time.Millisecond)
	return []trouble{
		{"node killed", during(func(*rand.Rand) { n.end(syscall.SIGKILL) }, n.start, time.Second)},
		{"node shut down", during(func(*rand.Rand) { n.end(syscall.SIGTERM) }, n.start, 500*time.Millisecond)},
		{"node frozen", during(func(*rand.Rand) { n.signal(syscall.SIGSTOP) }, func() error { n.signal(syscall.SIGCONT); return nil }, 2*time.Second)},
		{"link cut", cut},
		{"link cut again and again", func(ctx context.Context, dice *rand.Rand) error {
			for range 2 + dice.IntN(4) {
				link.Cut()
				pause(ctx, some(dice, 100*time.Millisecond))
				link.Restore()
				pause(ctx, some(dice, 300*time.Millisecond))
			}
			return nil
		}},
		{"link deaf", during(func(*rand.Rand) { link.Hang() }, restore, 2*time.Second)},
		{"link slow", during(func(dice *rand.Rand) { link.Delay(some(dice, 200*time.Millisecond)) }, restore, 2*time.Second)},
		{"clients cut", func(_ context.Context, dice *rand.Rand) error {
			h.run.proxy.cut(n.site.Address, func() bool { return dice.IntN(2) == 0 })
			return nil
		}},
	}
}

// keepingTroubles are those of Redis that lose nothing.
func (h *house) keepingTroubles() []trouble {
	return []trouble{
		{"redis restarted", func(ctx context.Context, _ *rand.Rand) error {
			if err := h.durable(ctx); err != nil {
				return err
			}
			return h.primary.Restart(true)
		}},
		{"redis killed", func(ctx context.Context, dice *rand.Rand) error {
			if err := h.durable(ctx); err != nil {
				return err
			}
			if err := h.primary.Kill(); err != nil {
				return err
			}
			pause(ctx, some(dice, 500*time.Millisecond))
			return h.primary.Restart(true)
		}},
		{"redis frozen", func(ctx context.Context, dice *rand.Rand) error {
			if err := h.primary.Pause(); err != nil {
				return err
			}
			pause(ctx, some(dice, 2*time.Second))
			return h.primary.Resume()
		}},
		{"bells cut", func(ctx context.Context, _ *rand.Rand) error {
			return on(h.primary, func(c *goredis.Client) error { return c.Do(ctx, "client", "kill", "type", "pubsub").Err() })
		}},
		{"scripts forgotten", func(ctx context.Context, _ *rand.Rand) error {
			return on(h.primary, func(c *goredis.Client) error { return c.ScriptFlush(ctx).Err() })
		}},
	}
}

// losingTroubles are those that lose history.
func (h *house) losingTroubles() []trouble {
	return []trouble{
		{"failover", h.failover},
		{"flushed", h.flush},
		{"redis killed, its data gone", h.wipe},
	}
}

// failover promotes a replica that lacks what was written last, and makes the old
// primary a replica with nothing of its own.
func (h *house) failover(ctx context.Context, dice *rand.Rand) error {
	if err := told(ctx, h.replica, "master_link_status:up"); err != nil {
		return err
	}
	h.replication.Cut()
	pause(ctx, some(dice, []time.Duration{500 * time.Millisecond, 2500 * time.Millisecond}[dice.IntN(2)]))
	if err := h.die(); err != nil {
		return err
	}
	pause(ctx, some(dice, 300*time.Millisecond))
	old := h.primary
	h.primary, h.replica = h.replica, old
	if err := on(h.primary, func(c *goredis.Client) error { return c.Do(ctx, "replicaof", "no", "one").Err() }); err != nil {
		return err
	}
	for _, i := range dice.Perm(len(h.links)) { // one node hears of it after the other
		h.links[i].Retarget(h.primary.Addr())
		pause(ctx, some(dice, 300*time.Millisecond))
	}
	h.replication.Retarget(h.primary.Addr())
	h.replication.Restore()
	if err := h.bury(ctx, old, "a failover"); err != nil {
		return err
	}
	return h.follow(ctx)
}

// nowhere is an address at which nobody listens.
const nowhere = "127.0.0.1:9"

// die is what nodes see of a primary that is killed. The process is only stopped, so
// that it can be seen what it had; no way leads there any more.
func (h *house) die() error {
	err := h.primary.Pause()
	h.lead(nowhere)
	return err
}

// lead has all nodes' links lead to an address.
func (h *house) lead(address string) {
	for _, link := range h.links {
		link.Retarget(address)
	}
}

// bury notes what was lost with a primary to which no way leads, and starts it anew with
// nothing.
func (h *house) bury(ctx context.Context, s *redistest.Server, how string) error {
	if err := s.Resume(); err != nil {
		return err
	}
	e, err := look(ctx, s, how)
	if err != nil {
		return fmt.Errorf("what was lost in %s: %w", how, err)
	}
	h.run.eras = append(h.run.eras, e)
	if err := s.Kill(); err != nil {
		return err
	}
	return s.Restart(false)
}

// flush takes all that there is, under nodes that stay connected.
func (h *house) flush(ctx context.Context, _ *rand.Rand) error {
	for _, link := range h.links {
		link.Hang()
	}
	err := on(h.primary, func(c *goredis.Client) error { return h.flushAsSeen(ctx, c) })
	for _, link := range h.links {
		link.Restore()
	}
	return err
}

// flushAsSeen flushes what was looked at: what is still under way makes it look again.
func (h *house) flushAsSeen(ctx context.Context, c *goredis.Client) error {
	const script = `
		local function written() return string.match(redis.call('INFO', 'replication'), 'master_repl_offset:(%d+)') end
		if ARGV[1] == written() then redis.call('FLUSHALL') end
		return written()`
	for at := ""; ; {
		e, err := look(ctx, h.primary, "a flush")
		if err != nil {
			return err
		}
		now, err := c.Eval(ctx, script, nil, at).Text()
		if err != nil {
			return err
		}
		if left, err := c.DBSize(ctx).Result(); err != nil || left == 0 {
			h.run.eras = append(h.run.eras, e)
			return err
		}
		at = now
	}
}

// wipe is a crash after which Redis comes back without its data.
func (h *house) wipe(ctx context.Context, _ *rand.Rand) error {
	if err := h.die(); err != nil {
		return err
	}
	defer h.lead(h.primary.Addr())
	if err := h.bury(ctx, h.primary, "a crash without data"); err != nil {
		return err
	}
	return h.follow(ctx)
}

// heal ends what was done to links, and has all nodes run.
func (h *house) heal() error {
	for i, n := range h.nodes {
		n.signal(syscall.SIGCONT)
		h.links[i].Restore()
		if err := n.start(); err != nil {
			return err
		}
	}
	return nil
}
