package core

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// A roster is who is in a channel, as the Store said last, for all lines here
// that watch it. It asks once per interval for all of them.
type roster struct {
	// Static after newRoster.
	engine  *Engine
	channel eventlog.Channel
	most    int

	state atomic.Pointer[rosterState] // nil until the Store has answered
	known chan struct{}               // closes when it has

	worker // of refresh

	mu      sync.Mutex
	watches map[*watch]struct{} // guarded by mu
	left    time.Time           // guarded by mu: when the last of them ended
	timer   *time.Timer         // guarded by mu
}

// A rosterState is never changed: who has seen the version before can be told
// the difference, anybody else the whole.
type rosterState struct {
	version, before   string
	members           []session.Member // nil if there are too many
	whole, difference *transport.Frame // shared
}

// A watch is a line's interest in a roster.
type watch struct {
	// Static.
	line   *line
	roster *roster
	name   string

	dirty atomic.Bool

	// Owned by the line's worker.
	seen string
	told bool // a frame was sent
}

func newRoster(e *Engine, ch eventlog.Channel) *roster {
	r := &roster{engine: e, channel: ch, most: e.o.Policy(ch).MaxPresent, watches: make(map[*watch]struct{}), known: make(chan struct{})}
	r.start(r.refresh, e.live.Done)
	return r
}

// watching adds a line to the roster of a channel, which it makes if it is the
// first.
func (e *Engine) watching(l *line, ask transport.Watch, ch eventlog.Channel) (*watch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, e.shutdown()
	}
	r := e.rosters[ch]
	if r == nil {
		e.live.Add(1)
		r = newRoster(e, ch)
		e.rosters[ch] = r
	}
	w := &watch{line: l, roster: r, name: ask.Channel, seen: ask.Seen}
	w.dirty.Store(true)
	r.mu.Lock()
	r.watches[w] = struct{}{}
	r.mu.Unlock()
	if r.state.Load() == nil {
		r.ask()
	}
	return w, nil
}

// unwatch undoes watching.
func (e *Engine) unwatch(w *watch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := w.roster
	r.mu.Lock()
	delete(r.watches, w)
	r.left = time.Now()
	r.mu.Unlock()
	if e.closed {
		e.retire(r, 0)
	}
}

// retire ends a roster that nobody has watched for so long. It is kept for
// an interval, as whoever polls is back soon and has to find what was learnt
// meanwhile. It is called with mu held.
func (e *Engine) retire(r *roster, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.watches) > 0 || time.Since(r.left) < after || e.rosters[r.channel] != r {
		return
	}
	delete(e.rosters, r.channel)
	if r.timer != nil {
		r.timer.Stop()
	}
	r.end()
}

// nudge has a roster look now: something changed here.
func (e *Engine) nudge(ch eventlog.Channel) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.rosters[ch]; r != nil {
		r.ask()
	}
}

// refresh asks the Store, and tells the lines if something changed.
func (r *roster) refresh() {
	e := r.engine
	e.mu.Lock()
	e.retire(r, e.o.PresenceInterval)
	e.mu.Unlock()
	if r.over.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.o.StoreTimeout)
	members, total, err := e.o.Store.Present(ctx, r.channel, r.most)
	cancel()
	if err == nil {
		r.see(members, total)
	} else {
		e.storeFailed("present", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.over.Load():
	case r.timer == nil:
		r.timer = time.AfterFunc(e.o.PresenceInterval, r.ask)
	default:
		r.timer.Reset(e.o.PresenceInterval)
	}
}

func (r *roster) see(members []session.Member, total int) {
	if total > r.most {
		members = nil
	} else if members == nil {
		members = []session.Member{}
	}
	old := r.state.Load()
	next := &rosterState{version: versionOf(members, total), members: members}
	if old != nil && old.version == next.version {
		return
	}
	next.whole = r.frame(&transport.Presence{Version: next.version, Total: total, Members: shown(members)})
	if old != nil && old.members != nil && members != nil {
		next.before = old.version
		joined, left := difference(old.members, members)
		next.difference = r.frame(&transport.Presence{Version: next.version, Total: total, Joined: joined, Left: left})
	}
	r.state.Store(next)
	if old == nil {
		close(r.known)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.watches {
		w.dirty.Store(true)
		w.line.ask()
	}
}

func (r *roster) frame(p *transport.Presence) *transport.Frame {
	return (&transport.Frame{Kind: transport.FramePresence, Channel: r.channel.Name, Presence: p}).Shared()
}

// shown is what clients see of members; nil stays nil.
func shown(members []session.Member) []transport.Member {
	if members == nil {
		return nil
	}
	list := make([]transport.Member, len(members))
	for i, m := range members {
		list[i] = transport.Member{ID: m.ID, Subject: m.Subject, Info: m.Info}
	}
	return list
}

// difference compares two lists that are in order of their ids. Who has changed
// is among those who joined.
func difference(old, now []session.Member) (joined []transport.Member, left []string) {
	joined, left = []transport.Member{}, []string{}
	for len(old) > 0 || len(now) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = cmp.Compare(old[0].ID, now[0].ID)
		}
		switch {
		case order < 0:
			left = append(left, old[0].ID)
			old = old[1:]
			continue
		case order > 0:
			joined = append(joined, shown(now[:1])...)
		default:
			if old[0].Subject != now[0].Subject || !slices.Equal(old[0].Info, now[0].Info) {
				joined = append(joined, shown(now[:1])...)
			}
			old = old[1:]
		}
		now = now[1:]
	}
	return joined, left
}

// versionOf names a state: equal ones have equal names, on every node.
func versionOf(members []session.Member, total int) string {
	h := fnv.New64a()
	part := func(p []byte) {
		_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		_, _ = h.Write(p)
	}
	for _, m := range members {
		part([]byte(m.ID))
		part([]byte(m.Subject))
		part(m.Info)
	}
	return strconv.Itoa(total) + "." + strconv.FormatUint(h.Sum64(), 36)
}

// next returns what the line is to be told, or nil. It is called by the line's
// worker.
func (w *watch) next() *transport.Frame {
	w.dirty.Store(false)
	s := w.roster.state.Load()
	switch {
	case s == nil, w.told && w.seen == s.version:
		return nil
	case w.told && s.difference != nil && w.seen == s.before:
		w.seen = s.version
		return s.difference
	}
	frame := s.whole
	if w.seen == s.version { // what the client knows already is no news
		p := *frame.Presence
		p.Seen = true
		frame = &transport.Frame{Kind: transport.FramePresence, Channel: w.name, Presence: &p}
	}
	w.seen, w.told = s.version, true
	return frame
}

// Present says who is in a channel: at most MaxPresent members, and how many
// there are.
func (e *Engine) Present(ctx context.Context, ch eventlog.Channel) ([]session.Member, int, error) {
	ctx, cancel := context.WithTimeout(ctx, e.o.StoreTimeout)
	defer cancel()
	return e.o.Store.Present(ctx, ch, e.o.Policy(ch).MaxPresent)
}
