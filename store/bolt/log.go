package bolt

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// A Log is an [eventlog.Log] and a [session.Store] whose events are in one file.
// It must be closed.
//
// It owns one goroutine, the writer: all that changes is changed by it. Readers
// see what it has shown, under mu, and read the file beside it.
type Log struct {
	// Static after Open.
	options Options
	path    string
	file    *file
	secret  []byte
	leases  *session.Memory
	queue   queue
	stop    chan struct{}  // closed by Close
	done    chan struct{}  // closed when the writer has ended
	copies  chan *copying  // from those who want one
	copied  chan *copying  // from its goroutine
	others  sync.WaitGroup // goroutines that the writer started

	mu sync.RWMutex // Retain and wake functions are called without it, and nothing is written or read with it

	// Written by the writer with mu.
	closed     bool // by Close
	channels   map[eventlog.Channel]*channel
	generation generation
	bytes      int64 // retained in all channels

	// Guarded by mu.
	watchers map[eventlog.Channel][]*watcher // each slice is replaced, never changed

	writer // the writer's own
}

// A watcher is one call of Watch.
type watcher struct{ wake func() }

var (
	_ eventlog.Log      = (*Log)(nil)
	_ eventlog.Measured = (*Log)(nil)
	_ eventlog.Itemized = (*Log)(nil)
)

// Append implements [eventlog.Log]. The batch may be used again when it returns.
// If the context ends while the batch waits to be written it is taken back; while
// it is being written, Append returns at once with [eventlog.ErrUnavailable], and
// the batch may be appended nevertheless.
func (l *Log) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (last eventlog.Position, duplicate bool, err error) {
	if err := ended(ctx); err != nil {
		return eventlog.Position{}, false, err
	}
	if err := ch.Check(); err != nil {
		return eventlog.Position{}, false, err
	}
	if err := b.Check(l.options.MaxData); err != nil {
		return eventlog.Position{}, false, err
	}
	r := l.newRequest(ch, b)
	if err := l.queue.put(r); err != nil {
		return eventlog.Position{}, false, err
	}
	select {
	case <-r.answered:
	case <-ctx.Done():
		if err := r.leave(ctx); err != nil {
			return eventlog.Position{}, false, err
		}
		<-r.answered // at the same moment
	}
	for _, w := range r.wake {
		w.wake()
	}
	return r.last, r.duplicate, r.err
}

// newRequest makes copies: the batch is the caller's.
func (l *Log) newRequest(ch eventlog.Channel, b eventlog.Batch) *request {
	r := &request{
		channel:  eventlog.Channel{Namespace: strings.Clone(ch.Namespace), Name: strings.Clone(ch.Name)},
		batch:    b,
		answered: make(chan struct{}),
	}
	r.batch.Messages = make([]eventlog.Message, len(b.Messages))
	for i := range b.Messages {
		r.batch.Messages[i] = b.Messages[i].Clone()
		r.size += int64(b.Messages[i].Size())
	}
	l.mu.RLock()
	known := l.channels[ch] != nil
	l.mu.RUnlock()
	if !known {
		r.retention = l.options.retention(ch)
	}
	return r
}

// Watch implements [eventlog.Log].
func (l *Log) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	w := &watcher{wake: wake}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || ch.Check() != nil {
		return func() {}
	}
	l.watchers[ch] = append(slices.Clip(l.watchers[ch]), w)
	return func() { l.unwatch(ch, w) }
}

func (l *Log) unwatch(ch eventlog.Channel, w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.watchers[ch], w)
	if i < 0 {
		return
	}
	rest := slices.Delete(slices.Clone(l.watchers[ch]), i, i+1)
	if len(rest) == 0 {
		delete(l.watchers, ch)
	} else {
		l.watchers[ch] = rest
	}
}

// Info implements [eventlog.Log].
func (l *Log) Info() eventlog.Info {
	return eventlog.Info{ProducersRemembered: l.options.RememberProducers, MaxData: l.options.MaxData}
}

// Size implements [eventlog.Measured].
func (l *Log) Size() eventlog.Size {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return eventlog.Size{Channels: len(l.channels), Bytes: l.bytes}
}

// Holding implements [eventlog.Itemized].
func (l *Log) Holding(ch eventlog.Channel) eventlog.Holding {
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.channels[ch]
	if c == nil {
		return eventlog.Holding{}
	}
	return eventlog.Holding{Head: c.shown.head.at.Offset, Events: c.shown.events(), Bytes: c.shown.bytes()}
}

// Close writes what is not written yet, and returns when the file is closed. It
// must not be called by a wake function. It may be called again. An error says
// that something which was acknowledged could not be written.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.watchers = nil
	l.mu.Unlock()
	if first {
		l.queue.close()
		close(l.stop)
	}
	<-l.done
	return l.closing
}

// An alarm is a timer that can be asked when it fires.
type alarm struct {
	*time.Timer

	at time.Time
}

// set has the timer fire at a time, if that is sooner than it would.
func (a *alarm) set(at time.Time) {
	if at.Before(a.at) {
		a.at = at
		a.Reset(time.Until(at))
	}
}
