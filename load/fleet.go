//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// A fleetPlan says what good clients to be.
type fleetPlan struct {
	Addr     string
	Prefix   string // of the transports' names
	Channels []string
	Mix      []share
	Network  int // of their addresses; 0: goodNet

	// Of slow clients.
	Behind string        // where those begin that stall
	Modems string        // and those at modem speed
	Delay  time.Duration // that an evicted client may expect
	Away   time.Duration // how long those at most are away who flap
	ReadOn int           // how many events those read who stalled before, before they do so again
}

// A share is how many clients use a carrier, in a manner.
type share struct {
	Carrier carrier
	Clients int
	Manner  manner
}

func (p fleetPlan) clients() (n int) {
	for _, s := range p.Mix {
		n += s.Clients
	}
	return n
}

// connecting bounds how many clients make their first connection at a time.
const connecting = 64

// A fleet is all the good clients.
type fleet struct {
	plan    fleetPlan
	clients []*client
	judge   *judge
	places  places
	moods   *moods // of those that are slow
	diary   diary
	cancel  context.CancelFunc
	done    sync.WaitGroup

	open   atomic.Int64 // lines that are open
	opened atomic.Int64 // lines that were opened so far
	beats  atomic.Int64 // heartbeats that came

	mu        sync.Mutex
	expected  bool           // guarded by mu: lines are cut on purpose
	elsewhere string         // guarded by mu: where lines are opened, if not where the plan says
	why       map[string]int // guarded by mu: why lines ended that should not have
	// Guarded by mu: why lines ended, or could not be opened, since they were cut.
	meanwhile map[string]int
}

// fleetRole is the process of the good clients.
func fleetRole(ctx context.Context, in io.Reader, out io.Writer) error {
	debug.SetGCPercent(400) // what is remembered grows, and is not what is measured
	f := newFleet()
	return orders{
		"connect":  on(f.connect),
		"standing": on(f.standing),
		"cut":      on(f.cut),
		"move":     on(f.move),
		"moved":    on(f.moved),
		"returned": on(f.returned),
		"learn":    on(f.learn),
		"slice":    on(f.slice),
		"reach":    on(f.reach),
		"judge":    on(f.verdict),
		"measure":  on(func(_ context.Context, c cleaning) (usage, error) { return measure(c.Clean), nil }),
		"leave":    on(f.leave),
	}.obey(ctx, in, out)
}

func newFleet() *fleet {
	return &fleet{moods: newMoods(), judge: newJudge(), why: map[string]int{}, meanwhile: map[string]int{}, places: places{index: map[string]uint32{}, texts: []string{""}}}
}

// connect returns when all clients have their lines, and how long it took.
func (f *fleet) connect(ctx context.Context, p fleetPlan) (time.Duration, error) {
	runtime.GOMAXPROCS(1) // so that the clients leave the server its share, whatever they do
	f.plan = p
	f.clients = newClients(f, p)
	ctx, f.cancel = context.WithCancel(ctx)
	began := now()
	for i, c := range f.clients {
		f.done.Go(func() { c.live(ctx) })
		if err := f.await(ctx, int64(i+1-connecting), connectLimit); err != nil {
			return 0, err
		}
	}
	err := f.await(ctx, int64(len(f.clients)), connectLimit)
	return now() - began, err
}

// await returns when so many lines have been opened so far.
func (f *fleet) await(ctx context.Context, lines int64, patience time.Duration) error {
	for deadline := now() + patience; f.opened.Load() < lines; pause(ctx, time.Millisecond) {
		if now() > deadline {
			return fmt.Errorf("%d lines of %d after %v, %d of them open; lost: %v", f.opened.Load(), lines, patience, f.open.Load(), f.faults())
		}
	}
	return nil
}

func newClients(f *fleet, p fleetPlan) (all []*client) {
	network := cmp.Or(p.Network, goodNet)
	for _, s := range p.Mix {
		for range s.Clients {
			i := len(all)
			all = append(all, &client{fleet: f, from: source(network, i), carrier: s.Carrier, manner: s.Manner, channel: p.Channels[i%len(p.Channels)]})
		}
	}
	return all
}

// lost notes why a line ended.
func (f *fleet) lost(c *client, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	why := plainly(err)
	if f.expected {
		f.meanwhile[why]++
		return
	}
	f.why[string(c.carrier)+": "+why]++
}

// plainly is the text of an error without addresses.
func plainly(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// faults are the lines that ended, and should not have.
func (f *fleet) faults() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.why)
}

// A standing is how the clients are now.
type standing struct {
	Open, Opened, Beats int64
	Lost                map[string]int
}

func (f *fleet) standing(context.Context, none) (standing, error) {
	return standing{f.open.Load(), f.opened.Load(), f.beats.Load(), f.faults()}, nil
}

// cut breaks all lines at once, and returns how many lines will have been opened
// when all are back.
func (f *fleet) cut(context.Context, none) (int64, error) {
	f.mu.Lock()
	f.expected = true
	f.mu.Unlock()
	opened := f.opened.Load()
	for _, c := range f.clients {
		if c.cut() {
			opened++
		}
	}
	return opened, nil
}

// move has lines be opened elsewhere from now on.
func (f *fleet) move(_ context.Context, addr string) (none, error) {
	for _, c := range f.clients {
		c.there.Store(false)
	}
	f.mu.Lock()
	f.expected, f.elsewhere = true, addr
	f.mu.Unlock()
	return none{}, nil
}

// moved waits until all have had a line there.
func (f *fleet) moved(ctx context.Context, patience time.Duration) (homecoming, error) {
	began := now()
	missing := 0
	for deadline := now() + patience; ; pause(ctx, 5*time.Millisecond) {
		missing = 0
		for _, c := range f.clients {
			if !c.there.Load() {
				missing++
			}
		}
		if missing == 0 || now() > deadline {
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected = false
	h := homecoming{now() - began, f.meanwhile}
	if missing > 0 {
		return h, fmt.Errorf("%d clients are not back after %v", missing, patience)
	}
	return h, nil
}

// addr is where lines are opened.
func (f *fleet) addr() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cmp.Or(f.elsewhere, f.plan.Addr)
}

// A returning says what to wait for.
type returning struct {
	Opened   int64
	Patience time.Duration
}

// A homecoming is how long it took until all were back, since that was asked
// for, and what they met meanwhile.
type homecoming struct {
	Took time.Duration
	Met  map[string]int
}

func (f *fleet) returned(ctx context.Context, r returning) (homecoming, error) {
	began := now()
	err := f.await(ctx, r.Opened, r.Patience)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected = false
	return homecoming{now() - began, f.meanwhile}, err
}

// leave ends all lines.
func (f *fleet) leave(context.Context, none) (none, error) {
	f.cancel()
	for _, c := range f.clients {
		c.cut()
	}
	f.done.Wait()
	return none{}, nil
}
