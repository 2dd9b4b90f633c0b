package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// peers cuts connections whose clients take nothing: what was sent to one is not
// acknowledged, or lies in the kernel untaken, for PeerTimeout. It looks four times as
// often, so it may take a quarter longer.
//
// The kernel could do that by itself (TCP_USER_TIMEOUT). But it counts the time for which
// the window is smaller than what it would send next, whatever was taken meanwhile: who
// reads all the time, slowly and through a small window, is cut as if it were dead. So it
// does so where there is no stream, for what lies there untaken when a connection is
// closed; only after some time, as an answer may be read slowly, too.
type peers struct {
	within time.Duration
	logger *slog.Logger

	mu     sync.Mutex
	all    map[*peer]struct{} // guarded by mu
	timer  *time.Timer        // guarded by mu: runs while there are any
	closed bool               // guarded by mu
	looks  sync.WaitGroup     // those to come
}

// A peer is a connection, seen from here.
type peer struct {
	// Static.
	tcp    *net.TCPConn
	raw    syscall.RawConn
	closed time.Duration // how long what lies there may when it is closed

	// Owned by look.
	taken uint64    // the bytes that were acknowledged
	since time.Time // when that was so first, while more was waiting; zero: nothing waits

	mu      sync.Mutex
	streams int  // guarded by mu: under way on it
	untold  bool // guarded by mu: the system doesn't tell what it takes
}

// peerKey is by which the context of a connection has its peer.
type peerKey struct{}

// watch looks after a connection until it is closed.
func (p *peers) watch(ctx context.Context, tcp *net.TCPConn, raw syscall.RawConn) context.Context {
	c := &peer{tcp: tcp, raw: raw, closed: 3 * p.within}
	giveUpAfter(raw, c.closed)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ctx
	}
	if p.all == nil {
		p.all = make(map[*peer]struct{})
	}
	p.all[c] = struct{}{}
	if p.timer == nil {
		p.lookSoon()
	}
	return context.WithValue(ctx, peerKey{}, c)
}

// lookSoon is called with mu held.
func (p *peers) lookSoon() {
	p.looks.Add(1)
	p.timer = time.AfterFunc(max(p.within/4, 10*time.Millisecond), p.look)
}

// look is called by the timer.
func (p *peers) look() {
	defer p.looks.Done()
	p.mu.Lock()
	all := slices.Collect(maps.Keys(p.all))
	p.mu.Unlock()
	var over []*peer
	for _, one := range all {
		stuck, err := one.stuck(time.Now(), p.within)
		switch {
		case stuck:
			p.cut(one)
		case errors.Is(err, errors.ErrUnsupported):
			p.untold(err)
			one.leaveToKernel(p.within)
		}
		if stuck || err != nil {
			over = append(over, one)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range over {
		delete(p.all, one)
	}
	if p.timer = nil; len(p.all) > 0 && !p.closed {
		p.lookSoon()
	}
}

func (p *peers) cut(c *peer) {
	p.logger.Debug("client takes nothing", slog.String("addr", c.tcp.RemoteAddr().String()), slog.Duration("for", p.within))
	_ = c.tcp.SetLinger(0) // so that the kernel gives back what it holds
	_ = c.tcp.Close()
}

// untold says that nothing can be said of a connection.
func (p *peers) untold(err error) {
	p.logger.Debug("no peer timeout", slog.Any("error", err))
}

// close ends the looks. Connections are let be.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil && p.timer.Stop() {
		p.looks.Done()
	}
	p.all = nil
	p.mu.Unlock()
	p.looks.Wait()
}

// stuck reports whether nothing was taken for so long, though there was something to
// take. The error says that the connection is closed, or that the system doesn't tell.
func (c *peer) stuck(now time.Time, within time.Duration) (bool, error) {
	taken, waiting, err := takenBy(c.raw)
	switch {
	case err != nil:
		return false, err
	case !waiting:
		c.since = time.Time{}
	case c.since.IsZero() || taken != c.taken:
		c.since = now
	}
	c.taken = taken
	return waiting && now.Sub(c.since) >= within, nil
}

// leaveToKernel has the system cut it, however it does that.
func (c *peer) leaveToKernel(within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untold = true
	giveUpAfter(c.raw, within)
}

// stream notes that one more stream has begun, or ended, on a connection.
func (c *peer) stream(more int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.streams
	c.streams += more
	switch {
	case c.untold:
	case before == 0:
		giveUpAfter(c.raw, 0)
	case c.streams == 0:
		giveUpAfter(c.raw, c.closed)
	}
}

// aStream serves what may go on for long: meanwhile nobody is cut who takes something.
func aStream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, watched := r.Context().Value(peerKey{}).(*peer)
		if !watched {
			next.ServeHTTP(w, r)
			return
		}
		c.stream(+1)
		defer c.stream(-1)
		next.ServeHTTP(w, r)
	})
}
