package redistest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A Link is a way to a server that can be cut, or get slow, or deaf. It knows
// nothing of what passes. Its methods may be called concurrently. It lives in
// real time, so make it outside of bubbles.
type Link struct {
	// Static after NewLink.
	listener net.Listener
	all      sync.WaitGroup

	mu sync.Mutex

	// Guarded by mu.
	target  string
	closed  bool
	cut     bool
	delay   time.Duration
	hearing chan struct{} // closed while bytes pass
	conns   map[net.Conn]struct{}
}

// StartLink makes a link to an address that lasts until the test ends.
func StartLink(t testing.TB, target string) *Link {
	t.Helper()
	l, err := NewLink(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// NewLink makes a link to an address.
func NewLink(target string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{target: target, listener: listener, hearing: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	close(l.hearing)
	l.all.Go(l.accept)
	return l, nil
}

// Addr is where clients dial.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Cut breaks every connection, and each new one at once, until Restore. It ends
// a Hang.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	l.breakAll()
	l.hear()
}

// Hang makes the link deaf until Restore: connections stay, and new ones are
// taken, but nothing passes either way, nor the news that an end has left.
func (l *Link) Hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.hearing:
		l.hearing = make(chan struct{})
	default: // it is deaf
	}
}

// Delay makes each way longer by d for what comes from now on.
func (l *Link) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Restore undoes Cut, Hang and Delay. What hung passes on.
func (l *Link) Restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.delay = false, 0
	l.hear()
}

// Retarget has the link lead elsewhere from now on, and breaks every connection.
func (l *Link) Retarget(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
	l.breakAll()
}

// hear ends a Hang. Callers hold mu, as those of breakAll.
func (l *Link) hear() {
	select {
	case <-l.hearing:
	default:
		close(l.hearing)
	}
}

func (l *Link) breakAll() {
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, as from a cable that is pulled
		}
		_ = c.Close()
	}
}

// Close ends the link and waits for what it started.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.mu.Lock()
	l.closed, l.cut = true, true
	l.breakAll()
	l.hear()
	l.mu.Unlock()
	l.all.Wait()
}

func (l *Link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		if l.keep(client, "") {
			l.all.Go(func() { l.serve(client) })
		}
	}
}

// keep remembers a connection, or closes it if there is a cut, or it is one to where
// the link leads no more.
func (l *Link) keep(c net.Conn, to string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut || to != "" && to != l.target {
		_ = c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	_ = c.Close()
}

func (l *Link) serve(client net.Conn) {
	defer l.drop(client)
	target := l.leads()
	server, err := net.DialTimeout("tcp", target, startTimeout)
	if err != nil || !l.keep(server, target) {
		return
	}
	defer l.drop(server)
	var back sync.WaitGroup
	back.Go(func() { l.pass(client, server) })
	l.pass(server, client)
	back.Wait()
}

func (l *Link) leads() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// A piece is what was read at once, and when it may go on.
type piece struct {
	bytes []byte
	due   time.Time
}

// pass carries one way until either end is gone, then tells the other.
func (l *Link) pass(to, from net.Conn) {
	pieces := make(chan piece, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		for p := range pieces {
			if left := time.Until(p.due); left > 0 {
				<-time.NewTimer(left).C
			}
			l.await()
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close() // ends the reading
			}
		}
		l.await()
		_ = to.Close()
	})
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		pieces <- piece{buf[:n], time.Now().Add(l.lag())}
	}
	close(pieces)
	writer.Wait()
}

func (l *Link) lag() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delay
}

// await waits while the link is deaf.
func (l *Link) await() {
	l.mu.Lock()
	hearing := l.hearing
	l.mu.Unlock()
	<-hearing
}
