package redis

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
)

const (
	// subscribeAtOnce is how many bells are named in one command.
	subscribeAtOnce = 500
	// bellsBack is how long at most those who wait are told late that bells may have
	// been missed, so that they don't all read at once.
	bellsBack = time.Second
)

// bells hear that there is something new. They are never believed: a bell that is lost,
// late or of an old primary costs time, or a read for nothing.
//
// The connection is asked for a sign of life, as one that died in silence looks like
// one on which nothing comes.
type bells struct {
	log *Log // static

	mu sync.Mutex

	// Guarded by mu.
	tails   map[string]*tail // those wanted, by their bells
	changes []change         // that Redis is to be told of
	up      bool             // the connection is good, as far as is known
	changed chan struct{}    // of one; there are changes
}

// A change is a bell that is wanted, or no longer.
type change struct {
	bell string
	stop bool
}

func newBells(l *Log) *bells {
	return &bells{log: l, tails: make(map[string]*tail), changed: make(chan struct{}, 1)}
}

// want has a tail's bell heard. Called with log.mu held, as is leave; neither blocks.
func (b *bells) want(t *tail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tails[t.bell] = t
	b.change(change{bell: t.bell})
}

func (b *bells) leave(t *tail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tails, t.bell)
	b.change(change{bell: t.bell, stop: true})
}

// change is called with mu held.
func (b *bells) change(c change) {
	if b.up { // else they are all told when it is
		b.changes = append(b.changes, c)
	}
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// missing wakes those who watch a channel to which something was appended here, if
// its bell can't be heard.
func (b *bells) missing(ch eventlog.Channel) {
	b.mu.Lock()
	up := b.up
	b.mu.Unlock()
	if up {
		return
	}
	if t := b.log.tailOf(ch); t != nil {
		b.log.wake(t)
	}
}

// listen hears bells until the log is closed.
func (b *bells) listen() {
	for first, wait := true, 50*time.Millisecond; b.log.ctx.Err() == nil; first = false {
		began := time.Now()
		b.hear(first)
		if time.Since(began) > 10*time.Second {
			wait = 50 * time.Millisecond
		}
		if !b.log.sleep(wait/2 + rand.N(wait)) {
			return
		}
		wait = min(2*wait, 2*time.Second)
	}
}

// ping is how often the connection is asked for a sign of life.
func (b *bells) ping() time.Duration {
	if ping := b.log.o.tests.ping; ping > 0 {
		return ping
	}
	return min(max(b.log.o.CheckInterval/2, 100*time.Millisecond), 3*time.Second)
}

// hear makes a connection and hears what comes by it, until it ends.
func (b *bells) hear(first bool) {
	ctx, cancel := context.WithCancel(b.log.ctx)
	defer cancel()
	sub := b.log.client.Subscribe(ctx)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer func() {
		b.mu.Lock()
		b.up, b.changes = false, nil
		b.mu.Unlock()
		cancel()
		_ = sub.Close()
	}()
	if b.all(ctx, sub) != nil {
		return
	}
	telling.Go(func() { b.tell(ctx, sub) })
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() }) // frees a read that waits
	defer stop()
	for silent := !first; ; silent = false {
		message, err := sub.ReceiveTimeout(ctx, b.ping()+b.log.o.Timeout)
		if err != nil {
			if b.log.ctx.Err() == nil {
				b.log.o.Logger.Warn("redis notifications lost", "error", err, "note", "events may come late, by checks, until they are heard again")
			}
			return
		}
		if silent {
			b.log.o.Logger.Info("redis notifications heard again")
		}
		b.heard(message, first)
	}
}

// all begins with all bells that are wanted.
func (b *bells) all(ctx context.Context, sub *goredis.PubSub) error {
	b.mu.Lock()
	var wanted []string
	for bell := range b.tails {
		wanted = append(wanted, bell)
	}
	b.up, b.changes = true, nil
	b.mu.Unlock()
	if err := sub.Ping(ctx); err != nil {
		return err
	}
	for len(wanted) > 0 {
		n := min(len(wanted), subscribeAtOnce)
		if err := sub.Subscribe(ctx, wanted[:n]...); err != nil {
			return err
		}
		wanted = wanted[n:]
	}
	return nil
}

// tell tells Redis of changes, and asks for signs of life.
func (b *bells) tell(ctx context.Context, sub *goredis.PubSub) {
	ping := time.NewTicker(b.ping())
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-ping.C:
			err = sub.Ping(ctx)
		case <-b.changed:
			err = b.tellChanges(ctx, sub)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			_ = sub.Close() // the other side of it ends
			return
		}
	}
}

// tellChanges tells of them in order: a bell may be wanted, no longer, and again.
func (b *bells) tellChanges(ctx context.Context, sub *goredis.PubSub) error {
	b.mu.Lock()
	changes := b.changes
	b.changes = nil
	b.mu.Unlock()
	for len(changes) > 0 {
		var names []string
		stop := changes[0].stop
		for len(changes) > 0 && changes[0].stop == stop && len(names) < subscribeAtOnce {
			names = append(names, changes[0].bell)
			changes = changes[1:]
		}
		do := sub.Subscribe
		if stop {
			do = sub.Unsubscribe
		}
		if err := do(ctx, names...); err != nil {
			return err
		}
	}
	return nil
}

// heard wakes those for whom a bell rang, or who can be told by one only from now on.
func (b *bells) heard(message any, first bool) {
	switch m := message.(type) {
	case *goredis.Message:
		b.ring(m.Channel, 0)
	case *goredis.Subscription:
		switch {
		case m.Kind != "subscribe":
		case first:
			b.ring(m.Channel, 0)
		default:
			b.ring(m.Channel, bellsBack)
		}
	}
}

func (b *bells) ring(bell string, within time.Duration) {
	b.mu.Lock()
	t := b.tails[bell]
	b.mu.Unlock()
	switch {
	case t == nil:
	case within == 0:
		t.fresh.ring()
		b.log.wake(t)
	default:
		time.AfterFunc(rand.N(within), func() { b.log.wake(t) })
	}
}
