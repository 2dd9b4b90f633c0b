package eventlog_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// TestHolding: what is retained of a channel, and where its head is, which stays
// when nothing is retained any more.
func TestHolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention {
			return eventlog.Retention{Events: 3, Age: time.Hour}
		}})
		defer m.Close()
		a, b := eventlog.Channel{Name: "a"}, eventlog.Channel{Namespace: "other", Name: "a"}
		is := func(ch eventlog.Channel, want eventlog.Holding) {
			t.Helper()
			if got := m.Holding(ch); got != want {
				t.Errorf("%v: %+v, want %+v", ch, got, want)
			}
		}
		is(a, eventlog.Holding{})
		message := eventlog.Message{Type: "m", Data: []byte(`"0123456789"`)}
		for range 5 {
			if _, _, err := m.Append(t.Context(), a, eventlog.Batch{Messages: []eventlog.Message{message}}); err != nil {
				t.Fatal(err)
			}
		}
		is(a, eventlog.Holding{Head: 5, Events: 3, Bytes: 3 * int64(message.Size())})
		is(b, eventlog.Holding{})
		if all := m.Size(); all.Bytes != 3*int64(message.Size()) {
			t.Errorf("all of it is %d bytes", all.Bytes)
		}
		time.Sleep(time.Hour + 2*time.Second)
		is(a, eventlog.Holding{Head: 5})
		_ = m.Close()
		is(a, eventlog.Holding{})
	})
}
