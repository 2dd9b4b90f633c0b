package faultproxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options say where a Proxy stands.
type Options struct {
	// Listener is where clients come in. The proxy closes it.
	Listener net.Listener
	// Dial connects to the server. It must return soon when ctx ends.
	Dial func(ctx context.Context) (net.Conn, error)
	// Timeout bounds each wait for what ought not to take long: Dial, the rest
	// of a head, a write, the rest of a request once it is answered, and the
	// second direction of an upgrade once the first has ended. It does not
	// bound how long a server may think, or a connection be idle. Default:
	// a minute.
	Timeout time.Duration
	// Hold is how long a connection that is [HalfOpen] is kept before it is
	// reset. Default: until CutNow or Close.
	Hold time.Duration
}

// A Proxy passes requests on, and does what its rules say to some. All methods
// may be called concurrently.
type Proxy struct {
	// Static after New.
	options Options
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	live sync.WaitGroup // every goroutine but those that a connection waits for

	mu          sync.Mutex // guards what follows
	closed      bool
	rules       []*rule
	connections map[*conn]struct{}
	accepted    int
	log         []Entry
}

// New returns a proxy that serves at once, until Close.
func New(o Options) *Proxy {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	p := &Proxy{options: o, connections: make(map[*conn]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.live.Go(p.accept)
	return p
}

// Close ends every connection, in good order where it isn't half-open, and
// waits until all has ended that the proxy started. It may be called twice.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	_ = p.options.Listener.Close()
	for _, c := range p.matching(nil) {
		c.kill(verdict{client: Orderly, server: Orderly, why: "the proxy closes"})
	}
	p.live.Wait()
}

// CutNow ends the connections whose current request which reports true for, or
// all, idle ones too, if which is nil, and returns how many. After an upgrade
// the current request stays the one that asked for it. When CutNow returns, nothing
// passes any more. Ones that are half-open already can be ended so, too. It must
// not be called by which, nor by the Match of a rule.
func (p *Proxy) CutNow(which func(*http.Request) bool, how Ending) int {
	list := p.matching(which)
	for _, c := range list {
		c.kill(both(how, "cut now"))
	}
	for _, c := range list {
		<-c.quiet
	}
	return len(list)
}

// matching calls which without a lock held.
func (p *Proxy) matching(which func(*http.Request) bool) (list []*conn) {
	p.mu.Lock()
	for c := range p.connections {
		list = append(list, c)
	}
	p.mu.Unlock()
	if which == nil {
		return list
	}
	matching := list[:0]
	for _, c := range list {
		if x := c.now(); x != nil && which(x.request) {
			matching = append(matching, c)
		}
	}
	return matching
}

// accept serves what the listener accepts, until that fails.
func (p *Proxy) accept() {
	for {
		client, err := p.options.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.note(0, "", "accepts no more: "+err.Error())
			}
			return
		}
		p.serve(client)
	}
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = client.Close()
		return
	}
	p.accepted++
	c := newConn(p, p.accepted, client)
	p.connections[c] = struct{}{}
	p.live.Go(c.serve)
}

func (p *Proxy) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.connections, c)
}
