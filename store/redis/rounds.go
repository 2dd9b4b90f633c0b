package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// rounds have many ask the same at a time: each gets the answer of a round that began
// after it asked, and one round is under way at a time.
type rounds[V any] struct {
	// Static.
	log   *Log
	do    func() (V, error)
	hurry chan struct{} // of one: there is news, for which nobody is to wait; may be nil
	idle  func()        // called when nobody asks any more, with mu held; may be nil

	mu            sync.Mutex
	running, next *round[V] // guarded by mu
	many          int       // guarded by mu: of the last round, or half of those before
	due           int       // guarded by mu: so many may ask without being a crowd
}

type round[V any] struct {
	joined int // guarded by rounds.mu: those that were not due

	// Set before done is closed.
	value V
	err   error
	done  chan struct{}
}

const (
	// crowd is how many have to come within crowdPause so that rounds are that far
	// apart. After a round of fewer the next one waits for a part of it: if many come
	// one by one, it finds more.
	crowd      = 16
	crowdPause = 100 * time.Millisecond
	// maxCrowd is of how many at most the pause is in proportion.
	maxCrowd = 2 * crowd
)

// ring says that there is news, which some will ask for now.
func (r *rounds[V]) ring() {
	r.mu.Lock()
	r.due = crowd / 4
	r.mu.Unlock()
	select {
	case r.hurry <- struct{}{}:
	default:
	}
}

func (r *rounds[V]) ask(ctx context.Context) (value V, err error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round[V]{done: make(chan struct{})}
	}
	this := r.next
	if r.due > 0 {
		r.due--
	} else {
		this.joined++
	}
	if r.running == nil {
		r.running, r.next = r.next, nil
		if !r.log.spawn(r.run) {
			r.running = nil
			r.mu.Unlock()
			return value, errClosed
		}
	}
	r.mu.Unlock()
	select {
	case <-this.done:
		return this.value, this.err
	case <-ctx.Done():
		return value, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.Cause(ctx))
	}
}

// run does rounds until nobody asks.
func (r *rounds[V]) run() {
	r.mu.Lock()
	for r.running != nil {
		this := r.running
		r.mu.Unlock()
		select {
		case <-r.hurry: // this round reads that
		default:
		}
		this.value, this.err = r.do()
		close(this.done)
		r.mu.Lock()
		if r.many = min(max(this.joined, r.many/2), maxCrowd); r.many > 1 && !r.log.o.tests.hurry {
			pause := crowdPause * time.Duration(r.many) / crowd
			r.mu.Unlock()
			r.gather(pause)
			r.mu.Lock()
		}
		r.running, r.next = r.next, nil
	}
	if r.idle != nil {
		r.idle()
	}
	r.mu.Unlock()
}

// gather waits for others to ask, but not if there is news.
func (r *rounds[V]) gather(pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.hurry:
	case <-r.log.ctx.Done():
	}
}
