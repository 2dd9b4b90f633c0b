package bolt

import (
	"errors"
	"fmt"

	bbolt "go.etcd.io/bbolt"
)

// A run is events of a channel that can all be read, each following the one
// before it, or that can all not.
type run struct {
	from, to uint64
	why      string // the first of them can't be read; empty if they can
	page     bool   // that is since a page is damaged
}

func (r *run) String() string {
	if r.from == r.to {
		return fmt.Sprint(r.from)
	}
	return fmt.Sprintf("%d to %d", r.from, r.to)
}

func (r *run) events() int { return int(r.to - r.from + 1) }

// survey reads all events of a channel, from the newest back to the oldest, and
// returns the runs in that order. Each event is held against the one after it,
// and the newest against the channel's record.
func survey(path string, tx *bbolt.Tx, ch *channel) (runs []run) {
	events, s := eventsOf(tx, ch.id, nil), &ch.next
	known, before, newest := true, s.head, s.newest // of the event after
	for offset := s.head.at.Offset; offset > s.base.at.Offset; offset-- {
		e, err := events.try(path, offset)
		switch {
		case err != nil:
		case known && e.place() != before:
			err = errors.New("is not the one before its next")
		case known && e.Time.After(newest):
			err = errors.New("is later than its next")
		default:
			err = e.Check(0)
		}
		why := ""
		if known = err == nil; known {
			before, newest = e.before(), e.Time
		} else {
			why = plain(err)
		}
		if n := len(runs); n > 0 && (runs[n-1].why == "") == known {
			runs[n-1].from, runs[n-1].why = offset, why
		} else {
			runs = append(runs, run{from: offset, to: offset, why: why})
		}
		last := &runs[len(runs)-1]
		last.page = last.page || errors.Is(err, errPage)
	}
	return runs
}

// before is the place before an event.
func (e *entry) before() place { return place{at: e.Before(), sum: e.sum - int64(e.Size())} }

// try is get, where a damaged page is an error, too.
func (s *events) try(path string, offset uint64) (e *entry, err error) {
	defer recovered(path, &err)()
	return s.get(offset)
}

// plain is what is wrong with an event.
func plain(err error) string {
	var gone *missing
	var about *FileError
	switch {
	case errors.As(err, &gone):
		return gone.why
	case errors.As(err, &about) && about.cause != nil:
		return about.cause.Error()
	}
	return err.Error()
}
