package conformance

import (
	"strings"
	"time"

	"github.com/throughline/throughline/transport"
)

// prover returns the connection as one that can find out whether its client reads, or
// nil. It has to be what Transport.Proves says.
func (a *attachment) prover() transport.Prover {
	p, can := a.conn.(transport.Prover)
	if can != a.check.transport.Proves {
		a.check.fatalf("that the Conn is a transport.Prover is %v, and Transport.Proves says %v", can, a.check.transport.Proves)
	}
	return p
}

// prove asks for a proof within a time, and says how long the answer took.
func (a *attachment) prove(p transport.Prover, within time.Duration) (took time.Duration, err error) {
	defer a.check.tell("Prove", &err)
	began := time.Now()
	err = p.Prove(began.Add(within))
	return time.Since(began), err
}

func readingIsProved(c *transportCheck) {
	l, a := c.attach(ask(at(0)))
	p := a.prover()
	a.send(opening("room", at(0)))
	if p == nil {
		return
	}
	for n := range 3 {
		page := events(n, "a page")
		a.send(runOf("room", page))
		if took, err := a.prove(p, c.patience()); err != nil {
			c.fatalf("after page %d Prove returned %v in %v, and the client reads", n+1, err, took)
		}
		l.event(&page[0])
	}
}

func stallIsNoProof(c *transportCheck) {
	within, late := c.span(5*time.Second, 250*time.Millisecond), c.span(time.Second, 5*time.Second)
	a := c.stalledAfterAPage()
	switch took, err := a.prove(a.prover(), within); {
	case err == nil:
		c.errorf("Prove returned nil for a client that doesn't read")
	case took < within || took > within+late:
		c.errorf("Prove with a deadline in %v returned %v after %v", within, err, took)
	}
}

func closeFreesProve(c *transportCheck) {
	after, late := c.span(3*time.Second, 250*time.Millisecond), c.span(time.Second, 5*time.Second)
	a := c.stalledAfterAPage()
	timer := time.AfterFunc(after, func() { a.close(transport.CodeSlowConsumer) })
	defer timer.Stop()
	if took, err := a.prove(a.prover(), c.span(10*time.Minute, 20*time.Second)); err == nil || took > after+late {
		c.errorf("a Prove that Close should have freed after %v returned %v after %v", after, err, took)
	}
}

// stalledAfterAPage is a line whose client has filled the buffer by which it may read
// ahead, and was sent a page more.
func (c *transportCheck) stalledAfterAPage() *attachment {
	c.openStalled(ask(at(0)), make(chan struct{}))
	a := c.await()
	a.send(opening("room", at(0)), runOf("room", events(0, strings.Repeat("x", 200_000))))
	c.settle()
	a.send(runOf("room", events(1, "a page", "that", "nobody reads")))
	return a
}
