package bolt

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// FuzzEntry: what is read from the body of an event is what would be written
// again, and a value whose bytes or key changed is not read at all.
func FuzzEntry(f *testing.F) {
	key := eventKey(3, 7)
	e := entry{Event: eventlog.Event{
		Message: eventlog.Message{Type: "said", Kind: eventlog.Text, Data: []byte("hello"), Key: "k", Tags: []string{"a", "b"}},
		At:      eventlog.Position{Offset: 7, Mark: 12345}, Prev: 999, Time: time.Unix(1, 2).UTC(),
	}, sum: 4711}
	f.Add(encodeEntry(key, &e)[sealSize:], uint16(3), byte(1))
	f.Add([]byte{}, uint16(0), byte(0xff))
	f.Fuzz(func(t *testing.T, body []byte, at uint16, flip byte) {
		value := seal(key, append(unsealed(len(body)), body...))
		e, err := decodeEntry(key, value)
		if err != nil {
			return
		}
		again, err := decodeEntry(key, encodeEntry(key, &e))
		if err != nil || !reflect.DeepEqual(normal(again), normal(e)) {
			t.Errorf("read %+v, wrote and read %+v, error %v", e, again, err)
		}
		if _, err := decodeEntry(eventKey(3, 8), value); err == nil {
			t.Error("an event of another offset is read")
		}
		if flip != 0 {
			damaged := bytes.Clone(value)
			damaged[int(at)%len(damaged)] ^= flip
			if _, err := decodeEntry(key, damaged); err == nil {
				t.Errorf("byte %d was changed by %#x, and it is read", int(at)%len(damaged), flip)
			}
		}
	})
}

// normal makes no data and empty data alike.
func normal(e entry) entry {
	e.Data = append([]byte{}, e.Data...)
	return e
}
