package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
)

// Append implements [eventlog.Log]. The batch may be used again when it returns. If the
// context ends while the batch is on its way, Append returns at once with
// [eventlog.ErrUnavailable], and the batch may be appended nevertheless.
func (l *Log) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (last eventlog.Position, duplicate bool, err error) {
	if err := ended(ctx); err != nil {
		return last, false, err
	}
	if err := ch.Check(); err != nil {
		return last, false, err
	}
	if err := b.Check(l.o.MaxData); err != nil {
		return last, false, err
	}
	until := time.Now().Add(l.o.AppendWait)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		last, duplicate, err = l.appendOnce(ctx, ch, b)
		again := errors.Is(err, errNotDone) || isUnavailable(err) && b.Producer != (eventlog.Producer{})
		if !again || time.Now().Add(wait).After(until) || ctx.Err() != nil || l.ctx.Err() != nil {
			return last, duplicate, err
		}
		pause := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-pause.C:
		case <-ctx.Done():
		case <-l.ctx.Done():
		}
		pause.Stop()
	}
}

func (l *Log) appendOnce(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (last eventlog.Position, duplicate bool, err error) {
	d := l.o.Durability(ch)
	if d.Disk {
		if err := l.disk.check(ctx); err != nil {
			return last, false, err
		}
	}
	c := l.appending(ch, &b, d.Replicas > 0)
	p, err := l.pipeFor(d.Replicas)
	if err != nil {
		return last, false, err
	}
	r, err := p.ask(ctx, c)
	if err != nil {
		return last, false, err
	}
	switch kind := r.kind; kind {
	case "appended", "duplicate":
		last = r.position()
		if r.bad {
			return eventlog.Position{}, false, unavailable(errReply)
		}
		if d.Replicas > 0 {
			err = l.confirm(ctx, ch, last)
		}
		l.bells.missing(ch)
		return last, kind == "duplicate", err
	case "stale":
		return last, false, eventlog.ErrStale
	case "busy":
		return last, false, eventlog.ErrBusy
	case "unexpected":
		return last, false, &eventlog.Expectation{Expected: *b.Expect, Head: r.position()}
	}
	return last, false, unavailable(errReply)
}

// appending makes the call that appends a batch.
func (l *Log) appending(ch eventlog.Channel, b *eventlog.Batch, confirmed bool) *call {
	r := l.o.retention(ch)
	expect, mark, confirm := "", "", ""
	if b.Expect != nil {
		expect, mark = strconv.FormatUint(b.Expect.Offset, 10), strconv.FormatUint(b.Expect.Mark, 10)
	}
	if confirmed {
		confirm = "1"
	}
	owner := strconv.Itoa(len(ch.Namespace)) + ":" + ch.Namespace + b.Producer.Owner
	args := l.args(chanText(ch), secret(), secret(),
		r.Events, r.Bytes, microsOrNone(r.Age), confirm,
		b.Producer.ID, owner, digits(b.Producer.Seq),
		l.o.MaxProducersPerOwner, l.o.MaxProducersPerChannel, micros(l.o.RememberProducers),
		expect, mark)
	c := &call{script: appendScript, key: l.bucketKey(l.bucketOf(ch))}
	for i, mark := range marks(len(b.Messages)) {
		m := b.Messages[i] // its type filled in, as it counts
		if m.Type == "" {
			m.Type = eventlog.DefaultType
		}
		args = append(args, mark, m.Size(), encode(&m))
		c.size += int64(m.Size())
	}
	c.args = args
	return c
}

// microsOrNone is a bound as scripts take it: below zero is none.
func microsOrNone(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return micros(d)
}

// pipeFor returns the pipe of those that wait for so many replicas.
func (l *Log) pipeFor(replicas int) (*pipe, error) {
	if replicas <= 0 {
		return l.pipe, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	p := l.waiting[replicas]
	if p == nil {
		p = l.newPipe(replicas)
		l.waiting[replicas] = p
	}
	return p, nil
}

// confirm lets readers read up to a position that enough replicas have.
func (l *Log) confirm(ctx context.Context, ch eventlog.Channel, at eventlog.Position) error {
	_, err := l.ask(ctx, confirmScript, ch, at.Offset, at.Mark)
	return err
}

// settle has replicas get what is in a channel, and confirms it: whoever appended it
// may be gone.
func (l *Log) settle(ctx context.Context, ch eventlog.Channel) error {
	replicas := l.o.Durability(ch).Replicas
	p, err := l.pipeFor(replicas)
	if err != nil {
		return err
	}
	r, err := p.ask(ctx, &call{script: lastScript, key: l.bucketKey(l.bucketOf(ch)), args: l.args(chanText(ch))})
	if err != nil || r.kind != "at" {
		return err
	}
	return l.confirm(ctx, ch, r.position())
}

// A diskRule knows whether Redis writes to its disk before it answers.
type diskRule struct {
	client goredis.UniversalClient // static

	mu      sync.Mutex
	checked time.Time // guarded by mu
	err     error     // guarded by mu
}

// diskEvery is how often it is looked at.
const diskEvery = 30 * time.Second

func (d *diskRule) check(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.checked.IsZero() && time.Since(d.checked) < diskEvery {
		return d.err
	}
	d.err = nil
	has := make(map[string]string)
	for _, option := range []string{"appendonly", "appendfsync"} {
		got, err := d.client.ConfigGet(ctx, option).Result()
		if err != nil {
			return notDone(unavailable(err))
		}
		has[option] = got[option]
	}
	if has["appendonly"] != "yes" || has["appendfsync"] != "always" {
		d.err = notDone(fmt.Errorf("%w: events of this channel are to be on disk (Durability.Disk), which takes appendonly yes and appendfsync always, and Redis has appendonly %s and appendfsync %s",
			eventlog.ErrNotDurable, has["appendonly"], has["appendfsync"]))
	}
	d.checked = time.Now()
	return d.err
}
