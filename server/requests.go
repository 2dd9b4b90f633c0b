package server

import (
	"context"
	"sync"
)

// requests counts the requests at work, those that became WebSockets too, so
// that Shutdown can wait for them.
type requests struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	none chan struct{} // guarded by mu: closes when n is 0; nil: nobody waits
	over bool          // guarded by mu: no more begin
}

func (r *requests) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.n++
	}
	return !r.over
}

func (r *requests) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

func (r *requests) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.none != nil {
		close(r.none)
		r.none = nil
	}
}

// wait reports whether there was a moment without any before ctx ended.
func (r *requests) wait(ctx context.Context) bool {
	r.mu.Lock()
	if r.n == 0 {
		r.mu.Unlock()
		return true
	}
	if r.none == nil {
		r.none = make(chan struct{})
	}
	none := r.none
	r.mu.Unlock()
	select {
	case <-none:
		return true
	case <-ctx.Done():
		return false
	}
}
