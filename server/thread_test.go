package server_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

func newReader(s string) *strings.Reader { return strings.NewReader(s) }

func TestLiveEventsArriveInOrder(t *testing.T) {
	onEach(t, server.Options{}, func(w *world, c carrier) {
		begin := w.publish("room:42", `{"old":true}`)
		s := w.must(c, "room:42", "")
		if it := w.next(s); !it.Opening || it.Position != begin.String() {
			w.Fatalf("P2.6: opens with %+v, not with the position %v", it, begin)
		}
		for i := range 50 {
			at := w.publish("room:42", fmt.Sprintf(`{"n":%d}`, i))
			it := w.next(s)
			if !it.Event || it.Position != at.String() || string(it.Data) != fmt.Sprintf(`{"n":%d}`, i) {
				w.Fatalf("event %d: got %+v, want %v", i, it, at)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestResumeGetsEverythingSincePosition(t *testing.T) {
	onEach(t, server.Options{}, func(w *world, c carrier) {
		var at []string
		for i := range 30 {
			at = append(at, w.publish("r", fmt.Sprint(i)).String())
		}
		s := w.must(c, "r", at[9])
		if !strings.HasPrefix(c.name, "poll") { // in a poll the position goes beside the events
			if it := w.next(s); !it.Opening || it.Position != at[9] {
				w.Fatalf("P2.6: opens with %+v, not the position presented", it)
			}
		}
		for i := 10; i < 30; i++ {
			if it := w.next(s); it.Position != at[i] || string(it.Data) != fmt.Sprint(i) {
				w.Fatalf("got %+v, want event %d at %s", it, i, at[i])
			}
		}
	})
}

func TestQuietStreamLivesForHours(t *testing.T) {
	onEach(t, server.Options{}, func(w *world, c carrier) {
		s := w.must(c, "r", "")
		w.next(s)
		time.Sleep(50 * time.Minute)
		at := w.publish("r", "1")
		if it := w.next(s); it.Position != at.String() {
			w.Fatalf("after a quiet time: %+v", it)
		}
	})
}

func TestSessionSpeaks(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		h := hello("a", "")
		h.Line = 7
		s, err := wireclient.WS(w.ctx, w.http, base+"/ws", &h)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		it, _ := s.Next()
		if it.Open == nil || it.Open.Line != 7 || it.Open.Version != 1 || it.Open.Heartbeat != 25000 {
			t.Fatalf("P6.3: %+v", it.Open)
		}
	})
}

// TestWakesAreNeverLost publishes from several goroutines at once and lets no
// time pass: whoever missed a wake would only see the events at a heartbeat.
func TestWakesAreNeverLost(t *testing.T) {
	onEach(t, server.Options{Authorize: allow}, func(w *world, c carrier) {
		const readers, publishers, each = 5, 4, 25
		for round := range 8 {
			channel := fmt.Sprint("r", round)
			var got [readers]atomic.Int64
			var all sync.WaitGroup
			var streams []wireclient.Stream
			for i := range readers {
				s := w.must(c, channel, "earliest")
				all.Go(func() {
					for it, err := s.Next(); err == nil; it, err = s.Next() {
						if it.Event {
							got[i].Add(1)
						}
					}
				})
				streams = append(streams, s)
			}
			synctest.Wait()
			began := time.Now()
			for range publishers {
				go func() {
					for range each {
						w.publish(channel, "1")
					}
				}()
			}
			synctest.Wait()
			for i := range readers {
				if n := got[i].Load(); n != publishers*each || time.Since(began) > 0 {
					w.Errorf("round %d: reader %d has %d events of %d after %v", round, i, n, publishers*each, time.Since(began))
				}
			}
			for _, s := range streams {
				s.Close()
			}
			all.Wait()
		}
	})
}
