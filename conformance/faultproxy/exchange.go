package faultproxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An exchange is a request and its answer. The goroutine of the connection runs
// it, and passes the answer; another passes the request.
type exchange struct {
	c       *conn
	request *http.Request // without a body
	name    string
	head    piece    // of the request, as it goes on
	body    *framing // of the request
	up      flow
	down    flow

	// What a fault changes, before anything is passed.
	upgrade  bool                                         // it asks for an upgrade
	last     bool                                         // no request may follow
	answer   []byte                                       // is given without asking the server
	rewrite  func([]byte, *http.Response) ([]byte, error) // makes another head of the answer
	upgraded func()                                       // is called when the server has switched protocols
	answered func()                                       // is called when the answer has gone on

	status    int           // of the answer
	settled   chan struct{} // closes when the answer is complete, or the protocol is switched
	switched  bool          // set before settled closes
	switching atomic.Bool   // the client may know of it already
	halves    atomic.Int32  // directions that have ended, after an upgrade
	finished  chan struct{} // closes when the exchange ends
	helpers   sync.WaitGroup
}

// exchange serves the next request, and reports whether another may follow.
func (c *conn) exchange() (more bool) {
	head, ok := c.nextRequest()
	if !ok {
		return false
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head.p)))
	if err != nil || req.ProtoMajor != 1 || req.Method == http.MethodConnect {
		c.end(both(Reset, "what came is no request for a proxy like this"))
		return false
	}
	req.Body = http.NoBody
	x := &exchange{
		c: c, request: req, name: req.Method + " " + req.RequestURI, head: head, body: requestFraming(req),
		upgrade: asksToUpgrade(req), last: req.Close,
		settled: make(chan struct{}), finished: make(chan struct{}),
	}
	x.up = flow{c: c, from: c.client, shaper: prompt{}}
	x.down = flow{c: c, to: c.client, shaper: prompt{}}
	c.become(x)
	more = x.run()
	close(x.finished)
	x.helpers.Wait()
	if more {
		c.become(nil)
	}
	return more
}

// nextRequest waits for the head of a request, and ends the connection when
// either end leaves.
func (c *conn) nextRequest() (head piece, ok bool) {
	var server <-chan piece // what it says unasked ends the connection, too
	if c.server != nil {
		server = c.server.pieces
	}
	head, err := c.client.head(c.p.options.Timeout, c.over, server)
	switch {
	case errors.Is(err, errStopped):
		c.broke("the server", c.server.why())
	case err != nil:
		c.broke("the client", err)
	}
	return head, err == nil
}

func asksToUpgrade(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" && strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Connection"), ",")), "upgrade")
}

// run reports whether another request may follow.
func (x *exchange) run() (more bool) {
	if fault := x.c.p.choose(x.request); fault != nil {
		x.c.note(describe(fault))
		fault.apply(x)
	}
	if x.c.isOver() {
		return false
	}
	if x.answer != nil {
		return x.answerUnasked()
	}
	if err := x.c.dial(); err != nil {
		x.giveUp(http.StatusBadGateway, "dial: "+err.Error())
		return false
	}
	x.up.to, x.down.from = x.c.server, x.c.server
	passed := make(chan error, 1)
	x.helpers.Go(func() { passed <- x.passRequest() })
	keep, err := x.passAnswer()
	if err != nil {
		x.broke("the server", err)
		return false
	}
	x.c.note(fmt.Sprintf("answered %d, %d bytes passed on", x.status, x.down.passed))
	if x.answered != nil {
		x.answered()
	}
	close(x.settled)
	x.later(x.c.p.options.Timeout, func() { x.c.end(both(Reset, "the request did not end after its answer")) })
	if err := <-passed; err != nil || !keep || x.last {
		x.c.end(both(Orderly, "that was the last answer"))
		return false
	}
	return true
}

// answerUnasked answers in place of the server, then reads the rest of the
// request.
func (x *exchange) answerUnasked() (more bool) {
	if _, err := x.c.write(x.c.client, x.answer); err != nil {
		x.broke("the proxy", err)
		return false
	}
	x.later(x.c.p.options.Timeout, func() { x.c.end(both(Reset, "the request did not end after its answer")) })
	x.up.shaper = dropped{}
	if err := x.up.run(x.body, time.Now(), nil); err != nil {
		x.broke("the client", err)
		return false
	}
	if x.last {
		x.c.end(both(Orderly, "that was the last answer"))
	}
	return !x.last
}

// later calls f after d, unless the exchange ends before.
func (x *exchange) later(d time.Duration, f func()) {
	if d <= 0 {
		f()
		return
	}
	x.helpers.Go(func() {
		if x.pause(d) {
			f()
		}
	})
}

// pause waits, and reports whether the exchange still lasts.
func (x *exchange) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.finished:
	case <-x.c.over:
	}
	return false
}

// passRequest passes the request, and after it what an upgrade brings. In between it
// watches for the client to leave. It returns once the exchange is settled, and
// an error if the connection can't be used again.
func (x *exchange) passRequest() error {
	err := x.up.message(x.head, x.body)
	if we, ok := errors.AsType[writeError](err); ok {
		return we // its answer may still come
	}
	if err == nil {
		err = x.up.run(&framing{kind: nothing}, time.Now(), x.settled)
		if x.switching.Load() && errors.Is(err, io.EOF) {
			err = nil // is seen again below
		}
	}
	if err != nil && !errors.Is(err, errStopped) {
		x.broke("the client", err)
		return err
	}
	select {
	case <-x.settled:
	case <-x.c.over:
		return errOver
	}
	if !x.switched {
		return nil
	}
	err = x.up.run(&framing{kind: untilClose}, time.Now(), nil)
	x.halfEnded("the client", x.c.server, err)
	return err
}

// passAnswer passes the answer, and after an upgrade what follows. It reports
// whether the connection to the server may be used again.
func (x *exchange) passAnswer() (keep bool, err error) {
	for {
		a, err := x.readAnswer()
		if err != nil {
			return false, err
		}
		x.switching.Store(a.status == http.StatusSwitchingProtocols)
		if err := x.down.message(a.head, a.body); err != nil {
			return false, err
		}
		switch {
		case a.status == http.StatusSwitchingProtocols:
			return false, x.passUpgraded()
		case a.status >= 200:
			x.status = a.status
			return !a.last && a.body.kind != untilClose, nil
		}
	}
}

// An answerHead is what the head of an answer says.
type answerHead struct {
	head   piece
	status int
	last   bool // the connection is to close after it
	body   *framing
}

// readAnswer reads the next head that comes down.
func (x *exchange) readAnswer() (answerHead, error) {
	head, err := x.c.server.head(x.c.p.options.Timeout, x.c.over, nil)
	if err != nil {
		return answerHead{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head.p)), x.request)
	if err != nil {
		return answerHead{}, fmt.Errorf("no answer of HTTP: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols && !x.upgrade {
		return answerHead{}, errors.New("101 to what asked for no upgrade")
	}
	if x.rewrite != nil {
		head.p, err = x.rewrite(head.p, resp)
	}
	return answerHead{head, resp.StatusCode, resp.Close, answerFraming(x.request.Method, resp)}, err
}

// passUpgraded passes bytes both ways, until the connection ends.
func (x *exchange) passUpgraded() error {
	x.c.note("switched protocols")
	if x.upgraded != nil {
		x.upgraded()
	}
	x.switched = true
	close(x.settled)
	err := x.down.run(&framing{kind: untilClose}, time.Now(), nil)
	x.halfEnded("the server", x.c.client, err)
	<-x.c.over
	return errOver
}

// halfEnded tells a side that nothing more comes from the other, and gives it
// some time to end, too.
func (x *exchange) halfEnded(who string, other *side, err error) {
	switch {
	case err != nil:
		x.broke(who, err)
	case x.halves.Add(1) == 2:
		x.c.end(both(Orderly, "both ends left"))
	case !other.halfClose():
		x.c.end(both(Orderly, who+" left"))
	default:
		x.later(x.c.p.options.Timeout, func() { x.c.end(both(Reset, who+" left, the other end did not")) })
	}
}

// broke ends the connection after passing what who says failed.
func (x *exchange) broke(who string, err error) {
	if _, ok := errors.AsType[writeError](err); ok {
		x.c.end(both(Reset, "what "+who+" said was not taken: "+err.Error()))
		return
	}
	x.c.broke(who, err)
}
