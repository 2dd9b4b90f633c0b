package bolt

import (
	"fmt"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// Check reads all of a file that no Log has open, and reports what is wrong with
// it: pages that bbolt can't reach, checksums, events that don't follow the one
// before them, records that don't say what is there. The error tells why it could
// not go on.
func Check(path string, problem func(string)) error {
	f, err := openReadOnly(path)
	if err != nil {
		return err
	}
	c, err := readContents(f)
	if err == nil {
		err = f.view(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				problem(err.Error())
			}
			for _, ch := range c.channels {
				checkChannel(tx, ch, problem)
			}
			return checkStrays(tx, c, problem)
		})
	}
	if closing := f.close(); err == nil {
		err = closing
	}
	return err
}

// openReadOnly opens a file beside others who read it.
func openReadOnly(path string) (*file, error) {
	if err := measure(path, time.Second); err != nil {
		return nil, openError(path, err)
	}
	db, err := openSafely(path, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
	if err != nil {
		return nil, openError(path, err)
	}
	return &file{path: path, db: db}, nil
}

// checkChannel checks the events of one channel, and its record by them.
func checkChannel(tx *bbolt.Tx, ch *channel, problem func(string)) {
	s, at := &ch.next, ch.next.base
	events := eventsOf(tx, ch.id, nil)
	err := events.forwards(s.base.at.Offset+1, s.head.at.Offset, func(e *entry) bool {
		if at == s.base && e.Prev != at.at.Mark || e.sum != at.sum+int64(e.Size()) {
			problem(fmt.Sprintf("channel %v: event %d does not follow the one before it", ch.name, e.At.Offset))
		}
		if at == s.base && !e.Time.Equal(s.oldest) {
			problem(fmt.Sprintf("channel %v: its oldest event is of %v, not of %v", ch.name, e.Time, s.oldest))
		}
		if err := e.Check(0); err != nil {
			problem(fmt.Sprintf("channel %v: event %d: %v", ch.name, e.At.Offset, err))
		}
		at = e.place()
		return true
	})
	if err != nil {
		problem(fmt.Sprintf("channel %v: %v", ch.name, err))
	} else if at != s.head {
		problem(fmt.Sprintf("channel %v: its head is %v, and its last event %v", ch.name, s.head.at, at.at))
	}
}

// checkStrays reports events of no channel, or beside what their channel has.
func checkStrays(tx *bbolt.Tx, c *contents, problem func(string)) error {
	bucket := tx.Bucket(eventsBucket)
	if bucket == nil { // nobody wrote to the file yet
		return nil
	}
	return bucket.ForEach(func(key, _ []byte) error {
		id, offset, ok := parseEventKey(key)
		ch := c.channels[id]
		if !ok || ch == nil || offset <= ch.floor || offset > ch.next.head.at.Offset {
			problem(fmt.Sprintf("event %x belongs to no channel", key))
		}
		return nil
	})
}
