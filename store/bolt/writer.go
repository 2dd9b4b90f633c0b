package bolt

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
)

const (
	// groupBytes is the most bytes of messages that are written in one commit.
	groupBytes = 4 << 20
	// litterShare is how many trimmed events are deleted for each one that is
	// appended, and litterPiece how many beside that in one commit. A commit is
	// never long because of them.
	litterShare = 2
	litterPiece = 500
	// forgetPiece is how many producers are forgotten in one commit.
	forgetPiece = 1000
	// sweepGap is the least time between two sweeps: what a sweep frees is
	// invisible already, so it need not be soon.
	sweepGap = time.Second
	// retryGap is how long after a commit failed what was acknowledged is tried
	// again.
	retryGap = time.Second
)

// never is later than anything that is waited for.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// writer is what the writing goroutine has to itself.
type writer struct {
	marks     marks
	lastID    uint64 // the highest number that a channel has
	producers producers
	unborn    map[eventlog.Channel]*channel // staged, and not shown yet

	changes []change   // what is staged, but for the records of dirty channels
	pending int64      // bytes of events in changes
	dirty   []*channel // those whose record has to be written
	unshown []*channel // those of which readers don't know all
	undo    []func()   // takes back what was staged and isn't shown
	litter  []*channel // those with events in the file that were trimmed
	aging   aging      // those whose events get too old
	empty   map[*channel]struct{}

	alarm   alarm
	flushed time.Time // when the last commit was
	swept   time.Time // when the last sweep was
	rises   time.Time // no rise is tried before, as one failed
	counted time.Time // when empty names were last counted, or dropped
	failing error     // of the last commit, if it failed
	broken  error     // nothing can be written any more
	closing error     // what Close returns

	copying  *copying
	compacts time.Time // no compaction begins by itself before
	deleted  bool      // something, since a compaction was considered
}

// run writes until Close.
func (l *Log) run() {
	defer close(l.done)
	for {
		l.plan()
		select {
		case <-l.stop:
			l.end()
			return
		case <-l.queue.ready:
			l.serve(l.queue.take(groupBytes))
		case <-l.alarm.C:
			l.alarm.at = never
		case c := <-l.copies:
			l.start(c)
		case c := <-l.copied:
			l.finish(c)
		}
		l.sweep(time.Now())
	}
}

// serve appends what is asked for. All are answered when all is written, also
// those that are refused for what another of them brings.
func (l *Log) serve(requests []*request) {
	now := time.Now().Round(0).UTC()
	served := requests[:0]
	for _, r := range requests {
		if r.state.CompareAndSwap(waits, taken) { // else its caller has left
			r.err = l.stage(r, now)
			served = append(served, r)
		}
	}
	err := l.settle()
	var wake []*watcher
	for _, r := range served {
		if err == nil && r.err == nil && !r.duplicate {
			l.mu.RLock()
			r.wake = l.watchers[r.channel]
			l.mu.RUnlock()
		}
		wake = append(wake, r.answer(cmp.Or(err, r.err))...)
	}
	l.tell(wake)
}

// settle makes what was staged as durable as Append promises, and shows it.
func (l *Log) settle() error {
	if l.options.Interval <= 0 {
		err := l.flush(time.Now())
		if err != nil {
			l.takeBack()
		}
		return err
	}
	l.show()
	if l.pending >= groupBytes && l.failing == nil {
		// Early, so that it doesn't take long. If it fails it is tried again.
		_ = l.flush(time.Now())
	}
	return nil
}

// stage checks a request, and adds its events to those that are to be written.
func (l *Log) stage(r *request, now time.Time) error {
	if err := l.refuses(r); err != nil {
		return err
	}
	l.forget(now, forgetPiece)
	ch := l.find(r.channel)
	var err error
	if r.last, r.duplicate, err = l.admit(ch, r.channel, r.batch.Producer); r.duplicate || err != nil {
		return err
	}
	if err := l.expected(ch, r.channel, r.batch.Expect); err != nil {
		return err
	}
	if ch == nil {
		ch = l.create(r)
	}
	for _, m := range r.batch.Messages {
		e := ch.push(m, l.marks.draw(), now)
		key := eventKey(ch.id, e.At.Offset)
		l.put(change{eventsBucket, key, encodeEntry(key, e)})
	}
	l.pending += r.size
	ch.next.written = l.generation.number
	l.change(ch)
	r.last = ch.next.head.at
	if r.batch.Producer != (eventlog.Producer{}) {
		p, undo := l.producers.remember(ch, r.batch.Producer, r.last, now)
		l.undo = append(l.undo, undo)
		key := p.key()
		l.put(change{producersBucket, key, encodeProducer(key, p)})
	}
	l.trim(ch, now)
	return nil
}

// refuses reports why nothing can be appended now.
func (l *Log) refuses(r *request) error {
	switch {
	case l.broken != nil:
		return l.broken
	case l.failing != nil && l.options.Interval > 0:
		return l.failing
	case l.pending > 0 && l.pending+r.size > l.options.MaxQueued:
		return errOverloaded
	}
	return nil
}

// find returns a channel, also one that is not shown yet, or nil.
func (l *Log) find(name eventlog.Channel) *channel {
	if ch := l.unborn[name]; ch != nil {
		return ch
	}
	return l.channels[name]
}

func (l *Log) create(r *request) *channel {
	if r.retention == (eventlog.Retention{}) { // it was dropped since it was asked for
		r.retention = l.options.retention(r.channel)
	}
	l.lastID++
	ch := newChannel(l.lastID, r.channel, r.retention, l.generation.marks(r.channel))
	l.unborn[ch.name] = ch
	return ch
}

// expected reports with an [*eventlog.Expectation] whether a channel's head isn't
// what was expected, if anything was. ch is nil while the channel is unborn.
func (l *Log) expected(ch *channel, name eventlog.Channel, expect *eventlog.Position) error {
	switch {
	case expect == nil:
		return nil
	case ch != nil && *expect != ch.next.head.at:
		return &eventlog.Expectation{Expected: *expect, Head: ch.next.head.at}
	case ch == nil:
		marks := l.generation.marks(name)
		if !isPlace(*expect, marks) {
			return &eventlog.Expectation{Expected: *expect, Head: eventlog.Position{Offset: 0, Mark: marks[0]}}
		}
	}
	return nil
}

// trim moves the base of a channel to where its retention has it.
func (l *Log) trim(ch *channel, now time.Time) {
	if !ch.over(&ch.next, now) {
		return
	}
	err := l.file.view(func(tx *bbolt.Tx) error {
		next, err := ch.trimmed(ch.next, now, eventsOf(tx, ch.id, ch.staged))
		if err == nil && next.base != ch.next.base {
			ch.next = next
			l.change(ch)
		}
		return err
	})
	if gone, ok := errors.AsType[*missing](err); ok {
		err = corrupt(l.path, "of channel %v %v", ch.name, gone)
	}
	if err != nil { // what is staged is good; more is not taken
		l.breakOff(err)
	}
}

// breakOff refuses all appends from now on.
func (l *Log) breakOff(err error) {
	if l.broken == nil {
		l.broken = err
		l.options.Logger.Error("event log takes no more events", "file", l.path, "error", err)
	}
}

// change notes that a channel changed.
func (l *Log) change(ch *channel) {
	if !ch.dirty {
		ch.dirty = true
		l.dirty = append(l.dirty, ch)
	}
	if !ch.unshown {
		ch.unshown = true
		l.unshown = append(l.unshown, ch)
	}
}

// put notes a change of the file.
func (l *Log) put(c change) { l.changes = append(l.changes, c) }

// show lets readers see what was staged.
func (l *Log) show() {
	l.mu.Lock()
	maps.Copy(l.channels, l.unborn)
	for _, ch := range l.unshown {
		l.bytes += ch.next.bytes() - ch.shown.bytes()
		ch.show()
	}
	l.mu.Unlock()
	for _, ch := range l.unshown {
		ch.unshown = false
		l.follow(ch)
	}
	clear(l.unborn)
	l.unshown, l.undo = l.unshown[:0], nil
}

// follow notes what is to be done about a channel later.
func (l *Log) follow(ch *channel) {
	if ch.next.empty() {
		l.empty[ch] = struct{}{}
	} else {
		delete(l.empty, ch)
	}
	l.aging.update(ch)
	if ch.floor < ch.next.base.at.Offset && !ch.littered {
		ch.littered = true
		l.litter = append(l.litter, ch)
	}
}

// takeBack forgets what was staged and could not be written. Nobody has seen it.
func (l *Log) takeBack() {
	for _, undo := range slices.Backward(l.undo) {
		undo()
	}
	for _, ch := range l.dirty {
		ch.next, ch.staged, ch.dirty, ch.unshown = ch.shown, nil, false, false
	}
	clear(l.unborn)
	l.changes, l.dirty, l.unshown, l.undo, l.pending = nil, nil, nil, nil, 0
}

// tell wakes those whom no caller of Append wakes. It doesn't wait: a wake may
// append.
func (l *Log) tell(wake []*watcher) {
	if len(wake) == 0 {
		return
	}
	l.others.Go(func() {
		for _, w := range wake {
			w.wake()
		}
	})
}

// end writes what is left, refuses what waits, and closes the file.
func (l *Log) end() {
	for {
		some := l.queue.take(groupBytes)
		if len(some) == 0 {
			break
		}
		for _, r := range some {
			if r.state.CompareAndSwap(waits, taken) {
				r.answer(errClosed)
			}
		}
	}
	if l.copying != nil {
		close(l.copying.stop)
	}
	l.closing = l.flush(time.Now())
	l.alarm.Stop()
	l.others.Wait()
	l.closing = errors.Join(l.closing, l.leases.Close(), l.file.close())
}
