package eventlog

import (
	"container/list"
	"strings"
	"time"
)

// A producer is what is remembered of one in one channel.
type producer struct {
	history *history
	id      string
	owner   string // who it was first counted for
	seq     uint64
	last    Position      // of the batch with that number
	at      time.Duration // of its last append
	element *list.Element // in producers.byAge
}

// owner is one who has producers.
type owner struct{ namespace, name string }

// producers remembers the producers of all channels for the same time, so that
// the order of their last appends is the order in which they are forgotten.
// It is guarded by the mutex of its Memory.
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

// forget drops all whose last append was before a time, or at it.
func (p *producers) forget(until time.Duration) {
	for old := p.oldest(); old != nil && old.at <= until; old = p.oldest() {
		p.byAge.Remove(old.element)
		delete(old.history.producers, old.id)
		who := owner{old.history.channel.Namespace, old.owner}
		if p.owners[who]--; p.owners[who] == 0 {
			delete(p.owners, who)
		}
	}
}

// remember notes an append.
func (p *producers) remember(h *history, by Producer, last Position, now time.Duration) {
	known := h.producers[by.ID]
	if known == nil {
		if h.producers == nil {
			h.producers = make(map[string]*producer)
		}
		// Copies: the strings may be parts of a whole request.
		known = &producer{history: h, id: strings.Clone(by.ID), owner: strings.Clone(by.Owner)}
		known.element = p.byAge.PushBack(known)
		h.producers[known.id] = known
		p.owners[owner{h.channel.Namespace, known.owner}]++
	}
	known.seq, known.last, known.at = by.Seq, last, now
	p.byAge.MoveToBack(known.element)
}

// admit applies the rule of producers to a batch. h is nil while the channel is
// unborn. If duplicate is true, first is where the batch is.
func (m *Memory) admit(h *history, ch Channel, by Producer) (first Position, duplicate bool, err error) {
	if by == (Producer{}) {
		return Position{}, false, nil
	}
	here := 0
	if h != nil {
		here = len(h.producers)
		if known := h.producers[by.ID]; known != nil {
			switch {
			case by.Seq == known.seq:
				return known.last, true, nil
			case by.Seq < known.seq:
				return Position{}, false, ErrStale
			}
			return Position{}, false, nil
		}
	}
	theirs := m.producers.owners[owner{ch.Namespace, by.Owner}]
	if here >= m.options.MaxProducersPerChannel || theirs >= m.options.MaxProducersPerOwner {
		return Position{}, false, ErrBusy
	}
	return Position{}, false, nil
}
