package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// TestShutdownSpreadsReturns: each client is told a time of its own, and all of
// them fill the window evenly (R6).
func TestShutdownSpreadsReturns(t *testing.T) {
	const clients, buckets = 200, 10
	window := 20 * time.Second
	for _, carrier := range []string{"ws", "sse", "poll"} {
		t.Run(carrier, func(t *testing.T) {
			inBubble(t, server.Options{Authorize: allow, DrainTime: window, AddressRates: server.Unlimited}, func(w *world) {
				at := w.publish("r", "1").String()
				var mu sync.Mutex
				var told []time.Duration
				var all sync.WaitGroup
				for range clients {
					all.Go(func() {
						h := hello("r", at)
						s := w.waiting(w.http, h)
						if carrier != "poll" {
							var err error
							if s, _, err = w.begin(w.http, carrier, h); err != nil {
								t.Error(err)
								return
							}
						}
						it, err := next(s, func(it wireclient.Item) bool { return it.Close != nil })
						if err != nil || it.Close.Code != "shutdown" || it.Close.Class != "later" {
							t.Errorf("%+v, %v", it.Close, err)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						told = append(told, time.Duration(it.Close.After)*time.Millisecond)
					})
				}
				time.Sleep(3 * time.Second)
				ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
				defer cancel()
				began := time.Now()
				if err := w.srv.Shutdown(ctx); err != nil {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				all.Wait()
				count := make([]int, buckets)
				for _, d := range told {
					d -= time.Second // RetryDelay
					if d < 0 || d > window {
						t.Errorf("told %v beside RetryDelay", d)
					}
					count[min(buckets-1, int(max(0, d)*buckets/window))]++
				}
				if len(told) != clients || slices.Max(count) > 2*clients/buckets {
					t.Errorf("%d were told, by tenths of the window: %v", len(told), count)
				}
				if _, _, err := w.begin(w.http, "sse", hello("r", at)); codeOf(err) != "shutdown" {
					t.Errorf("a late one: %v", err)
				}
			})
		})
	}
}

// TestShutdownHasABound: who is deaf is cut off when the time is over, and the
// error says so.
func TestShutdownHasABound(t *testing.T) {
	var atWork atomic.Int32
	stuck := func(context.Context, server.Request) (server.Payload, error) {
		atWork.Add(1)
		defer atWork.Add(-1)
		time.Sleep(time.Hour)
		return server.Payload{}, nil
	}
	inBubble(t, server.Options{Authorize: allow, OnCall: stuck, CallTimeout: 2 * time.Hour}, func(w *world) {
		s := w.ws(hello("r", ""))
		w.next(s)
		if err := s.Send([]byte(call(1, "x", "1"))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		began := time.Now()
		err := w.srv.Shutdown(ctx)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took < 5*time.Second || took > 8*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		if code, _ := endOf(s); code != "shutdown" {
			t.Errorf("the client was told %q", code)
		}
		time.Sleep(2 * time.Hour)
		if atWork.Load() > 0 {
			t.Error("the handler goes on")
		}
	})
}

// TestShutdownWaits for what is at work, also for requests whose answers are
// being read, and for those that have not said yet what they want.
func TestShutdownWaits(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, HelloTimeout: 4 * time.Second}, func(w *world) {
		quiet, err := wireclient.WS(w.ctx, w.http, base+"/ws", nil) // says nothing
		if err != nil {
			t.Fatal(err)
		}
		defer quiet.Close()
		synctest.Wait()
		began := time.Now()
		if err := w.srv.Shutdown(w.ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := w.srv.Shutdown(w.ctx); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

// TestRestartLosesNothing: the server is replaced under 1,000 clients on all
// carriers, while somebody publishes; the log is kept.
func TestRestartLosesNothing(t *testing.T) {
	const clients, events = 1000, 30
	o := server.Options{Authorize: allow, DrainTime: 5 * time.Second, AddressRates: server.Unlimited, MaxHandshakes: 50}
	inBubble(t, o, func(w *world) {
		begin := w.publish("r", "0").String()
		oracle := conformance.NewOracle(begin)
		var serving atomic.Pointer[http.Client]
		serving.Store(w.http)
		var seen [clients][]conformance.Seen
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() { seen[c] = w.follow(&serving, carriers[c%len(carriers)], begin, events) })
		}
		for n := range events {
			oracle.Appended(n+1, w.publish("r", fmt.Sprint(n+1)).String())
			time.Sleep(50 * time.Millisecond)
			if n != events/2 {
				continue
			}
			o.Store = w.store
			_, next := w.node(o)
			serving.Store(next)
			all.Go(func() {
				if err := w.srv.Shutdown(w.ctx); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for c := range seen {
			if v := oracle.Judge(begin, seen[c]); !v.OK() || v.Missing+v.Unreached > 0 {
				t.Errorf("client %d on %s: %v", c, carriers[c%len(carriers)].name, v)
			}
		}
	})
}

// follow reads a channel to an event, over whatever server is serving, and comes
// back when it is told to, or soon.
func (w *world) follow(serving *atomic.Pointer[http.Client], c carrier, after string, last int) (seen []conformance.Seen) {
	for len(seen) < last {
		here := *w
		here.http = serving.Load()
		wait := time.Duration(1+len(seen)%7) * 100 * time.Millisecond
		s, err := c.open(&here, "r", after)
		opened := err == nil
		if r, ok := errors.AsType[*wireclient.Refused](err); ok {
			wait += time.Duration(r.After) * time.Millisecond
		}
		for err == nil && len(seen) < last {
			var it wireclient.Item
			it, err = s.Next()
			switch {
			case it.Event:
				n, _ := strconv.Atoi(string(it.Data))
				seen, after = append(seen, conformance.Seen{N: n, Position: it.Position}), it.Position
			case it.Gap != nil:
				seen, after = append(seen, conformance.Seen{From: it.Gap.From, To: it.Gap.To}), it.Gap.To
			case it.Close != nil:
				wait, err = time.Duration(it.Close.After)*time.Millisecond, io.EOF
			}
		}
		if opened {
			s.Close()
		}
		if len(seen) < last {
			time.Sleep(wait)
		}
	}
	return seen
}
