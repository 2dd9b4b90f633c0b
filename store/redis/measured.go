package redis

import "github.com/throughline/throughline/eventlog"

var (
	_ eventlog.Shrinker = (*Log)(nil)
	_ eventlog.Itemized = (*Log)(nil)
)

// Size implements [eventlog.Measured], of what this node holds: the tails of the channels
// that it serves. What Redis holds, Redis tells.
func (l *Log) Size() eventlog.Size {
	l.mu.Lock()
	defer l.mu.Unlock()
	return eventlog.Size{Channels: len(l.tails), Bytes: l.tailed}
}

// Shrink implements [eventlog.Shrinker]. Only tails go, those that were read longest ago
// first: nobody misses an event, and what is read again comes from Redis.
func (l *Log) Shrink(bytes int64) (freed int64) {
	for _, victim := range l.victims(bytes, &freed) {
		victim.shed()
	}
	return freed
}

func (l *Log) victims(bytes int64, freed *int64) (victims []*tail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for *freed < bytes && l.recent.Len() > 0 {
		victim := l.recent.Front().Value.(*tail) //nolint:forcetypeassert // it holds nothing else
		*freed += victim.held
		l.unhold(victim)
		victims = append(victims, victim)
	}
	return victims
}

// Holding implements [eventlog.Itemized], as of when a channel that this node serves was
// read last.
func (l *Log) Holding(ch eventlog.Channel) eventlog.Holding {
	t := l.tailOf(ch)
	if t == nil {
		return eventlog.Holding{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	head, base := t.seen.head, t.seen.base
	return eventlog.Holding{Head: head.at.Offset, Events: int(head.at.Offset - base.at.Offset), Bytes: head.sum - base.sum} //nolint:gosec // at most what is kept
}
