package core

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

const (
	// presentAfter is how long a line has to live for its session to be present
	// (PROTOCOL P10.5).
	presentAfter = 2 * time.Second
	// settledAfter is how long after the grace a lease is released: a client that
	// came back at its very end, at another node, has claimed it by then. Three
	// quarters of an interval are the most: the other nodes, which ask once in an
	// interval, have to hear of it within the grace and two of them (PROTOCOL P10.5).
	settledAfter = presentAfter + 500*time.Millisecond
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
	info     []byte   // what was claimed beside them
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
		s.engine.o.Observer.Sessions(l.client.Namespace, 1)
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
	if !v.claimed || v.held != v.number || !slices.Equal(v.lease, v.channels) || !bytes.Equal(v.info, v.welcome.Info) {
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
	s.engine.o.Observer.Sessions(v.client.Namespace, -1)
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

// disconnect notes that clients were disconnected: OnConnect is asked anew if
// they come back, also by polls. Being told not to come back is as good as
// a goodbye of their own.
func (s *sessions) disconnect(o *Order) {
	s.mu.Lock()
	for _, v := range s.byID {
		if !o.Target.means(&v.client) {
			continue
		}
		v.welcomeAt = time.Time{}
		if o.Why.Class == transport.Never {
			v.gone = true
			s.byes = append(s.byes, farewell{session.Held{Namespace: v.client.Namespace, ID: v.id, Line: v.number}, v.client})
		}
	}
	s.mu.Unlock()
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
