//go:build linux

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/conformance"
)

// How long a client that lost its line waits before it comes back: a random
// part of a time that doubles (full jitter).
const (
	firstBackoff = time.Second
	maxBackoff   = 10 * time.Second
)

// A client is a good one: it reads all it gets, comes back when it is cut off,
// and remembers what it was handed.
type client struct {
	// Static after newFleet.
	fleet   *fleet
	from    *net.TCPAddr
	channel string
	manner  manner

	// Owned by live.
	carrier carrier
	token   string
	lines   int // opened so far
	tries   int // to open one
	quota   int // events that one which stalls still reads of its line

	there atomic.Bool // it had a line where lines are opened now

	mu    sync.Mutex
	conn  *net.TCPConn // guarded by mu: nil between two lines
	begin string       // guarded by mu: where it began
	after string       // guarded by mu: where it is
	heard []record     // guarded by mu
}

// A record is one event or gap that a client was handed. There are millions, so
// positions are numbers of the fleet's table, and nothing is a pointer.
type record struct {
	n            int32
	place        uint32 // of an event
	gapFrom, gap uint32 // of a gap, or 0
	published    time.Duration
	received     time.Duration
}

// live reads one line after the other.
func (c *client) live(ctx context.Context) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		before := c.lines
		err := c.read(ctx)
		if ctx.Err() != nil {
			return
		}
		c.fleet.lost(c, err)
		if c.lines > before {
			attempt = 0
		}
		wait := time.Duration(rand.Int64N(int64(min(maxBackoff, firstBackoff<<min(attempt, 6)))))
		if said, ok := errors.AsType[*ended](err); ok {
			wait += said.after
		}
		pause(ctx, wait)
	}
}

// read reads one line until it ends, which is always an error.
func (c *client) read(ctx context.Context) error {
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer abort(conn)
	if err := conn.SetDeadline(time.Now().Add(connectLimit)); err != nil {
		return err
	}
	c.mu.Lock()
	c.conn = conn
	after := c.after
	c.mu.Unlock()
	if !c.fleet.wants(c) {
		return errMood // it was not seen when all were cut off
	}
	l, err := open(c.wire(conn), c.inquiry(after))
	if err != nil {
		return err
	}
	var until time.Time
	opened := false
	defer func() {
		if opened {
			c.fleet.open.Add(-1)
		}
	}()
	for {
		it, err := l.next()
		if err != nil {
			return c.over(err, until)
		}
		c.take(it)
		if !opened && it.Kind != isOpen && it.Kind != isBeat {
			opened = true
			c.lines++
			c.there.Store(true)
			c.fleet.open.Add(1)
			c.fleet.opened.Add(1)
			until = c.behave()
			if err := conn.SetDeadline(until); err != nil {
				return err
			}
		}
		if opened && c.full(&it) {
			return c.stall(ctx, conn)
		}
	}
}

// inquiry is what it asks for, with a line that is newer than any before.
func (c *client) inquiry(after string) inquiry {
	switch {
	case after != "":
	case c.manner == stalled:
		after = c.fleet.plan.Behind
	case c.manner == modem:
		after = c.fleet.plan.Modems
	}
	c.tries++
	return inquiry{Carrier: c.carrier, Prefix: c.fleet.plan.Prefix, Channel: c.channel, After: after, Token: c.token, Line: c.tries}
}

// take remembers what came.
func (c *client) take(it item) {
	if it.Kind == isOpen && it.Token != "" {
		c.token = it.Token
		return
	}
	if it.Kind == isBeat {
		c.fleet.beats.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch it.Kind {
	case isOpening:
		if c.begin == "" {
			c.begin = string(it.Position)
		}
		c.after = string(it.Position)
	case isEvent:
		place, text := c.fleet.places.number(it.Position)
		c.after = text
		c.heard = append(c.heard, record{n: int32(it.N), place: place, published: it.At, received: now()})
	case isGap:
		from, _ := c.fleet.places.number(it.From)
		to, text := c.fleet.places.number(it.To)
		c.after = text
		c.heard = append(c.heard, record{gapFrom: from, gap: to})
	}
}

// cut breaks the line, as a network does.
func (c *client) cut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return false
	}
	abort(c.conn)
	return true
}

// last is the number of the last event that came.
func (c *client) last() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range slices.Backward(c.heard) {
		if r.gap == 0 {
			return int(r.n)
		}
	}
	return 0
}

// seen is what it was handed, as the oracle wants it.
func (c *client) seen() (begin string, all []conformance.Seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.heard {
		s := conformance.Seen{N: int(r.n), Position: c.fleet.places.text(r.place)}
		if r.gap != 0 {
			s = conformance.Seen{From: c.fleet.places.text(r.gapFrom), To: c.fleet.places.text(r.gap)}
		}
		all = append(all, s)
	}
	return c.begin, all
}

// places numbers positions from 1.
type places struct {
	mu    sync.Mutex
	index map[string]uint32
	texts []string
}

func (p *places) number(position []byte) (n uint32, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n, known := p.index[string(position)]; known {
		return n, p.texts[n]
	}
	text = string(position)
	n = uint32(len(p.texts))
	p.texts = append(p.texts, text)
	p.index[text] = n
	return n, text
}

func (p *places) text(n uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.texts[n]
}
