package bolt

import (
	"container/list"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A producer is what is remembered of one in one channel.
type producer struct {
	channel *channel
	id      string
	owner   string // who it was first counted for
	seq     uint64
	last    eventlog.Position // of the batch with that number
	at      time.Time         // of its last append
	element *list.Element     // in producers.byAge
}

func (p *producer) key() []byte { return producerKey(p.channel.id, p.id) }

// owner is one who has producers.
type owner struct{ namespace, name string }

// producers remembers the producers of all channels for the same time, so that
// the order of their last appends is the order in which they are forgotten. It
// is the writer's.
type producers struct {
	byAge  *list.List // of *producer
	owners map[owner]int
}

func newProducers() producers {
	return producers{byAge: list.New(), owners: make(map[owner]int)}
}

// oldest returns the producer that is to be forgotten first, or nil.
func (p *producers) oldest() *producer {
	if front := p.byAge.Front(); front != nil {
		return front.Value.(*producer)
	}
	return nil
}

// add remembers a producer whose last append was after those of all others.
func (p *producers) add(new *producer) {
	new.element = p.byAge.PushBack(new)
	if new.channel.producers == nil {
		new.channel.producers = make(map[string]*producer)
	}
	new.channel.producers[new.id] = new
	p.owners[owner{new.channel.name.Namespace, new.owner}]++
}

// drop forgets a producer.
func (p *producers) drop(old *producer) {
	p.byAge.Remove(old.element)
	delete(old.channel.producers, old.id)
	who := owner{old.channel.name.Namespace, old.owner}
	if p.owners[who]--; p.owners[who] == 0 {
		delete(p.owners, who)
	}
}

// remember notes an append. undo takes it back.
func (p *producers) remember(ch *channel, by eventlog.Producer, last eventlog.Position, now time.Time) (known *producer, undo func()) {
	known = ch.producers[by.ID]
	if known == nil {
		// Copies: the strings may be parts of a whole request.
		known = &producer{channel: ch, id: strings.Clone(by.ID), owner: strings.Clone(by.Owner)}
		p.add(known)
		undo = func() { p.drop(known) }
	} else {
		// It may be forgotten a little later than those that came after it did.
		seq, last, at := known.seq, known.last, known.at
		p.byAge.MoveToBack(known.element)
		undo = func() { known.seq, known.last, known.at = seq, last, at }
	}
	known.seq, known.last, known.at = by.Seq, last, now
	return known, undo
}

// admit applies the rule of producers to a batch. ch is nil while the channel is
// unborn. If duplicate is true, first is where the batch is.
func (l *Log) admit(ch *channel, name eventlog.Channel, by eventlog.Producer) (first eventlog.Position, duplicate bool, err error) {
	if by == (eventlog.Producer{}) {
		return eventlog.Position{}, false, nil
	}
	here := 0
	if ch != nil {
		here = len(ch.producers)
		if known := ch.producers[by.ID]; known != nil {
			switch {
			case by.Seq == known.seq:
				return known.last, true, nil
			case by.Seq < known.seq:
				return eventlog.Position{}, false, eventlog.ErrStale
			}
			return eventlog.Position{}, false, nil
		}
	}
	theirs := l.producers.owners[owner{name.Namespace, by.Owner}]
	if here >= l.options.MaxProducersPerChannel || theirs >= l.options.MaxProducersPerOwner {
		return eventlog.Position{}, false, eventlog.ErrBusy
	}
	return eventlog.Position{}, false, nil
}

// forget drops the producers whose last append is long enough ago, at most so
// many, and reports whether there are more.
func (l *Log) forget(now time.Time, most int) (more bool) {
	until := now.Add(-l.options.RememberProducers)
	for range most {
		old := l.producers.oldest()
		if old == nil || old.at.After(until) {
			return false
		}
		l.producers.drop(old)
		l.put(change{bucket: producersBucket, key: old.key()})
	}
	return true
}
