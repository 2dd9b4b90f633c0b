package bolt_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

// A restarting log is closed and opened again every few calls, as if its program
// was. Who watches it watches on, and looks what is new, as clients do.
type restarting struct {
	t       *testing.T
	path    string
	options bolt.Options

	mu     sync.RWMutex // held for writing while it restarts, which is only tried: wakes call the log, too
	log    *bolt.Log
	calls  int
	closed bool

	watching sync.Mutex // after mu
	watches  map[int]*watch
	watched  int
}

type watch struct {
	channel eventlog.Channel
	wake    func()
	stop    func()
}

// restartEvery is how many calls come between restarts.
const restartEvery = 7

func newRestarting(t *testing.T, o bolt.Options) *restarting {
	r := &restarting{t: t, path: filepath.Join(t.TempDir(), "events.db"), options: o, watches: map[int]*watch{}}
	var err error
	if r.log, err = bolt.Open(r.path, o); err != nil {
		t.Fatal(err)
	}
	return r
}

// call returns the log for one call.
func (r *restarting) call() (l *bolt.Log, end func()) {
	if r.mu.TryLock() {
		if r.calls++; r.calls%restartEvery == 0 && !r.closed {
			r.restart()
		}
		r.mu.Unlock()
	}
	r.mu.RLock()
	return r.log, r.mu.RUnlock
}

func (r *restarting) restart() {
	if err := r.log.Close(); err != nil {
		r.t.Errorf("Close: %v", err)
	}
	var err error
	if r.log, err = bolt.Open(r.path, r.options); err != nil {
		panic(err) // perhaps not in the test's goroutine
	}
	r.watching.Lock()
	defer r.watching.Unlock()
	for _, w := range r.watches {
		w.stop = r.log.Watch(w.channel, w.wake)
		go w.wake()
	}
}

func (r *restarting) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	l, end := r.call()
	defer end()
	return l.Append(ctx, ch, b)
}

func (r *restarting) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	l, end := r.call()
	defer end()
	return l.Seek(ctx, ch, s)
}

func (r *restarting) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	l, end := r.call()
	defer end()
	return l.Read(ctx, ch, after, limit)
}

func (r *restarting) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	l, end := r.call()
	defer end()
	r.watching.Lock()
	defer r.watching.Unlock()
	r.watched++
	id := r.watched
	r.watches[id] = &watch{ch, wake, l.Watch(ch, wake)}
	return func() {
		r.watching.Lock()
		defer r.watching.Unlock()
		if w := r.watches[id]; w != nil {
			w.stop()
			delete(r.watches, id)
		}
	}
}

func (r *restarting) Info() eventlog.Info {
	l, end := r.call()
	defer end()
	return l.Info()
}

func (r *restarting) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.log.Close()
}

// TestRestartsConformance: the contract holds over restarts, whatever is
// promised of the disk.
func TestRestartsConformance(t *testing.T) {
	for name, interval := range map[string]time.Duration{"synced": 0, "interval": time.Second} {
		t.Run(name, func(t *testing.T) {
			conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
				o := options(s)
				o.Interval = interval
				return newRestarting(t, o)
			})
		})
	}
}
