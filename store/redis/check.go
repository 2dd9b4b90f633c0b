package redis

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// checkParts is into how many parts the interval of checks is divided.
	checkParts = 8
	// checksAtOnce is how many are under way at a time.
	checksAtOnce = 64
	// sweepInterval is how often each node clears Redis of what is too old.
	sweepInterval = 20 * time.Second
	// sweepPiece is how much is cleared at a time, and sweepPieces how often in a row.
	sweepPiece, sweepPieces = 100, 50
)

// checkTails compares the tails with the primary, spread over the interval.
func (l *Log) checkTails() {
	every := l.o.CheckInterval
	for l.sleep(every / checkParts) {
		var due []*tail
		for _, t := range l.served() {
			if t.due(every - every/checkParts) {
				due = append(due, t)
			}
		}
		l.checkAll(due)
	}
}

func (l *Log) checkAll(tails []*tail) {
	rand.Shuffle(len(tails), func(i, j int) { tails[i], tails[j] = tails[j], tails[i] })
	free := make(chan struct{}, checksAtOnce)
	var group sync.WaitGroup
	for _, t := range tails {
		if l.ctx.Err() != nil {
			break
		}
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			t.check(l.ctx)
		})
	}
	group.Wait()
}

// sweepAll has all buckets swept, again and again. Each node does it, in an order of
// its own: what one has done costs the next a look.
func (l *Log) sweepAll() {
	for l.sleep(l.o.tests.sweep/2 + rand.N(l.o.tests.sweep)) {
		l.leases.keepSecret(l.ctx)
		for _, b := range rand.Perm(l.buckets) {
			if err := l.sweep(l.ctx, b); err != nil {
				if l.ctx.Err() == nil {
					l.o.Logger.Warn("redis not swept", "error", err)
				}
				break
			}
		}
	}
}

// sweep clears a bucket, and has those hear of it whose place before the first event
// moved.
func (l *Log) sweep(ctx context.Context, bucket int) error {
	for range sweepPieces {
		args := l.args("", secret(), secret(), micros(l.o.Generation), max(1, l.o.MaxNames/l.buckets), micros(l.o.RememberProducers), sweepPiece)
		r, err := l.pipe.ask(ctx, &call{script: sweepScript, key: l.bucketKey(bucket), args: args})
		if err != nil {
			return err
		}
		more, rose := r.int(), r.int()
		if rose == 1 {
			l.risen(bucket)
		}
		if more == 0 {
			return nil
		}
	}
	return nil
}

func (l *Log) risen(bucket int) {
	var moved []*tail
	for _, t := range l.served() {
		if t.isUnborn() && l.bucketOf(t.channel) == bucket {
			moved = append(moved, t)
		}
	}
	l.checkAll(moved)
}
