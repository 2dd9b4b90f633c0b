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
	log  *Log
	do   func() (V, error)
	idle func() // called when nobody asks any more, with mu held; may be nil

	mu            sync.Mutex
	running, next *round[V] // guarded by mu
}

type round[V any] struct {
	joined int // guarded by rounds.mu

	// Set before done is closed.
	value V
	err   error
	done  chan struct{}
}

const (
	// crowd is how many have to ask at once so that the next round waits for more of
	// them, for crowdPause.
	crowd      = 16
	crowdPause = 100 * time.Millisecond
)

func (r *rounds[V]) ask(ctx context.Context) (value V, err error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round[V]{done: make(chan struct{})}
	}
	this := r.next
	this.joined++
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
		this.value, this.err = r.do()
		close(this.done)
		r.mu.Lock()
		many := this.joined >= crowd
		if many && r.next == nil || many && r.next.joined < crowd {
			r.mu.Unlock()
			r.log.sleep(crowdPause)
			r.mu.Lock()
		}
		r.running, r.next = r.next, nil
	}
	if r.idle != nil {
		r.idle()
	}
	r.mu.Unlock()
}
