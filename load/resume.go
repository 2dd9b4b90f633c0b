//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/internal/redistest"
)

const (
	// resumeChannels is how many channels they are on: reads are shared within one.
	resumeChannels = 2
	resumePace     = 2 // events a second of each

	// resumeReads is how many reads Redis may be asked for by all who resume together,
	// those that bring them events meanwhile among them.
	resumeReads = 100
	// resumeClaims is how long after it began a session is claimed by the node that
	// has it, and some time for that.
	resumeClaims = 5 * time.Second
	// resumeHandshakes is how many may be let in at the same moment. Each waits up to 100 ms
	// for a read that it shares with others, so the default of 256 is 2,500 a second.
	resumeHandshakes = 5000
)

// A moment is what was counted until then.
type moment struct {
	at    time.Duration
	node  usage
	asked asking
	redis redisUsage
}

// A resumption is clients on one of three nodes that share nothing but a Redis.
type resumption struct {
	*lab
	t      *trials
	redis  *redistest.Server
	client *goredis.Client
	plan   servePlan
	// second is the node that they come back to, and known the scripts that the
	// others had Redis load: their names by hash.
	second *process
	known  map[string]string
}

// resume kills the node that all clients are on, while events go on. They resume on
// another one, which has served nobody before.
func (t *trials) resume(ctx context.Context) error {
	r := &resumption{t: t, known: map[string]string{}}
	defer r.close()
	for _, do := range []func(context.Context) error{r.begin, r.connect, r.openSecond, r.kill} {
		if err := do(ctx); err != nil {
			return err
		}
	}
	v, behind, err := r.judge()
	if err != nil {
		return err
	}
	t.gateVerdict("resume", v, behind)
	return nil
}

func (r *resumption) close() {
	if r.second != nil {
		r.second.stop()
	}
	if r.lab != nil {
		r.lab.close()
	}
	if r.redis != nil {
		_ = r.client.Close()
		_ = r.redis.Close()
	}
}

func (r *resumption) begin(ctx context.Context) (err error) {
	if r.redis, err = redistest.Run(redistest.Options{}); err != nil {
		return err
	}
	r.client = goredis.NewClient(r.redis.Options())
	if err = withServers(ctx, r.client); err != nil {
		return err
	}
	r.plan = servePlan{Redis: r.redis.Addr(), Handshakes: resumeHandshakes, Verbose: r.t.Verbose}
	r.lab, err = newLab(ctx, r.plan, roleServer) // its server only publishes
	return err
}

// first is the node that dies.
func (r *resumption) first() *process { return r.bad }

// connect has all clients on the first node, and their sessions claimed.
func (r *resumption) connect(ctx context.Context) error {
	at, err := ask[string](r.first(), "serve", r.plan)
	if err != nil {
		return err
	}
	names := channels(resumeChannels)
	if err := tell(r.server, "publish", publishPlan{Channels: names, PerSecond: resumePace, Size: besideSize}); err != nil {
		return err
	}
	if _, err := ask[time.Duration](r.fleet, "connect", fleetPlan{Addr: at, Channels: names, Mix: mix(r.t.Resume)}); err != nil {
		return err
	}
	pause(ctx, resumeClaims)
	for _, node := range []*process{r.server, r.first()} {
		told, err := ask[asking](node, "asked", none{})
		if err != nil {
			return err
		}
		maps.Copy(r.known, told.Names)
	}
	return nil
}

// openSecond begins the node that they will come back to.
func (r *resumption) openSecond(ctx context.Context) (err error) {
	if r.second, err = start(ctx, roleServer); err != nil {
		return err
	}
	to, err := ask[string](r.second, "serve", r.plan)
	if err != nil {
		return err
	}
	return tell(r.fleet, "move", to)
}

func (r *resumption) count(ctx context.Context) (m moment, err error) {
	m.at = now()
	if m.node, err = ask[usage](r.second, "measure", cleaning{}); err != nil {
		return m, err
	}
	if m.asked, err = ask[asking](r.second, "asked", none{}); err != nil {
		return m, err
	}
	m.redis, err = usageOf(ctx, r.client)
	maps.Copy(m.asked.Names, r.known)
	return m, err
}

// kill counts what it takes until all are back, have what they missed, and are claimed.
func (r *resumption) kill(ctx context.Context) error {
	before, err := r.count(ctx)
	if err != nil {
		return err
	}
	killed := now()
	r.first().kill()
	home, err := ask[homecoming](r.fleet, "moved", backWithin)
	r.t.gate("resume", err == nil, "the node of %d clients was killed, all back on a fresh one after %.1f s (at most %v); they met: %s", r.t.Resume, (now() - killed).Seconds(), backWithin, counts(home.Met))
	if err != nil {
		r.t.say("resume", "%v", err)
	}
	if err := r.learn(); err != nil {
		return err
	}
	behind, err := ask[int](r.fleet, "reach", 10*time.Second)
	if err != nil {
		return err
	}
	reached, err := r.count(ctx)
	if err != nil {
		return err
	}
	r.t.gate("resume", behind == 0, "all had what they missed after %.1f s", (reached.at - killed).Seconds())
	r.t.gateReads(before, reached)

	pause(ctx, resumeClaims)
	claimed, err := r.count(ctx)
	if err != nil {
		return err
	}
	r.t.sayCost("resuming", before, reached)
	r.t.sayCost("the seconds after", reached, claimed)
	return nil
}

// scripts are the calls of a node, by names; hashes without one are unknown.
func (m moment) scripts(before moment) map[string]int {
	named := map[string]int{}
	for hash, n := range since(m.asked.Calls, before.asked.Calls) {
		name, known := m.asked.Names[hash]
		if !known {
			name = hash
			if len(hash) == 40 {
				name = "unknown"
			}
		}
		named[name] += n
	}
	return named
}

// gateReads holds the reads against their bound. A script that nobody knows is taken for one.
func (t *trials) gateReads(before, after moment) {
	s := after.scripts(before)
	reads := s["tail"] + s["part"] + s["seek"] + s["unknown"]
	calls := since(after.redis.Calls, before.redis.Calls)
	t.gate("resume", reads <= resumeReads, "Redis was asked for %d reads (at most %d): %d tails, %d parts, %d others; commandstats: %d XRANGE and %d XREVRANGE in all, at least one in each read",
		reads, resumeReads, s["tail"], s["part"], s["seek"]+s["unknown"], calls["xrange"], calls["xrevrange"])
}

func (t *trials) sayCost(what string, before, after moment) {
	t.say("resume", "%s: %.1f s; CPU of the node %.2f s, of Redis %.2f s; the node asked: %s", what,
		(after.at - before.at).Seconds(), (after.node.CPU - before.node.CPU).Seconds(), (after.redis.CPU - before.redis.CPU).Seconds(), counts(after.scripts(before)))
	t.say("resume", "%s: commandstats of all nodes: %s; evalsha took %s", what,
		counts(since(after.redis.Calls, before.redis.Calls)), fmt.Sprint((after.redis.Took["evalsha"] - before.redis.Took["evalsha"]).Round(time.Millisecond)))
}
