package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// A relay is the nodes' way to Redis, which can be cut.
type relay struct {
	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	until time.Time             // guarded by mu: it is cut until then
	conns map[net.Conn]struct{} // guarded by mu; nil: it is closed
}

func startRelay(target string) (*relay, error) {
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		return nil, err
	}
	r := &relay{target: target, listener: l, conns: make(map[net.Conn]struct{})}
	r.work.Go(r.accept)
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

// cut breaks all connections, and new ones for so long.
func (r *relay) cut(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(d)
	r.breakAll()
}

// left is for how long it is still cut.
func (r *relay) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, time.Until(r.until))
}

// breakAll is called with mu held.
func (r *relay) breakAll() {
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.breakAll()
	r.conns = nil
	r.mu.Unlock()
	r.work.Wait()
}

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() { r.pass(c) })
	}
}

// pass carries a connection both ways until either side ends it.
func (r *relay) pass(c net.Conn) {
	defer r.forget(c)
	if !r.keep(c) {
		return
	}
	to, err := net.DialTimeout("tcp", r.target, 2*time.Second)
	if err != nil {
		return
	}
	defer r.forget(to)
	if !r.keep(to) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, to)
		_ = c.Close()
	})
	_, _ = io.Copy(to, c)
	_ = to.Close()
	back.Wait()
}

func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil || time.Now().Before(r.until) {
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *relay) forget(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = c.Close()
	delete(r.conns, c)
}
