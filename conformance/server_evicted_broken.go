package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
)

// brokenSetup closes WebSockets to a session after three that broke.
var brokenSetup = ServerSetup{BrokenLines: 3, PeerTimeout: time.Minute}

// breaking is a session whose WebSockets end in some way.
type breaking struct {
	check *serverCheck
	near  *site
	token string
	line  uint64
	at    string
}

func (c *serverCheck) breaking() *breaking {
	return &breaking{check: c, near: c.near(), at: c.publish(busyRoom, "0")}
}

// hello is the next of the session.
func (b *breaking) hello() wireclient.Hello {
	b.line++
	h := wireclient.HelloFor(b.at, busyRoom)
	h.Token, h.Line = b.token, b.line
	return h
}

// holds is tryToHold for a server that can't read its log now and then.
func (b *breaking) holds(long time.Duration) (err error) {
	for range 5 {
		err = b.tryToHold(long)
		if r, ok := refusalOf(err); !ok || r.Code != "unavailable" {
			return err
		}
		time.Sleep(2 * time.Second)
	}
	return err
}

// tryToHold begins a WebSocket, holds it for a while and has it end without a close
// frame. The error is a *wireclient.Refused if it was refused.
func (b *breaking) tryToHold(long time.Duration) error {
	c := b.check
	h := b.hello()
	ws, err := wireclient.WS(c.ctx, b.near.http, b.near.base+"/ws", &h)
	if err != nil {
		return err
	}
	defer ws.Close()
	it, err := ws.Next()
	switch {
	case err != nil:
		return err
	case it.Close != nil:
		return &wireclient.Refused{Reason: *it.Close}
	case it.Open == nil:
		return fmt.Errorf("%s came in place of the open", inWords(it))
	}
	if it.Open.Token != "" {
		b.token = it.Open.Token
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := ws.Next(); err != nil {
				return
			}
		}
	}()
	time.Sleep(long)
	ws.Close()
	<-done
	c.settle()
	return nil
}

// proves is how long a WebSocket is held that has proved itself: P6.6 asks for
// 100 ms.
const proves = 2 * time.Second

// breakOff has the session's WebSockets break until the next one has to be
// refused.
func (b *breaking) breakOff() {
	for n := 1; n <= b.check.setup.BrokenLines; n++ {
		if err := b.holds(proves); err != nil {
			b.check.fatalf("the %d. WebSocket of a session ended: %v", n, err)
		}
	}
}

// refused has the next WebSocket be refused with broken_carrier.
func (b *breaking) refused() (why wireclient.Reason) {
	c := b.check
	e := c.lineSocket(b.hello()).end()
	what := fmt.Sprintf("after %d WebSockets that were cut off, the next", c.setup.BrokenLines)
	after := c.closedFor(what, "broken_carrier", e)
	var last struct{ Close *wireclient.Reason }
	if err := json.Unmarshal([]byte(e.last), &last); err != nil || last.Close == nil {
		c.fatalf("%s: %.200q came before the close frame, not a goodbye", what, e.last)
	}
	if why = *last.Close; why.Code != "broken_carrier" || why.Class != "later" || why.After != after {
		c.errorf("%s: the goodbye is %.200q, and the close frame says %q", what, e.last, e.reason)
	}
	return why
}

func (c *serverCheck) brokenCarrierIsRefused() {
	b := c.breaking()
	b.breakOff()
	first := b.refused()
	time.Sleep(time.Second)
	if then := b.refused(); then.After > first.After-1000 || then.After < first.After-1100 {
		c.errorf("a second after it was told to wait for %d ms, it is told to wait for %d ms", first.After, then.After)
	}
}

func (c *serverCheck) insteadIsOpen() {
	b := c.breaking()
	b.breakOff()
	instead := b.refused().Instead
	if len(instead) == 0 || slices.Contains(instead, "ws") {
		c.errorf("in place of \"ws\", %q are named", instead)
	}
	at := c.publish(busyRoom, "1")
	for _, carrier := range instead {
		i := slices.IndexFunc(sessionForms, func(f form) bool { return f.carrier == carrier })
		if i < 0 || sessionForms[i].carrier == "ws" {
			continue
		}
		if why := sessionForms[i].lacking(c.server); why != "" {
			c.errorf("%q is named, which the server lacks: %s", carrier, why)
			continue
		}
		f := &follower{check: c, at: b.at, token: b.token, line: b.line}
		began := time.Now()
		err := f.reach(sessionForms[i], c.site, func() bool { return len(f.got) == 1 })
		if took := time.Since(began); err != nil || f.at != at || took > 15*time.Second {
			c.errorf("%q is named: %v, and %s after %v", carrier, err, f.place(), took)
		}
		b.line = f.line
	}
}

func (c *serverCheck) mayBeTriedAgain() {
	b := c.breaking()
	b.breakOff()
	time.Sleep(time.Duration(b.refused().After) * time.Millisecond)
	if err := b.holds(proves); err != nil {
		c.errorf("when the delay was over, a WebSocket ended: %v", err)
	}
}

func (c *serverCheck) othersKeepTheirs() {
	b := c.breaking()
	b.breakOff()
	b.refused()
	other := &breaking{check: c, near: b.near, at: b.at}
	if err := other.holds(proves); err != nil {
		c.errorf("while WebSockets are refused to a session, another session's ended: %v", err)
	}
	if plainWS.lacking(c.server) != "" {
		return
	}
	for n := 1; n <= 2*c.setup.BrokenLines+1; n++ {
		s := c.socket("/ws" + wireclient.Query(b.at, busyRoom))
		_ = s.conn.SetReadDeadline(time.Now().Add(proves))
		for err := error(nil); err == nil; { // until it is cut
			var f socketFrame
			if f, err = s.frame(); f.opcode() == wsClose && err == nil {
				c.fatalf("the %d. WebSocket in plain use was closed with %q", n, f.payload)
			}
			if err != nil && !isTimeout(err) {
				c.fatalf("the %d. WebSocket in plain use ended: %v", n, err)
			}
		}
		_ = s.conn.Close()
		c.settle()
	}
}

// leaves is what a client says that closes its WebSocket.
const leaves = "\x03\xe8it leaves, and will be back"

func (c *serverCheck) closedIsNotBroken() {
	b := c.breaking()
	for n := 1; n <= 3*c.setup.BrokenLines; n++ {
		s := c.lineSocket(b.hello())
		o := s.object()
		if o["open"] == nil {
			c.fatalf("the %d. WebSocket of a session that closes them was answered with %v", n, o)
		}
		var open wireclient.Open
		_ = json.Unmarshal(o["open"], &open)
		if open.Token != "" {
			b.token = open.Token
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(proves))
		for err := error(nil); err == nil; {
			if _, err = s.frame(); err != nil && !isTimeout(err) {
				c.fatalf("the %d. WebSocket ended: %v", n, err)
			}
		}
		s.send(wsClose, leaves)
		_, _ = io.Copy(io.Discard, s.r)
		_ = s.conn.Close()
		c.settle()
	}
}

func (c *serverCheck) unprovedIsNotCounted() {
	for _, long := range []time.Duration{50 * time.Millisecond, time.Hour} {
		b := c.breaking()
		for n := 1; n <= 2*c.setup.BrokenLines; n++ {
			if err := b.holds(long); err != nil {
				c.fatalf("the %d. WebSocket of a session that were cut off %v after they began ended: %v", n, long, err)
			}
		}
	}
}
