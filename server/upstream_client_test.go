package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/wireclient"
)

// An upClient is one of the schedule's: it holds a line, whichever carrier, reads
// a channel by it, and publishes and calls over it or by requests.
type upClient struct {
	u      *upstream
	name   string
	outbox *wireclient.Outbox
	pubs   []parcel // what it published, in order
	calls  []*called

	mu     sync.Mutex
	leave  func()             // guarded by mu, as all below: ends the line
	duplex *wireclient.Duplex // the line, if it is a WebSocket
	wire   *wire              // that of duplex
	token  string
	at     string
	seen   []conformance.Seen
}

// A parcel is a publish frame with what must become of it.
type parcel struct {
	*wireclient.Publication
	want string // the code by which each copy is refused
	last int    // the number of its last message
}

func (p *parcel) settled() bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// called is a call with what became of it.
type called struct {
	arg, key string
	wireclient.Called
	began, ended time.Time
	done         chan struct{}
}

func (c *called) settled() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func newUpClient(u *upstream, name string) *upClient {
	c := &upClient{u: u, name: name, at: u.begin.String(), leave: func() {}}
	c.outbox = wireclient.NewOutbox(wireclient.Producer(name), c.ask, remembered, patience, func(format string, args ...any) {
		u.t.Errorf(name+": "+format, args...)
	})
	u.work.Go(func() { c.outbox.Run(u.ctx) })
	u.work.Go(c.follow)
	return c
}

// call calls, on a goroutine of its own.
func (c *upClient) call(repeatable bool) {
	one := &called{arg: fmt.Sprintf(`"%s-%d"`, c.name, len(c.calls)), began: time.Now(), done: make(chan struct{})}
	frame := wireclient.Call{ID: uint64(1000 * (len(c.calls) + 1)), Name: "do", Data: []byte(one.arg)}
	c.calls = append(c.calls, one)
	if repeatable {
		one.key = fmt.Sprintf("key-%s-%d", c.name, len(c.calls))
		frame.Key = one.key
	}
	c.u.work.Go(func() {
		defer close(one.done)
		if repeatable {
			one.Called = wireclient.CallRepeatedly(c.u.ctx, c.ask, frame, patience)
		} else {
			ctx, cancel := context.WithTimeout(c.u.ctx, patience)
			defer cancel()
			one.Called = wireclient.CallOnce(ctx, c.ask, frame)
		}
		one.ended = time.Now()
		c.u.trace("call %s: %s %v", one.arg, one.Value, one.Error)
	})
}

// follow holds a line, and another one when that has ended.
func (c *upClient) follow() {
	for number := uint64(1); c.u.ctx.Err() == nil; number++ {
		dice := c.u.draw("line %s", c.name)
		c.mu.Lock()
		h := wireclient.Hello{Version: 1, Token: c.token, Line: number, Channels: []wireclient.Channel{{Channel: upChannels[0], After: c.at}}}
		c.mu.Unlock()
		place := dice.IntN(2)
		began := time.Now()
		switch dice.IntN(4) {
		case 0:
			c.followStream(h, place)
		case 1:
			c.followPolls(h, place)
		default:
			c.followSocket(h, place)
		}
		wait := time.Duration(50+dice.IntN(800)) * time.Millisecond
		if time.Since(began) == 0 {
			wait *= 5 // nobody was there
		}
		sleep(c.u.ctx, wait)
	}
}

func (c *upClient) followStream(h wireclient.Hello, place int) {
	ctx := c.leavable()
	hc := c.u.transport(place, "sse "+c.name, func(*wire) {})
	s, err := wireclient.SSESession(ctx, hc, base+"/sse", h)
	if err != nil {
		return
	}
	defer s.Close()
	for it, err := s.Next(); err == nil; it, err = s.Next() {
		c.take(it)
	}
}

func (c *upClient) followPolls(h wireclient.Hello, place int) {
	s := wireclient.NewPollStream(c.leavable(), func(ctx context.Context, _ map[string]string) (*wireclient.Answer, error) {
		c.mu.Lock()
		h.Channels[0].After, h.Token = c.at, c.token
		c.mu.Unlock()
		hc := c.u.transport(place, "poll "+c.name, func(*wire) {})
		a, err := wireclient.SessionPoll(ctx, hc, base+"/poll?wait=25s", h)
		if err == nil && a.Open != nil {
			c.take(wireclient.Item{Open: a.Open})
		}
		return a, err
	})
	defer s.Close()
	for it, err := s.Next(); err == nil; it, err = s.Next() {
		c.take(it)
	}
}

func (c *upClient) followSocket(h wireclient.Hello, place int) {
	var w *wire
	hc := c.u.transport(place, "ws "+c.name, func(made *wire) { w = made })
	s, err := wireclient.WS(c.leavable(), hc, base+"/ws", &h)
	if err != nil {
		if s != nil {
			s.Close()
		}
		return
	}
	d := wireclient.NewDuplex(s, c.take)
	c.mu.Lock()
	c.duplex, c.wire = d, w
	c.mu.Unlock()
	<-d.Done()
	c.mu.Lock()
	c.duplex, c.wire = nil, nil
	c.mu.Unlock()
}

// leavable returns the context of a line, which hangUp ends.
func (c *upClient) leavable() context.Context {
	ctx, cancel := context.WithCancel(c.u.ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave = cancel
	return ctx
}

// hangUp ends the line; the client comes back by another one.
func (c *upClient) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wire != nil {
		c.wire.harmed.Store(true)
	}
	c.leave()
}

// take takes what came down.
func (c *upClient) take(it wireclient.Item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case it.Open != nil && it.Open.Token != "":
		c.token = it.Open.Token
	case it.Close != nil && it.Close.Code == "superseded":
		c.token = "" // P6.17
	case it.Event:
		n, _ := conformance.Number(it.Data)
		c.seen = append(c.seen, conformance.Seen{N: n, Position: it.Position})
		c.at = it.Position
	case it.Gap != nil:
		c.seen = append(c.seen, conformance.Seen{From: it.Gap.From, To: it.Gap.To})
		c.at = it.Gap.To
	case it.Opening:
		c.at = it.Position
	}
}

// A fate is what happens to a frame on its way.
type fate string

const (
	passes      fate = "passes"
	lostRequest fate = "the request is lost"
	lostAnswer  fate = "the answer is lost"
	late        fate = "the request comes late"
	slowAnswer  fate = "the answer is slow"
	breaks      fate = "the wire breaks"
	doubled     fate = "the request is doubled"
)

var fates = []fate{passes, passes, passes, passes, lostRequest, lostAnswer, lostAnswer, late, slowAnswer, breaks, doubled, doubled}

// ask is the client's wireclient.Ask.
func (c *upClient) ask(ctx context.Context, up wireclient.Up) (wireclient.Item, error) {
	what := c.note(up)
	dice := c.u.draw("ask %s", what)
	f := passes
	if c.u.faults.Load() {
		f = fates[dice.IntN(len(fates))]
	}
	room := c.room(up)
	if (f == late || f == doubled) && room < time.Second {
		f = lostRequest
	}
	c.u.trace("%s: %s", what, f)
	if f == doubled {
		c.double(up, dice, room)
	}
	var w *wire
	var it wireclient.Item
	var err error
	if d, line := c.line(); d != nil && dice.IntN(4) > 0 {
		w = line
		c.u.inflict(w, f, dice, room)
		it, err = d.Ask(ctx, up)
	} else {
		hc := c.u.transport(dice.IntN(2), what, func(made *wire) {
			w = made
			c.u.inflict(w, f, dice, room)
		})
		it, err = wireclient.Post(ctx, hc, base, c.presents(dice), up)
		if errors.Is(err, wireclient.ErrUnsent) {
			err = wireclient.ErrUnsent
		}
	}
	c.heard(what, w, it, err)
	return it, err
}

// heard notes an answer. None may be missing from a wire to which nothing
// happened.
func (c *upClient) heard(what string, w *wire, it wireclient.Item, err error) {
	refused, ok := errors.AsType[*wireclient.Refused](err)
	switch {
	case err == nil:
		c.u.trace("%s: %s", what, told(it))
		c.checkTried(it)
	case ok && refused.Code != "":
		c.u.trace("%s: refused %s", what, refused.Code)
		if refused.Code != "shutdown" {
			c.u.t.Errorf("%s was refused: %v", what, refused)
		}
	case errors.Is(err, wireclient.ErrUnsent), c.u.ctx.Err() != nil:
	default:
		c.u.trace("%s: %v", what, err)
		if !w.harmed.Load() {
			c.u.t.Errorf("%s: no answer over a wire to which nothing happened: %v", what, err)
		}
	}
}

// checkTried: a frame was tried only if the log was asked.
func (c *upClient) checkTried(it wireclient.Item) {
	for _, o := range it.Published {
		c.u.house.mu.Lock()
		asked := c.u.asked[fmt.Sprintf("%s/%d", wireclient.Producer(c.name), o.Seq)]
		c.u.house.mu.Unlock()
		if o.Tried && !asked {
			c.u.t.Errorf("P9.5: %s/%d is told as tried, and the log was never asked", c.name, o.Seq)
		}
	}
}

// told is an answer in words.
func told(it wireclient.Item) (words string) {
	for _, o := range it.Published {
		words += fmt.Sprintf(" %d", o.Seq)
		switch {
		case o.Error != nil:
			words += " " + o.Error.Code
		case o.Retry != nil:
			words += " again " + o.Retry.Code
		}
		if o.Tried {
			words += " tried"
		}
		if o.Duplicate {
			words += " duplicate"
		}
	}
	if r := it.Reply; r != nil && r.Error != nil {
		words += " " + r.Error.Code
	} else if r != nil {
		words += " " + string(r.Data)
	}
	return words
}

// line returns the line, if it is a WebSocket.
func (c *upClient) line() (*wireclient.Duplex, *wire) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.duplex, c.wire
}

// presents returns the token, or now and then none.
func (c *upClient) presents(dice *rand.Rand) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dice.IntN(8) == 0 {
		return ""
	}
	return c.token
}

// names are how the ledgers name what a frame holds.
func (c *upClient) names(up wireclient.Up) (names []string) {
	if up.Call != nil {
		return []string{string(up.Call.Data)}
	}
	for _, f := range up.Publish.Frames {
		names = append(names, fmt.Sprintf("%s/%d", c.name, f.Seq))
	}
	return names
}

// note notes when frames are sent first, and returns what a frame is, in words.
func (c *upClient) note(up wireclient.Up) string {
	names := c.names(up)
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	for _, name := range names {
		if c.u.sent[name].IsZero() {
			c.u.sent[name] = time.Now()
		}
	}
	return fmt.Sprint(names)
}

// room is how much later a copy may come and still meet a log that remembers
// what became of the others.
func (c *upClient) room(up wireclient.Up) time.Duration {
	names := c.names(up)
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	room := 5 * time.Minute
	for _, name := range names {
		room = min(room, remembered-copyMargin-time.Since(c.u.sent[name]))
	}
	return room
}

// inflict does to a wire what is its next frame's fate.
func (u *upstream) inflict(w *wire, f fate, dice *rand.Rand, room time.Duration) {
	soon, later := time.Duration(dice.IntN(4000))*time.Millisecond, time.Duration(dice.Int64N(int64(max(room, 1))))
	if dice.IntN(2) == 0 {
		later = min(later, 10*time.Second)
	}
	release := func() {}
	switch f {
	case passes, doubled:
		return
	case slowAnswer:
		release = w.HoldReads()
		u.extra.Go(func() { time.Sleep(soon); release() })
		return
	case lostRequest:
		w.HoldWrites()
	case late:
		release = w.HoldWrites()
	case lostAnswer:
		w.HoldReads()
	case breaks:
		w.harmed.Store(true)
		u.extra.Go(func() { time.Sleep(soon); w.tear() })
		return
	}
	w.harmed.Store(true)
	u.extra.Go(func() {
		time.Sleep(soon)
		w.forsake()
		time.Sleep(later)
		release()
		time.Sleep(30 * time.Second)
		w.tear()
	})
}

// double has a copy of a frame come before, beside or long after it, by a request
// at any node, of whose answer nobody hears.
func (c *upClient) double(up wireclient.Up, dice *rand.Rand, room time.Duration) {
	c.u.mu.Lock()
	for _, name := range c.names(up) {
		c.u.twice[name] = true
	}
	c.u.mu.Unlock()
	place, when := dice.IntN(2), dice.IntN(4)
	token := c.presents(dice)
	send := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		it, err := wireclient.Post(ctx, c.u.transport(place, "copy", func(*wire) {}), base, token, up)
		c.u.trace("a copy of %v: %s %v", c.names(up), told(it), err)
	}
	later := time.Duration(dice.Int64N(int64(room)))
	switch when {
	case 0:
		send()
	case 1:
		c.u.extra.Go(send)
	default:
		if when == 2 {
			later = min(later, 8*time.Second)
		}
		c.u.extra.Go(func() { time.Sleep(later); send() })
	}
}
