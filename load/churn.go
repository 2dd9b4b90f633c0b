//go:build linux

package main

import (
	"context"
	"time"
)

// flat is by how much RSS may grow, as a part of it.
const flat = 0.05

// sessionsForgotten is longer than a server remembers a session that went
// without a goodbye. A quick run has no time for that, and makes plain
// connections only.
const sessionsForgotten = 33 * time.Second

// churn makes connections and leaves them, and holds what is left against what
// was left of fewer of them.
func (t *trials) churn(ctx context.Context) error {
	l, err := newLab(ctx, servePlan{Unlimited: true, Verbose: t.Verbose}, roleChurn)
	if err != nil {
		return err
	}
	defer l.close()
	names := channels(1)
	if err := tell(l.server, "publish", publishPlan{Channels: names, PerSecond: 2, Size: 130}); err != nil {
		return err
	}
	empty, err := ask[usage](l.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	plan, forgotten := churnPlan{Addr: l.addr, Channel: names[0], Carriers: allCarriers, Cycles: t.Cycles}, sessionsForgotten
	if t.Quick {
		plan.Carriers, forgotten = plainCarriers, 2*time.Second
	}
	plan.Cycles = warmUp * t.Cycles
	warm, before, _, err := l.cycles(ctx, plan, empty, forgotten)
	if err != nil {
		return err
	}
	plan.Cycles = t.Cycles
	for round := 1; ; round++ {
		after, done, took, err := l.cycles(ctx, plan, empty, forgotten)
		if err != nil {
			return err
		}
		t.say("churn", "%d connections over %v in %.1f s, after %d to warm up; %d refused, %d could not be made %s",
			t.Cycles, plan.Carriers, took.Seconds(), before.Cycles, done.Refused-before.Refused, done.Unopened, done.FirstFail)
		grown := float64(after.RSS-warm.RSS) / float64(warm.RSS)
		if grown > flat && round < churnRounds {
			t.say("churn", "RSS %+.1f %%: once more, as what leaks grows each time", 100*grown)
			warm, before = after, done
			continue
		}
		t.gate("churn", grown <= flat, "RSS %s after them, %s before: %+.1f %% (at most %.0f %%); %s when empty", mib(after.RSS), mib(warm.RSS), 100*grown, 100*flat, mib(empty.RSS))
		left := float64(after.Objects-warm.Objects) / float64(t.Cycles)
		t.gate("churn", left < leftOfEach, "%.3f objects of the heap are left of each (less than %v, so no timer is)", left, leftOfEach)
		t.gateLeft("churn", empty, after)
		return nil
	}
}

// churnRounds is how often they are made before growth counts as a leak.
const churnRounds = 3

// warmUp is how many times as many connections are made before, so that the
// server's memory has its size.
const warmUp = 2

// leftOfEach is how many objects may be left of a connection. What is published
// meanwhile is kept, too.
const leftOfEach = 0.2

// cycles makes connections, and measures what is left of them.
func (l *lab) cycles(ctx context.Context, p churnPlan, empty usage, forgotten time.Duration) (u usage, m misdeeds, took time.Duration, err error) {
	began := now()
	if m, err = ask[misdeeds](l.bad, "churn", p); err != nil {
		return u, m, 0, err
	}
	took = now() - began
	pause(ctx, forgotten)
	u, err = ask[usage](l.server, "settle", settling{Goroutines: empty.Goroutines, Files: empty.Files, Patience: 10 * time.Second})
	return u, m, took, err
}
