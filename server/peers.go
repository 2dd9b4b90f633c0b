package server

import (
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// peers cuts connections whose clients take nothing: what was sent to one is not
// acknowledged, or lies in the kernel untaken, for PeerTimeout. It looks four times as
// often, so it may take a quarter longer.
//
// One that took nothing from one look to the next is reset if it is closed before: else
// the kernel would keep what it holds for it, for minutes.
//
// The kernel could do all that by itself (TCP_USER_TIMEOUT). But it counts the time for which
// the window is smaller than what it would send next, whatever was taken meanwhile: who
// reads all the time, slowly and through a small window, is cut as if it were dead.
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
	tcp *net.TCPConn
	raw syscall.RawConn

	// Owned by look.
	taken  uint64    // the bytes that were acknowledged
	since  time.Time // when that was so first, while more was waiting; zero: nothing waits
	resets bool      // it is reset when it is closed
}

// watch looks after a connection until it is closed.
func (p *peers) watch(tcp *net.TCPConn, raw syscall.RawConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if p.all == nil {
		p.all = make(map[*peer]struct{})
	}
	p.all[&peer{tcp: tcp, raw: raw}] = struct{}{}
	if p.timer == nil {
		p.lookSoon()
	}
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
		if stuck {
			p.logger.Debug("client takes nothing", slog.String("addr", one.tcp.RemoteAddr().String()), slog.Duration("for", p.within))
			_ = one.tcp.Close()
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

// stuck reports whether nothing was taken for so long, though there was something to
// take. The error says that the connection is closed.
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
	if late := waiting && now.After(c.since); late != c.resets {
		c.resets = late
		linger := -1 // as the system has it
		if late {
			linger = 0
		}
		_ = c.tcp.SetLinger(linger) // what fails is closed, and forgotten at the next look
	}
	return waiting && now.Sub(c.since) >= within, nil
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
