package bolt

import (
	"bytes"
	"fmt"
	"sort"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
)

// A missing is the error for an event that should be in the file. Perhaps it was
// trimmed since the state was looked at that says so; else the file is damaged.
type missing struct {
	offset uint64
	why    string
}

func (m *missing) Error() string { return fmt.Sprintf("event %d %s", m.offset, m.why) }

// events reads the events of one channel: those in the file, in one transaction,
// and after them those that are in memory only. Data is good until the
// transaction ends.
type events struct {
	bucket *bbolt.Bucket
	id     uint64
	tail   []entry
}

func eventsOf(tx *bbolt.Tx, id uint64, tail []entry) *events {
	return &events{bucket: tx.Bucket(eventsBucket), id: id, tail: tail}
}

// inTail returns the event at an offset if it is in memory.
func (s *events) inTail(offset uint64) *entry {
	if len(s.tail) == 0 || offset < s.tail[0].At.Offset {
		return nil
	}
	return &s.tail[offset-s.tail[0].At.Offset]
}

// get returns the event at an offset.
func (s *events) get(offset uint64) (*entry, error) {
	if e := s.inTail(offset); e != nil {
		return e, nil
	}
	key := eventKey(s.id, offset)
	return decoded(key, s.bucket.Get(key), offset)
}

func decoded(key, value []byte, offset uint64) (*entry, error) {
	if value == nil {
		return nil, &missing{offset, "is missing"}
	}
	e, err := decodeEntry(key, value)
	if err != nil {
		return nil, &missing{offset, "is damaged: " + err.Error()}
	}
	return &e, nil
}

// first returns the first offset from one to another whose event is what is
// asked for, as are all that follow, or the one after the last. It looks near
// the beginning first, as that is where trims are.
func (s *events) first(from, to uint64, is func(*entry) bool) (uint64, error) {
	var failed error
	yes := func(offset uint64) bool {
		if failed != nil {
			return true // to the end of the search
		}
		e, err := s.get(offset)
		if failed = err; err != nil {
			return true
		}
		return is(e)
	}
	for step := uint64(1); from <= to; step *= 2 {
		probe := min(from+step-1, to)
		if yes(probe) {
			found := sort.Search(int(probe-from), func(i int) bool { return yes(from + uint64(i)) })
			return from + uint64(found), failed
		}
		from = probe + 1
	}
	return to + 1, failed
}

// cut returns s with its base moved to an offset.
func (s *events) cut(st state, base uint64) (state, error) {
	if base == st.head.at.Offset {
		st.base, st.oldest = st.head, st.newest
		return st, nil
	}
	e, err := s.get(base)
	if err != nil {
		return st, err
	}
	st.base = e.place()
	if e, err = s.get(base + 1); err == nil {
		st.oldest = e.Time
	}
	return st, err
}

// A visit is given an event, and returns whether to go on. Where it stays, the
// event was not taken.
type visit func(*entry) bool

// forwards visits the events of offsets from one to another.
func (s *events) forwards(from, to uint64, v visit) error {
	if from > to {
		return nil
	}
	c := s.bucket.Cursor()
	var key, value []byte
	var mark uint64 // of the event before
	for offset := from; offset <= to; offset++ {
		e := s.inTail(offset)
		if e == nil {
			if key == nil {
				key, value = c.Seek(eventKey(s.id, offset))
			} else {
				key, value = c.Next()
			}
			var err error
			if e, err = s.at(key, value, offset); err != nil {
				return err
			}
		}
		if offset > from && e.Prev != mark {
			return &missing{offset, "doesn't follow the one before it"}
		}
		if !v(e) {
			return nil
		}
		mark = e.At.Mark
	}
	return nil
}

// backwards visits the events of offsets from one down to another.
func (s *events) backwards(from, to uint64, v visit) error {
	c := s.bucket.Cursor()
	var key, value []byte
	var mark uint64 // of this event, as the one after it has it
	for offset := from; offset >= to && offset > 0; offset-- {
		e := s.inTail(offset)
		if e == nil {
			if key == nil {
				key, value = c.Seek(eventKey(s.id, offset))
			} else {
				key, value = c.Prev()
			}
			var err error
			if e, err = s.at(key, value, offset); err != nil {
				return err
			}
		}
		if offset < from && e.At.Mark != mark {
			return &missing{offset, "is not the one before its next"}
		}
		if !v(e) {
			return nil
		}
		mark = e.Prev
	}
	return nil
}

// at decodes what a cursor found, if it is the event at an offset.
func (s *events) at(key, value []byte, offset uint64) (*entry, error) {
	if id, found, ok := parseEventKey(key); !ok || id != s.id || found != offset {
		return nil, &missing{offset, "is missing"}
	}
	return decoded(key, value, offset)
}

// event returns an event that outlives the transaction.
func (e *entry) event() eventlog.Event {
	event := e.Event
	event.Data = bytes.Clone(event.Data)
	return event
}
