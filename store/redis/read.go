package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// filteredPiece is how many bytes are fetched at a time for a filter to look through.
const filteredPiece = 256 << 10

// Read implements [eventlog.Log]. The events are shared by all readers, the slice of
// them is the caller's.
//
// While Redis can't be asked it fails with [eventlog.ErrUnavailable], but for who has
// the last event that this node knows of: nothing comes after that, as far as anybody
// can say.
func (l *Log) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (page eventlog.Page, err error) {
	if err := ended(ctx); err != nil {
		return page, err
	}
	if err := ch.Check(); err != nil {
		return page, err
	}
	if t := l.tailOf(ch); t != nil && t.mayHold(after) {
		if _, err := t.fresh.ask(ctx); err != nil {
			if l.ctx.Err() == nil && t.isHead(after) {
				return eventlog.Page{Next: after, Head: after}, nil
			}
			return page, err
		}
		if page, ok := t.page(after, limit); ok {
			return page, nil
		}
	}
	return l.readOn(ctx, ch, after, limit)
}

// readOn reads a page from the primary, a piece at a time.
func (l *Log) readOn(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (page eventlog.Page, err error) {
	limit = limit.WithDefaults()
	q := newQuestion(ch, eventlog.Range{After: after}, limit)
	q.placed = true
	scan := eventlog.NewScan(limit)
	page.Next = after
	for {
		q.After = page.Next
		p, err := l.read(ctx, q)
		switch {
		case err != nil:
			return page, err
		case p.lost != nil && page.Next != after:
			return page, nil // what was read before that is whole; the next read says what is lost
		case p.lost != nil:
			return page, p.lost
		case p.seen.unborn:
			return eventlog.Page{Next: p.seen.head.at, Head: p.seen.head.at}, nil
		}
		page.Head, page.Behind = p.seen.headFrom(page.Next), max(0, p.seen.head.sum-p.from.sum)
		for i := range p.entries {
			e := &p.entries[i]
			if !scan.Takes(&e.Message) {
				return page, nil
			}
			if scan.Matched {
				page.Events = append(page.Events, e.Event)
			}
			page.Next, page.Behind = e.At, max(0, p.seen.head.sum-e.sum)
		}
		if len(p.entries) == 0 || !page.More() {
			return page, nil
		}
	}
}

// Seek implements [eventlog.Log].
func (l *Log) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (at eventlog.Position, err error) {
	if err := ended(ctx); err != nil {
		return at, err
	}
	if err := ch.Check(); err != nil {
		return at, err
	}
	if err := s.Check(); err != nil {
		return at, err
	}
	kind, number := "latest", ""
	switch {
	case s.Earliest:
		kind = "earliest"
	case s.Last > 0:
		kind, number = "last", strconv.Itoa(s.Last)
	case !s.Since.IsZero():
		kind, number = "since", instant(s.Since)
	default:
		if t := l.tailOf(ch); t != nil {
			if _, err := t.fresh.ask(ctx); err != nil {
				return at, err
			}
			return t.head(), nil
		}
	}
	r, err := l.ask(ctx, seekScript, ch, kind, number)
	if err != nil {
		return at, err
	}
	if r.kind == "unborn" {
		s := r.seen()
		at = s.head.at
	} else {
		at = r.position()
	}
	if r.bad {
		return eventlog.Position{}, unavailable(errReply)
	}
	return at, nil
}

// Range implements [eventlog.History]. The events are shared by all readers, the slice
// of them is the caller's.
func (l *Log) Range(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (page eventlog.RangePage, err error) {
	if err := ended(ctx); err != nil {
		return page, err
	}
	if err := ch.Check(); err != nil {
		return page, err
	}
	if err := r.Check(); err != nil {
		return page, err
	}
	if err := limit.Filter.Check(); err != nil {
		return page, err
	}
	limit = limit.WithDefaults()
	q := newQuestion(ch, r, limit)
	scan := eventlog.NewScan(limit)
	for read := false; ; read = true {
		p, err := l.read(ctx, q)
		switch {
		case err != nil:
			return page, err
		case p.lost != nil && read:
			return page, nil
		case p.lost != nil:
			return page, p.lost
		}
		page.First, page.Head = p.seen.base.at, p.seen.head.at
		if !read {
			page.Next = p.begin(r.Backwards)
		}
		full := addPart(&page, p, &scan, r.Backwards)
		page.Done = !full && page.Next == p.end(r.Backwards)
		if full || page.Done || len(p.entries) == 0 {
			return page, nil
		}
		q.Range = r.Rest(&page)
	}
}

// addPart adds what a filter lets through to a page, and reports whether that is full.
func addPart(page *eventlog.RangePage, p *part, scan *eventlog.Scan, backwards bool) (full bool) {
	for i := range p.entries {
		e := &p.entries[i]
		if !scan.Takes(&e.Message) {
			return true
		}
		if scan.Matched {
			page.Events = append(page.Events, e.Event)
		}
		page.Next = e.At
		if backwards {
			page.Next = e.Before()
		}
	}
	return false
}

// A question is a part of a channel, and how much of it to read at once. Those who
// have the same share the answer.
type question struct {
	eventlog.Range

	channel       eventlog.Channel
	placed        bool // After is a bound, also if it is zero, which no place is
	bytes, events int
}

// newQuestion asks for what a page of a limit can hold, or for a piece of it.
func newQuestion(ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) question {
	q := question{channel: ch, Range: r, bytes: limit.Bytes, events: limit.Events}
	if q.events <= 0 {
		q.events = 4096
	}
	if !limit.Filter.IsZero() {
		q.bytes, q.events = min(limit.Scan, filteredPiece), 4096
	}
	return q
}

// A part is the answer.
type part struct {
	seen     seen
	lost     *eventlog.Lost
	from, to place   // the bounds
	entries  []entry // from one of them on
}

// begin is the place where reading begins, and end where it ends.
func (p *part) begin(backwards bool) eventlog.Position {
	if backwards {
		return p.to.at
	}
	return p.from.at
}

func (p *part) end(backwards bool) eventlog.Position { return p.begin(!backwards) }

// read answers a question, by a read of the primary that begins now or later.
func (l *Log) read(ctx context.Context, q question) (*part, error) {
	return l.roundsOf(q).ask(ctx)
}

func (l *Log) roundsOf(q question) *rounds[*part] {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.shared[q]
	if r == nil {
		r = &rounds[*part]{log: l, do: func() (*part, error) { return l.readPart(l.ctx, q) }}
		r.idle = func() { l.forget(q, r) }
		if !l.closed {
			l.shared[q] = r
		}
	}
	return r
}

// forget drops a question that nobody asks any more.
func (l *Log) forget(q question, r *rounds[*part]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared[q] == r {
		delete(l.shared, q)
	}
}

func (l *Log) readPart(ctx context.Context, q question) (*part, error) {
	backwards := ""
	if q.Backwards {
		backwards = "1"
	}
	args := append(bound(q.After, q.placed), bound(q.Until, false)...)
	args = append(args, instant(q.Since), instant(q.Before), backwards, q.bytes, q.events)
	r, err := l.ask(ctx, partScript, q.channel, args...)
	if err != nil {
		return nil, err
	}
	p := &part{seen: r.seen()}
	switch r.kind {
	case "unborn":
		p.beforeBirth(&q)
	case "lost":
		p.lost = &eventlog.Lost{From: q.After, Reason: eventlog.Reason(r.text())}
		if r.int() == untilArgument {
			p.lost.From = q.Until
		}
		p.lost.To = r.position()
		if p.lost.Reason == eventlog.Trimmed {
			p.lost.To = p.seen.base.at
		}
	default:
		p.from, p.to = r.place(), r.place()
		if p.entries, err = r.entries(); err != nil {
			return nil, unavailable(err)
		}
		p.follow(q.Backwards)
	}
	if r.bad {
		return nil, unavailable(errReply)
	}
	return p, nil
}

// untilArgument is how lua/part.lua names the end of a part.
const untilArgument = 5

// beforeBirth answers for a channel that nobody wrote.
func (p *part) beforeBirth(q *question) {
	p.from, p.to = p.seen.head, p.seen.head
	for _, at := range []struct {
		eventlog.Position

		given bool
	}{{q.After, q.placed || !q.After.IsZero()}, {q.Until, !q.Until.IsZero()}} {
		if at.given && p.lost == nil && !p.seen.born(at.Position) {
			p.lost = &eventlog.Lost{From: at.Position, To: p.seen.head.at, Reason: eventlog.Rewritten}
		}
	}
}

// follow keeps the entries as far as one follows the other. If not even the first one
// does, something was taken out of the stream, which is a loss, too.
func (p *part) follow(backwards bool) {
	if len(p.entries) == 0 {
		return
	}
	n, first := 0, p.entries[0]
	if !backwards {
		n = chain(p.from.at, p.entries)
	} else if first.At == p.to.at {
		for n = 1; n < len(p.entries) && p.entries[n-1].Before() == p.entries[n].At; n++ {
		}
	}
	if p.entries = p.entries[:n]; n == 0 {
		p.lost = &eventlog.Lost{From: p.from.at, To: first.Before(), Reason: eventlog.Trimmed}
	}
}

func bound(p eventlog.Position, given bool) []any {
	if p.IsZero() && !given {
		return []any{"", ""}
	}
	return []any{p.Offset, p.Mark}
}

// instant is a time as scripts take it: events' times are whole microseconds, so the
// next one is as good.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Add(time.Microsecond-1).UnixMicro(), 10)
}
