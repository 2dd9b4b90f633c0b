package core

import (
	"context"
	"slices"

	"github.com/throughline/throughline/eventlog"
)

// A lagging line, and by how many events it lags where it lags most.
type lagging struct {
	line *line
	behind
}

// A behind is how a line lags.
type behind struct {
	lag    uint64        // in events
	limit  uint64        // what that may be; 0: anything
	judged *subscription // the one that is over its policy for longest, or nil
}

// add takes a subscription of the line's that lags.
func (b *behind) add(s *subscription, lag uint64) {
	if lag > b.lag {
		b.lag, b.limit = lag, s.topic.policy.limits.Events
	}
	if over := s.overSince.Load(); over > 0 && (b.judged == nil || over < b.judged.overSince.Load()) {
		b.judged = s
	}
}

// maxRefreshed bounds the channels of which the log is asked for the head, to see
// who lags.
const maxRefreshed = 1000

// laggards returns the lines that lag, the most lagging first. What is on its way
// to a client counts as not sent.
func (e *Engine) laggards() []lagging {
	e.refreshHeads()
	lags, _, _ := e.survey(0, nil)
	list := make([]lagging, 0, len(lags))
	for l, b := range lags {
		list = append(list, lagging{l, b})
	}
	slices.SortFunc(list, lagsMore)
	return list
}

// refreshHeads asks for the heads of topics whose news nobody has read: all who
// would may be stalled.
func (e *Engine) refreshHeads() {
	var stale []*topic
	e.mu.Lock()
	for _, t := range e.topics {
		if t.version.Load() != t.known.Load() && len(stale) < maxRefreshed {
			stale = append(stale, t)
		}
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, e.o.ReadTimeout)
	defer cancel()
	for _, t := range stale {
		version := t.version.Load()
		if at, err := e.seekLog(ctx, t.channel, eventlog.Start{}); err == nil {
			t.head.Store(at.Offset)
			t.known.Store(version)
		}
	}
}

// EvictLagging evicts the most lagging clients, at most so many, to free what
// they hold, and returns how many. They are told why when they come back. It waits for no
// client, but may ask the log.
func (e *Engine) EvictLagging(most int) (evicted int) {
	for _, l := range e.laggards() {
		if evicted == most {
			break
		}
		if l.line.evictNow() {
			evicted++
		}
	}
	return evicted
}

// evictNow ends a line whatever its worker does, and reports whether it had not
// ended before.
func (l *line) evictNow() bool {
	l.mu.Lock()
	going := l.attached && !l.finished && l.ended.Code == "" && l.goodbye == nil
	l.mu.Unlock()
	if !going {
		return false
	}
	why := l.tooSlow(ShortMemory)
	l.stop(why)
	l.conn.Close(why)
	return true
}
