package core

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A provingConn takes all, or nothing, and proves that its client reads.
type provingConn struct {
	stalls         bool
	events, proofs atomic.Int64
}

func (c *provingConn) Send(items []transport.Item, deadline time.Time) (bool, error) {
	if c.stalls {
		time.Sleep(time.Until(deadline))
		return false, os.ErrDeadlineExceeded
	}
	for _, item := range items {
		if item.Run != nil {
			c.events.Add(int64(len(item.Run.Events)))
		}
	}
	return true, nil
}

func (c *provingConn) Prove(time.Time) error { c.proofs.Add(1); return nil }

func (c *provingConn) Close(transport.Reason) {}

// TestOnlyTrialsAreProved: who was evicted has to prove that it reads until its pages may
// grow, and not beyond; nobody else has to.
func TestOnlyTrialsAreProved(t *testing.T) {
	const events = 1000
	inEngine(t, asItIs, eventlog.Retention{}, Options{}, func(e *Engine, log eventlog.Log) {
		begin, _ := log.Seek(context.Background(), news, eventlog.Start{})
		message := eventlog.Message{Data: []byte(`"` + strings.Repeat("x", 1<<10) + `"`)}
		for range events {
			if _, _, err := log.Append(context.Background(), news, eventlog.Batch{Messages: []eventlog.Message{message}}); err != nil {
				t.Fatal(err)
			}
		}
		attach := func(subject string, conn transport.Conn) {
			hello := transport.Hello{Channels: []transport.Subscription{{Channel: news.Name, After: begin}}}
			if _, err := e.Attach(context.Background(), transport.Peer{Transport: "proving", Subject: subject}, hello, conn); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		attach("ada", &provingConn{stalls: true})
		time.Sleep(e.o.WriteTimeout + e.o.EvictionDelay + time.Second)
		for subject, most := range map[string]int64{"ada": 2 * growAfter, "bob": 0} { // pages are up to half empty
			conn := &provingConn{}
			attach(subject, conn)
			if n, proofs := conn.events.Load(), conn.proofs.Load(); n != events || proofs > most || proofs < most/2 {
				t.Errorf("%s got %d events and proved %d times, which is not from %d to %d", subject, n, proofs, most/2, most)
			}
		}
	})
}
