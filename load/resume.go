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

// resume kills the node that all clients are on, while events go on. They resume on
// another one, which has served nobody before.
func (t *trials) resume(ctx context.Context) error {
	server, err := redistest.Run(redistest.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	client := goredis.NewClient(server.Options())
	defer func() { _ = client.Close() }()
	if err := withServers(ctx, client); err != nil {
		return err
	}
	p := servePlan{Redis: server.Addr(), Handshakes: resumeHandshakes, Verbose: t.Verbose}
	l, err := newLab(ctx, p, roleServer) // its server only publishes
	if err != nil {
		return err
	}
	defer l.close()
	first := l.bad
	at, err := ask[string](first, "serve", p)
	if err != nil {
		return err
	}
	names := channels(resumeChannels)
	published := publishPlan{Channels: names, PerSecond: resumePace, Size: besideSize}
	if err := tell(l.server, "publish", published); err != nil {
		return err
	}
	if _, err := ask[time.Duration](l.fleet, "connect", fleetPlan{Addr: at, Channels: names, Mix: mix(t.Resume)}); err != nil {
		return err
	}
	pause(ctx, resumeClaims)
	known := map[string]string{} // of scripts, those that others had Redis load
	for _, other := range []*process{l.server, first} {
		told, err := ask[asking](other, "asked", none{})
		if err != nil {
			return err
		}
		maps.Copy(known, told.Names)
	}

	second, err := start(ctx, roleServer)
	if err != nil {
		return err
	}
	defer second.stop()
	to, err := ask[string](second, "serve", p)
	if err != nil {
		return err
	}
	count := func() (m moment, err error) {
		m.at = now()
		if m.node, err = ask[usage](second, "measure", cleaning{}); err != nil {
			return m, err
		}
		if m.asked, err = ask[asking](second, "asked", none{}); err != nil {
			return m, err
		}
		m.redis, err = usageOf(ctx, client)
		maps.Copy(m.asked.Names, known)
		return m, err
	}
	before, err := count()
	if err != nil {
		return err
	}
	if err := tell(l.fleet, "move", to); err != nil {
		return err
	}
	killed := now()
	first.kill()
	home, err := ask[homecoming](l.fleet, "moved", backWithin)
	back := now()
	t.gate("resume", err == nil, "the node of %d clients was killed, all back on a fresh one after %.1f s (at most %v); they met: %s", t.Resume, (back - killed).Seconds(), backWithin, counts(home.Met))
	if err != nil {
		t.say("resume", "%v", err)
	}
	if err := l.learn(); err != nil {
		return err
	}
	behind, err := ask[int](l.fleet, "reach", 10*time.Second)
	if err != nil {
		return err
	}
	reached, err := count()
	if err != nil {
		return err
	}
	t.gate("resume", behind == 0, "all had what they missed after %.1f s", (reached.at - killed).Seconds())
	t.gateReads(before, reached)

	pause(ctx, resumeClaims)
	claimed, err := count()
	if err != nil {
		return err
	}
	t.sayCost("resuming", before, reached)
	t.sayCost("the seconds after", reached, claimed)
	v, behind, err := l.judge()
	if err != nil {
		return err
	}
	t.gateVerdict("resume", v, behind)
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
