package limit

import (
	"container/heap"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is how often something may be done: Burst at once, and in any stretch of
// t seconds no more than Burst + PerSecond*t.
type Rate struct {
	// PerSecond is how many tokens come back in a second, until there are Burst
	// again. With 0 none ever do; negative or not finite, there is no limit.
	PerSecond float64
	// Burst is how many tokens a bucket holds. Below 1 it is 1, since otherwise
	// nothing could ever be done.
	Burst int
}

// limits reports whether r limits anything.
func (r Rate) limits() bool {
	return r.PerSecond >= 0 && r.PerSecond < math.MaxFloat64
}

// Buckets are token buckets, one for each key, all of one rate. They may be
// used concurrently.
//
// A bucket that is full again is as good as a new one, so it is forgotten
// without loss, two of them for each key that is new; there is no goroutine and
// no timer. As many keys are remembered as NewBuckets was told. Keys that come
// when all of those are in use share one more bucket of the same rate, until
// there is room: a flood of keys takes no memory, and doesn't make anything
// forget a key that is limited already. So a key may now and then have what
// it took as one of many and then a bucket of its own, but never two of those.
//
// One lock guards everything. It is held for a tenth of a microsecond or so, up
// to a whole one if the key is new; with two cores, shards were no faster.
type Buckets[K comparable] struct {
	// Static after NewBuckets.
	rate  Rate
	most  int
	began time.Time // durations are since then, by the monotonic clock

	mu sync.Mutex

	// Guarded by mu.
	of       map[K]*bucket[K]
	due      dueHeap[K]    // the same buckets
	overflow *rate.Limiter // of all keys that there was no room for
}

// A bucket is that of one key.
type bucket[K comparable] struct {
	key    K
	tokens *rate.Limiter
	due    time.Duration // it is not full before
}

// NewBuckets returns full buckets for all keys, of which it remembers at most
// most (at least 1), at about 250 bytes each beside what the key points to.
func NewBuckets[K comparable](r Rate, most int) *Buckets[K] {
	r.Burst = max(r.Burst, 1)
	b := &Buckets[K]{
		rate:  r,
		most:  max(most, 1),
		began: time.Now(),
		of:    make(map[K]*bucket[K]),
	}
	b.overflow = b.full()
	return b
}

// full returns a full bucket.
func (b *Buckets[K]) full() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(b.rate.PerSecond), b.rate.Burst)
}

// Take takes n tokens out of the bucket of a key, or none if there are fewer:
// then it says in how long there would be as many, if nobody takes any
// meanwhile; a hundred years is never. What is refused costs nothing. Nothing
// can need more than a full bucket: n above the burst is the burst, and below 1
// there is nothing to take.
func (b *Buckets[K]) Take(key K, n int) (wait time.Duration, ok bool) {
	if n <= 0 || !b.rate.limits() {
		return 0, true
	}
	n = min(n, b.rate.Burst)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now() // with the lock held: a limiter must not see time go back
	tokens := b.find(key, n, now)
	if tokens.AllowN(now, n) {
		return 0, true
	}
	return b.until(float64(n) - tokens.TokensAt(now)), false
}

// find returns the bucket of a key: that which is remembered, a new one of
// which n are about to be taken, or the one that all others share.
func (b *Buckets[K]) find(key K, n int, now time.Time) *rate.Limiter {
	if known := b.of[key]; known != nil {
		return known.tokens
	}
	b.forget(now)
	if len(b.of) >= b.most {
		return b.overflow
	}
	fresh := &bucket[K]{key: key, tokens: b.full(), due: now.Sub(b.began) + b.until(float64(n))}
	b.of[key] = fresh
	heap.Push(&b.due, fresh)
	return fresh.tokens
}

const (
	// forgetAtOnce is one more than comes, so that what a flood left is gone
	// when as many others came.
	forgetAtOnce = 2
	// lookAtOnce bounds how long one call takes. Only buckets that were taken
	// from since they were last looked at are in the way, so in the long run
	// there is not more than one look for each time that something is taken. A
	// full one behind more than so many of them is found by one of the next
	// calls.
	lookAtOnce = 64
)

// forget forgets some of the buckets that are full again.
func (b *Buckets[K]) forget(now time.Time) {
	forgotten := 0
	for range lookAtOnce {
		if len(b.due) == 0 || b.due[0].due > now.Sub(b.began) || forgotten == forgetAtOnce {
			return
		}
		first := b.due[0]
		if missing := float64(b.rate.Burst) - first.tokens.TokensAt(now); missing > 0 {
			first.due = now.Sub(b.began) + b.until(missing)
			heap.Fix(&b.due, 0)
			continue
		}
		heap.Pop(&b.due)
		delete(b.of, first.key)
		forgotten++
	}
}

// never is longer than anything runs, and can be added to.
const never = 100 * 365 * 24 * time.Hour

// until is how long it takes until so many tokens are back. It is a microsecond
// too much, lest who waited so long is refused for a rounding.
func (b *Buckets[K]) until(missing float64) time.Duration {
	seconds := missing / b.rate.PerSecond
	if seconds >= never.Seconds() {
		return never
	}
	return time.Duration(seconds*float64(time.Second)) + time.Microsecond
}

// A dueHeap holds buckets, on top the one that may be full first.
type dueHeap[K comparable] []*bucket[K]

// The methods of heap.Interface.

func (d dueHeap[K]) Len() int           { return len(d) }
func (d dueHeap[K]) Less(i, j int) bool { return d[i].due < d[j].due }
func (d dueHeap[K]) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dueHeap[K]) Push(x any)        { *d = append(*d, x.(*bucket[K])) }

func (d *dueHeap[K]) Pop() any {
	last := len(*d) - 1
	b := (*d)[last]
	(*d)[last] = nil // the array must not keep it alive
	*d = (*d)[:last]
	return b
}
