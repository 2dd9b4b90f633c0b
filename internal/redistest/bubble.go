package redistest

import (
	"context"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A Bubble dials real servers from within a bubble of testing/synctest, where it
// has to be made.
//
// While an answer is under way fake time stands still, since nothing in the
// bubble is durably blocked. A connection that waits for nothing it asked for
// does so durably, so that time goes on.
//
// What others publish comes to a subscribed connection unasked. It is looked for
// whenever a connection of the same Bubble was answered, by a PING of the rig's
// own whose answer nobody sees: what was published before is before it. So
// whatever the answered command made the same server publish is there before
// time goes on. What somebody outside publishes, or another server passes on
// later, is found at the next occasion.
//
// Deadlines are of the bubble's time. A server that owes an answer and says
// nothing for Patience is taken to be deaf for good: then the deadline decides,
// or, without one, the read fails.
//
// Commands that block at the server stop fake time for as long as they do.
type Bubble struct {
	// Patience is in real time. It may be changed before the first Dial.
	// Default: 10 s.
	Patience time.Duration

	mu sync.Mutex

	// Guarded by mu.
	conns map[*conn]struct{}
}

// NewBubble returns a dialer for the bubble it is called in.
func NewBubble() *Bubble {
	return &Bubble{Patience: 10 * time.Second, conns: make(map[*conn]struct{})}
}

// Options are for a client of a server, or of a link to one, within the bubble.
func (b *Bubble) Options(s *Server) *goredis.Options {
	o := s.Options()
	o.Dialer = b.Dial
	// Who waits for a connection of the pool does so with a timer that go-redis
	// keeps for other clients, which may live outside of this bubble.
	o.PoolSize, o.PipelinePoolSize = 1000, -1
	return o
}

// Client returns a client of a server for the bubble. Whoever makes it closes
// it before the bubble ends.
func (b *Bubble) Client(s *Server) *goredis.Client { return goredis.NewClient(b.Options(s)) }

// Dial is for the Dialer of go-redis's options. The address must be of numbers:
// looking up names doesn't work in bubbles.
func (b *Bubble) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: b.Patience}
	real, err := dialer.DialContext(context.WithoutCancel(ctx), network, addr)
	if err != nil {
		return nil, err
	}
	c := b.newConn(real)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[c] = struct{}{}
	return c, nil
}

// answered has the subscribed connections look for what was published.
func (b *Bubble) answered(by *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		if c != by {
			c.mayBePublished()
		}
	}
}

func (b *Bubble) forget(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
}
