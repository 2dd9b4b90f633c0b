package core

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// A claim is a lease that the Store is to be told of.
type claim struct {
	v      *live
	held   session.Held
	lease  session.Lease
	before []string // the channels of the lease that it replaces
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
	for _, held := range s.touch(w.touches) { // first: those leases run out
		s.lost(held)
	}
	until := time.Now().Add(s.engine.o.PresenceInterval)
	if done := atOnce(until, w.byes, func(f farewell) { s.release(f, 0) }); done < len(w.byes) {
		s.mu.Lock()
		s.byes = append(w.byes[done:], s.byes...)
		s.mu.Unlock()
	}
	atOnce(until, w.claims, s.claim) // who is left out is among those of the next interval
	o := &s.engine.o
	atOnce(until, w.releases, func(f farewell) { s.release(f, o.PresenceGrace-o.PresenceInterval) })
	channels := make(map[eventlog.Channel]bool)
	for _, c := range w.claims {
		for _, name := range slices.Concat(c.lease.Channels, c.before) {
			channels[eventlog.Channel{Namespace: c.held.Namespace, Name: name}] = true
		}
	}
	for ch := range channels {
		s.engine.nudge(ch)
	}
}

// questions is how many questions to the Store are under way at a time.
const questions = 8

// atOnce does something with each of a list, a few at a time, and begins none
// after a time, as what else there is to do can't wait. It returns how many it
// did: those before.
func atOnce[T any](until time.Time, list []T, do func(T)) (done int) {
	var group sync.WaitGroup
	free := make(chan struct{}, questions)
	for _, one := range list {
		if !time.Now().Before(until) {
			break
		}
		done++
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			do(one)
		})
	}
	group.Wait()
	return done
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
		if !s.all && !v.gone && s.byID[v.id] == v {
			s.planOne(v, now, &w)
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
	present := o.PresenceGrace + min(settledAfter, o.PresenceInterval*3/4) - away // for so long, if it does not come back
	switch {
	case v.line == nil && (v.gone && !v.claimed || !v.claimed && away >= keptIdle || away >= o.PresenceGrace+keptIdle):
		s.forget(v)
	case v.line == nil && v.gone: // the Store could not be told of it
		w.byes = append(w.byes, farewell{s.heldBy(v), v.client})
	case v.line == nil && v.claimed && present <= 0:
		w.releases = append(w.releases, farewell{s.heldBy(v), v.client})
	case v.line == nil && v.claimed && present < o.PresenceInterval: // the next look at all were too late
		time.AfterFunc(present, func() { s.tend(v) })
	case s.wantsClaim(v, now):
		w.claims = append(w.claims, s.claimOf(v))
	case v.claimed && (v.line != nil || away < o.PresenceInterval):
		w.touches = append(w.touches, s.heldBy(v))
	}
}

// wantsClaim reports whether a session is present by another line, in other
// channels, or with another Info, than the Store was told. Between two polls it is present.
func (s *sessions) wantsClaim(v *live, now time.Time) bool {
	here := v.line != nil || v.again && now.Sub(v.seen) < s.engine.o.PresenceInterval
	return here && !v.gone && now.Sub(v.since) >= presentAfter &&
		(!v.claimed || v.held != v.number || !slices.Equal(v.lease, v.channels) || !bytes.Equal(v.info, v.welcome.Info))
}

func (s *sessions) heldBy(v *live) session.Held {
	return session.Held{Namespace: v.client.Namespace, ID: v.id, Line: v.held}
}

func (s *sessions) claimOf(v *live) claim {
	return claim{v: v, before: v.lease, held: session.Held{Namespace: v.client.Namespace, ID: v.id, Line: v.number}, lease: session.Lease{
		Subject: v.client.Subject, Info: v.welcome.Info, Channels: v.channels, For: s.engine.o.PresenceGrace + s.engine.o.PresenceInterval,
	}}
}

// claim tells the Store of a lease.
func (s *sessions) claim(c claim) {
	ctx, cancel := s.question()
	defer cancel()
	if err := s.engine.o.Store.Claim(ctx, c.held, c.lease); err != nil {
		s.engine.storeFailed("claim", err)
		return // the next interval tries again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.v.claimed, c.v.held, c.v.lease, c.v.info = true, c.held.Line, c.lease.Channels, c.lease.Info
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
		s.engine.storeFailed("touch", err)
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
		s.engine.storeFailed("release", err)
		return // the next interval tries again
	}
	for _, name := range s.released(f.held, ended) {
		s.engine.nudge(eventlog.Channel{Namespace: f.held.Namespace, Name: name})
	}
	if ended {
		s.engine.tellSessionOver(&f.client, f.held)
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
