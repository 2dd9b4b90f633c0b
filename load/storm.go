//go:build linux

package main

import (
	"context"
	"time"
)

// backWithin is how soon all must be back who were cut off at once. With full
// jitter the last begins to come back after a second.
const backWithin = 30 * time.Second

// storm cuts all clients at once, while events go on.
func (t *trials) storm(ctx context.Context) error {
	l, err := newLab(ctx, servePlan{Verbose: t.Verbose}, roleBad)
	if err != nil {
		return err
	}
	defer l.close()
	names := channels(besideChannels)
	published := publishPlan{Channels: names, PerSecond: 2, Size: besideSize}
	if err := tell(l.server, "publish", published); err != nil {
		return err
	}
	before, err := ask[usage](l.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	if _, err := ask[time.Duration](l.fleet, "connect", fleetPlan{Addr: l.addr, Channels: names, Mix: mix(t.Storm)}); err != nil {
		return err
	}
	lines, err := ask[int64](l.fleet, "cut", none{})
	if err != nil {
		return err
	}
	home, err := ask[homecoming](l.fleet, "returned", returning{Opened: lines, Patience: backWithin})
	t.gate("storm", err == nil, "%d clients were cut at once, all back after %.1f s (at most %v); they met: %s", t.Storm, home.Took.Seconds(), backWithin, counts(home.Met))
	if err != nil {
		t.say("storm", "%v", err)
	}
	v, behind, err := l.judge()
	if err != nil {
		return err
	}
	t.gateVerdict("storm", v, behind)
	after, err := l.leave(before)
	if err != nil {
		return err
	}
	t.gateLeft("storm", before, after)
	return nil
}
