package core

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

type deafConn struct{}

func (deafConn) Send([]transport.Item, time.Time) (bool, error) { return true, nil }
func (deafConn) Close(transport.Reason)                         {}

// TestGoodbyeMeetsAHello: the client's goodbye comes by a request while its line
// begins, as when a page goes that has just changed its channels. Nothing of
// the line may be left, or Close would wait for it.
func TestGoodbyeMeetsAHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		store := session.NewMemory(session.MemoryOptions{})
		e := New(Options{Log: log, Store: store, Logger: slog.New(slog.DiscardHandler)})
		hello := transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{{Channel: "a"}}}
		l := newLine(e, transport.Peer{}, hello, deafConn{}, session.NewID(), "")
		if err := e.register(l); err != nil {
			t.Fatal(err)
		}
		c, err := l.subscribe(t.Context(), hello.Channels[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := l.takeOver(Welcome{}, true); err != nil {
			t.Fatal(err)
		}
		e.sessions.goodbye(l.lease(), l.client)
		<-l.Done()
		if l.begin([]command{c}) {
			t.Error("a line began that was over")
		}
		l.drop([]command{c}) // as open does
		e.Close()
		_ = log.Close()
		_ = store.Close()
	})
}
