package core

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// History answers a question for history: it asks for the right, clips what is
// asked for to what the grant lets the caller see, and reads one page. The error
// is a *transport.Refusal. current, if not nil, is asked once the rights are
// known, with from when on the caller may read; if it reports true, nothing is
// read and the page is nil.
func (e *Engine) History(ctx context.Context, peer transport.Peer, q *transport.HistoryQuery, current func(from time.Time) bool) (*transport.HistoryPage, error) {
	return e.pastFor(ctx, peer, clientOf(peer, ""), q, e.o.HistoryBytes, current)
}

func (e *Engine) pastFor(ctx context.Context, peer transport.Peer, who Client, q *transport.HistoryQuery, bytes int, current func(time.Time) bool) (*transport.HistoryPage, error) {
	if !e.enter() {
		return nil, e.shutdown()
	}
	defer e.live.Done()
	ctx, cancel := context.WithTimeout(ctx, e.o.AttachTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	ch := eventlog.Channel{Namespace: peer.Namespace, Name: q.Channel}
	from, err := e.mayLookBack(ctx, peer, who, ch)
	if err != nil {
		return nil, e.refusal(err)
	}
	if current != nil && current(from) {
		return nil, nil //nolint:nilnil // the caller has it
	}
	if e.o.History == nil {
		return nil, transport.Refuse(transport.CodeNotFound, "there is no history here: the log of this server can't be read in parts")
	}
	p := &past{engine: e, channel: ch, asked: q, filter: newFilter(q.Filter), from: from}
	p.limit = eventlog.Limit{Bytes: bytes, Scan: max(e.o.HistoryScan, bytes), Events: e.o.HistoryEvents, Filter: p.filter.Filter}
	if q.Events > 0 {
		p.limit.Events = min(p.limit.Events, q.Events)
	}
	page, err := p.read(ctx)
	if err != nil {
		return nil, e.refusal(err)
	}
	if page.Lost != nil {
		e.o.Observer.Gap(Source{Namespace: peer.Namespace, Transport: peer.Transport}, page.Lost.Reason)
	}
	return page, nil
}

// mayLookBack returns from when on a client may read a channel's history, if it
// may, and as often as that.
func (e *Engine) mayLookBack(ctx context.Context, peer transport.Peer, who Client, ch eventlog.Channel) (from time.Time, err error) {
	if err := ch.Check(); err != nil {
		return from, transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	if err := e.o.Admit(peer, EffortResume, 1); err != nil {
		return from, err
	}
	if err := e.Authorize(ctx, peer, History, ch); err != nil {
		return from, err
	}
	return e.grantOf(ctx, peer, who, ch)
}

// grantOf asks from when on a client may read a channel.
func (e *Engine) grantOf(ctx context.Context, peer transport.Peer, who Client, ch eventlog.Channel) (from time.Time, err error) {
	err = e.guard("From", who, func() (err error) {
		from, err = e.o.From(ctx, peer, ch)
		return err
	})
	return from, e.answerOf(ctx, err, "not allowed to read %.100s", ch.Name)
}

// A past is one page of history that is being read.
type past struct {
	engine  *Engine
	channel eventlog.Channel
	asked   *transport.HistoryQuery
	filter  *filter
	from    time.Time // when the caller's grant begins; zero: it has all
	limit   eventlog.Limit
}

// read returns the page. Where it begins or ends at a position that is lost, it
// says so by a gap, and goes on with what there is.
func (p *past) read(ctx context.Context) (*transport.HistoryPage, error) {
	r := p.asked.Range
	withheld, err := p.clip(ctx, &r)
	if err != nil {
		return nil, err
	}
	page, err := p.ask(ctx, r)
	lost, isLost := errors.AsType[*eventlog.Lost](err)
	if isLost {
		rest := r
		rest.After = lost.To
		if lost.From != r.After || !r.Until.IsZero() && r.Until.Offset <= lost.To.Offset {
			rest.Until = lost.To // all that was asked for is lost
		}
		page, err = p.ask(ctx, rest)
	}
	if err != nil {
		return nil, err
	}
	lost = joined(lost, withheld)
	bad := showable(&page, r.Backwards)
	if r.Backwards && !page.Done {
		lost = nil // it lies at the end
	}
	lost = joined(lost, bad)
	run := p.engine.answers.share(p.channel, p.filter, &page, p.engine.o.Policy(p.channel).Secret)
	return &transport.HistoryPage{
		Run: run, Next: page.Next, First: page.First, Head: page.Head, Done: page.Done, Lost: lost,
		Fixed: lost == nil && fixed(&p.asked.Range, page.Done),
	}, nil
}

// joined is one gap in place of two, of which the later ends farther on.
func joined(gap, later *eventlog.Lost) *eventlog.Lost {
	switch {
	case gap == nil:
		return later
	case later == nil || later.To.Offset <= gap.To.Offset:
		return gap
	}
	return &eventlog.Lost{From: gap.From, To: later.To, Reason: later.Reason}
}

// showable ends a page before an event that can't be shown. If that is the first,
// the page is a gap of one, and nothing else.
func showable(page *eventlog.RangePage, backwards bool) (bad *eventlog.Lost) {
	i := slices.IndexFunc(page.Events, func(e eventlog.Event) bool { return e.Check(0) != nil })
	if i < 0 {
		return nil
	}
	e := page.Events[i]
	page.Events, page.Done = page.Events[:i], false
	if i == 0 {
		bad = &eventlog.Lost{From: e.Before(), To: e.At, Reason: eventlog.Unencodable}
	}
	if backwards == (i == 0) {
		page.Next = e.Before()
	} else {
		page.Next = e.At
	}
	return bad
}

// fixed reports whether a page is the same whenever it is asked for: what comes
// later lies outside of it. Where it ended because of a bound, it ends there
// again, and what it holds may be trimmed, but never change.
func fixed(r *eventlog.Range, done bool) bool {
	if r.Backwards {
		return !r.Until.IsZero() && (!done || !r.After.IsZero())
	}
	return !r.After.IsZero() && (!done || !r.Until.IsZero())
}

// clip bounds a range by what the caller may see. withheld is what lies before
// that, if the range would have it.
func (p *past) clip(ctx context.Context, r *eventlog.Range) (withheld *eventlog.Lost, err error) {
	if p.from.IsZero() || !r.Since.IsZero() && !p.from.After(r.Since) {
		return nil, nil //nolint:nilnil // nothing is withheld
	}
	asked := eventlog.Start{Earliest: true}
	if !r.Since.IsZero() {
		asked = eventlog.Start{Since: r.Since}
	}
	r.Since = p.from
	if !r.Before.IsZero() && r.Before.Before(r.Since) {
		r.Before = r.Since // nothing is left
	}
	ctx, cancel := context.WithTimeout(ctx, p.engine.o.ReadTimeout)
	defer cancel()
	first, err := p.engine.seekLog(ctx, p.channel, asked)
	if err != nil {
		return nil, err
	}
	if r.After.Offset > first.Offset {
		first = r.After
	}
	to, err := p.engine.seekLog(ctx, p.channel, eventlog.Start{Since: p.from})
	if err != nil || first.Offset >= to.Offset {
		return nil, err
	}
	return &eventlog.Lost{From: first, To: to, Reason: eventlog.Withheld}, nil
}

// ask asks the log once.
func (p *past) ask(ctx context.Context, r eventlog.Range) (eventlog.RangePage, error) {
	ctx, cancel := context.WithTimeout(ctx, p.engine.o.ReadTimeout)
	defer cancel()
	began := time.Now()
	page, err := p.engine.o.History.Range(ctx, p.channel, r, p.limit)
	p.engine.askedLog("range", p.channel, began, err)
	return page, err
}
