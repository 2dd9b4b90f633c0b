//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A badPlan says what bad clients to be.
type badPlan struct {
	Addr     string
	Prefix   string // of the transports' names
	Channels []string
	Carriers []carrier

	Stalled, HalfOpen, Garbage, Reconnecting int
}

// of is how many are bad in a way, by its name.
func (p *badPlan) of(way string) *int {
	switch way {
	case "stalled":
		return &p.Stalled
	case "half-open":
		return &p.HalfOpen
	case "garbage":
		return &p.Garbage
	}
	return &p.Reconnecting
}

// A misdeeds counts what bad clients have done so far.
type misdeeds struct {
	Stalls    int64 // connections that were not read from
	CutOff    int64 // of them, those that the server ended
	Dark      int64 // connections that went dark
	Garbage   int64 // connections that brought garbage
	Answered  int64 // of them, those that the server answered or ended
	Cycles    int64 // connections that were made and left as fast as can be
	Refused   int64 // of them, those that were not let in
	CPU       time.Duration
	Unopened  int64 // connections that could not be made
	FirstFail string
}

// A gang is all the bad clients.
type gang struct {
	plan   badPlan
	cancel context.CancelFunc
	done   sync.WaitGroup

	stalls, cutOff, dark, garbage, answered, cycles, refused, unopened atomic.Int64
	firstFail                                                          sync.Once
	fail                                                               string
}

// badRole is the process of the bad clients.
func badRole(ctx context.Context, in io.Reader, out io.Writer) error {
	g := &gang{}
	return orders{
		"begin":    on(g.begin),
		"misdeeds": on(g.misdeeds),
		"end":      on(g.end),
		"churn":    on(g.churn),
		"measure":  on(func(_ context.Context, c cleaning) (usage, error) { return measure(c.Clean), nil }),
	}.obey(ctx, in, out)
}

// begin has them all begin, and doesn't wait for what becomes of it.
func (g *gang) begin(ctx context.Context, p badPlan) (none, error) {
	g.plan = p
	ctx, g.cancel = context.WithCancel(ctx)
	next := 0
	for _, k := range []struct {
		clients int
		be      func(context.Context, culprit)
	}{
		{p.Stalled, g.stall},
		{p.HalfOpen, g.goDark},
		{p.Garbage, g.sendGarbage},
		{p.Reconnecting, g.reconnect},
	} {
		for i := range k.clients {
			c := culprit{number: i, from: source(badNet, next)}
			next++
			g.done.Go(func() { k.be(ctx, c) })
		}
	}
	return none{}, nil
}

// A culprit is one bad client.
type culprit struct {
	number int // among those of its kind
	from   *net.TCPAddr
}

// inquiry is what a bad client asks for: each carrier and each channel has its
// share of them.
func (g *gang) inquiry(c culprit, after string) inquiry {
	carriers := g.plan.Carriers
	return inquiry{
		Carrier: carriers[c.number%len(carriers)], Prefix: g.plan.Prefix,
		Channel: g.plan.Channels[c.number/len(carriers)%len(g.plan.Channels)], After: after, Line: 1,
	}
}

// end has them all end at once.
func (g *gang) end(ctx context.Context, _ none) (misdeeds, error) {
	g.cancel()
	g.done.Wait()
	return g.misdeeds(ctx, none{})
}

func (g *gang) misdeeds(context.Context, none) (misdeeds, error) {
	return misdeeds{
		Stalls: g.stalls.Load(), CutOff: g.cutOff.Load(), Dark: g.dark.Load(), Garbage: g.garbage.Load(), Answered: g.answered.Load(),
		Cycles: g.cycles.Load(), Refused: g.refused.Load(), Unopened: g.unopened.Load(), CPU: cpu(), FirstFail: g.fail,
	}, nil
}

// dial makes a connection that ends with the context. nil: it could not be made.
func (g *gang) dial(ctx context.Context, c culprit, kind socketKind) *net.TCPConn {
	conn, err := dial(ctx, g.plan.Addr, c.from, kind)
	if err != nil && ctx.Err() == nil {
		g.unopened.Add(1)
		g.firstFail.Do(func() { g.fail = err.Error() })
		pause(ctx, 10*time.Millisecond)
	}
	if err != nil {
		return nil
	}
	return conn
}

// behind is where those begin that are to be far behind at once.
const behind = "last=2000"

// stall asks for more than it takes, and reads nothing of it, or a byte in
// a second. When the server has had enough, it comes back at once.
func (g *gang) stall(ctx context.Context, c culprit) {
	for ctx.Err() == nil {
		conn := g.dial(ctx, c, narrow)
		if conn == nil {
			continue
		}
		g.stalls.Add(1)
		_, _ = conn.Write(g.inquiry(c, behind).request())
		for one := make([]byte, 1); ctx.Err() == nil && !hungUp(conn); pause(ctx, time.Second) {
			if c.number%4 == 3 {
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = conn.Read(one)
			}
		}
		if ctx.Err() == nil {
			g.cutOff.Add(1)
		}
		abort(conn)
	}
}

// hungUp reports whether the other end has closed or reset a connection,
// whatever there is still to be read.
func hungUp(c *net.TCPConn) (yes bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	_ = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		yes = err == nil && n > 0
	})
	return yes
}

// darkTime is when a client whose network went away comes back over another
// one. What it left behind stays.
const darkTime = 15 * time.Second

// goDark is a client whose network goes away again and again: every other time
// when all is well, otherwise in the middle of what it was to get.
func (g *gang) goDark(ctx context.Context, c culprit) {
	var left []*net.TCPConn
	defer func() {
		for _, conn := range left {
			abort(conn)
		}
	}()
	for turn := c.number; ctx.Err() == nil; turn++ {
		conn := g.dial(ctx, c, narrow)
		if conn == nil {
			continue
		}
		left = append(left, conn)
		if err := g.darken(conn, c, turn%2 == 0); err != nil && ctx.Err() == nil {
			g.unopened.Add(1)
			g.firstFail.Do(func() { g.fail = err.Error() })
		} else {
			g.dark.Add(1)
		}
		pause(ctx, darkTime)
	}
}

func (g *gang) darken(conn *net.TCPConn, c culprit, idle bool) error {
	if !idle {
		if _, err := conn.Write(g.inquiry(c, behind).request()); err != nil {
			return err
		}
		return goDark(conn)
	}
	_ = conn.SetDeadline(time.Now().Add(connectLimit))
	l, err := open(conn, g.inquiry(c, ""))
	for it := (item{}); err == nil && it.Kind != isOpening; {
		it, err = l.next()
	}
	return errors.Join(err, goDark(conn))
}

// reconnect connects, and leaves when it has been let in, as fast as it can.
func (g *gang) reconnect(ctx context.Context, c culprit) {
	q := g.inquiry(c, "")
	for ; ctx.Err() == nil; q.Line++ {
		g.cycle(ctx, c, q)
	}
}

// cycle makes one connection and leaves it, every other time without a goodbye.
func (g *gang) cycle(ctx context.Context, c culprit, q inquiry) {
	conn := g.dial(ctx, c, usual)
	if conn == nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(connectLimit))
	l, err := open(conn, q)
	for it := (item{}); err == nil && it.Kind != isOpening && it.Kind != isEvent; {
		it, err = l.next()
	}
	g.cycles.Add(1)
	if err != nil {
		g.refused.Add(1)
	}
	if q.Line%2 == 0 {
		abort(conn)
	} else {
		_ = conn.Close()
	}
}

// A churnPlan says how many connections to make and leave.
type churnPlan struct {
	Addr     string
	Channel  string
	Carriers []carrier
	Cycles   int
}

// churners is how many make connections at a time.
const churners = 20

func (g *gang) churn(ctx context.Context, p churnPlan) (misdeeds, error) {
	g.plan = badPlan{Addr: p.Addr, Channels: []string{p.Channel}, Carriers: p.Carriers}
	for i := range churners {
		c := culprit{number: i, from: source(badNet, i)}
		g.done.Go(func() {
			q := g.inquiry(c, "")
			for n := i; n < p.Cycles; n += churners {
				g.cycle(ctx, c, q)
				q.Line++
			}
		})
	}
	g.done.Wait()
	return g.misdeeds(ctx, none{})
}
