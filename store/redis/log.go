package redis

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
)

// A Log is an [eventlog.Log] and a [session.Store] that many nodes share through
// Redis. It must be closed, and its client after it, by the program.
type Log struct {
	// Static after Open.
	client  goredis.UniversalClient
	o       Options
	buckets int
	pipe    *pipe
	leases  *leases
	bells   *bells
	disk    diskRule
	// ctx ends when the log is closed.
	ctx    context.Context
	cancel context.CancelFunc
	// others are the goroutines of the log.
	others sync.WaitGroup

	mu sync.Mutex // wake functions are called without it, and nothing is asked with it

	// Guarded by mu.
	closed  bool
	tails   map[eventlog.Channel]*tail
	waiting map[int]*pipe // those that wait for so many replicas
	shared  map[question]*rounds[*part]
	recent  list.List // of tails that hold something; the last was read last
	tailed  int64     // bytes that they hold
}

var (
	_ eventlog.Log     = (*Log)(nil)
	_ eventlog.History = (*Log)(nil)
)

// Open opens the log that a Redis has, or makes it. The client stays the program's, and
// has to be there until the log is closed. It may be used for other things.
//
// While Redis can't be asked it tries again, until the context ends; if that has no
// deadline, for Options.Timeout. One that is full, or misses its replicas, will do for
// a log that is there. An error says why Redis can't be asked, that it is older than 7.0,
// or that it has a log with another number of buckets, or of a form that a later version
// made.
func Open(ctx context.Context, client goredis.UniversalClient, o Options) (*Log, error) {
	named := o.Buckets
	o = o.withDefaults()
	l := &Log{
		client:  client,
		o:       o,
		tails:   make(map[eventlog.Channel]*tail),
		waiting: make(map[int]*pipe),
		shared:  make(map[question]*rounds[*part]),
	}
	l.pipe = l.newPipe(0)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.found(ctx, named); err != nil {
		l.cancel()
		return nil, fmt.Errorf("redis: open: %w", err)
	}
	l.warn(ctx)
	l.disk.client = client
	l.leases = newLeases(client, l.leaseOptions())
	l.bells = newBells(l)
	l.others.Go(l.bells.listen)
	l.others.Go(l.checkTails)
	l.others.Go(l.sweepAll)
	return l, nil
}

func (l *Log) newPipe(replicas int) *pipe {
	return &pipe{client: l.client, timeout: l.o.Timeout, most: l.o.MaxQueued, replicas: replicas}
}

func (l *Log) leaseOptions() leaseOptions {
	o := leaseOptions{prefix: l.o.Prefix, buckets: l.buckets, maxLeases: l.o.MaxLeases, timeout: l.o.Timeout}
	if l.o.tests.now != nil {
		o.now = func() int64 { return l.o.tests.now().UnixMicro() }
	}
	return o
}

// Info implements [eventlog.Log].
func (l *Log) Info() eventlog.Info {
	return eventlog.Info{ProducersRemembered: l.o.RememberProducers, MaxData: l.o.MaxData}
}

// Close ends what the log does, and waits for it: for what is under way at most
// twice Options.Timeout. What is in Redis stays. It may be called again.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	tails, pipes := l.tails, l.waiting
	l.tails, l.waiting = nil, nil
	l.mu.Unlock()
	if !first {
		return nil
	}
	l.cancel()
	for _, t := range tails {
		t.close()
	}
	for _, p := range pipes {
		p.close()
	}
	l.pipe.close()
	l.leases.close()
	l.others.Wait()
	return nil
}

// args begins the arguments of a script.
func (l *Log) args(channel string, more ...any) []any {
	now := ""
	if l.o.tests.now != nil {
		now = strconv.FormatInt(l.o.tests.now().UnixMicro(), 10)
	}
	return append([]any{channel, now}, more...)
}

// ask runs a script on a channel, and makes the bucket's first generation if there is
// none: the log is new, or Redis lost it.
func (l *Log) ask(ctx context.Context, s *script, ch eventlog.Channel, more ...any) (*reply, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.Cause(ctx))
	}
	b := l.bucketOf(ch)
	for range 3 {
		r, err := l.pipe.ask(ctx, &call{script: s, key: l.bucketKey(b), args: l.args(chanText(ch), more...)})
		if err != nil || r.kind != "new" {
			return r, err
		}
		if err := l.again(ctx, b); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: redis loses what was written to it a moment ago", eventlog.ErrUnavailable)
}

// secret draws a secret of a generation.
func secret() []byte {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return b
}

// marks draws the random bits of so many marks; a script adds those of the log.
func marks(n int) []uint64 {
	raw := make([]byte, 8*n)
	rand.Read(raw) // never fails
	all := make([]uint64, n)
	for i := range all {
		all[i] = binary.LittleEndian.Uint64(raw[8*i:]) & (1<<(eventlog.MarkBits-8) - 1)
	}
	return all
}

// ended returns the error of a call whose context has ended before it began.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.Cause(ctx))
}

// isUnavailable reports whether an error says that the log can't be asked.
func isUnavailable(err error) bool { return errors.Is(err, eventlog.ErrUnavailable) }

// Watch implements [eventlog.Log].
func (l *Log) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	w := &watcher{wake: wake}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || ch.Check() != nil {
		return func() {}
	}
	t := l.tails[ch]
	if t == nil {
		t = newTail(l, ch)
		l.tails[ch] = t
		l.bells.want(t)
	}
	t.stay()
	t.watchers = append(slices.Clip(t.watchers), w)
	return func() { l.unwatch(t, w) }
}

func (l *Log) unwatch(t *tail, w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(t.watchers, w)
	if i < 0 {
		return
	}
	t.watchers = slices.Delete(slices.Clone(t.watchers), i, i+1)
	if len(t.watchers) == 0 && !l.closed {
		t.linger()
	}
}

// wake calls the watchers of a tail.
func (l *Log) wake(t *tail) {
	l.mu.Lock()
	watchers := t.watchers
	l.mu.Unlock()
	for _, w := range watchers {
		w.wake()
	}
}

// drop forgets a tail that nobody watches.
func (l *Log) drop(t *tail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(t.watchers) > 0 || l.tails[t.channel] != t {
		return
	}
	delete(l.tails, t.channel)
	l.bells.leave(t)
	l.unhold(t)
}

// tailOf returns the tail of a channel, or nil: nobody watches it.
func (l *Log) tailOf(ch eventlog.Channel) *tail {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tails[ch]
}

// served returns all tails.
func (l *Log) served() []*tail {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*tail, 0, len(l.tails))
	for _, t := range l.tails {
		all = append(all, t)
	}
	return all
}

// spawn starts a goroutine that Close waits for, unless the log is closed.
func (l *Log) spawn(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.others.Go(fn)
	}
	return !l.closed
}

// sleep waits, and reports whether the log is still open.
func (l *Log) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}
