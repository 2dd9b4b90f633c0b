package core

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A topic is a channel with subscriptions on this engine.
type topic struct {
	// Static after newTopic.
	engine    *Engine
	channel   eventlog.Channel
	policy    Policy
	stopWatch func()

	head    atomic.Uint64 // the head's offset, as the last read showed it
	version atomic.Uint64 // rises before subscriptions are told of news
	known   atomic.Uint64 // the version of which head is

	worker // of fanOut

	mu   sync.Mutex
	subs []*subscription // guarded by mu

	batchesMu sync.Mutex  // apart from mu, which fanOut holds while the first lines read
	batches   []*batch    // guarded by batchesMu; the newest first, in room for keptPages
	aging     *time.Timer // guarded by batchesMu; runs while there are batches
	fit       spans       // guarded by batchesMu: of what was found fit to be shown
}

func newTopic(e *Engine, ch eventlog.Channel) *topic {
	t := &topic{engine: e, channel: ch, policy: e.o.Policy(ch)}
	t.start(t.fanOut, e.live.Done)
	t.stopWatch = e.o.Log.Watch(ch, t.ask)
	return t
}

// close ends the topic, which has no subscriptions any more.
func (t *topic) close() {
	t.stopWatch()
	t.end()
}

// fanOut has every line of the topic look for news.
func (t *topic) fanOut() {
	t.version.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.subs {
		s.dirty.Store(true)
		s.line.ask()
	}
}

func (t *topic) add(s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.line.channels.Add(1)
	s.index = len(t.subs)
	t.subs = append(t.subs, s)
}

// remove reports whether the topic is now without subscriptions.
func (t *topic) remove(s *subscription) (empty bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.line.channels.Add(-1)
	last := len(t.subs) - 1
	t.subs[s.index] = t.subs[last]
	t.subs[s.index].index = s.index
	t.subs[last] = nil
	t.subs = t.subs[:last]
	return last == 0
}
