package core

import (
	"slices"
	"sync"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

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
