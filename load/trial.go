//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// trials are carried out one after the other. One that finds a fault goes on, so
// that the rest is told, too.
type trials struct {
	settings
	out    io.Writer
	failed []string
}

// say prints one line.
func (t *trials) say(trial, format string, args ...any) {
	_, _ = fmt.Fprintf(t.out, "%-7s %s\n", trial, fmt.Sprintf(format, args...))
}

// gate prints one line, and remembers it if it tells of a fault.
func (t *trials) gate(trial string, ok bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if ok {
		t.say(trial, "ok: %s", text)
		return
	}
	t.say(trial, "FAIL: %s", text)
	t.failed = append(t.failed, trial+": "+text)
}

// result is an error if a gate was crossed.
func (t *trials) result() error {
	if len(t.failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d of the gates failed:\n\t%s", len(t.failed), strings.Join(t.failed, "\n\t"))
}

func (t *trials) one(ctx context.Context, name string) error {
	began := now()
	var err error
	switch name {
	case "idle":
		err = t.idle(ctx)
	case "bad":
		err = t.beside(ctx)
	case "serial":
		err = t.serial(ctx)
	case "churn":
		err = t.churn(ctx)
	case "storm":
		err = t.storm(ctx)
	case "resume":
		err = t.resume(ctx)
	case "slow":
		err = t.slowly(ctx)
	case "wall":
		err = t.wall(ctx)
	}
	t.say(name, "took %.0f s", (now() - began).Seconds())
	return err
}

// A lab is what one trial needs: processes that end with it. bad is the role of
// the third.
type lab struct {
	server, fleet, bad *process
	addr               string
}

func newLab(ctx context.Context, p servePlan, bad string) (l *lab, err error) {
	l = &lab{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, r := range []struct {
		role string
		as   **process
	}{{roleServer, &l.server}, {roleFleet, &l.fleet}, {bad, &l.bad}} {
		if *r.as, err = start(ctx, r.role); err != nil {
			return l, err
		}
	}
	l.addr, err = ask[string](l.server, "serve", p)
	return l, err
}

func (l *lab) close() {
	for _, p := range []*process{l.bad, l.fleet, l.server} {
		if p != nil {
			p.stop()
		}
	}
}

// channels are what clients read.
func channels(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("load-%d", i))
	}
	return names
}

// learn tells the processes of judged clients what was published so far.
func (l *lab) learn() error {
	told, err := ask[map[string]history](l.server, "facts", none{})
	if err != nil {
		return err
	}
	if l.bad.role == roleSlow {
		if err := tell(l.bad, "learn", told); err != nil {
			return err
		}
	}
	return tell(l.fleet, "learn", told)
}

// judge stops publishing, and has what arrived judged.
func (l *lab) judge() (v verdict, behind int, err error) {
	if err = tell(l.server, "pause", none{}); err != nil {
		return v, 0, err
	}
	if err = l.learn(); err != nil {
		return v, 0, err
	}
	if behind, err = ask[int](l.fleet, "reach", 10*time.Second); err != nil {
		return v, behind, err
	}
	v, err = ask[verdict](l.fleet, "judge", none{})
	return v, behind, err
}

// leave ends the judged clients, and returns what is left of them in the server
// when it has had time to forget them.
func (l *lab) leave(before usage) (usage, error) {
	if err := tell(l.fleet, "leave", none{}); err != nil {
		return usage{}, err
	}
	return ask[usage](l.server, "settle", settling{Goroutines: before.Goroutines, Files: before.Files, Patience: 15 * time.Second})
}

// gateVerdict holds what the oracles found against what must be.
func (t *trials) gateVerdict(trial string, v verdict, behind int) {
	t.gate(trial, v.Bad == 0 && behind == 0, "the oracle of the others: %v", v)
}

// gateLeft holds what is left against what there was.
func (t *trials) gateLeft(trial string, before, after usage) {
	t.gate(trial, after.Goroutines <= before.Goroutines && after.Files <= before.Files,
		"when all are gone: %d goroutines (before: %d), %d files (%d), RSS %s (%s), heap %s (%s)",
		after.Goroutines, before.Goroutines, after.Files, before.Files, mib(after.RSS), mib(before.RSS), mib(after.Heap), mib(before.Heap))
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// counts prints what happened how often.
func counts(m map[string]int) string {
	if len(m) == 0 {
		return "none"
	}
	var s []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s = append(s, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(s, ", ")
}
