package bolt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	bbolt "go.etcd.io/bbolt"
)

// Check reads all of a file that no Log has open, and reports what is wrong with
// it, and of each channel that is damaged how much is whole: pages that bbolt
// can't reach, checksums, events that don't follow the one before them, records
// that don't say what is there. The error tells why it could not go on.
func Check(path string, problem func(string)) error {
	sound := true // as far as its pages are concerned
	damaged := func(err error) {
		sound = sound && !errors.Is(err, errPage)
		problem(strings.TrimPrefix(words(err), path+": "))
	}
	f, err := openDamaged(path, damaged)
	if err != nil {
		return err
	}
	c := &contents{channels: make(map[uint64]*channel)}
	err = f.view(func(tx *bbolt.Tx) error {
		if err := c.read(path, tx, damaged); err != nil {
			return err
		}
		for _, id := range sortedIDs(c) {
			sound = checkChannel(path, tx, c.channels[id], problem) && sound
		}
		checkStrays(path, tx, c, damaged)
		if !sound {
			return nil // bbolt's own check would fall over what it is to report
		}
		for err := range tx.Check() {
			problem(err.Error())
		}
		return nil
	})
	if closing := f.close(); err == nil {
		err = closing
	}
	return err
}

func sortedIDs(c *contents) (ids []uint64) {
	for id := range c.channels {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// words are for people.
func words(err error) string {
	if about, ok := errors.AsType[*FileError](err); ok {
		return about.Plain()
	}
	return err.Error()
}

// openReadOnly opens a file beside others who read it.
func openReadOnly(path string) (*file, error) {
	if err := measure(path, time.Second); err != nil {
		return nil, openError(path, err)
	}
	return openAnyway(path)
}

// openDamaged is openReadOnly, also of a file that was cut short, if that is said.
func openDamaged(path string, damaged onDamage) (*file, error) {
	if err := measure(path, time.Second); errors.Is(err, errCut) {
		damaged(errors.Join(errPage, err))
	} else if err != nil {
		return nil, openError(path, err)
	}
	return openAnyway(path)
}

func openAnyway(path string) (*file, error) {
	db, err := openSafely(path, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, openError(path, tooSmall(path, err))
	}
	return &file{path: path, db: db}, nil
}

// checkChannel checks the events of one channel, and its record by them. It
// reports whether their pages are sound.
func checkChannel(path string, tx *bbolt.Tx, ch *channel, problem func(string)) (sound bool) {
	s, runs := &ch.next, survey(path, tx, ch)
	sound = true
	whole := 0
	var damage []string
	for _, r := range slices.Backward(runs) {
		if r.why == "" {
			whole += r.events()
			continue
		}
		sound = sound && !r.page
		damage = append(damage, fmt.Sprintf("%v can't be read: %v", &r, r.why))
	}
	if len(damage) > 0 {
		problem(fmt.Sprintf("channel %v: %d of its %d events are whole, %d to %d; %s", ch.name, whole, s.events(),
			s.base.at.Offset+1, s.head.at.Offset, strings.Join(damage, "; ")))
	}
	if n := len(runs); n > 0 && runs[n-1].why == "" {
		first, err := eventsOf(tx, ch.id, nil).try(path, runs[n-1].from)
		switch {
		case err != nil:
			problem(fmt.Sprintf("channel %v: %v", ch.name, err))
		case first.before() != s.base:
			problem(fmt.Sprintf("channel %v: event %d does not follow the one before it", ch.name, first.At.Offset))
		case !first.Time.Equal(s.oldest):
			problem(fmt.Sprintf("channel %v: its oldest event is of %v, not of %v", ch.name, first.Time, s.oldest))
		}
	}
	return sound
}

// checkStrays reports events of no channel, or beside what their channel has.
func checkStrays(path string, tx *bbolt.Tx, c *contents, damaged onDamage) {
	if tx.Bucket(metaBucket) == nil { // nobody wrote to the file yet
		return
	}
	type stray struct {
		run
		channel uint64
		count   int
	}
	var strays []*stray
	_ = eachOf(path, tx, eventsBucket, damaged, func(key, _ []byte) error {
		id, offset, ok := parseEventKey(key)
		if !ok {
			return fmt.Errorf("event %x has no place", key)
		}
		if ch := c.channels[id]; ch != nil && offset > ch.floor && offset <= ch.next.head.at.Offset {
			return nil
		}
		if n := len(strays); n > 0 && strays[n-1].channel == id {
			strays[n-1].to = offset
			strays[n-1].count++
		} else {
			strays = append(strays, &stray{run{from: offset, to: offset}, id, 1})
		}
		return nil
	})
	for _, s := range strays {
		what := "that has no record"
		if ch := c.channels[s.channel]; ch != nil {
			what = ch.name.String() + ", beside what its record says"
		}
		damaged(fmt.Errorf("channel %x, %s: %d events at %v", channelKey(s.channel), what, s.count, &s.run))
	}
}
