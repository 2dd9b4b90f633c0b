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
	"strings"
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
// An error says that Redis can't be asked, is older than 7.0, or has a log with
// another number of buckets, or of a form that a later version made.
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
		return nil, err
	}
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

// found makes the log, if there is none, and learns how many buckets it has.
func (l *Log) found(ctx context.Context, named int) error {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	l.buckets = max(named, 0)
	if l.buckets == 0 {
		l.buckets = defaultBuckets
	}
	if err := l.lay(ctx); err != nil {
		return fmt.Errorf("redis: open: %w", err)
	}
	values, err := l.client.HMGet(ctx, l.foundation(), "buckets", "form").Result()
	if err != nil {
		return fmt.Errorf("redis: open: %w", unavailable(err))
	}
	text, of := fmt.Sprint(values[0]), fmt.Sprint(values[1])
	buckets, err := strconv.Atoi(text)
	switch {
	case of != form:
		return fmt.Errorf("redis: open: the log %q is of form %.40q, and this program knows form %s", l.o.Prefix, of, form)
	case err != nil || buckets < 1:
		return fmt.Errorf("redis: open: the key %s is not one of ours: buckets are %.40q", l.foundation(), text)
	case named > 0 && buckets != named:
		return fmt.Errorf("redis: open: the log %q has %d buckets, not %d (Options.Buckets)", l.o.Prefix, buckets, named)
	}
	l.buckets = buckets
	for b := range buckets {
		_, err := l.pipe.ask(ctx, l.beginning(b))
		if err != nil && strings.Contains(err.Error(), "compiling script") {
			return fmt.Errorf("redis: open: it doesn't know what scripts say of themselves, for which 7.0 or newer is needed: %w", err)
		}
		if err != nil {
			return fmt.Errorf("redis: open: %w", err)
		}
	}
	return nil
}

const (
	defaultBuckets = 16
	// form is that of what the keys hold. A program of another one must not touch them.
	form = "1"
)

// lay writes what is fixed when the log is made, unless it is there.
func (l *Log) lay(ctx context.Context) error {
	_, err := l.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		p.HSetNX(ctx, l.foundation(), "buckets", l.buckets)
		p.HSetNX(ctx, l.foundation(), "form", form)
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
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
		if err := l.lay(ctx); err != nil {
			return nil, err
		}
		if _, err := l.pipe.ask(ctx, l.beginning(b)); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: redis loses what was written to it a moment ago", eventlog.ErrUnavailable)
}

func (l *Log) beginning(bucket int) *call {
	return &call{script: beginScript, key: l.bucketKey(bucket), args: l.args("", secret(), secret())}
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
