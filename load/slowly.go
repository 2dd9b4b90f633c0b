//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A manner is how a client reads.
type manner int

const (
	eager    manner = iota // all that comes, at once
	stalled                // nothing, until it is cut off
	flapping               // for less than half a second, and is gone for a while without a word
	modem                  // 7 kB/s
)

var mannerNames = [...]string{"eager", "stalled", "flapping", "at modem speed"}

// A mood is what those clients do now that are not eager.
type mood int

const (
	asleep mood = iota // they have no connections
	once               // the stalled ones stall, once; nobody else does anything
	steady             // the stalled are at it
	busyAt             // all are
	calm               // all read as good clients do
)

// wakes reports whether a manner does anything in a mood.
func (m mood) wakes(how manner) bool {
	switch m {
	case asleep:
		return false
	case once, steady:
		return how == stalled
	}
	return true
}

// A turn is what they do from now on.
type turn struct {
	Mood mood
	Over time.Duration // over how long those begin who were asleep; 0: wakeOver
}

// moods has the mood of all, and tells of its changes.
type moods struct {
	mu      sync.Mutex
	is      mood          // guarded by mu
	over    time.Duration // guarded by mu: over how long those begin who were asleep
	changed chan struct{} // guarded by mu: closes when it does
}

func newMoods() *moods { return &moods{changed: make(chan struct{})} }

func (m *moods) now() (mood, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.is, m.changed
}

// beginning is when one begins who was asleep.
func (m *moods) beginning() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return rand.N(m.over)
}

func (m *moods) set(to turn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.is, m.over = to.Mood, cmp.Or(to.Over, wakeOver)
	close(m.changed)
	m.changed = make(chan struct{})
}

// slowRole is the process of clients that are slow. They are judged, too, by when
// all is well again.
func slowRole(ctx context.Context, in io.Reader, out io.Writer) error {
	f := newFleet()
	return orders{
		"gather":  on(f.gather),
		"be":      on(f.be),
		"deeds":   on(f.told),
		"learn":   on(f.learn),
		"reach":   on(f.reach),
		"judge":   on(f.verdict),
		"measure": on(func(_ context.Context, c cleaning) (usage, error) { return measure(c.Clean), nil }),
		"leave":   on(f.leave),
	}.obey(ctx, in, out)
}

// gather makes the clients, asleep.
func (f *fleet) gather(ctx context.Context, p fleetPlan) (none, error) {
	f.plan = p
	f.clients = newClients(f, p)
	ctx, f.cancel = context.WithCancel(ctx)
	for _, c := range f.clients {
		f.done.Go(func() { c.liveSlowly(ctx) })
	}
	return none{}, nil
}

// be changes what they do. Who is not to do anything is cut off.
func (f *fleet) be(_ context.Context, to turn) (none, error) {
	f.moods.set(to)
	for _, c := range f.clients {
		if !to.Mood.wakes(c.manner) {
			c.cut()
		}
	}
	return none{}, nil
}

// deeds are what slow clients did, and what they met.
type deeds struct {
	Stalls, CutOff int            // lines that were not read from, and those of them that the server ended
	Flaps          int            // lines that were read from for a moment
	Waits          int            // refusals that told when to return
	MostWait       time.Duration  // the longest of these
	Evicted        map[string]int // lines that were reset or told so, by manner
	Met            map[string]int // other ends of lines, by manner
}

// A diary collects them.
type diary struct {
	mu sync.Mutex
	deeds
}

func (d *diary) note(change func(*deeds)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.deeds)
}

func (f *fleet) told(context.Context, none) (deeds, error) {
	f.diary.mu.Lock()
	defer f.diary.mu.Unlock()
	d := f.diary.deeds
	d.Met, d.Evicted = maps.Clone(d.Met), maps.Clone(d.Evicted)
	return d, nil
}

// The ends of lines that are the client's own doing.
var (
	errCutOff  = errors.New("the server cut it off")
	errFlapped = errors.New("it went without a word")
	errMood    = errors.New("it has something else to do")
)

// wakeOver is over how long those begin who were asleep, if nothing else is said.
const wakeOver = 500 * time.Millisecond

// liveSlowly reads one line after the other, each in the client's manner.
func (c *client) liveSlowly(ctx context.Context) {
	slept, done := true, false // done: it stalled once, as it was to
	for ctx.Err() == nil {
		is, changed := c.fleet.moods.now()
		if !is.wakes(c.manner) || is == once && done {
			slept = true
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if slept {
			await(ctx, changed, c.fleet.moods.beginning())
			slept = false
			continue // the mood may be another
		}
		err := c.read(ctx)
		done = is == once && errors.Is(err, errCutOff)
		if now, _ := c.fleet.moods.now(); ctx.Err() == nil && now.wakes(c.manner) {
			await(ctx, changed, c.meet(err))
		}
	}
}

// meet notes why a line ended, and returns how long to wait: what the client was told,
// or else a part of the delay that it may expect, so that some come too early.
func (c *client) meet(err error) time.Duration {
	said, wasTold := errors.AsType[*ended](err)
	if wasTold && said.code == "broken_carrier" && c.carrier == sessionWS {
		c.carrier = sessionSSE // as the client of this project does
	}
	c.fleet.diary.note(func(d *deeds) {
		switch {
		case errors.Is(err, errFlapped):
			d.Flaps++
		case errors.Is(err, errMood), errors.Is(err, net.ErrClosed): // its own doing
		case errors.Is(err, errCutOff):
			d.CutOff++
		default:
			if c.manner != stalled && (errors.Is(err, syscall.ECONNRESET) || wasTold && strings.HasSuffix(said.code, "slow_consumer")) {
				add(&d.Evicted, mannerNames[c.manner])
			}
			add(&d.Met, mannerNames[c.manner]+": "+plainly(err))
		}
		if wasTold && said.after > 0 {
			d.Waits++
			d.MostWait = max(d.MostWait, said.after)
		}
	})
	switch {
	case errors.Is(err, errMood), errors.Is(err, net.ErrClosed):
		return 0
	case errors.Is(err, errFlapped):
		return rand.N(c.fleet.plan.Away + 1)
	case wasTold:
		return said.after
	}
	return rand.N(c.fleet.plan.Delay) + time.Millisecond
}

func add(m *map[string]int, what string) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[what]++
}

// await is pause, also until the mood changes.
func await(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
	}
}

// dial connects as its manner has it.
func (c *client) dial(ctx context.Context) (*net.TCPConn, error) {
	kind := usual
	if c.manner == modem {
		kind = narrow
	}
	return dial(ctx, c.fleet.addr(), c.from, kind)
}

// wire is what it reads a connection by.
func (c *client) wire(conn *net.TCPConn) net.Conn {
	if c.manner == modem {
		return trickle{conn, c.fleet}
	}
	return conn
}

// wants reports whether a client is to have a line now.
func (f *fleet) wants(c *client) bool {
	is, _ := f.moods.now()
	return c.manner == eager || is.wakes(c.manner)
}

// behave is called when a line has begun. It returns until when to read it, or the
// zero time.
func (c *client) behave() time.Time {
	is, _ := c.fleet.moods.now()
	switch {
	case is == calm || c.manner == eager || c.manner == modem:
		return time.Time{}
	case c.manner == flapping:
		return time.Now().Add(100*time.Millisecond + rand.N(400*time.Millisecond))
	}
	if c.quota = c.fleet.plan.ReadOn; is == once || c.lines == 1 {
		c.quota = 0
	}
	return time.Time{}
}

// full reports whether one that stalls has read as much of its line as it will.
func (c *client) full(it *item) bool {
	if c.manner != stalled {
		return false
	}
	if it.Kind == isEvent {
		c.quota--
	}
	is, _ := c.fleet.moods.now()
	return c.quota <= 0 && is != calm
}

// stall reads nothing until the server has ended the line, or the mood changes.
func (c *client) stall(ctx context.Context, conn *net.TCPConn) error {
	c.fleet.diary.note(func(d *deeds) { d.Stalls++ })
	began, _ := c.fleet.moods.now()
	for ; !hungUp(conn); pause(ctx, 50*time.Millisecond) {
		if is, _ := c.fleet.moods.now(); ctx.Err() != nil || is != began {
			return errMood
		}
	}
	if is, _ := c.fleet.moods.now(); is != began {
		return errMood // it was cut by its own
	}
	return errCutOff
}

// over is why a line ended that was read until a time.
func (c *client) over(err error, until time.Time) error {
	if until.IsZero() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return errFlapped
}

// A trickle is a connection by a modem.
type trickle struct {
	net.Conn
	fleet *fleet
}

const modemSpeed = 7000 // bytes a second

// Read is no faster than a modem, while that is the client's manner.
func (t trickle) Read(p []byte) (int, error) {
	if is, _ := t.fleet.moods.now(); is == calm {
		return t.Conn.Read(p)
	}
	n, err := t.Conn.Read(p[:min(len(p), modemSpeed/10)])
	time.Sleep(time.Duration(n) * time.Second / modemSpeed) //nolint:forbidigo // this is what a modem is
	return n, err
}
