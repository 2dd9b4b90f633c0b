package bolt

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/throughline/throughline/eventlog"
)

// The states of a request. It is its caller's while it waits, and the writer's
// once that has taken it.
const (
	waits int32 = iota
	taken
	left // by its caller: nobody waits for the answer
	done // answered
)

// A request is one Append on its way to the writer.
type request struct {
	// Static after it was made.
	channel   eventlog.Channel
	batch     eventlog.Batch
	size      int64
	retention eventlog.Retention // if the channel was unborn

	state    atomic.Int32
	answered chan struct{} // closed by the writer; then what follows is the caller's

	last      eventlog.Position
	duplicate bool
	err       error
	wake      []*watcher
}

// leave is called when the caller's context has ended. Its error is what the
// caller is told; nil means that the answer is there.
func (r *request) leave(ctx context.Context) error {
	if r.state.CompareAndSwap(waits, left) {
		return ended(ctx)
	}
	if r.state.CompareAndSwap(taken, left) {
		return fmt.Errorf("%w: %w: the events were being written, and may have been appended", eventlog.ErrUnavailable, context.Cause(ctx))
	}
	return nil
}

// answer ends a request. It returns who has to be woken by somebody else, as the
// caller has left.
func (r *request) answer(err error) (wake []*watcher) {
	r.err = err
	if err != nil {
		r.last, r.duplicate, r.wake = eventlog.Position{}, false, nil
	}
	if !r.state.CompareAndSwap(taken, done) {
		wake = r.wake
	}
	close(r.answered)
	return wake
}

// A queue holds what waits for the writer.
type queue struct {
	most  int64         // bytes
	ready chan struct{} // has room for one: there is something

	mu sync.Mutex

	// Guarded by mu.
	waiting []*request
	bytes   int64
	closed  bool
}

func newQueue(most int64) queue { return queue{most: most, ready: make(chan struct{}, 1)} }

// put adds a request, unless too much waits already.
func (q *queue) put(r *request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosed
	case q.bytes+r.size > q.most && q.bytes > 0:
		return errOverloaded
	}
	q.waiting = append(q.waiting, r)
	q.bytes += r.size
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return nil
}

// take returns the requests that came first, up to so many bytes of them, but at
// least one if there is any.
func (q *queue) take(most int64) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, int64(0)
	for n < len(q.waiting) && (n == 0 || bytes+q.waiting[n].size <= most) {
		bytes += q.waiting[n].size
		n++
	}
	some := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	q.bytes -= bytes
	if len(q.waiting) > 0 {
		select {
		case q.ready <- struct{}{}:
		default:
		}
	}
	return some
}

// close refuses what comes from now on.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
