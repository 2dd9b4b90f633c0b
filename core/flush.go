package core

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/throughline/throughline/transport"
)

var beat = (&transport.Frame{Kind: transport.FrameBeat}).Shared()

// flush sends until there is nothing left to send.
func (l *line) flush() {
	for !l.over.Load() {
		items, last := l.gather()
		l.stopWaiting()
		if len(items) == 0 {
			l.release()
			return
		}
		timeout := l.engine.o.WriteTimeout
		if last != nil {
			timeout = l.engine.o.GoodbyeTimeout
		}
		began := time.Now()
		deadline := began.Add(timeout)
		more, err := l.conn.Send(items, deadline)
		l.release()
		if err == nil && more && last == nil {
			err = l.prove(deadline)
		}
		if err != nil {
			l.failed(err, deadline, last)
			return
		}
		l.count(items)
		switch {
		case last != nil:
			l.stop(*last)
		case !more:
			l.judge(time.Now()) // between polls nothing counts
			l.stop(transport.Reason{Code: transport.CodeSpent})
		default:
			l.sent(began)
		}
	}
}

// prove has a client that was evicted show that it reads, where its carrier can tell: page
// by page until they may grow, as the first ones may lie in buffers on the way. So one that
// takes nothing again costs little.
func (l *line) prove(deadline time.Time) error {
	p, can := l.conn.(transport.Prover)
	if !can || !l.onTrial || l.volume == 0 || l.volume >= growAfter*l.engine.firstPage() {
		return nil
	}
	return p.Prove(deadline)
}

// count counts the events that a Send took, and lets go of them.
func (l *line) count(items []transport.Item) {
	events := 0
	for _, item := range items {
		if item.Run != nil {
			events += len(item.Run.Events)
		}
	}
	clear(items)
	if events > 0 {
		l.delivered += events
		l.engine.o.Observer.Delivered(l.source, events)
		l.sample()
	}
}

// sample looks more closely at some of the Sends: that costs more than to count.
func (l *line) sample() {
	if rand.N[uint32](SampleEvery) != 0 {
		return
	}
	waited := time.Duration(-1)
	if !l.liveSince.IsZero() {
		waited = max(0, time.Since(l.liveSince)) // another node's clock may be ahead
	}
	l.engine.o.Observer.Sent(l.source, l.lag(), waited)
}

// failed ends the line after a Send that failed. It was too slow if that took
// until the deadline, whatever the carrier calls it.
func (l *line) failed(err error, deadline time.Time, last *transport.Reason) {
	why := transport.Reason{Code: transport.CodeBroken, Message: err.Error()}
	switch {
	case last != nil:
		why = *last
	case errors.Is(err, transport.ErrClosed):
		l.stop(transport.Reason{Code: transport.CodeLeft})
		return
	case !time.Now().Before(deadline):
		why = l.tooSlow(TookNothing)
	case errors.Is(err, transport.ErrCut):
		l.wasCut()
	}
	l.stop(why)
	l.conn.Close(why)
}

// sent looks after the line when a Send that began then went well: its
// heartbeats, and whether it keeps up.
func (l *line) sent(began time.Time) {
	now := time.Now()
	l.lastSent = now
	l.wrote.Store(int64(max(1, now.Sub(l.began))))
	l.fitPage(now.Sub(began))
	if l.timer == nil {
		wait := l.engine.o.Heartbeat
		if l.version > 0 {
			wait = l.engine.o.FirstBeat
		}
		l.timer = time.AfterFunc(wait, l.tick)
	}
	if !l.judge(now) && !l.evicted {
		l.evicted = true
		l.sayGoodbye(l.tooSlow(FellBehind))
	}
}

// tick is called by the timer.
func (l *line) tick() {
	l.timerFired.Store(true)
	l.ask()
}

// heartbeat decides, when the timer fired, whether a sign of life is due, and
// sets the timer again.
func (l *line) heartbeat(items []transport.Item) []transport.Item {
	o := &l.engine.o
	interval := o.Heartbeat - rand.N(o.Heartbeat/10+1) // so that lines that began together drift apart
	quiet := time.Since(l.lastSent)
	first := l.version > 0 && !l.proved
	switch {
	case l.probe && !first:
		l.sayGoodbye(transport.Reason{Code: transport.CodeProbeOver, Class: transport.Now})
		return items
	case l.probe:
		l.timer.Reset(o.ProbeLifetime)
	case !first && quiet < interval:
		l.timer.Reset(interval - quiet)
		return items
	default:
		l.timer.Reset(interval)
	}
	l.proved = true
	return append(items, transport.Item{Frame: beat})
}
