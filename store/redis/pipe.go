package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
)

const (
	// maxPipeline is how many questions travel together, and maxPipelineBytes how many
	// bytes of messages.
	maxPipeline      = 128
	maxPipelineBytes = 1 << 20
	// pipelines is how many of them are under way at a time: while one is, those that
	// come meanwhile gather.
	pipelines = 4
)

// A call is one question to Redis.
type call struct {
	script *script
	key    string // of the bucket
	args   []any
	size   int64 // about how many bytes

	// Set before done is closed.
	reply *reply
	err   error
	done  chan struct{}
}

// A pipe sends questions to Redis, those that come at about the same time together.
// It has no goroutine while there are none.
type pipe struct {
	// Static.
	client   goredis.UniversalClient
	timeout  time.Duration
	most     int64 // bytes that may be queued
	replicas int   // that have to have what was asked, before it is answered

	mu sync.Mutex

	// Guarded by mu.
	queue   []*call
	bytes   int64 // of those queued or under way
	running int   // goroutines
	closed  bool
	idle    sync.WaitGroup // goroutines; added to with mu held
}

// errNotDone is what errors are of what certainly was not done.
var errNotDone = errors.New("it was not done")

// undone is such an error.
type undone struct{ error }

func notDone(err error) error { return undone{err} }

func (u undone) Error() string { return errNotDone.Error() + ": " + u.error.Error() }

func (u undone) Unwrap() error { return u.error }

func (undone) Is(target error) bool { return target == errNotDone || target == eventlog.ErrNotAppended }

var errClosed = fmt.Errorf("%w: it is closed", eventlog.ErrUnavailable)

// ask puts a question, and waits for the answer within its context, at most for the
// timeout. The error wraps [eventlog.ErrUnavailable], and errNotDone where that is
// certain.
func (p *pipe) ask(ctx context.Context, c *call) (*reply, error) {
	c.done = make(chan struct{})
	if err := p.put(c); err != nil {
		return nil, err
	}
	select {
	case <-c.done:
		return c.reply, c.err
	case <-ctx.Done():
	}
	err := fmt.Errorf("%w: %w", eventlog.ErrUnavailable, context.Cause(ctx))
	if p.take(c) {
		err = notDone(err)
	}
	return nil, err
}

func (p *pipe) put(c *call) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return notDone(errClosed)
	case p.bytes+c.size > p.most && p.bytes > 0:
		return notDone(fmt.Errorf("%w: %d bytes wait for Redis already (Options.MaxQueued)", eventlog.ErrUnavailable, p.bytes))
	}
	p.queue = append(p.queue, c)
	p.bytes += c.size
	if p.running < pipelines {
		p.running++
		p.idle.Go(p.work)
	}
	return nil
}

// take takes a call back, and reports whether it was still there.
func (p *pipe) take(c *call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.queue {
		if other == c {
			p.queue = append(p.queue[:i:i], p.queue[i+1:]...)
			p.bytes -= c.size
			return true
		}
	}
	return false
}

// work sends what there is until there is nothing.
func (p *pipe) work() {
	for {
		some := p.next()
		if some == nil {
			return
		}
		p.exchange(some)
		p.mu.Lock()
		for _, c := range some {
			p.bytes -= c.size
		}
		p.mu.Unlock()
		for _, c := range some {
			close(c.done)
		}
	}
}

// next takes what travels together. It is nil if there is nothing: then its goroutine
// is no longer counted.
func (p *pipe) next() []*call {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, bytes := 0, int64(0)
	for ; n < len(p.queue) && n < maxPipeline; n++ {
		if bytes += p.queue[n].size; n > 0 && bytes > maxPipelineBytes {
			break
		}
	}
	if n == 0 {
		p.running--
		return nil
	}
	some := p.queue[:n:n]
	p.queue = p.queue[n:]
	return some
}

// exchange sends calls and sets their answers.
func (p *pipe) exchange(calls []*call) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*p.timeout)
	defer cancel()
	unknown := p.send(ctx, calls)
	if len(unknown) == 0 {
		return
	}
	loaded := make(map[*script]bool)
	for _, c := range unknown {
		if loaded[c.script] {
			continue
		}
		loaded[c.script] = true
		if err := p.client.Do(ctx, "script", "load", c.script.text).Err(); err != nil {
			for _, c := range unknown {
				c.err = notDone(unavailable(err))
			}
			return
		}
	}
	p.send(ctx, unknown)
}

// send sends calls in one pipeline, and returns those whose script Redis doesn't know.
func (p *pipe) send(ctx context.Context, calls []*call) (unknown []*call) {
	pipeline := p.client.Pipeline()
	commands := make([]once, len(calls))
	for i, c := range calls {
		commands[i] = c.script.command(ctx, c.key, c.args)
		_ = pipeline.Process(ctx, commands[i])
	}
	var wait *goredis.Cmd
	if p.replicas > 0 { // on the same connection, as it is about what that has sent
		wait = goredis.NewCmd(ctx, "wait", p.replicas, p.timeout.Milliseconds())
		_ = pipeline.Process(ctx, wait)
	}
	_, err := pipeline.Exec(ctx)
	for i, c := range calls {
		c.reply, c.err = answer(commands[i].Cmd, err)
		if c.err == nil && wait != nil {
			c.err = p.waited(wait)
		}
		if isUnknown(commands[i].Err()) {
			unknown = append(unknown, c)
		}
	}
	return unknown
}

// answer reads what became of a command. whole is the error of its pipeline.
func answer(c *goredis.Cmd, whole error) (*reply, error) {
	raw, err := c.Result()
	if err == nil {
		r, err := newReply(raw)
		if err != nil && whole != nil {
			err = whole // it was never sent
		}
		if err != nil {
			return nil, unavailable(err)
		}
		return r, nil
	}
	return nil, unavailable(err)
}

// waited says whether enough replicas have what was sent.
func (p *pipe) waited(wait *goredis.Cmd) error {
	n, err := wait.Int()
	if err != nil {
		return unavailable(err)
	}
	if n < p.replicas {
		return fmt.Errorf("%w: %d replicas have it within %v, and %d are to (Durability.Replicas)", eventlog.ErrNotDurable, n, p.timeout, p.replicas)
	}
	return nil
}

// refusals are how Redis begins its answer where it did not run a script.
var refusals = []string{"NOSCRIPT", "LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "OOM", "MISCONF", "NOAUTH", "NOPERM", "BUSY", "CLUSTERDOWN", "TRYAGAIN"}

// unavailable wraps an error of Redis or of the way there.
func unavailable(err error) error {
	kind := eventlog.ErrUnavailable
	if goredis.HasErrorPrefix(err, "OOM") {
		kind = eventlog.ErrFull
	}
	wrapped := fmt.Errorf("%w: redis: %w", kind, err)
	for _, prefix := range refusals {
		if goredis.HasErrorPrefix(err, prefix) {
			return notDone(wrapped)
		}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return notDone(wrapped)
	}
	return wrapped
}

// close refuses what comes, and waits for what is under way.
func (p *pipe) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.idle.Wait()
}
