//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// idleBounds are the gates of RSS for each idle connection, in bytes.
var idleBounds = []struct {
	carrier carrier
	bytes   float64
}{
	{plainSSE, 64 << 10},
	{sessionSSE, 64 << 10},
	{plainWS, 64 << 10},
	{sessionWS, 64 << 10},
	{polls, 64 << 10},
}

// idle measures what connections cost that do nothing, one carrier after the
// other, each with a server of its own.
func (t *trials) idle(ctx context.Context) error {
	for _, b := range idleBounds {
		if err := t.idleOn(ctx, b.carrier, b.bytes); err != nil {
			return fmt.Errorf("%s: %w", b.carrier, err)
		}
	}
	return nil
}

func (t *trials) idleOn(ctx context.Context, c carrier, bound float64) error {
	l, err := newLab(ctx, servePlan{Heartbeat: t.Heartbeat, Verbose: t.Verbose}, roleBad)
	if err != nil {
		return err
	}
	defer l.close()
	names := channels(1)
	if err := tell(l.server, "publish", publishPlan{Channels: names, PerSecond: 1, Size: 130}); err != nil {
		return err
	}
	if err := tell(l.server, "pause", none{}); err != nil {
		return err
	}
	before, err := ask[usage](l.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	took, err := ask[time.Duration](l.fleet, "connect", fleetPlan{Addr: l.addr, Channels: names, Mix: []share{{c, t.Idle, eager}}})
	if err != nil {
		return err
	}
	s, err := t.outlast(ctx, l, c)
	if err != nil {
		return err
	}
	during, err := ask[usage](l.server, "measure", cleaning{true})
	if err != nil {
		return err
	}
	after, err := l.leave(before)
	if err != nil {
		return err
	}
	n := float64(t.Idle)
	each := float64(during.RSS-before.RSS) / n
	t.gate("idle", s.Open == int64(t.Idle) && len(s.Lost) == 0 && each <= bound,
		"%-11s %d connections in %.1f s: RSS %.1f kB each (at most %.0f), heap %.1f kB, TCP in the kernel %.1f kB, %.2f goroutines; lost before a heartbeat of %v: %s",
		c, t.Idle, took.Seconds(), each/1e3, bound/1e3, float64(during.Heap-before.Heap)/n/1e3, float64(during.Sockets-before.Sockets)/n/1e3,
		float64(during.Goroutines-before.Goroutines)/n, t.Heartbeat, counts(s.Lost))
	t.gateLeft("idle", before, after)
	return nil
}

// outlast waits until each connection has had a heartbeat beside that which
// a session begins with. A poll has none, and is parked for that long.
func (t *trials) outlast(ctx context.Context, l *lab, c carrier) (s standing, err error) {
	pause(ctx, 500*time.Millisecond)
	if s, err = ask[standing](l.fleet, "standing", none{}); err != nil {
		return s, err
	}
	began, beats := now(), s.Beats
	for now()-began < 3*t.Heartbeat && ctx.Err() == nil {
		pause(ctx, 100*time.Millisecond)
		if s, err = ask[standing](l.fleet, "standing", none{}); err != nil {
			return s, err
		}
		if c == polls && now()-began > t.Heartbeat || s.Beats-beats >= int64(t.Idle) {
			return s, nil
		}
	}
	return s, fmt.Errorf("%d heartbeats for %d connections in %v", s.Beats-beats, t.Idle, now()-began)
}
