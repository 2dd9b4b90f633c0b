package bolt

import (
	"container/heap"
	"errors"
	"time"
)

const (
	// sweepChannels is how many channels are looked at before appends have their
	// turn.
	sweepChannels = 1000
	// litterGap is the least time between two commits that do nothing but delete
	// what was trimmed.
	litterGap = 20 * time.Millisecond
	// earlyRise is the least time between rises for want of room, and after one
	// that failed.
	earlyRise = time.Minute
)

// plan sets the alarm to when there is something to do.
func (l *Log) plan() { l.alarm.set(sooner(l.writes(), l.sweeps())) }

// sweeps is when there is something to sweep, and a sweep would do it.
func (l *Log) sweeps() time.Time {
	soon := later(l.generation.rose.Add(l.options.Generation), l.rises)
	if p := l.producers.oldest(); p != nil {
		soon = sooner(soon, p.at.Add(l.options.RememberProducers))
	}
	if len(l.aging) > 0 && l.broken == nil {
		soon = sooner(soon, l.aging[0].due)
	}
	if l.mayCompact() {
		soon = sooner(soon, l.compacts)
	}
	if len(l.empty) >= l.options.MaxNames {
		soon = sooner(soon, l.counted.Add(earlyRise))
	}
	return later(soon, l.swept.Add(sweepGap))
}

// writes is when something has to be written that no append brings about.
func (l *Log) writes() time.Time {
	switch {
	case errors.Is(l.broken, ErrFailed), l.file.wedged:
		return never
	case l.failing != nil:
		return l.flushed.Add(retryGap)
	case len(l.litter) > 0:
		return l.flushed.Add(litterGap)
	case len(l.changes)+len(l.dirty) > 0:
		return l.flushed.Add(l.options.Interval)
	}
	return never
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sweep does what is due. What it can't finish soon goes on after the appends
// that wait.
func (l *Log) sweep(now time.Time) {
	if !now.Before(l.writes()) {
		_ = l.flush(now) // failed notes it
	}
	if now.Before(l.swept.Add(sweepGap)) {
		return
	}
	more := l.forget(now, forgetPiece)
	more = l.expire(now) || more
	_ = l.settle() // failed notes it
	if l.riseDue(now) {
		l.rise(now)
	}
	l.considerCompaction(now)
	if !more {
		l.swept = now
	}
}

// expire trims the channels in which something is too old, at most so many, and
// reports whether there are more.
func (l *Log) expire(now time.Time) (more bool) {
	for range sweepChannels {
		if l.broken != nil || len(l.aging) == 0 || l.aging[0].due.After(now) {
			return false
		}
		ch := heap.Pop(&l.aging).(*channel)
		if l.trim(ch, now); !ch.unshown { // else when it is shown
			l.aging.update(ch)
		}
	}
	return true
}

// riseDue reports whether the generation is to rise: it is over, or too many
// names wait to be dropped. Names that something keeps don't count, since rises
// would not drop them.
func (l *Log) riseDue(now time.Time) bool {
	if now.Before(l.rises) {
		return false
	}
	if !now.Before(l.generation.rose.Add(l.options.Generation)) {
		return true
	}
	if len(l.empty) < l.options.MaxNames || now.Before(l.counted.Add(earlyRise)) {
		return false
	}
	l.counted = now
	waiting := 0
	l.mu.RLock()
	defer l.mu.RUnlock()
	for ch := range l.empty {
		if l.droppable(ch) {
			waiting++
		}
	}
	return waiting >= l.options.MaxNames
}

// droppable reports whether nothing but its age keeps the name of an empty
// channel. A watcher keeps it: its cursor at the head is still exact. The caller
// holds mu.
func (l *Log) droppable(ch *channel) bool {
	return len(ch.producers) == 0 && len(l.watchers[ch.name]) == 0 && ch.floor == ch.next.head.at.Offset
}

// rise begins a generation and drops the names that can go, in one commit.
func (l *Log) rise(now time.Time) {
	l.rises = now.Add(earlyRise)
	if l.flush(now) != nil {
		return
	}
	next := l.generation.after(now)
	changes := []change{{metaBucket, generationKey, encodeGeneration(generationKey, &next)}}
	dropped := l.dropNames()
	for _, ch := range dropped {
		changes = append(changes, change{bucket: channelsBucket, key: channelKey(ch.id)})
	}
	err := l.commit(changes)
	var wake []*watcher
	l.mu.Lock()
	if err != nil {
		for _, ch := range dropped {
			l.channels[ch.name] = ch
		}
	} else {
		l.generation = next
		for name, watchers := range l.watchers {
			if l.channels[name] == nil {
				wake = append(wake, watchers...)
			}
		}
	}
	l.mu.Unlock()
	if err != nil {
		l.failed(err)
		return
	}
	for _, ch := range dropped {
		delete(l.empty, ch)
	}
	l.rises, l.counted = time.Time{}, now
	l.tell(wake)
}

// dropNames hides the names that can go. Readers who ask before the commit hear
// what they would hear after it, and if it fails, a gap that is none.
func (l *Log) dropNames() (dropped []*channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ch := range l.empty {
		if l.droppable(ch) && ch.next.written < l.generation.number {
			delete(l.channels, ch.name)
			dropped = append(dropped, ch)
		}
	}
	return dropped
}

// aging is a heap of channels that have to be trimmed some time, the first on
// top. Each knows its place in it, counted from 1; 0 is outside.
type aging []*channel

// update puts a channel in, takes it out, or moves it to where it belongs.
func (a *aging) update(ch *channel) {
	due, ages := ch.ages()
	switch ch.due = due; {
	case ages && ch.duePlace > 0:
		heap.Fix(a, ch.duePlace-1)
	case ages:
		heap.Push(a, ch)
	case ch.duePlace > 0:
		heap.Remove(a, ch.duePlace-1)
	}
}

// ages returns when a channel has to be trimmed, if ever. One that is over a
// bound already, since its retention is another than when the file was written,
// has to be at once.
func (ch *channel) ages() (due time.Time, ages bool) {
	switch s := &ch.next; {
	case s.empty():
		return never, false
	case ch.over(s, time.Time{}):
		return time.Time{}, true
	default:
		return s.oldest.Add(ch.retention.Age), ch.retention.Age > 0
	}
}

// The methods of heap.Interface.

func (a aging) Len() int           { return len(a) }
func (a aging) Less(i, j int) bool { return a[i].due.Before(a[j].due) }

func (a aging) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].duePlace, a[j].duePlace = i+1, j+1
}

func (a *aging) Push(x any) {
	ch := x.(*channel)
	*a = append(*a, ch)
	ch.duePlace = len(*a)
}

func (a *aging) Pop() any {
	last := len(*a) - 1
	ch := (*a)[last]
	(*a)[last] = nil // the array must not keep it alive
	*a, ch.duePlace = (*a)[:last], 0
	return ch
}
