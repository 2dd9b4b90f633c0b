package conformance_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
)

// A logFault is what a log does in place of what it should; nil: nothing.
type logFault struct {
	read   func(l *brokenLog, ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error)
	seek   func(l *brokenLog, ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error)
	append func(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error)
}

// A brokenLog has a fault. It knows what was appended through it.
type brokenLog struct {
	eventlog.Log
	logFault

	mu        sync.Mutex
	positions map[eventlog.Channel][]eventlog.Position // guarded by mu: of what was appended
	producers map[string]eventlog.Position             // guarded by mu: as a fault remembers them
	numbers   map[string]uint64                        // guarded by mu
	last      map[string]time.Time                     // guarded by mu
}

// broken is a variant over such a log, a new one for each server.
func broken(f logFault) testee.Variant {
	return testee.Variant{Log: func(inner eventlog.Log) eventlog.Log {
		return &brokenLog{
			Log: inner, logFault: f, positions: map[eventlog.Channel][]eventlog.Position{},
			producers: map[string]eventlog.Position{}, numbers: map[string]uint64{}, last: map[string]time.Time{},
		}
	}}
}

func (l *brokenLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if l.read == nil {
		return l.Log.Read(ctx, ch, after, limit)
	}
	return l.read(l, ctx, ch, after, limit)
}

func (l *brokenLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if l.seek == nil {
		return l.Log.Seek(ctx, ch, s)
	}
	return l.seek(l, ctx, ch, s)
}

func (l *brokenLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (at eventlog.Position, duplicate bool, err error) {
	if l.append == nil {
		at, duplicate, err = l.Log.Append(ctx, ch, b)
	} else {
		at, duplicate, err = l.append(l, ctx, ch, b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && !duplicate {
		l.positions[ch] = append(l.positions[ch], at)
	}
	return at, duplicate, err
}

// of returns the position that has an offset in a channel.
func (l *brokenLog) of(ch eventlog.Channel, offset uint64) (eventlog.Position, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.positions[ch], func(p eventlog.Position) bool { return p.Offset == offset })
	if i < 0 {
		return eventlog.Position{}, false
	}
	return l.positions[ch][i], true
}

// pages changes each page that is read.
func pages(change func(ch eventlog.Channel, after eventlog.Position, p *eventlog.Page)) testee.Variant {
	return broken(logFault{read: func(l *brokenLog, ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
		page, err := l.Log.Read(ctx, ch, after, limit)
		if err == nil {
			page.Events = slices.Clone(page.Events)
			change(ch, after, &page)
		}
		return page, err
	}})
}

// losses answers reads from lost positions in its own way.
func losses(answer func(l *brokenLog, ctx context.Context, ch eventlog.Channel, lost *eventlog.Lost, limit eventlog.Limit) (eventlog.Page, error)) testee.Variant {
	return broken(logFault{read: func(l *brokenLog, ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
		page, err := l.Log.Read(ctx, ch, after, limit)
		if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
			return answer(l, ctx, ch, lost, limit)
		}
		return page, err
	}})
}

// appends has something else done in place of an append.
func appends(do func(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error)) testee.Variant {
	return broken(logFault{append: do})
}

// byKey reports whether a producer is one of §7: those of §9 have names of their
// own.
func byKey(p eventlog.Producer) bool { return p.ID != "" && !strings.HasPrefix(p.ID, "p:") }

// without is a batch as nobody's.
func without(b eventlog.Batch) eventlog.Batch {
	b.Producer = eventlog.Producer{}
	return b
}

// goesOnSilently reads on behind what is lost for one reason.
func goesOnSilently(reason eventlog.Reason) testee.Variant {
	return losses(func(l *brokenLog, ctx context.Context, ch eventlog.Channel, lost *eventlog.Lost, limit eventlog.Limit) (eventlog.Page, error) {
		if lost.Reason != reason {
			return eventlog.Page{}, lost
		}
		return l.Log.Read(ctx, ch, lost.To, limit)
	})
}

// comparesOffsets takes a position for the one that has its offset.
func comparesOffsets(l *brokenLog, ctx context.Context, ch eventlog.Channel, lost *eventlog.Lost, limit eventlog.Limit) (eventlog.Page, error) {
	if at, ok := l.of(ch, lost.From.Offset); ok && lost.Reason == eventlog.Rewritten {
		return l.Log.Read(ctx, ch, at, limit)
	}
	return eventlog.Page{}, lost
}

// skipsOne begins with the second event that is held, where many are gone.
func skipsOne(l *brokenLog, ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	at, err := l.Log.Seek(ctx, ch, s)
	if err != nil || s == (eventlog.Start{}) {
		return at, err
	}
	page, err := l.Log.Read(ctx, ch, at, eventlog.Limit{})
	if err == nil && len(page.Events) > 1 && page.Events[0].At.Offset > 5 {
		return page.Events[0].At, nil
	}
	return at, nil
}

// looksAndAppends has the question whether a message is there and its append in
// two steps.
func looksAndAppends(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	key := ch.Name + " " + b.Producer.ID
	l.mu.Lock()
	at, known := l.producers[key]
	seq := l.numbers[key]
	l.mu.Unlock()
	switch {
	case !byKey(b.Producer):
		return l.Log.Append(ctx, ch, b)
	case known && b.Producer.Seq == seq:
		return at, true, nil
	case known && b.Producer.Seq < seq:
		return at, false, eventlog.ErrStale
	}
	time.Sleep(time.Millisecond)
	at, _, err := l.Log.Append(ctx, ch, without(b))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.producers[key], l.numbers[key] = at, b.Producer.Seq
	}
	return at, false, err
}

// oneSetOfNumbers forgets that a producer's numbers are a channel's own.
func oneSetOfNumbers(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	l.mu.Lock()
	at, known := l.producers[b.Producer.ID]
	same := known && l.numbers[b.Producer.ID] == b.Producer.Seq
	l.mu.Unlock()
	if same {
		return at, true, nil
	}
	at, duplicate, err := l.Log.Append(ctx, ch, b)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && byKey(b.Producer) {
		l.producers[b.Producer.ID], l.numbers[b.Producer.ID] = at, b.Producer.Seq
	}
	return at, duplicate, err
}

// forgetsProducers forgets who appended nothing for a minute.
func forgetsProducers(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	l.mu.Lock()
	last, known := l.last[b.Producer.ID]
	l.last[b.Producer.ID] = time.Now()
	l.mu.Unlock()
	if known && time.Since(last) > time.Minute && byKey(b.Producer) {
		b = without(b)
	}
	return l.Log.Append(ctx, ch, b)
}

// keysOfAll leaves out the subject that a key was joined with.
func keysOfAll(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	if size, rest, ok := strings.Cut(b.Producer.ID, ":"); ok && byKey(b.Producer) {
		n, _ := strconv.Atoi(size)
		b.Producer.ID = rest[n:]
	}
	return l.Log.Append(ctx, ch, b)
}

// neverBusy appends for nobody what it can't remember a producer of.
func neverBusy(l *brokenLog, ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	at, duplicate, err := l.Log.Append(ctx, ch, b)
	if errors.Is(err, eventlog.ErrBusy) {
		return l.Log.Append(ctx, ch, without(b))
	}
	return at, duplicate, err
}
