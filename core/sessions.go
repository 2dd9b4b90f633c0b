package core

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

const (
	// presentAfter is how long a line has to live for its session to be present
	// (PROTOCOL P10.5).
	presentAfter = 2 * time.Second
	// keptIdle is how long a session is known that has no line and no lease, and
	// how long OnConnect's answer is kept for a line of polls.
	keptIdle = 30 * time.Second
	// maxIdle bounds the sessions without a line, beyond which no new one is
	// kept when its line ends.
	maxIdle = 10_000
)

// A live is a session that has a line here, or had one lately. All but its id
// is guarded by sessions.mu.
type live struct {
	id string

	client Client
	line   *line     // attached now, or nil
	number uint64    // the highest line it had here
	since  time.Time // when that one came
	seen   time.Time // when a line of it ended last
	again  bool      // that was a poll, which comes again
	gone   bool      // its client said goodbye
	queued bool      // it is among the due

	welcome   Welcome
	welcomed  uint64 // the line that welcome was given to
	welcomeAt time.Time

	channels []string // in order
	claimed  bool
	held     uint64   // the line that claimed
	lease    []string // the channels claimed
}

// sessions are those of this engine, and the keeper of their leases in the
// Store. The lock is held for no call of anything else's.
type sessions struct {
	engine *Engine

	worker // of keep

	mu    sync.Mutex
	byID  map[string]*live // guarded by mu
	idle  int              // guarded by mu: those without a line
	due   []*live          // guarded by mu: to be tended now
	byes  []farewell       // guarded by mu: goodbyes to tell the Store of
	timer *time.Timer      // guarded by mu: of all; runs while there are any
	all   bool             // guarded by mu: the timer fired
}

// A farewell is a goodbye that the Store is to be told of.
type farewell struct {
	held   session.Held
	client Client
}

func newSessions(e *Engine) *sessions {
	s := &sessions{engine: e, byID: make(map[string]*live)}
	s.start(s.keep, e.live.Done)
	return s
}

// admit refuses a line that is lower than one its session has, or had a short
// while ago.
func (s *sessions) admit(id string, number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.byID[id]; v != nil && number < v.number {
		return superseded(v.number)
	}
	return nil
}

func superseded(by uint64) *transport.Refusal {
	return &transport.Refusal{Reason: transport.Reason{
		Code: transport.CodeSuperseded, Class: transport.Now, Message: "line " + strconv.FormatUint(by, 10) + " of this session has taken over",
	}}
}

// welcomeOf returns what OnConnect said to this line before, if it did so
// lately: polls are many requests of one line.
func (s *sessions) welcomeOf(l *line) (Welcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byID[l.client.Session]
	if v == nil || v.welcomed != l.number || v.welcomeAt.IsZero() || time.Since(v.welcomeAt) > keptIdle {
		return Welcome{}, false
	}
	return v.welcome, true
}

// take makes l the line of its session, and returns the one that it
// supersedes, if there is one.
func (s *sessions) take(l *line, w Welcome, fresh bool) (old *line, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byID[l.client.Session]
	switch {
	case v == nil:
		v = &live{id: l.client.Session, number: l.number, since: now}
		s.byID[v.id] = v
		s.idle++ // it has no line yet
		s.engine.o.Observer.Sessions(1)
	case l.number < v.number:
		return nil, superseded(v.number)
	case l.number > v.number:
		v.number, v.since = l.number, now
	}
	if fresh {
		v.welcome, v.welcomed, v.welcomeAt = w, l.number, now
	}
	if old = v.line; old == nil {
		s.idle--
	}
	v.line, v.client, v.gone, v.again = l, l.client, false, false
	v.channels = l.held()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.engine.o.PresenceInterval, s.tick)
	}
	if !v.claimed || v.held != v.number || !slices.Equal(v.lease, v.channels) {
		time.AfterFunc(max(time.Millisecond, presentAfter-now.Sub(v.since)), func() { s.tend(v) })
	}
	return old, nil
}

// leave notes that a line has ended; again says that it is a poll's, and the
// next one is to come.
func (s *sessions) leave(l *line, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byID[l.client.Session]
	if v == nil || v.line != l {
		return
	}
	v.line, v.seen, v.again = nil, time.Now(), again
	s.idle++
	if s.idle > maxIdle && !v.claimed {
		s.forget(v)
	}
}

// forget is called with mu held.
func (s *sessions) forget(v *live) {
	if s.byID[v.id] != v {
		return
	}
	delete(s.byID, v.id)
	if v.line == nil {
		s.idle--
	}
	s.engine.o.Observer.Sessions(-1)
}

// changed notes the channels of a line.
func (s *sessions) changed(l *line) {
	channels := l.held()
	s.mu.Lock()
	v := s.byID[l.client.Session]
	if v == nil || v.line != l {
		s.mu.Unlock()
		return
	}
	v.channels = channels
	s.mu.Unlock()
	s.tend(v)
}

// lineOf returns the line that a session has here, or nil.
func (s *sessions) lineOf(id string) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.byID[id]; v != nil {
		return v.line
	}
	return nil
}

// goodbye ends a session whose client will not come back.
func (s *sessions) goodbye(held session.Held, who Client) {
	s.mu.Lock()
	var l *line
	if v := s.byID[held.ID]; v != nil {
		if held.Line < v.number {
			s.mu.Unlock()
			return // a late one: the session goes on by a higher line
		}
		l, who, v.gone = v.line, v.client, true
	}
	if len(s.byes) < maxIdle {
		s.byes = append(s.byes, farewell{held, who})
	}
	s.mu.Unlock()
	if l != nil {
		l.stop(transport.Reason{Code: transport.CodeGoodbye})
		l.conn.Close(transport.Reason{Code: transport.CodeGoodbye})
	}
	s.ask()
}

// tend has the keeper look at a session soon.
func (s *sessions) tend(v *live) {
	s.mu.Lock()
	if !v.queued {
		v.queued = true
		s.due = append(s.due, v)
	}
	s.mu.Unlock()
	s.ask()
}

// tick is called by the timer.
func (s *sessions) tick() {
	s.mu.Lock()
	s.all = true
	s.mu.Unlock()
	s.ask()
}

// close ends the keeper. Leases that are left run out, or are taken over by the
// node to which their clients go.
func (s *sessions) close() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.end()
}

// A claim is a lease that the Store is to be told of.
type claim struct {
	v     *live
	held  session.Held
	lease session.Lease
}

// work is what the keeper has to ask of the Store.
type work struct {
	byes     []farewell
	claims   []claim
	touches  []session.Held
	releases []farewell
}

// keep renews the leases of sessions that are present, claims those of new ones,
// and releases those whose grace is over.
func (s *sessions) keep() {
	w := s.plan(time.Now())
	channels := make(map[eventlog.Channel]bool)
	for _, f := range w.byes {
		s.release(f, 0)
	}
	for _, c := range w.claims {
		s.claim(c, channels)
	}
	for _, held := range s.touch(w.touches) {
		s.lost(held)
	}
	o := &s.engine.o
	for _, f := range w.releases {
		s.release(f, o.PresenceGrace-o.PresenceInterval)
	}
	for ch := range channels {
		s.engine.nudge(ch)
	}
}

// plan decides what to do, about the sessions that are due, or about all when
// the interval is over.
func (s *sessions) plan(now time.Time) (w work) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.byes, s.byes = s.byes, nil
	due := s.due
	s.due = nil
	for _, v := range due {
		v.queued = false
		if s.byID[v.id] == v && s.wantsClaim(v, now) {
			w.claims = append(w.claims, s.claimOf(v))
		}
	}
	if !s.all {
		return w
	}
	s.all = false
	for _, v := range s.byID {
		s.planOne(v, now, &w)
	}
	if len(s.byID) > 0 {
		s.timer.Reset(s.engine.o.PresenceInterval)
	} else {
		s.timer = nil
	}
	return w
}

// planOne is called with mu held.
func (s *sessions) planOne(v *live, now time.Time, w *work) {
	o := &s.engine.o
	away := now.Sub(v.seen)
	switch {
	case v.line == nil && (v.gone || !v.claimed && away >= keptIdle || away >= o.PresenceGrace+keptIdle):
		s.forget(v)
	case v.line == nil && v.claimed && away >= o.PresenceGrace:
		w.releases = append(w.releases, farewell{s.heldBy(v), v.client})
	case s.wantsClaim(v, now):
		w.claims = append(w.claims, s.claimOf(v))
	case v.claimed && (v.line != nil || away < o.PresenceInterval):
		w.touches = append(w.touches, s.heldBy(v))
	}
}

// wantsClaim reports whether a session is present by another line, or in other
// channels, than the Store was told. Between two polls it is present.
func (s *sessions) wantsClaim(v *live, now time.Time) bool {
	here := v.line != nil || v.again && now.Sub(v.seen) < s.engine.o.PresenceInterval
	return here && !v.gone && now.Sub(v.since) >= presentAfter &&
		(!v.claimed || v.held != v.number || !slices.Equal(v.lease, v.channels))
}

func (s *sessions) heldBy(v *live) session.Held {
	return session.Held{Namespace: v.client.Namespace, ID: v.id, Line: v.held}
}

func (s *sessions) claimOf(v *live) claim {
	return claim{v: v, held: session.Held{Namespace: v.client.Namespace, ID: v.id, Line: v.number}, lease: session.Lease{
		Subject: v.client.Subject, Info: v.welcome.Info, Channels: v.channels, For: s.engine.o.PresenceGrace + s.engine.o.PresenceInterval,
	}}
}

// claim tells the Store of a lease, and notes the channels in which something
// changed by it.
func (s *sessions) claim(c claim, changed map[eventlog.Channel]bool) {
	ctx, cancel := s.question()
	defer cancel()
	if err := s.engine.o.Store.Claim(ctx, c.held, c.lease); err != nil {
		s.complain("claiming a session's lease failed", err)
		return // the next interval tries again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range c.lease.Channels {
		changed[eventlog.Channel{Namespace: c.held.Namespace, Name: name}] = true
	}
	for _, name := range c.v.lease {
		changed[eventlog.Channel{Namespace: c.held.Namespace, Name: name}] = true
	}
	c.v.claimed, c.v.held, c.v.lease = true, c.held.Line, c.lease.Channels
}

// touch renews leases, and returns those that the Store doesn't know.
func (s *sessions) touch(held []session.Held) []session.Held {
	if len(held) == 0 {
		return nil
	}
	ctx, cancel := s.question()
	defer cancel()
	missing, err := s.engine.o.Store.Touch(ctx, held)
	if err != nil {
		s.complain("renewing leases failed", err)
		return nil
	}
	return missing
}

// lost notes that a lease is gone. A session that has a line claims it again.
func (s *sessions) lost(held session.Held) {
	s.mu.Lock()
	v := s.byID[held.ID]
	if v != nil {
		v.claimed = false
	}
	again := v != nil && v.line != nil
	s.mu.Unlock()
	if again {
		s.tend(v)
	}
}

// release gives a lease back: because of a goodbye, or, if idle is not 0, as the
// grace is over. Whoever ends it tells the hook.
func (s *sessions) release(f farewell, idle time.Duration) {
	if idle > 0 && s.lineOf(f.held.ID) != nil {
		return // it is back
	}
	ctx, cancel := s.question()
	defer cancel()
	ended, err := s.engine.o.Store.Release(ctx, f.held, idle)
	if err != nil {
		s.complain("releasing a lease failed", err)
		return // a goodbye is lost, and the lease runs out; else the next interval tries again
	}
	for _, name := range s.released(f.held, ended) {
		s.engine.nudge(eventlog.Channel{Namespace: f.held.Namespace, Name: name})
	}
	if ended {
		s.engine.disconnected(f.client)
	}
}

// released notes that a lease was given back, by us or, if it had not ended, by
// whoever holds it now. It returns the channels it was for.
func (s *sessions) released(held session.Held, ended bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.byID[held.ID]
	if v == nil {
		return nil
	}
	channels := v.lease
	if ended {
		v.claimed, v.lease = false, nil
	}
	if v.line == nil {
		s.forget(v)
	}
	return channels
}

func (s *sessions) question() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.engine.ctx, s.engine.o.StoreTimeout)
}

func (s *sessions) complain(message string, err error) {
	if s.engine.ctx.Err() == nil {
		s.engine.o.Logger.Warn(message, "error", err)
	}
}
