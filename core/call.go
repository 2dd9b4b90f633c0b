package core

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// calls counts the calls in work of each client.
type calls struct {
	mu     sync.Mutex
	inWork map[string]int // guarded by mu; by session, else by address
}

// caller names who is counted.
func caller(who *Client) string {
	if who.Session != "" {
		return "s" + who.Session
	}
	return "a" + who.Namespace + "\x00" + who.Subject + "\x00" + who.Addr
}

// take reports whether a client may have one more call in work.
func (c *calls) take(name string, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inWork[name] >= most {
		return false
	}
	if c.inWork == nil {
		c.inWork = make(map[string]int)
	}
	c.inWork[name]++
	return true
}

func (c *calls) give(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inWork[name]--; c.inWork[name] == 0 {
		delete(c.inWork, name)
	}
}

// startCall has a call answered, on a goroutine of its own. answer is called
// once, at the latest at the call's deadline; a handler that doesn't heed its
// context goes on, and counts as in work, until it returns.
func (e *Engine) startCall(ctx context.Context, peer transport.Peer, who Client, c *transport.Call, answer func(*transport.Frame)) {
	var once sync.Once
	reply := func(p transport.Payload, r *transport.Refusal) {
		once.Do(func() {
			code := ""
			if r != nil {
				code = r.Code
				e.Refused(&who, "call", c.Name, r)
			}
			e.o.Observer.Called(who.Namespace, code)
			answer(&transport.Frame{Kind: transport.FrameAnswer, Answer: &transport.Answer{ID: c.ID, Payload: p, Refused: r}})
		})
	}
	name := caller(&who)
	if !e.calls.take(name, e.o.MaxCalls) {
		reply(transport.Payload{}, transport.RefuseFor(e.soon(), transport.CodeBusy, "%d calls of this client are in work (Options.MaxCalls)", e.o.MaxCalls))
		return
	}
	began := e.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, e.o.CallTimeout)
		defer cancel()
		defer context.AfterFunc(e.ctx, cancel)()
		var gate callGate
		defer context.AfterFunc(ctx, func() { reply(transport.Payload{}, e.brokenOff(c, gate.shut())) })()
		p, r := e.call(ctx, peer, who, c, &gate)
		e.calls.give(name) // before the answer, after which the next may come
		reply(p, r)
	})
	if !began {
		e.calls.give(name)
		reply(transport.Payload{}, e.shutdown())
	}
}

// A callGate decides whether a call's handler ran: it is passed or shut, once.
type callGate struct{ state atomic.Int32 }

// pass reports whether the handler may run.
func (g *callGate) pass() bool { return g.state.CompareAndSwap(0, 1) }

// shut reports whether the handler runs or ran; if not, it won't.
func (g *callGate) shut() (ran bool) { return !g.state.CompareAndSwap(0, 2) && g.state.Load() == 1 }

// brokenOff says what became of a call whose time is over. One that may be
// repeated is, elsewhere, if it is this server that ends.
func (e *Engine) brokenOff(c *transport.Call, ran bool) *transport.Refusal {
	switch {
	case e.ctx.Err() != nil && (c.Key != "" || !ran):
		return e.shutdown()
	case !ran:
		return e.refusal(context.DeadlineExceeded)
	}
	return transport.Refuse(transport.CodeUnknown, "the call was not answered in time; it may have been done all the same")
}

// call asks for the right, and OnCall.
func (e *Engine) call(ctx context.Context, peer transport.Peer, who Client, c *transport.Call, gate *callGate) (p transport.Payload, r *transport.Refusal) {
	if e.o.OnCall == nil {
		return p, transport.Refuse(transport.CodeNotFound, "there are no calls here: the program that runs this server has to set Options.OnCall")
	}
	ch := eventlog.Channel{Namespace: peer.Namespace, Name: c.Name}
	if err := ch.Check(); err != nil {
		return p, transport.Refuse(transport.CodeBadRequest, "a call's name is one that a channel may have")
	}
	if err := e.fits(c.Data); err != nil {
		return p, e.refusal(err)
	}
	if err := e.o.Admit(peer, EffortCall, 1); err != nil {
		return p, e.refusal(err)
	}
	if err := e.Authorize(ctx, peer, Call, ch); err != nil {
		return p, e.refusal(err)
	}
	if !gate.pass() {
		return p, e.brokenOff(c, false)
	}
	err := e.guard("OnCall", who, func() (err error) {
		p, err = e.o.OnCall(ctx, Request{Client: who, Name: c.Name, Payload: c.Payload, Key: c.Key})
		return err
	})
	if p.Kind == eventlog.JSON && len(p.Data) == 0 {
		p.Data = []byte("null") // there is nothing to say
	}
	if err == nil {
		m := eventlog.Message{Kind: p.Kind, Data: p.Data}
		if err = m.Check(0); err != nil {
			e.Tell(slog.LevelError, &who, "bad answer given", slog.String("channel", c.Name), slog.Any("error", err))
		}
	}
	switch {
	case err == nil:
		return p, nil
	case errors.As(err, &r) && FitCode(r.Code):
		return transport.Payload{}, r
	case ctx.Err() != nil:
		return transport.Payload{}, e.brokenOff(c, true)
	}
	e.Tell(slog.LevelWarn, &who, "call failed", slog.String("channel", c.Name), slog.Any("error", err))
	return transport.Payload{}, transport.Refuse(transport.CodeFailed, "the handler of this call failed")
}
