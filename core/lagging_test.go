package core

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// A stuckConn takes its opening, and then nothing until it is closed.
type stuckConn struct {
	sends  int
	closed chan struct{}
}

func (c *stuckConn) Send(_ []transport.Item, deadline time.Time) (bool, error) {
	if c.sends++; c.sends == 1 {
		return true, nil
	}
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case <-late.C:
	case <-c.closed:
	}
	return false, transport.ErrClosed
}

func (c *stuckConn) Close(transport.Reason) {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
}

// slowness counts why clients were evicted.
type slowness struct {
	nobody
	seen chan Slowness
}

func (s slowness) Evicted(_ Source, why Slowness) { s.seen <- why }

// TestEvictLagging: those who lag most go first, also where nobody reads who
// would see how far that is; they are kept out, and the others stay.
func TestEvictLagging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		store := session.NewMemory(session.MemoryOptions{})
		seen := make(chan Slowness, 100)
		e := New(Options{Log: log, Store: store, Observer: slowness{seen: seen}})
		defer func() { e.Close(); _ = log.Close(); _ = store.Close() }()
		attach := func(channel string) (transport.Session, error) {
			conn := &stuckConn{closed: make(chan struct{})}
			peer := transport.Peer{Subject: channel, Transport: "ws"}
			return e.Attach(t.Context(), peer, transport.Hello{Channels: []transport.Subscription{{Channel: channel}}}, conn)
		}
		lines := map[int]transport.Session{}
		for lag := range 6 {
			channel := fmt.Sprint("behind ", lag)
			s, err := attach(channel)
			if err != nil {
				t.Fatal(err)
			}
			lines[lag] = s
			synctest.Wait()
			for range lag {
				_, _, _ = log.Append(context.Background(), eventlog.Channel{Name: channel}, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}})
				synctest.Wait()
			}
		}
		if n := e.EvictLagging(2); n != 2 {
			t.Errorf("%d were evicted", n)
		}
		synctest.Wait()
		for lag, s := range lines {
			select {
			case <-s.Done():
				if lag < 4 {
					t.Errorf("the one that was %d behind was evicted", lag)
				}
			default:
				if lag >= 4 {
					t.Errorf("the one that was %d behind was not evicted", lag)
				}
			}
		}
		if _, err := attach("behind 5"); err == nil {
			t.Error("who was evicted is let in at once")
		}
		if n := e.EvictLagging(100); n != 3 {
			t.Errorf("then %d were evicted, not all that lag", n)
		}
		for range 5 {
			if why := <-seen; why != ShortMemory {
				t.Errorf("one was evicted because of %q", why)
			}
		}
		synctest.Wait()
	})
}

// TestForgetBatches: what was read for all is let go of when memory is short.
func TestForgetBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		store := session.NewMemory(session.MemoryOptions{})
		e := New(Options{Log: log, Store: store})
		defer func() { e.Close(); _ = log.Close(); _ = store.Close() }()
		ch := eventlog.Channel{Name: "r"}
		if _, err := e.Attach(t.Context(), transport.Peer{}, transport.Hello{Channels: []transport.Subscription{{Channel: ch.Name}}}, &stuckConn{closed: make(chan struct{})}); err != nil {
			t.Fatal(err)
		}
		_, _, _ = log.Append(t.Context(), ch, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}})
		synctest.Wait()
		kept := func() (n int) {
			for _, b := range e.topics[ch].batches {
				if b != nil {
					n++
				}
			}
			return n
		}
		if before := kept(); before == 0 {
			t.Error("there is nothing to forget")
		}
		if e.ForgetBatches(); kept() != 0 {
			t.Error("something is left")
		}
	})
}
