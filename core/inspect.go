package core

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
)

const (
	// shownOfSession is how much of a session's id people see: enough to find it
	// in a log.
	shownOfSession = 8
	// shownOfName is how many bytes of a subject they see.
	shownOfName = 100
	// subsAtOnce is how many subscriptions of a topic are looked at before others
	// may have its lock.
	subsAtOnce = 1000
)

// An Inspection is what people see who look into an engine, as it was at about
// one moment. As JSON, durations are in nanoseconds.
type Inspection struct {
	Connections map[string]int `json:"connections"` // that are attached, by transport
	Sessions    int            `json:"sessions"`    // that have a connection, or had one lately
	Away        int            `json:"away"`        // clients that were evicted and may not come back yet
	Trials      int            `json:"trials"`      // clients that were, are back, and have to show that they keep up
	Evictions   uint64         `json:"evictions"`   // since the engine began
	GreatestLag uint64         `json:"greatestLag"` // in events, of a connection
	MedianLag   uint64         `json:"medianLag"`   // half of the connections lag no more than this
	// MaxLag is what they may lag by, in each channel that has subscribers; 0:
	// anything, or it is not the same in all of them.
	MaxLag uint64 `json:"maxLag"`
	Topics int    `json:"topics"` // channels that have subscribers here

	Lines    []InspectedLine    `json:"lines"`    // those that lag most, then the newest
	Absent   []InspectedAbsent  `json:"absent"`   // those that were heard of last
	Channels []InspectedChannel `json:"channels"` // those with the most subscribers
}

// An InspectedLine is a connection.
type InspectedLine struct {
	Session    string        `json:"session,omitempty"` // the beginning of its id; empty in plain use
	Connection string        `json:"connection"`        // what logs call it
	Subject    string        `json:"subject,omitempty"`
	Address    string        `json:"address,omitempty"` // of one without a subject
	Namespace  string        `json:"namespace,omitempty"`
	Transport  string        `json:"transport"`
	For        time.Duration `json:"for"`               // how long it is there; a line of polls since the first
	Written    time.Duration `json:"written,omitempty"` // how long ago a write to it was done; 0: none was yet
	Channels   int           `json:"channels"`
	Lag        uint64        `json:"lag"`              // in events, in the channel where that is most
	MaxLag     uint64        `json:"maxLag,omitempty"` // what that may be there; 0: anything
	// Over is for how long it is over the policy of a channel and has not come
	// closer, and Window for how long it may be; 0: it is within it, or just over.
	Over    time.Duration `json:"over,omitempty"`
	Window  time.Duration `json:"window,omitempty"`
	Trial   bool          `json:"trial,omitempty"`
	Evicted int           `json:"evicted,omitempty"` // how often in a row its client was
	Why     string        `json:"why,omitempty"`     // it was the last time
}

// An InspectedAbsent is a client that is kept out.
type InspectedAbsent struct {
	Session    string        `json:"session,omitempty"`
	Connection string        `json:"connection,omitempty"` // that was evicted; empty: another node did that
	Subject    string        `json:"subject,omitempty"`
	Address    string        `json:"address,omitempty"` // of one without a subject
	Namespace  string        `json:"namespace,omitempty"`
	Broken     []string      `json:"broken,omitempty"` // the transports it is kept out of; none: of all
	After      time.Duration `json:"after"`            // for how long still
	Times      int           `json:"times"`            // how often in a row
	Why        string        `json:"why,omitempty"`
}

// An InspectedChannel is a channel that has subscribers here.
type InspectedChannel struct {
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name"`
	Subscribers int    `json:"subscribers"`
	Head        uint64 `json:"head"`             // the offset of its newest event, as far as it is known
	MaxLag      uint64 `json:"maxLag,omitempty"` // what clients may lag by, in events; 0: anything
	Skips       bool   `json:"skips,omitempty"`  // beyond that they go on with the newest ([SkipToLatest])
	// Held is what the log retains, if it can say ([eventlog.Itemized]).
	Held *InspectedHolding `json:"held,omitempty"`
}

// An InspectedHolding is what a log retains of a channel.
type InspectedHolding struct {
	Events int   `json:"events"`
	Bytes  int64 `json:"bytes"`
}

// Inspect looks at all connections and channels, and returns the totals and up to
// so many of each kind. Log says what is retained of channels; nil: nobody can say.
// It may be called at any time, also after Close. It takes about 3 ms for 10,000 connections, most of it without a lock, and waits for
// nobody.
func (e *Engine) Inspect(most int, log eventlog.Itemized) Inspection {
	now := time.Now()
	lags, topics, channels := e.survey(most, log)
	n, absent := e.clients.Inspect(most)
	e.sessions.mu.Lock()
	sessions := len(e.sessions.byID)
	e.sessions.mu.Unlock()
	view := Inspection{
		Connections: make(map[string]int),
		Sessions:    sessions,
		Away:        n.Open,
		Trials:      n.Trials,
		Evictions:   e.evictions.Load(),
		MaxLag:      topics.limit,
		Topics:      topics.n,
		Lines:       []InspectedLine{},
		Absent:      make([]InspectedAbsent, 0, len(absent)),
		Channels:    channels,
	}
	worst := best[lagging]{most: most, before: lagsMore}
	var lag []uint64 // of those that have some
	attached := 0
	for _, l := range e.matching(func(*line) bool { return true }) {
		if !l.isAttached() {
			continue
		}
		one := lagging{l, lags[l]}
		attached++
		view.Connections[l.peer.Transport]++
		worst.add(one)
		if one.lag > 0 {
			lag = append(lag, one.lag)
		}
	}
	view.GreatestLag, view.MedianLag = greatestAndMedian(lag, attached)
	for _, one := range worst.list {
		view.Lines = append(view.Lines, one.inspect(now))
	}
	e.sessions.inspect(worst.list, view.Lines, now)
	for i := range absent {
		view.Absent = append(view.Absent, inspectAbsent(&absent[i]))
	}
	return view
}

// lagsMore is the order in which lines are shown.
func lagsMore(a, b lagging) int {
	return cmp.Or(cmp.Compare(b.lag, a.lag), b.line.began.Compare(a.line.began), cmp.Compare(a.line.client.Connection, b.line.client.Connection))
}

// isAttached reports whether a line is one that is delivered to.
func (l *line) isAttached() bool {
	if l.probe {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.attached && !l.finished
}

// inspect corrects since when lines are there that are polls: each of them is one
// of many that make a line.
func (s *sessions) inspect(lines []lagging, views []InspectedLine, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range lines {
		if v := s.byID[one.line.client.Session]; v != nil && v.number == one.line.number {
			views[i].For = now.Sub(v.since)
		}
	}
}

func (one *lagging) inspect(now time.Time) InspectedLine {
	l := one.line
	view := InspectedLine{
		Session:    short(l.client.Session),
		Connection: l.client.Connection,
		Subject:    clip(l.peer.Subject),
		Namespace:  l.peer.Namespace,
		Transport:  l.peer.Transport,
		For:        now.Sub(l.began),
		Channels:   int(l.channels.Load()),
		Lag:        one.lag,
		MaxLag:     one.limit,
	}
	if l.peer.Subject == "" {
		view.Address = network(l.peer.Addr) // as those are called that are kept out
	}
	if s := one.judged; s != nil {
		view.Over, view.Window = max(0, view.For-time.Duration(s.overSince.Load())), s.topic.policy.limits.Window
	}
	if wrote := l.wrote.Load(); wrote > 0 {
		view.Written = max(1, view.For-time.Duration(wrote))
	}
	if l.delivery != nil {
		is := l.delivery.Standing()
		view.Trial, view.Evicted, view.Why = is.Trial, is.Evicted, is.Why
	}
	return view
}

// surveyed is what there is to say of all topics.
type surveyed struct {
	n     int
	limit uint64 // that all have, in events; 0: none, or not the same
}

// survey finds how far lines lag, those that do, and the channels that have
// subscribers: how many there are, and those with the most.
func (e *Engine) survey(most int, log eventlog.Itemized) (lags map[*line]behind, topics surveyed, channels []InspectedChannel) {
	e.mu.Lock()
	all := make([]*topic, 0, len(e.topics))
	for _, t := range e.topics {
		all = append(all, t)
	}
	e.mu.Unlock()
	lags = make(map[*line]behind)
	topics = surveyed{len(all), uint64(max(0, e.o.MaxLag))} //nolint:gosec // not below zero
	widest := best[InspectedChannel]{most: most, before: moreSubscribers, list: []InspectedChannel{}}
	for i, t := range all {
		policy := &t.policy
		view := InspectedChannel{Namespace: t.channel.Namespace, Name: t.channel.Name, Head: t.head.Load(), MaxLag: policy.limits.Events, Skips: policy.Slow == SkipToLatest}
		switch {
		case i == 0:
			topics.limit = view.MaxLag
		case topics.limit != view.MaxLag:
			topics.limit = 0
		}
		if log != nil {
			// The topic knows the head only of what was read, which is old if all who
			// would read it are stalled.
			h := log.Holding(t.channel)
			view.Head, view.Held = h.Head, &InspectedHolding{Events: h.Events, Bytes: h.Bytes}
		}
		view.Subscribers = t.survey(view.Head, lags)
		widest.add(view)
	}
	return lags, topics, widest.list
}

func moreSubscribers(a, b InspectedChannel) int {
	return cmp.Or(cmp.Compare(b.Subscribers, a.Subscribers), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// survey notes how far lines lag behind the head, and counts subscriptions. Those
// that come or go meanwhile are counted or not.
func (t *topic) survey(head uint64, lags map[*line]behind) (subscribers int) {
	for from := 0; from <= subscribers; from += subsAtOnce {
		t.mu.Lock()
		subscribers = len(t.subs)
		for _, s := range t.subs[min(from, subscribers):min(from+subsAtOnce, subscribers)] {
			if sent := s.sentTo.Load(); head > sent {
				b := lags[s.line]
				b.add(s, head-sent)
				lags[s.line] = b
			}
		}
		t.mu.Unlock()
	}
	return subscribers
}

// greatestAndMedian takes the values above zero of n, in any order.
func greatestAndMedian(values []uint64, n int) (greatest, median uint64) {
	if len(values) == 0 {
		return 0, 0
	}
	slices.Sort(values)
	if i := (n-1)/2 - (n - len(values)); i >= 0 {
		median = values[i]
	}
	return values[len(values)-1], median
}

func inspectAbsent(a *breaker.Absent) InspectedAbsent {
	view := InspectedAbsent{Session: short(a.Session), Connection: a.Connection, Broken: a.Broken, After: a.After, Times: a.Times, Why: a.Why}
	parts := strings.SplitN(a.Identity, "\x00", 3) // see identityOf
	if len(parts) < 3 {
		return view
	}
	view.Namespace = parts[0]
	if parts[1] == "subject" {
		view.Subject = clip(parts[2])
	} else {
		view.Address, _, _ = strings.Cut(parts[2], "\x00")
	}
	return view
}

func short(session string) string { return session[:min(len(session), shownOfSession)] }

// clip cuts a name that is long.
func clip(name string) string {
	if len(name) <= shownOfName {
		return name
	}
	end := shownOfName
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end] + "…"
}

// best keeps so many values, those that come before the others.
type best[T any] struct {
	most   int
	before func(a, b T) int
	list   []T // in order
}

func (b *best[T]) add(value T) {
	if len(b.list) >= b.most && (b.most <= 0 || b.before(value, b.list[len(b.list)-1]) >= 0) {
		return
	}
	at, _ := slices.BinarySearchFunc(b.list, value, b.before)
	b.list = slices.Insert(b.list, at, value)
	b.list = b.list[:min(len(b.list), b.most)]
}
