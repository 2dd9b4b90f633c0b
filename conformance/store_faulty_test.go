package conformance

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

func openMemoryStore(*testing.T) session.Store { return session.NewMemory(session.MemoryOptions{}) }

// A brokenStore breaks the contract where one of its functions is set. It notes
// what the store that it is made of should hold.
type brokenStore struct {
	session.Store
	onSecret  func(context.Context) ([]byte, error)
	onClaim   func(context.Context, session.Held, session.Lease) error
	onTouch   func(context.Context, []session.Held) ([]session.Held, error)
	onRelease func(context.Context, session.Held, time.Duration) (bool, error)
	onPresent func(context.Context, eventlog.Channel, int) ([]session.Member, int, error)
	onClose   func() error

	mu    sync.Mutex            // also guards what the functions note
	notes map[session.Held]note // guarded by mu; the line is 0
}

// A note is of the last claim of a session that the store took.
type note struct {
	line             uint64
	lease            session.Lease
	claimed, renewed time.Time
}

func (n note) ranOut() bool { return time.Since(n.renewed) >= n.lease.For }

func (b *brokenStore) noted(h session.Held) note {
	b.mu.Lock()
	defer b.mu.Unlock()
	h.Line = 0
	return b.notes[h]
}

func (b *brokenStore) Secret(ctx context.Context) ([]byte, error) {
	if b.onSecret != nil {
		return b.onSecret(ctx)
	}
	return b.Store.Secret(ctx)
}

func (b *brokenStore) Claim(ctx context.Context, h session.Held, l session.Lease) error {
	claim := b.Store.Claim
	if b.onClaim != nil {
		claim = b.onClaim
	}
	err := claim(ctx, h, l)
	b.mu.Lock()
	defer b.mu.Unlock()
	key := session.Held{Namespace: h.Namespace, ID: h.ID}
	if err == nil && h.Line >= b.notes[key].line {
		b.notes[key] = note{line: h.Line, lease: l, claimed: time.Now(), renewed: time.Now()}
	}
	return err
}

func (b *brokenStore) Touch(ctx context.Context, held []session.Held) ([]session.Held, error) {
	touch := b.Store.Touch
	if b.onTouch != nil {
		touch = b.onTouch
	}
	missing, err := touch(ctx, held)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range held {
		key := session.Held{Namespace: h.Namespace, ID: h.ID}
		if n := b.notes[key]; n.line == h.Line {
			n.renewed = time.Now()
			b.notes[key] = n
		}
	}
	return missing, err
}

func (b *brokenStore) Release(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
	release := b.Store.Release
	if b.onRelease != nil {
		release = b.onRelease
	}
	ended, err := release(ctx, h, idle)
	if ended {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.notes, session.Held{Namespace: h.Namespace, ID: h.ID})
	}
	return ended, err
}

func (b *brokenStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	if b.onPresent != nil {
		return b.onPresent(ctx, ch, most)
	}
	return b.Store.Present(ctx, ch, most)
}

func (b *brokenStore) Close() error {
	if b.onClose != nil {
		return b.onClose()
	}
	return b.Store.Close()
}

// A storeFault is one way to be broken, and has to be noticed.
type storeFault struct {
	name   string
	fails  string // the ids of the clauses that must fail
	breaks func(*brokenStore)
}

func (f *storeFault) open(t *testing.T) session.Store {
	b := &brokenStore{Store: openMemoryStore(t), notes: make(map[session.Held]note)}
	t.Cleanup(func() { _ = b.Store.Close() }) // a broken Close may not have
	f.breaks(b)
	return b
}

// refuses returns what the store says to anything about these sessions.
func (b *brokenStore) refuses(ctx context.Context, held ...session.Held) error {
	for _, h := range held {
		if err := h.Check(); err != nil {
			return err
		}
	}
	_, err := b.Store.Touch(ctx, nil)
	return err
}

// onLease breaks a store by changing what is claimed of it.
func onLease(change func(b *brokenStore, h *session.Held, l *session.Lease)) func(*brokenStore) {
	return func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if h.Check() == nil && l.Check(h.Namespace) == nil {
				change(b, &h, &l)
			}
			return b.Store.Claim(ctx, h, l)
		}
	}
}

// onMissing breaks a store by changing which are missing.
func onMissing(change func(b *brokenStore, held, missing []session.Held) []session.Held) func(*brokenStore) {
	return func(b *brokenStore) {
		b.onTouch = func(ctx context.Context, held []session.Held) ([]session.Held, error) {
			missing, err := b.Store.Touch(ctx, held)
			return change(b, held, missing), err
		}
	}
}

// onEnd breaks a store by changing what is released.
func onEnd(change func(b *brokenStore, h *session.Held, idle *time.Duration) (ignore bool)) func(*brokenStore) {
	return func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			if change(b, &h, &idle) {
				return false, b.refuses(ctx, h)
			}
			return b.Store.Release(ctx, h, idle)
		}
	}
}

// onMembers breaks a store by changing who is present.
func onMembers(change func(members []session.Member, total *int) []session.Member) func(*brokenStore) {
	return func(b *brokenStore) {
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			members, total, err := b.Store.Present(ctx, ch, most)
			return change(members, &total), total, err
		}
	}
}

var storeFaults = slices.Concat(callFaults, claimFaults, touchFaults, releaseFaults, presentFaults)

var callFaults = []storeFault{
	{"draws a secret for each caller", "S01", func(b *brokenStore) {
		b.onSecret = func(context.Context) ([]byte, error) { return []byte(session.NewID() + session.NewID()), nil }
	}},
	{"has the secret of all stores", "S01", func(b *brokenStore) {
		b.onSecret = func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("x"), session.MinSecret), nil }
	}},
	{"gives its own secret away", "S01", func(b *brokenStore) {
		own, _ := b.Store.Secret(context.Background())
		b.onSecret = func(context.Context) ([]byte, error) { return own, nil }
	}},
	{"has a short secret", "S01", func(b *brokenStore) {
		b.onSecret = func(ctx context.Context) ([]byte, error) {
			s, err := b.Store.Secret(ctx)
			return s[:min(len(s), session.MinSecret-1)], err
		}
	}},
	{"passes over what is invalid", "S03", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			err := b.Store.Claim(ctx, h, l)
			if _, ok := errors.AsType[*eventlog.Invalid](err); ok {
				return nil
			}
			return err
		}
	}},
	{"touches what comes before what is invalid, and is silent", "S03", func(b *brokenStore) {
		b.onTouch = func(ctx context.Context, held []session.Held) ([]session.Held, error) {
			return b.Store.Touch(ctx, slices.DeleteFunc(slices.Clone(held), func(h session.Held) bool { return h.Check() != nil }))
		}
	}},
	{"takes less info than it should", "S03", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if len(l.Info) > session.MaxInfo-1 {
				return &eventlog.Invalid{Field: "info", Problem: "is too long"}
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"ignores contexts", "S04", func(b *brokenStore) {
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			return b.Store.Present(context.WithoutCancel(ctx), ch, most)
		}
	}},
	{"returns the error of the context alone", "S04", func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return b.Store.Release(ctx, h, idle)
		}
	}},
	{"goes on after Close", "S05", func(b *brokenStore) { b.onClose = func() error { return nil } }},
	{"joins namespace and id", "S06", func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (ended bool, err error) {
			b.mu.Lock()
			noted := slices.Collect(maps.Keys(b.notes))
			b.mu.Unlock()
			for _, key := range noted {
				if key.Namespace+key.ID == h.Namespace+h.ID {
					key.Line = h.Line
					over, e := b.Store.Release(ctx, key, idle)
					ended, err = ended || over, errors.Join(err, e)
				}
			}
			return ended, err
		}
	}},
	{"knows channels by their name alone", "S06", func(b *brokenStore) {
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			return b.Store.Present(ctx, eventlog.Channel{Name: ch.Name}, most)
		}
	}},
}

var claimFaults = []storeFault{
	{"forgets info", "S02 S07 S11 S90", onLease(func(_ *brokenStore, _ *session.Held, l *session.Lease) { l.Info = nil })},
	{"forgets subjects", "S02 S11", onLease(func(_ *brokenStore, _ *session.Held, l *session.Lease) { l.Subject = "" })},
	{"has a session in one channel", "S02 S11 S90", onLease(func(_ *brokenStore, _ *session.Held, l *session.Lease) {
		l.Channels = l.Channels[:min(1, len(l.Channels))]
	})},
	{"has a session without channels nowhere", "S02 S90", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if len(l.Channels) == 0 {
				return l.Check(h.Namespace)
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"keeps the claimed slices", "S07 S90", func(b *brokenStore) {
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			members, total, err := b.Store.Present(ctx, ch, most)
			for i := range members {
				members[i].Info = b.noted(session.Held{Namespace: ch.Namespace, ID: members[i].ID}).lease.Info
			}
			return members, total, err
		}
	}},
	{"lets the last claim win", "S10 S90", onLease(func(b *brokenStore, h *session.Held, _ *session.Lease) {
		h.Line = max(h.Line, b.noted(*h).line)
	})},
	{"is renewed by lower claims", "S10 S35 S90", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if n := b.noted(h); n.line > h.Line {
				_, err := b.Store.Touch(ctx, []session.Held{{Namespace: h.Namespace, ID: h.ID, Line: n.line}})
				return err
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"refuses lower claims", "S10 S35 S90", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if b.noted(h).line > h.Line {
				return errors.New("a higher line has claimed it")
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"forgets the line of what ran out", "S10 S90", onLease(func(b *brokenStore, h *session.Held, _ *session.Lease) {
		if n := b.noted(*h); n.ranOut() {
			h.Line = max(h.Line, n.line)
		}
	})},
	{"adds channels to those claimed before", "S11 S90", onLease(func(b *brokenStore, h *session.Held, l *session.Lease) {
		l.Channels = slices.Concat(l.Channels, b.noted(*h).lease.Channels)
	})},
	{"lets the first claim of a line win", "S11 S13 S32 S90", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if n := b.noted(h); n.line == h.Line && n.line > 0 {
				return nil
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"keeps the first line", "S11 S90", onLease(func(b *brokenStore, h *session.Held, _ *session.Lease) {
		if n := b.noted(*h); n.line > 0 {
			h.Line = min(h.Line, n.line)
		}
	})},
	{"has no leases that run out", "S12 S13 S20 S34 S90", onLease(func(_ *brokenStore, _ *session.Held, l *session.Lease) { l.For = session.MaxLease })},
	{"has leases of one length", "S12 S13 S20 S90", onLease(func(_ *brokenStore, _ *session.Held, l *session.Lease) { l.For = time.Minute })},
	{"has leases that run out too soon", "S12 S13 S20 S32 S90", onLease(func(_ *brokenStore, _ *session.Held, l *session.Lease) { l.For /= 2 })},
	{"does not renew by claims", "S13 S90", func(b *brokenStore) {
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			if n := b.noted(h); n.line > 0 && h.Line >= n.line && l.Check(h.Namespace) == nil {
				if l.For = n.lease.For - time.Since(n.claimed); l.For <= 0 {
					return nil
				}
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"loses a claim now and then", "S02 S22 S41 S11 S33 S90", func(b *brokenStore) {
		n := 0
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			b.mu.Lock()
			n++
			lose := n%3 == 0
			b.mu.Unlock()
			if lose {
				return nil
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
}

var touchFaults = []storeFault{
	{"does not renew by touches", "S20 S23 S32 S34 S90", func(b *brokenStore) {
		b.onTouch = func(ctx context.Context, held []session.Held) (missing []session.Held, err error) {
			for _, h := range held {
				if b.noted(h).line < h.Line {
					missing = append(missing, h)
				}
			}
			return missing, b.refuses(ctx, held...)
		}
	}},
	{"touches for half the time", "S20 S34 S90 (S41)", func(b *brokenStore) {
		b.onTouch = func(ctx context.Context, held []session.Held) (missing []session.Held, err error) {
			missing, err = b.Store.Touch(ctx, held)
			for _, h := range held {
				if n := b.noted(h); n.line == h.Line && n.line > 0 {
					n.lease.For /= 2
					err = errors.Join(err, b.Store.Claim(ctx, h, n.lease))
				}
			}
			return missing, err
		}
	}},
	{"renews whatever line it is", "S10 S21 S32 S90", func(b *brokenStore) {
		b.onTouch = func(ctx context.Context, held []session.Held) ([]session.Held, error) {
			missing, err := b.Store.Touch(ctx, held)
			for _, h := range held {
				h.Line = b.noted(h).line
				_, e := b.Store.Touch(ctx, []session.Held{h})
				err = errors.Join(err, e)
			}
			return missing, err
		}
	}},
	{"misses lines that are lower than the stored", "S21 S10 S32 S90", onMissing(func(b *brokenStore, held, missing []session.Held) []session.Held {
		for _, h := range held {
			if b.noted(h).line > h.Line {
				missing = append(missing, h)
			}
		}
		return missing
	})},
	{"knows a session whatever its line", "S21 S35 S90", onMissing(func(b *brokenStore, _, missing []session.Held) []session.Held {
		return slices.DeleteFunc(missing, func(h session.Held) bool { return b.noted(h).line > 0 })
	})},
	{"misses nothing", "S06 S21 S22 S35 S90", onMissing(func(*brokenStore, []session.Held, []session.Held) []session.Held { return nil })},
	{"misses everything", "S10 S20 S22 S23 S06 S31 S90", onMissing(func(_ *brokenStore, held, _ []session.Held) []session.Held { return held })},
	{"does not revive what ran out", "S23 S90", func(b *brokenStore) {
		b.onTouch = func(ctx context.Context, held []session.Held) (missing []session.Held, err error) {
			if err := b.refuses(ctx, held...); err != nil {
				return nil, err
			}
			for _, h := range held {
				if n := b.noted(h); n.line == h.Line && n.ranOut() {
					missing = append(missing, h)
					continue
				}
				m, e := b.Store.Touch(ctx, []session.Held{h})
				missing, err = append(missing, m...), errors.Join(err, e)
			}
			return missing, err
		}
	}},
}

// twoSteps releases in another step than it looks.
func twoSteps(b *brokenStore) {
	b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
		n := b.noted(h)
		if err := b.refuses(ctx, h); err != nil || n.line == 0 || n.line > h.Line || time.Since(n.renewed) < idle {
			return false, err
		}
		time.Sleep(time.Millisecond) // the other step
		_, err := b.Store.Release(ctx, h, idle)
		return true, err
	}
}

var releaseFaults = []storeFault{
	{"says that it ended what was over", "S30 S33 S41 S90", func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			ended, err := b.Store.Release(ctx, h, idle)
			return ended || b.noted(h).line == 0, err
		}
	}},
	{"tells nobody that it ended", "S30 S33 S41 S02 S10 S22 S90", func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			_, err := b.Store.Release(ctx, h, idle)
			return false, err
		}
	}},
	{"leaves the released present", "S30 S31 S41 S06 S22 S90", func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			n := b.noted(h)
			ended := n.line > 0 && n.line <= h.Line && time.Since(n.renewed) >= idle
			return ended, b.refuses(ctx, h)
		}
	}},
	{"releases whatever line holds it", "S11 S31 S34 S90", onEnd(func(b *brokenStore, h *session.Held, _ *time.Duration) bool {
		h.Line = max(h.Line, b.noted(*h).line)
		return false
	})},
	{"releases its own line only", "S31 S90", onEnd(func(b *brokenStore, h *session.Held, _ *time.Duration) bool {
		return b.noted(*h).line != h.Line
	})},
	{"does not wait for idle", "S32 S41 S90", onEnd(func(_ *brokenStore, _ *session.Held, idle *time.Duration) bool {
		*idle = 0
		return false
	})},
	{"waits for what was claimed, not touched", "S32 S90", onEnd(func(b *brokenStore, h *session.Held, idle *time.Duration) bool {
		wait := *idle > 0 && time.Since(b.noted(*h).claimed) < *idle
		*idle = 0
		return wait
	})},
	{"ends none that was idle", "S32 S34 S10 S90", onEnd(func(_ *brokenStore, _ *session.Held, idle *time.Duration) bool { return *idle > 0 })},
	{"waits too long for idle", "S32 S10 S90", onEnd(func(_ *brokenStore, _ *session.Held, idle *time.Duration) bool {
		*idle *= 2
		return false
	})},
	{"releases in two steps", "S33 S41", twoSteps},
	{"forgets what ran out", "S34 S10 S90", onEnd(func(b *brokenStore, h *session.Held, _ *time.Duration) bool { return b.noted(*h).ranOut() })},
	{"lets any line release what ran out", "S34 S90", onEnd(func(b *brokenStore, h *session.Held, _ *time.Duration) bool {
		if n := b.noted(*h); n.ranOut() {
			h.Line = max(h.Line, n.line)
		}
		return false
	})},
	{"never forgets", "S35 (S41)", func(b *brokenStore) {
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			ended, err := b.Store.Release(ctx, h, idle)
			n := b.noted(h)
			return ended || n.line > 0 && n.line <= h.Line && time.Since(n.renewed) >= idle, err
		}
	}},
	{"ends a session once for good", "S36 S90", func(b *brokenStore) {
		over := make(map[string]bool)
		b.onRelease = func(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
			ended, err := b.Store.Release(ctx, h, idle)
			b.mu.Lock()
			defer b.mu.Unlock()
			over[h.ID] = over[h.ID] || ended
			return ended, err
		}
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			b.mu.Lock()
			ignored := over[h.ID]
			b.mu.Unlock()
			if ignored {
				return nil
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
	{"remembers the line of what was released", "S36 S90", func(b *brokenStore) {
		lines := make(map[string]uint64)
		b.onClaim = func(ctx context.Context, h session.Held, l session.Lease) error {
			b.mu.Lock()
			ignored := h.Line < lines[h.ID] && h.Check() == nil
			lines[h.ID] = max(h.Line, lines[h.ID])
			b.mu.Unlock()
			if ignored {
				return nil
			}
			return b.Store.Claim(ctx, h, l)
		}
	}},
}

var presentFaults = []storeFault{
	{"shows members in another order", "S40 S02 S12 S20 S32 S90", onMembers(func(members []session.Member, _ *int) []session.Member {
		slices.Reverse(members)
		return members
	})},
	{"orders without regard to case", "S40", onMembers(func(members []session.Member, _ *int) []session.Member {
		slices.SortStableFunc(members, func(a, b session.Member) int { return strings.Compare(strings.ToLower(a.ID), strings.ToLower(b.ID)) })
		return members
	})},
	{"counts whom it shows", "S40", onMembers(func(members []session.Member, total *int) []session.Member {
		*total = len(members)
		return members
	})},
	{"shows more than asked for", "S40 S41", func(b *brokenStore) {
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			return b.Store.Present(ctx, ch, most+1)
		}
	}},
	{"shows a thousand at most", "S40", func(b *brokenStore) {
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			return b.Store.Present(ctx, ch, min(most, 1000))
		}
	}},
	{"shows its own slice", "S07", func(b *brokenStore) {
		var shared []session.Member
		b.onPresent = func(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
			members, total, err := b.Store.Present(ctx, ch, most)
			b.mu.Lock()
			defer b.mu.Unlock()
			shared = append(shared[:0], members...)
			return shared, total, err
		}
	}},
}

// TestSuiteCatchesBrokenStores: the clauses that a fault is about fail for it.
func TestSuiteCatchesBrokenStores(t *testing.T) {
	var parts []BrokenPart
	for _, f := range storeFaults {
		parts = append(parts, BrokenPart{Name: f.name, Fails: f.fails, Try: func(t *testing.T, id string) ([]string, bool) {
			i := slices.IndexFunc(storeClauses, func(c storeClause) bool { return c.id == id })
			return storeClauses[i].try(t, f.open), true
		}})
	}
	Bite(t, "store", parts)
}

// TestSuitePassesWholeStores: what the faults are made of, with nothing broken.
func TestSuitePassesWholeStores(t *testing.T) {
	TestStore(t, (&storeFault{breaks: func(*brokenStore) {}}).open)
}
