package core

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

type slowStore struct {
	session.Store
	wait time.Duration
}

func (s slowStore) Claim(ctx context.Context, h session.Held, l session.Lease) error {
	time.Sleep(s.wait)
	return s.Store.Claim(ctx, h, l)
}

func (s slowStore) Release(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
	time.Sleep(s.wait)
	return s.Store.Release(ctx, h, idle)
}

// TestClaimsDoNotHoldUpTouches: when all come back at once, who was present stays
// so.
func TestClaimsDoNotHoldUpTouches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		mem := session.NewMemory(session.MemoryOptions{})
		e := New(Options{Log: log, Store: slowStore{mem, 20 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler)})
		attach := func(ch string) transport.Session {
			s, err := e.Attach(t.Context(), transport.Peer{}, transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{{Channel: ch}}}, deafConn{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		for range 100 {
			attach("stable")
		}
		time.Sleep(10 * time.Second)
		for range 12000 {
			attach("storm")
		}
		least := 100
		for range 90 {
			time.Sleep(time.Second)
			_, n, _ := mem.Present(context.Background(), eventlog.Channel{Name: "stable"}, 0)
			least = min(least, n)
		}
		if least < 100 {
			t.Errorf("of 100 who never moved, %d were present at times", least)
		}
		e.Close()
		_ = log.Close()
		_ = mem.Close()
	})
}

// TestExpiryTickMeetsRenew: the timer fired while fresh credentials came that
// don't end.
func TestExpiryTickMeetsRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		store := session.NewMemory(session.MemoryOptions{})
		e := New(Options{Log: log, Store: store, Logger: slog.New(slog.DiscardHandler)})
		s, err := e.Attach(t.Context(), transport.Peer{Expires: time.Now().Add(time.Hour)}, transport.Hello{Version: 1, Line: 1}, deafConn{})
		if err != nil {
			t.Fatal(err)
		}
		l := s.(*line)
		l.renew(transport.Peer{}) // holds the lock, while
		l.expiryTick()            // this waits for it: it fired just before Stop
		synctest.Wait()
		select {
		case <-l.Done():
			t.Errorf("a line whose credentials don't end ended: %+v", l.ended)
		default:
		}
		e.Close()
		_ = log.Close()
		_ = store.Close()
	})
}
