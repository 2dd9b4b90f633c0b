package core

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// keptPages is for how many whole pages (Options.PageBytes) a topic remembers the last
// batches, each counted as what it may hold, and batchAge for how long. Live lines with
// one filter all ask for the same one or two, at once, and those that catch up for a few
// smaller ones, so no filter gets more than keptOfOne; what is older would only take
// memory, and outlive what the log may keep. Where there are more filters than fit, their
// lines read for themselves.
const (
	keptPages = 16
	keptOfOne = 4
	batchAge  = 2 * time.Second
)

// A batch is what comes after one position, read once for all who are there.
// One of run, lost and err is set, or none if nothing comes.
type batch struct {
	after  eventlog.Position
	most   int // bytes
	filter *filter
	made   time.Time
	once   sync.Once

	// Set by once.
	ready   atomic.Bool // the last to be set
	version uint64      // of the topic, before it was read
	run     *transport.Run
	size    int
	head    eventlog.Position
	behind  int64 // about how many bytes come after run
	more    bool  // there was something after run
	lost    *eventlog.Lost
	err     error
}

func (b *batch) nothing() bool { return b.run == nil && b.lost == nil && b.err == nil }

// isLast reports whether nothing comes after b but what the topic will yet
// wake its subscriptions for. A batch from before the last wake can't tell.
func (t *topic) isLast(b *batch) bool {
	return !b.more && b.version == t.version.Load()
}

// next returns what comes after a position and passes a filter, up to a size.
func (t *topic) next(after eventlog.Position, size int, f *filter) *batch {
	for {
		b := t.batchAfter(after, size, f)
		b.once.Do(func() { t.read(b) })
		if b.run != nil {
			return b
		}
		t.forget(b)
		if !b.nothing() || t.isLast(b) {
			return b
		}
	}
}

// fresh is next for a line that comes with a position: what it returns was read after
// the line came. What was remembered may be of a history that the log has no more, of
// which another node told the client already: then it would get again what it had.
// (store/redis; the model calls it TailTrustedAtResume. A log on one node never
// rewrites its history.)
func (t *topic) fresh(after eventlog.Position, size int, f *filter) *batch {
	for {
		b := &batch{after: after, most: size, filter: f, made: time.Now()}
		b.once.Do(func() { t.read(b) })
		b = t.instead(b)
		if !b.nothing() || t.isLast(b) {
			return b
		}
	}
}

// instead remembers a batch in the place of all that were read after the same
// position. One that is the same stays, and is returned: its encodings are shared.
func (t *topic) instead(b *batch) *batch {
	if b.err != nil {
		return b
	}
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	var same *batch
	t.batches = slices.DeleteFunc(t.batches, func(other *batch) bool {
		if b.sameAs(other) {
			same = other
		}
		return other.after == b.after && other != same
	})
	if same == nil && b.run != nil {
		t.keep(b)
	}
	return cmp.Or(same, b)
}

// sameAs reports whether two batches are of the same events: those between two
// positions that are exact, and pass one filter, always are.
func (b *batch) sameAs(other *batch) bool {
	return b.run != nil && other.after == b.after && other.most == b.most && other.filter.text == b.filter.text &&
		other.ready.Load() && other.run != nil && other.run.Next == b.run.Next
}

func (t *topic) batchAfter(after eventlog.Position, size int, f *filter) *batch {
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	for _, b := range t.batches {
		if b.filter.text == f.text && b.after == after && b.most == size {
			return b
		}
	}
	b := &batch{after: after, most: size, filter: f, made: time.Now()}
	t.keep(b)
	return b
}

// keep remembers a batch, and forgets as many of the oldest as have no room beside it.
// Called with batchesMu held.
func (t *topic) keep(b *batch) {
	page := t.engine.o.PageBytes
	all, same := b.most, b.most
	t.batches = slices.DeleteFunc(t.batches, func(other *batch) bool {
		if other.filter.text == b.filter.text {
			if same+other.most > keptOfOne*page {
				return true
			}
			same += other.most
		}
		if all+other.most > keptPages*page {
			return true
		}
		all += other.most
		return false
	})
	t.batches = slices.Insert(t.batches, 0, b)
	if t.aging == nil {
		t.aging = time.AfterFunc(batchAge, t.age)
	}
}

// age forgets batches that are too old.
func (t *topic) age() {
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	t.batches = slices.DeleteFunc(t.batches, func(b *batch) bool { return time.Since(b.made) >= batchAge })
	t.aging = nil
	if n := len(t.batches); n > 0 {
		t.aging = time.AfterFunc(batchAge-time.Since(t.batches[n-1].made), t.age)
	}
}

// ForgetBatches drops what was read for several lines at once, and may be read
// again: memory is short.
func (e *Engine) ForgetBatches() {
	e.answers.forget()
	e.mu.Lock()
	topics := slices.Collect(maps.Values(e.topics))
	e.mu.Unlock()
	for _, t := range topics {
		t.forgetAll()
	}
}

func (t *topic) forgetAll() {
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	t.batches, t.fit = nil, spans{}
}

// forget drops a batch that later readers must not find.
func (t *topic) forget(b *batch) {
	t.batchesMu.Lock()
	defer t.batchesMu.Unlock()
	t.batches = slices.DeleteFunc(t.batches, func(other *batch) bool { return other == b })
}
