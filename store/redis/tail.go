package redis

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
)

const (
	// tailParts is into how many parts of the room for all tails one may take.
	tailParts = 16
	// tailPiece is the most bytes that come at a time.
	tailPiece = 256 << 10
)

// A watcher is one call of Watch.
type watcher struct{ wake func() }

// none is the answer where only the error says something.
type none struct{}

// A tail is what a node has of a channel that it serves: the last events, so that
// those who are there need not fetch them one by one. It is compared with the primary
// before anything of it is returned, so it may be old, but nobody sees that.
type tail struct {
	// Static after newTail.
	log     *Log
	channel eventlog.Channel
	bell    string
	fresh   rounds[none] // of bringing it up to date

	// Guarded by log.mu.
	watchers []*watcher    // replaced, never changed
	leaving  *time.Timer   // of Options.Linger
	held     int64         // bytes, as counted in log.tailed
	element  *list.Element // in log.recent

	mu sync.Mutex

	// Guarded by mu.
	known   bool // it was up to date once
	checked time.Time
	told    eventlog.Position // the head of which those who watch were told last, at the latest
	seen    seen
	base    place // before the first of entries
	entries []entry
	bytes   int64
}

func newTail(l *Log, ch eventlog.Channel) *tail {
	t := &tail{log: l, channel: ch, bell: l.bellKey(ch)}
	t.fresh.log, t.fresh.do, t.fresh.hurry = l, t.update, make(chan struct{}, 1)
	return t
}

// stay keeps a tail that was about to go. Called with log.mu held, as is the next.
func (t *tail) stay() {
	if t.leaving != nil {
		t.leaving.Stop()
		t.leaving = nil
	}
}

// linger has a tail go, after a while, that nobody watches.
func (t *tail) linger() {
	t.stay()
	t.leaving = time.AfterFunc(t.log.o.Linger, func() { t.log.drop(t) })
}

// close ends a tail with its log.
func (t *tail) close() {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	t.stay()
	t.watchers = nil
}

// update brings a tail up to date.
func (t *tail) update() (n none, err error) {
	t.mu.Lock()
	offset, mark := any(""), any("")
	if end := t.end().at; t.known && !t.seen.unborn {
		offset, mark = end.Offset, end.Mark
	}
	t.mu.Unlock()
	r, err := t.log.ask(t.log.ctx, tailScript, t.channel, offset, mark, tailPiece)
	if err != nil {
		return n, err
	}
	s := r.seen()
	entries, err := r.entries()
	if r.bad || err != nil {
		return n, unavailable(errReply)
	}
	t.mu.Lock()
	err = t.take(r.kind, s, entries)
	bytes := t.bytes
	t.mu.Unlock()
	t.log.hold(t, bytes)
	return n, err
}

// end is the last event of the tail. Called with mu held, as are the following.
func (t *tail) end() place {
	if n := len(t.entries); n > 0 {
		return t.entries[n-1].place()
	}
	return t.base
}

func (e *entry) place() place { return place{at: e.At, sum: e.sum} }

// before is the place before an entry.
func (e *entry) before() place { return place{at: e.Before(), sum: e.sum - int64(e.Size())} }

// take makes the tail what the primary says. What it says that follows is taken only if
// it does.
func (t *tail) take(kind string, s seen, entries []entry) error {
	if kind == "more" {
		if n := chain(t.end().at, entries); n < len(entries) {
			t.known = false // what is there has holes; the next time it begins anew
			return fmt.Errorf("%w: redis: events of %v are missing in their stream", eventlog.ErrUnavailable, t.channel)
		}
		t.entries = append(t.entries, entries...)
	} else {
		slices.Reverse(entries)
		entries = unbroken(entries)
		t.base, t.entries, t.bytes = s.head, entries, 0
		if len(entries) > 0 {
			t.base = entries[0].before()
		}
	}
	for i := range entries {
		t.bytes += int64(entries[i].Size())
	}
	t.known, t.seen = true, s
	t.cut()
	return nil
}

// chain returns how many of the entries follow a position one after the other.
func chain(after eventlog.Position, entries []entry) int {
	for i := range entries {
		if entries[i].Before() != after {
			return i
		}
		after = entries[i].At
	}
	return len(entries)
}

// unbroken returns the last of the entries, as far as one follows the other.
func unbroken(entries []entry) []entry {
	for i := len(entries) - 1; i > 0; i-- {
		if entries[i].Before() != entries[i-1].At {
			return entries[i:]
		}
	}
	return entries
}

// cut drops what the log trimmed, and what is too much.
func (t *tail) cut() {
	room, n := t.log.o.TailBytes/tailParts, 0
	for ; n < len(t.entries); n++ {
		e := &t.entries[n]
		if e.At.Offset > t.seen.base.at.Offset && t.bytes <= room {
			break
		}
		t.bytes -= int64(e.Size())
		t.base = e.place()
	}
	clear(t.entries[:n]) // the array must not keep their data alive
	t.entries = t.entries[n:]
}

// shed drops all events, to make room for others. Called without mu held.
func (t *tail) shed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.base, t.entries, t.bytes = t.end(), nil, 0
}

// index returns which entry comes first after a position, if the tail holds that.
func (t *tail) index(after eventlog.Position) (i int, ok bool) {
	switch base := t.base.at; {
	case !t.known || t.seen.unborn || after.Offset < base.Offset:
		return 0, false
	case after == base, base.Offset == 0 && t.seen.born(after):
		return 0, true
	case after.Offset == base.Offset || after.Offset-base.Offset > uint64(len(t.entries)):
		return 0, false
	}
	i = int(after.Offset - t.base.at.Offset) //nolint:gosec // at most len(t.entries)
	return i, t.entries[i-1].At == after
}

// mayHold reports whether it is worth to bring the tail up to date for a position,
// which else is read for itself. Called without mu held, as are the following.
func (t *tail) mayHold(after eventlog.Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.known || after.Offset >= t.base.at.Offset
}

// isHead reports whether a position is the head, as far as the node knows.
func (t *tail) isHead(at eventlog.Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known && (at == t.seen.head.at || t.seen.unborn && t.seen.born(at))
}

// head returns the head.
func (t *tail) head() eventlog.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen.head.at
}

// page returns what comes after a position, if the tail holds it.
func (t *tail) page(after eventlog.Position, limit eventlog.Limit) (page eventlog.Page, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := t.seen.head
	if t.known && t.seen.unborn && t.seen.born(after) {
		return eventlog.Page{Next: head.at, Head: head.at}, true
	}
	i, ok := t.index(after)
	if !ok || t.end().at.Offset < head.at.Offset && i == len(t.entries) {
		return page, false
	}
	page = eventlog.Page{Next: after, Head: t.seen.headFrom(after)}
	sum := t.base.sum
	if i > 0 {
		sum = t.entries[i-1].sum
	}
	scan := eventlog.NewScan(limit)
	for ; i < len(t.entries) && t.entries[i].At.Offset <= head.at.Offset && scan.Takes(&t.entries[i].Message); i++ {
		e := &t.entries[i]
		if scan.Matched {
			page.Events = append(page.Events, e.Event)
		}
		page.Next, sum = e.At, e.sum
	}
	page.Behind = max(0, head.sum-sum)
	return page, true
}

// due reports whether a tail was not checked for so long, or there is
// something to do to the channel.
func (t *tail) due(every time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.checked) >= every || t.seen.unconfirmed || t.seen.renew
}

// isUnborn reports whether nobody wrote the channel, as far as the node knows.
func (t *tail) isUnborn() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known && t.seen.unborn
}

// check compares a tail with the primary though nobody reads, does what is to be done
// to the channel, and wakes those who watch if there was news: also news that somebody
// who read has learned of meanwhile, as the others need not have.
func (t *tail) check(ctx context.Context) {
	t.mu.Lock()
	t.checked = time.Now()
	t.mu.Unlock()
	if _, err := t.fresh.ask(ctx); err != nil {
		return // those who read are told; the next check tries again
	}
	t.mu.Lock()
	s := t.seen
	news := t.known && t.told != s.head.at
	t.told = s.head.at
	t.mu.Unlock()
	if s.renew {
		_, _ = t.log.ask(ctx, renewScript, t.channel)
	}
	if s.unconfirmed {
		_ = t.log.settle(ctx, t.channel)
	}
	if news {
		t.log.wake(t)
	}
}

// hold counts what a tail holds, and has those shed that were read longest ago, if all
// hold too much.
func (l *Log) hold(t *tail, bytes int64) {
	for _, victim := range l.count(t, bytes) {
		victim.shed()
	}
}

func (l *Log) count(t *tail, bytes int64) (victims []*tail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.tails[t.channel] != t {
		return nil
	}
	l.tailed += bytes - t.held
	t.held = bytes
	if t.element == nil {
		t.element = l.recent.PushBack(t)
	}
	l.recent.MoveToBack(t.element)
	for l.tailed > l.o.TailBytes {
		victim := l.recent.Front().Value.(*tail) //nolint:forcetypeassert // it holds nothing else
		l.unhold(victim)
		victims = append(victims, victim)
	}
	return victims
}

// unhold no longer counts a tail. Called with mu held.
func (l *Log) unhold(t *tail) {
	if t.element != nil {
		l.recent.Remove(t.element)
		t.element = nil
	}
	l.tailed -= t.held
	t.held = 0
}
