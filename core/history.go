package core

import (
	"context"
	"errors"
	"slices"
	"sync"
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
	if err := ch.Check(); err != nil {
		return nil, transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	if err := e.o.Admit(peer, EffortResume, 1); err != nil {
		return nil, e.refusal(err)
	}
	if err := e.Authorize(ctx, peer, History, ch); err != nil {
		return nil, e.refusal(err)
	}
	from, err := e.grantOf(ctx, peer, who, ch)
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
	if lost == nil || withheld != nil && withheld.To.Offset > lost.To.Offset {
		lost = withheld
	}
	if r.Backwards && !page.Done {
		lost = nil // it lies at the end
	}
	if bad := showable(&page, r.Backwards); bad != nil {
		lost = bad
	}
	run := p.engine.answers.share(p.channel, p.filter, &page, p.engine.o.Policy(p.channel).Secret)
	return &transport.HistoryPage{
		Run: run, Next: page.Next, First: page.First, Head: page.Head, Done: page.Done, Lost: lost,
		Fixed: lost == nil && fixed(&p.asked.Range, page.Done),
	}, nil
}

// showable ends a page before an event that can't be shown. One that is the first
// becomes a gap of one.
func showable(page *eventlog.RangePage, backwards bool) (lost *eventlog.Lost) {
	bad := func(e eventlog.Event) bool { return e.Check(0) != nil }
	if len(page.Events) > 0 && bad(page.Events[0]) {
		e := &page.Events[0]
		lost = &eventlog.Lost{From: e.Before(), To: e.At, Reason: eventlog.Unencodable}
		page.Events = page.Events[1:]
	}
	if i := slices.IndexFunc(page.Events, bad); i >= 0 {
		page.Next, page.Done = page.Events[i].Before(), false
		if backwards {
			page.Next = page.Events[i].At
		}
		page.Events = page.Events[:i]
	}
	return lost
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
	ctx, cancel := context.WithTimeout(ctx, p.engine.o.ReadTimeout)
	defer cancel()
	to, err := p.engine.seekLog(ctx, p.channel, eventlog.Start{Since: p.from})
	if err != nil {
		return nil, err
	}
	first := r.After
	if first.IsZero() {
		if first, err = p.engine.seekLog(ctx, p.channel, eventlog.Start{Earliest: true}); err != nil {
			return nil, err
		}
	}
	if !r.Since.IsZero() {
		since, err := p.engine.seekLog(ctx, p.channel, eventlog.Start{Since: r.Since})
		if err != nil {
			return nil, err
		}
		if since.Offset > first.Offset {
			first = since
		}
	}
	if first.Offset >= to.Offset {
		return nil, nil //nolint:nilnil // nothing is withheld
	}
	r.Since = p.from
	if !r.Before.IsZero() && r.Before.Before(r.Since) {
		r.Before = r.Since // nothing is left
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

// answers remembers for a moment what was read of the past, so that who asks for
// the same gets the same bytes.
type answers struct {
	mu   sync.Mutex
	kept []*answered // guarded by mu: the newest first
}

// keptAnswers is how many are remembered, for batchAge.
const keptAnswers = 16

// An answered says what makes the events of a page what they are.
type answered struct {
	channel     eventlog.Channel
	filter      string
	first, last eventlog.Position
	n           int
	made        time.Time
	run         *transport.Run
}

// share returns the events of a page as those have got them who asked before.
// Between two positions that are exact, one filter always leaves the same.
func (a *answers) share(ch eventlog.Channel, f *filter, page *eventlog.RangePage, secret bool) *transport.Run {
	run := &transport.Run{Channel: ch, Events: page.Events, Next: page.Next, Secret: secret}
	n := len(page.Events)
	if n == 0 {
		return run
	}
	run.Next = page.Events[n-1].At
	now := time.Now()
	this := &answered{channel: ch, filter: f.text, first: page.Events[0].At, last: run.Next, n: n, made: now, run: run}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = slices.DeleteFunc(a.kept, func(b *answered) bool { return now.Sub(b.made) >= batchAge })
	for _, b := range a.kept {
		if b.channel == ch && b.filter == this.filter && b.first == this.first && b.last == this.last && b.n == n && b.run.Secret == secret {
			return b.run
		}
	}
	a.kept = slices.Insert(a.kept, 0, this)
	a.kept = a.kept[:min(len(a.kept), keptAnswers)]
	return run
}

// forget drops what can be read again.
func (a *answers) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = nil
}

// startHistory has a question for history of a client's answered, on a goroutine
// of its own. It counts as one of the client's calls until release, so that
// pages which nobody takes don't pile up.
func (e *Engine) startHistory(ctx context.Context, peer transport.Peer, who Client, q *transport.HistoryQuery, answer func(f *transport.Frame, release func())) {
	name := caller(&who)
	reply := func(page *transport.HistoryPage, err error, release func()) {
		a := &transport.Answer{ID: q.ID, History: page}
		if err != nil {
			e.Refused(&who, "history", q.Channel, err)
			a.Refused = e.refusal(err)
		}
		answer(&transport.Frame{Kind: transport.FrameAnswer, Answer: a}, release)
	}
	if !e.calls.take(name, e.o.MaxCalls) {
		reply(nil, transport.RefuseFor(e.soon(), transport.CodeBusy, "%d calls of this client are in work (Options.MaxCalls)", e.o.MaxCalls), func() {})
		return
	}
	release := sync.OnceFunc(func() { e.calls.give(name) })
	began := e.spawn(func() {
		page, err := e.pastFor(ctx, peer, who, q, min(e.o.HistoryBytes, e.o.PageBytes), nil)
		reply(page, err, release)
	})
	if !began {
		reply(nil, e.shutdown(), release)
	}
}

// past has a question for history answered that came over the line.
func (l *line) past(q *transport.HistoryQuery) {
	l.engine.startHistory(l.ctx, l.who(), l.speaker(), q, func(f *transport.Frame, release func()) {
		l.mu.Lock()
		over := l.finished
		if !over {
			l.inbox = append(l.inbox, command{frame: f, taken: release})
		}
		l.mu.Unlock()
		if over {
			release() // nobody takes it
			return
		}
		l.ask()
	})
}
