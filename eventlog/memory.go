package eventlog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a [Log] that lives in the process and dies with it: after a restart
// every old position is [Rewritten]. It is meant to be plain. Each channel is
// a slice, and one lock guards them all.
//
// It owns one goroutine, which frees what got too old and lets the generation
// rise, and which Close ends and waits for.
type Memory struct {
	// Static after NewMemory.
	options MemoryOptions
	began   time.Time // durations are since then, by the monotonic clock
	timer   *time.Timer
	stop    chan struct{} // closed by Close
	done    chan struct{} // closed when the goroutine has ended

	mu sync.RWMutex // wake functions and Retain are called without it

	// Guarded by mu.
	closed     bool
	channels   map[Channel]*history
	empty      map[*history]struct{}  // those that hold no event
	watchers   map[Channel][]*watcher // each slice is replaced, never changed
	producers  producers
	generation generation
	marks      marks
	shares     *shares
	aging      ordered[*history] // those whose events get too old, by when
	next       time.Duration     // when the timer fires
	swept      time.Duration     // when the last sweep was
	counted    time.Duration     // when empty names were last counted, or dropped
}

// A watcher is one call of Watch.
type watcher struct{ wake func() }

var _ Log = (*Memory)(nil)

// NewMemory returns an empty log. It must be closed.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{
		options:    o.withDefaults(),
		began:      time.Now(),
		stop:       make(chan struct{}),
		done:       make(chan struct{}),
		channels:   make(map[Channel]*history),
		empty:      make(map[*history]struct{}),
		watchers:   make(map[Channel][]*watcher),
		producers:  newProducers(),
		generation: newGeneration(),
		shares:     newShares(),
		aging: ordered[*history]{
			before: func(a, b *history) bool { return a.due < b.due },
			place:  func(h *history) *int { return &h.duePlace },
		},
	}
	m.next = m.options.Generation
	m.timer = time.NewTimer(m.next)
	go m.run()
	return m
}

// now is the time since the log began. It doesn't jump when the clock is set.
func (m *Memory) now() time.Duration { return time.Since(m.began) }

// Append implements [Log]. The batch may be used again when it returns.
func (m *Memory) Append(ctx context.Context, ch Channel, b Batch) (last Position, duplicate bool, err error) {
	if err := ended(ctx); err != nil {
		return Position{}, false, err
	}
	if err := ch.Check(); err != nil {
		return Position{}, false, err
	}
	if err := b.Check(m.options.MaxData); err != nil {
		return Position{}, false, err
	}
	messages := make([]Message, len(b.Messages))
	for i := range messages {
		messages[i] = b.Messages[i].Clone()
	}
	b.Messages = messages
	retention := m.retention(ch)

	m.mu.Lock()
	last, duplicate, err = m.append(ch, retention, &b)
	watchers := m.watchers[ch]
	m.mu.Unlock()
	if err == nil && !duplicate {
		for _, w := range watchers {
			w.wake()
		}
	}
	return last, duplicate, err
}

// append is the one step of Append. Guarded by mu.
func (m *Memory) append(ch Channel, r Retention, b *Batch) (last Position, duplicate bool, err error) {
	if m.closed {
		return Position{}, false, errClosed
	}
	now := m.now()
	m.producers.forget(now - m.options.RememberProducers)
	h := m.channels[ch]
	if first, duplicate, err := m.admit(h, ch, b.Producer); duplicate || err != nil {
		return first, duplicate, err
	}
	if err := m.expected(h, ch, b.Expect); err != nil {
		return Position{}, false, err
	}
	if h == nil {
		// A copy: the name may be a part of a whole request.
		ch = Channel{Namespace: strings.Clone(ch.Namespace), Name: strings.Clone(ch.Name)}
		h = newHistory(ch, r, m.generation.marks(ch))
		m.channels[ch] = h
	}
	m.push(h, b.Messages, now)
	if b.Producer != (Producer{}) {
		m.producers.remember(h, b.Producer, h.head, now)
	}
	m.plan(now)
	return h.head, false, nil
}

// expected reports with an [*Expectation] whether a channel's head isn't what
// was expected, if anything was. h is nil while the channel is unborn.
func (m *Memory) expected(h *history, ch Channel, expect *Position) error {
	switch {
	case expect == nil:
		return nil
	case h != nil && *expect != h.head:
		return &Expectation{Expected: *expect, Head: h.head}
	case h == nil && !m.generation.holds(ch, *expect):
		return &Expectation{Expected: *expect, Head: m.generation.place(ch)}
	}
	return nil
}

// push appends messages to a channel and trims what is over a bound.
func (m *Memory) push(h *history, messages []Message, now time.Duration) {
	before := h.headSum
	wall := time.Now().Round(0).UTC()
	for i := range messages {
		h.push(messages[i], m.marks.draw(), wall, now)
	}
	h.written = m.generation.number
	delete(m.empty, h)
	m.shares.update(h, h.headSum-before)
	m.trim(h, h.excess())
	m.expire(h, now)
	for m.shares.total > m.options.MaxBytes {
		victim := m.shares.victim(h)
		if victim == nil {
			return
		}
		m.trim(victim, 1)
	}
}

// trim drops the n oldest events of a channel.
func (m *Memory) trim(h *history, n int) {
	if n == 0 {
		return
	}
	before := h.bytes()
	h.drop(n)
	m.shares.update(h, h.bytes()-before)
	if h.len() == 0 {
		m.empty[h] = struct{}{}
		m.aging.remove(h)
	}
}

// Seek implements [Log].
func (m *Memory) Seek(ctx context.Context, ch Channel, s Start) (Position, error) {
	if err := ended(ctx); err != nil {
		return Position{}, err
	}
	if err := ch.Check(); err != nil {
		return Position{}, err
	}
	if err := s.Check(); err != nil {
		return Position{}, err
	}
	h := m.rlock(ch)
	defer m.mu.RUnlock()
	switch {
	case m.closed:
		return Position{}, errClosed
	case h == nil:
		return m.generation.place(ch), nil
	case s.Earliest:
		return h.base, nil
	case !s.Since.IsZero():
		return h.before(h.since(s.Since)), nil
	}
	return h.before(max(0, h.len()-s.Last)), nil
}

// Read implements [Log]. The events are shared by all readers, the slice of
// them is the caller's. A filtered read looks through 16 times its bound.
func (m *Memory) Read(ctx context.Context, ch Channel, after Position, limit Limit) (Page, error) {
	if err := ended(ctx); err != nil {
		return Page{}, err
	}
	if err := ch.Check(); err != nil {
		return Page{}, err
	}
	h := m.rlock(ch)
	defer m.mu.RUnlock()
	if m.closed {
		return Page{}, errClosed
	}
	if h == nil {
		place := m.generation.place(ch)
		if !m.generation.holds(ch, after) {
			return Page{}, &Lost{From: after, To: place, Reason: Rewritten}
		}
		return Page{Next: place, Head: place}, nil
	}
	from, err := h.locate(after)
	if err != nil {
		return Page{}, err
	}
	return h.page(from, after, limit), nil
}

// rlock locks for reading and returns what is held of a channel, or nil, with
// nothing in it that is too old.
func (m *Memory) rlock(ch Channel) *history {
	for {
		m.mu.RLock()
		h := m.channels[ch]
		if h == nil || h.aged(m.now()) == 0 {
			return h
		}
		m.mu.RUnlock()
		m.mu.Lock()
		if h := m.channels[ch]; h != nil {
			now := m.now()
			m.expire(h, now)
			m.plan(now)
		}
		m.mu.Unlock()
	}
}

// Watch implements [Log].
func (m *Memory) Watch(ch Channel, wake func()) (stop func()) {
	w := &watcher{wake: wake}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || ch.Check() != nil {
		return func() {}
	}
	m.watchers[ch] = append(slices.Clip(m.watchers[ch]), w)
	return func() { m.unwatch(ch, w) }
}

func (m *Memory) unwatch(ch Channel, w *watcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.watchers[ch], w)
	if i < 0 {
		return
	}
	rest := slices.Delete(slices.Clone(m.watchers[ch]), i, i+1)
	if len(rest) == 0 {
		delete(m.watchers, ch)
	} else {
		m.watchers[ch] = rest
	}
}

// Info implements [Log].
func (m *Memory) Info() Info {
	return Info{ProducersRemembered: m.options.RememberProducers, MaxData: m.options.MaxData}
}

// Close implements [Log]. It returns when the log's goroutine has ended, so it
// must not be called by a wake function. It may be called again.
func (m *Memory) Close() error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.stop)
		m.channels, m.empty, m.watchers = nil, nil, nil
		m.producers, m.shares = newProducers(), newShares()
		m.aging.items = nil
	}
	m.mu.Unlock()
	<-m.done
	return nil
}

// retention returns what Retain said, or says now, of a channel.
func (m *Memory) retention(ch Channel) Retention {
	m.mu.RLock()
	h := m.channels[ch]
	m.mu.RUnlock()
	if h != nil {
		return h.retention
	}
	return m.options.Retain(ch).withDefaults()
}

var errClosed = fmt.Errorf("%w: the log is closed", ErrUnavailable)

// ended returns the error of a context that has ended. It is unavailability
// too, so that whoever knows only the log's errors tries again.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
}
