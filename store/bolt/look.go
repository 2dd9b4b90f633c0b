package bolt

import (
	"errors"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
)

// A look is what a reader sees of a channel: a state, as of one moment.
type look struct {
	ch    *channel // only what is static after it was made
	state          // what is too old is not in it
	tail  []entry
}

// look returns what is shown of a channel. It has no channel if that is unborn:
// then its base and head are the place before the first event, and before holds
// what may have been that.
func (l *Log) look(name eventlog.Channel) (see look, before [2]uint64, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return look{}, before, errClosed
	}
	if ch := l.channels[name]; ch != nil {
		return look{ch: ch, state: ch.shown, tail: ch.tail}, before, nil
	}
	before = l.generation.marks(name)
	there := place{at: eventlog.Position{Offset: 0, Mark: before[0]}}
	return look{state: state{base: there, head: there}}, before, nil
}

// with has fn read a channel. A trim that comes between the look and the read
// has it called again, with another look. fn is not called if the channel is
// unborn; a look without a channel says so.
func (l *Log) with(name eventlog.Channel, fn func(*look, *events) error) (see look, before [2]uint64, err error) {
	for {
		if see, before, err = l.look(name); err != nil || see.ch == nil {
			return see, before, err
		}
		err = l.file.view(func(tx *bbolt.Tx) error {
			events := eventsOf(tx, see.ch.id, see.tail)
			if tooOld(see.oldest, see.ch.retention.Age, time.Now()) && !see.empty() {
				var err error
				// The writer does the same soon, for good.
				if see.state, err = see.ch.trimmed(see.state, time.Now(), events); err != nil {
					return err
				}
			}
			return fn(&see, events)
		})
		var gone *missing
		if !errors.As(err, &gone) {
			return see, before, err
		}
		if now, _, err := l.look(name); err != nil || now.ch == see.ch && now.base.at.Offset < gone.offset {
			if err == nil {
				err = corrupt(l.path, "of channel %v %v", name, gone)
			}
			return see, before, err
		}
	}
}

// locate fails with [*eventlog.Lost] if a position has no place in what is there.
// Its mark is checked with the event after it, by follows.
func (s *look) locate(after eventlog.Position) error {
	switch {
	case after.Offset > s.head.at.Offset, after.Offset == 0 && !s.ch.born(after.Mark):
		return rewritten(after, s.head.at)
	case after.Offset < s.base.at.Offset:
		// Its mark is no longer known, and need not be: all that this history
		// still has comes later.
		return &eventlog.Lost{From: after, To: s.base.at, Reason: eventlog.Trimmed}
	case after.Offset == s.head.at.Offset && after.Offset > 0 && after.Mark != s.head.at.Mark:
		return rewritten(after, s.head.at)
	}
	return nil
}

// follows fails with [*eventlog.Lost] if the first event after a position, which
// locate found good, doesn't follow it.
func (s *look) follows(after eventlog.Position, e *entry) error {
	if after.Offset > 0 && e.Prev != after.Mark {
		return rewritten(after, s.head.at)
	}
	return nil
}

// find is locate and follows.
func (s *look) find(at eventlog.Position, events *events) error {
	if err := s.locate(at); err != nil || at.Offset == s.head.at.Offset {
		return err
	}
	e, err := events.get(at.Offset + 1)
	if err != nil {
		return err
	}
	return s.follows(at, e)
}

// position returns the place of an offset, which is the base's, the head's, or
// one between.
func (s *look) position(offset uint64, events *events) (eventlog.Position, error) {
	switch offset {
	case s.base.at.Offset:
		return s.base.at, nil
	case s.head.at.Offset:
		return s.head.at, nil
	}
	e, err := events.get(offset)
	if err != nil {
		return eventlog.Position{}, err
	}
	return e.At, nil
}

func rewritten(from, to eventlog.Position) error {
	return &eventlog.Lost{From: from, To: to, Reason: eventlog.Rewritten}
}
