package redis

import (
	"reflect"
	"testing"

	"github.com/throughline/throughline/eventlog"
)

// FuzzEntry: whatever a stream holds is an event or an error, and what was encoded is
// decoded as it was.
func FuzzEntry(f *testing.F) {
	m := eventlog.Message{Type: "said", Kind: eventlog.Text, Data: []byte("héllo\x00"), Key: "k", Tags: []string{"a", "b"}}
	f.Add("12 11 1700000000000000 400 130", string(encode(&m)))
	f.Add("", "")
	f.Add("1 2 3 4", "\x00\x80")
	f.Fuzz(func(t *testing.T, header, body string) {
		e, err := newEntry(3, header, body)
		if err != nil {
			return
		}
		again, err := decode(string(encode(&e.Message)))
		if err != nil || !reflect.DeepEqual(again, e.Message) {
			t.Errorf("%+v is decoded as %+v, %v", e.Message, again, err)
		}
	})
}
