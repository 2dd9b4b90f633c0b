package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// MemoryOptions are the settings of a [Memory]. The zero value is ready for
// use; what is zero or negative has its default.
type MemoryOptions struct {
	// MaxLeases is how many leases are held, those that ran out and are still
	// known among them. A claim of one more fails with [ErrBusy]. Default:
	// 1,000,000.
	MaxLeases int
	// MaxBytes is about how much memory all leases may take. A claim that would
	// take more fails with [ErrBusy]. Default: 1 GiB.
	MaxBytes int64
}

// Memory is a [Store] that lives in the process and dies with it. Several
// servers in one process may share it. It is meant to be plain: one lock guards
// everything, and whoever calls first clears away what ran out before. It owns
// no goroutine.
type Memory struct {
	// Static after NewMemory.
	options MemoryOptions
	began   time.Time // durations are since then, by the monotonic clock
	secret  []byte

	mu sync.Mutex

	// Guarded by mu.
	closed   bool
	leases   map[leaseKey]*lease
	channels map[eventlog.Channel]*members // those with a member
	due      dueHeap                       // all leases
	bytes    int64                         // of all leases, by lease.size
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(o MemoryOptions) *Memory {
	if o.MaxLeases <= 0 {
		o.MaxLeases = 1_000_000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	m := &Memory{
		options:  o,
		began:    time.Now(),
		secret:   make([]byte, MinSecret),
		leases:   make(map[leaseKey]*lease),
		channels: make(map[eventlog.Channel]*members),
	}
	rand.Read(m.secret) // never fails
	return m
}

// now is the time since the store began. It doesn't jump when the clock is set.
func (m *Memory) now() time.Duration { return time.Since(m.began) }

// Secret implements [Store].
func (m *Memory) Secret(ctx context.Context) ([]byte, error) {
	if err := m.lock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return slices.Clone(m.secret), nil
}

// Claim implements [Store].
func (m *Memory) Claim(ctx context.Context, held Held, l Lease) error {
	if err := held.Check(); err != nil {
		return err
	}
	if err := l.Check(held.Namespace); err != nil {
		return err
	}
	fresh := newLease(held, l)
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	count, size := len(m.leases)+1, m.bytes+fresh.size()
	old := m.leases[fresh.key()]
	if old != nil {
		count, size = count-1, size-old.size()
		if old.line > held.Line {
			return nil
		}
	}
	if count > m.options.MaxLeases || size > m.options.MaxBytes && (old == nil || fresh.size() > old.size()) {
		return fmt.Errorf("%w: %d leases of about %d bytes", ErrBusy, len(m.leases), m.bytes)
	}
	m.replace(old, fresh)
	return nil
}

// replace puts a lease in the place of that which its session had, if any.
func (m *Memory) replace(old, fresh *lease) {
	if old != nil {
		m.drop(old)
	}
	m.leases[fresh.key()] = fresh
	m.bytes += fresh.size()
	fresh.renewed = m.now()
	m.due.put(fresh, fresh.ends())
	m.list(fresh)
}

// drop forgets a lease.
func (m *Memory) drop(l *lease) {
	m.unlist(l)
	m.due.remove(l)
	m.bytes -= l.size()
	delete(m.leases, l.key())
}

// list makes a lease present in its channels.
func (m *Memory) list(l *lease) {
	l.present = true
	for _, name := range l.channels {
		ch := eventlog.Channel{Namespace: l.namespace, Name: name}
		if m.channels[ch] == nil {
			m.channels[ch] = new(members)
		}
		m.channels[ch].add(l)
	}
}

// unlist makes a lease not present.
func (m *Memory) unlist(l *lease) {
	if !l.present {
		return
	}
	l.present = false
	for _, name := range l.channels {
		ch := eventlog.Channel{Namespace: l.namespace, Name: name}
		if there := m.channels[ch]; there != nil { // nil: it is named twice
			if there.remove(l); there.total == 0 {
				delete(m.channels, ch)
			}
		}
	}
}

// touchChunk is how many leases are touched before others may have the lock.
const touchChunk = 1000

// Touch implements [Store].
func (m *Memory) Touch(ctx context.Context, held []Held) (missing []Held, err error) {
	for _, h := range held {
		if err := h.Check(); err != nil {
			return nil, err
		}
	}
	for {
		if err := m.lock(ctx); err != nil {
			return nil, err
		}
		n := min(len(held), touchChunk)
		for _, h := range held[:n] {
			if !m.touch(h) {
				missing = append(missing, h)
			}
		}
		m.mu.Unlock()
		if held = held[n:]; len(held) == 0 {
			return missing, nil
		}
	}
}

// touch reports whether a line as high is known, and renews it if it is this.
func (m *Memory) touch(h Held) bool {
	l := m.leases[leaseKey{h.Namespace, h.ID}]
	if l == nil || l.line < h.Line {
		return false
	}
	if l.line == h.Line {
		l.renewed = m.now()
		if !l.present { // it was put back for when it is forgotten
			m.due.put(l, l.ends())
			m.list(l)
		}
	}
	return true
}

// Release implements [Store].
func (m *Memory) Release(ctx context.Context, held Held, idle time.Duration) (ended bool, err error) {
	if err := held.Check(); err != nil {
		return false, err
	}
	if err := m.lock(ctx); err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	l := m.leases[leaseKey{held.Namespace, held.ID}]
	if l == nil || l.line > held.Line || m.now()-l.renewed < idle {
		return false, nil
	}
	m.drop(l)
	return true, nil
}

// Present implements [Store].
func (m *Memory) Present(ctx context.Context, ch eventlog.Channel, max int) ([]Member, int, error) {
	if err := ch.Check(); err != nil {
		return nil, 0, err
	}
	if err := m.lock(ctx); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	there := m.channels[ch]
	if there == nil {
		return nil, 0, nil
	}
	return there.first(max), there.total, nil
}

// Close implements [Store].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.leases, m.channels, m.due, m.bytes = nil, nil, nil, 0
	return nil
}

// lock locks the store with nothing present in it that ran out, unless it is
// closed or the context has ended.
func (m *Memory) lock(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return fmt.Errorf("%w: it is closed", ErrUnavailable)
		}
		if !m.sweep() {
			return nil
		}
		m.mu.Unlock()
	}
}

// sweepLeases is how many leases are looked at before others may have the lock.
const sweepLeases = 1000

// sweep clears away some of what ran out, and reports whether there is more.
func (m *Memory) sweep() (more bool) {
	now := m.now()
	for range sweepLeases {
		if len(m.due) == 0 || m.due[0].due > now {
			return false
		}
		switch l := m.due[0]; {
		case l.ends() > now: // it was touched
			m.due.put(l, l.ends())
		case l.ends()+Remembered > now:
			m.unlist(l)
			m.due.put(l, l.ends()+Remembered)
		default:
			m.drop(l)
		}
	}
	return true
}
