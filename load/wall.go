//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A wall is what ends a process that takes too much memory. Without any field it
// is none.
type wall struct {
	Data   int64  // bytes of data that it may map, beside what it has mapped when it begins (RLIMIT_DATA)
	Cgroup string // the folder of a cgroup, to enter
}

// enter has this process within it from now on.
func (w wall) enter() error {
	if w.Cgroup != "" {
		return os.WriteFile(path.Join(w.Cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if w.Data > 0 {
		debug.SetTraceback("none") // of thousands of goroutines
		most := uint64(status("VmData:") + w.Data)
		return unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: most, Max: most})
	}
	return nil
}

// A cgroupKind says where a version of cgroups has what counts memory.
type cgroupKind struct{ mount, limit, swap string }

var (
	cgroup1 = cgroupKind{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
	cgroup2 = cgroupKind{"/sys/fs/cgroup", "memory.max", "memory.swap.max"}
)

// ownCgroup returns where this process is among those that count memory, from
// /proc/self/cgroup: where version 1 names memory, that; else version 2, which
// has one line.
func ownCgroup(text string) (kind cgroupKind, at string, err error) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) != 3:
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			return cgroup1, parts[2], nil
		case parts[0] == "0":
			kind, at = cgroup2, parts[2]
		}
	}
	if at == "" {
		return kind, "", errors.New("no cgroup counts the memory of this process")
	}
	return kind, at, nil
}

// newCgroup makes a cgroup for a process to enter, where this one may: below its
// own or, in version 2, where only those without children have processes, beside
// it.
func newCgroup(limit int64) (dir string, remove func(), err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", nil, err
	}
	kind, at, err := ownCgroup(string(text))
	if err != nil {
		return "", nil, err
	}
	if kind == cgroup2 {
		at = path.Dir(at)
	}
	dir = path.Join(kind.mount, at, "throughline-load-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.Remove(dir) }
	size := []byte(strconv.FormatInt(limit, 10))
	if err := os.WriteFile(path.Join(dir, kind.limit), size, 0); err != nil {
		remove()
		return "", nil, err
	}
	swap := size // version 1 counts memory and swap together
	if kind == cgroup2 {
		swap = []byte("0")
	}
	_ = os.WriteFile(path.Join(dir, kind.swap), swap, 0) // not everywhere
	return dir, remove, nil
}

// wallOf returns the server's wall and limit. Without a cgroup the wall is twice
// as high as the limit: it counts all that is mapped, used or not, and the runtime
// maps a hundred megabytes before it begins, which come on top.
func (t *trials) wallOf() (p servePlan, text string, remove func()) {
	p = servePlan{Unlimited: true, Verbose: t.Verbose, LogBytes: t.Wall}
	limit := int64(float64(t.Wall) / wallShare)
	dir, remove, err := newCgroup(limit)
	if err == nil {
		p.Wall.Cgroup = dir // the server finds its limit by itself: 90 % of that
		return p, fmt.Sprintf("a cgroup of %s", mib(limit)), remove
	}
	p.Wall.Data, p.Memory = 2*t.Wall, t.Wall
	return p, fmt.Sprintf("RLIMIT_DATA of %s beside what it begins with, and Options.MemoryLimit of %s (no cgroup: %v)", mib(2*t.Wall), mib(t.Wall), err), func() {}
}

// How trial wall writes into a log that may hold as much as the process.
const (
	wallChannels = 64
	wallRead     = 16 // of them, those that are read
	wallSize     = 16 << 10
	wallClients  = 160
	// wallBeside is what a process has beside what its runtime counts: its
	// variables, and the stacks of its threads.
	wallBeside = 8 << 20
	// wallShare is which part of its cgroup's limit settings.Wall is.
	wallShare = 0.75
	// wallMost is how long it may take: how fast the machine is does not decide,
	// only whether the server outlives what is published.
	wallMost = 2 * time.Minute
)

// wallTotal is how many bytes are published.
func (s *settings) wallTotal() float64 { return s.WallTimes * float64(s.Wall) / wallShare }

// wall publishes many times what the server may take, while clients read, stall,
// come and go.
func (t *trials) wall(ctx context.Context) error {
	p, text, remove := t.wallOf()
	defer remove()
	p.Windows = windows{WriteTimeout: t.WallOver / 10, LagWindow: t.WallOver / 10, EvictionDelay: t.WallOver / 20}
	l, err := newLab(ctx, p, roleSlow)
	if err != nil {
		return err
	}
	defer l.close()
	names := channels(wallChannels)
	published := publishPlan{Channels: names, PerSecond: 1, Size: wallSize, Judged: wallRead}
	if err := l.settleIn(ctx, published, p.Windows); err != nil {
		return err
	}
	published.Burst = 64
	published.Most = int(t.wallTotal()/wallSize) + published.Burst
	published.PerSecond = float64(published.Most) / wallChannels / t.WallOver.Seconds()
	if err := tell(l.server, "publish", published); err != nil {
		return err
	}
	began := now()
	for size := 0.0; size < t.wallTotal() && now()-began < wallMost && ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
		said, err := ask[telling](l.server, "told", none{})
		if err == nil {
			err = l.learn()
		}
		if err != nil {
			t.gate("wall", false, "the server behind %s did not outlive it: %v", text, err)
			return nil
		}
		size = said.Metrics["publishes_total"] * wallSize
	}
	return t.gateWall(l, text, now()-began)
}

// settleIn has the clients connect, and the slow ones begin.
func (l *lab) settleIn(ctx context.Context, published publishPlan, w windows) error {
	if err := tell(l.server, "publish", published); err != nil {
		return err
	}
	read := published.Channels[:wallRead]
	if _, err := ask[time.Duration](l.fleet, "connect", fleetPlan{Addr: l.addr, Channels: read, Mix: mix(wallClients / 2)}); err != nil {
		return err
	}
	slow := fleetPlan{Addr: l.addr, Channels: read, Mix: slowMix(wallClients / 5), Network: slowNet, Delay: w.EvictionDelay, Away: time.Second, ReadOn: 20}
	if err := tell(l.bad, "gather", slow); err != nil {
		return err
	}
	if err := tell(l.bad, "be", turn{Mood: busyAt}); err != nil {
		return err
	}
	pause(ctx, 3*wakeOver) // who is new when memory is short is refused
	return nil
}

// gateWall holds what became of it against what has to.
func (t *trials) gateWall(l *lab, text string, took time.Duration) error {
	if err := tell(l.server, "pause", none{}); err != nil {
		return err
	}
	u, err := ask[usage](l.server, "measure", cleaning{})
	if err != nil {
		return err
	}
	said, err := ask[telling](l.server, "told", none{})
	if err != nil {
		return err
	}
	size := said.Metrics["publishes_total"] * wallSize
	limit := int64(said.Metrics["memory_limit_bytes"])
	t.gate("wall", size >= t.wallTotal(), "%s were published in %.1f s into a server behind %s, and it is there", mib(int64(size)), took.Seconds(), text)
	t.gate("wall", u.Own <= limit+wallBeside, "it had %s of its own at most, VmHWM less RssFile (its limit is %s, and %s beside); %s were mapped", mib(u.Own), mib(limit), mib(wallBeside), mib(u.Data))
	t.gate("wall", said.Lines["memory limit"] == 1 && said.Lines["memory short: trimming"] > 0 && said.Metrics["memory_trimmed_bytes_total"] > 0,
		"its log gave up %s; %.0f new clients were refused and %.0f evicted for memory; it said: %s",
		mib(int64(said.Metrics["memory_trimmed_bytes_total"])), said.Metrics["memory_refusals_total"], said.Metrics["memory_evictions_total"], counts(said.Lines))
	if err := tell(l.bad, "be", turn{Mood: calm}); err != nil {
		return err
	}
	for _, p := range []*process{l.fleet, l.bad} {
		if err := t.gateGaps(l, p); err != nil {
			return err
		}
	}
	return nil
}

// gateGaps: what is missing was told by a gap, and all go on.
func (t *trials) gateGaps(l *lab, p *process) error {
	if err := l.learn(); err != nil {
		return err
	}
	behind, err := ask[int](p, "reach", t.WallOver+10*time.Second)
	if err != nil {
		return err
	}
	v, err := ask[verdict](p, "judge", none{})
	if err != nil {
		return err
	}
	t.gate("wall", v.Lost+v.Repeated+v.Invented == 0 && v.Events > 0 && behind <= v.Clients/10, "%s: %v; %d have not got all yet", p.role, v, behind)
	return nil
}
