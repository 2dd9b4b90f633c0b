package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// TestLateGoodbye: one of a lower line says nothing of the session (P6.20).
func TestLateGoodbye(t *testing.T) {
	var ended atomic.Int32
	o := server.Options{OnDisconnect: func(context.Context, server.Client) { ended.Add(1) }}
	inBubble(t, o, func(w *world) {
		_, open := w.line(w.http, "sse", wireclient.Hello{Line: 1})
		h := hello("r", "")
		h.Line, h.Token = 2, open.Token
		s, _ := w.line(w.http, "sse", h)
		w.next(s)
		time.Sleep(3 * time.Second)
		w.do("POST", "/up", `{"up":{"version":1,"token":"`+open.Token+`"},"close":{"line":1}}`)
		synctest.Wait()
		w.publish("r", "1")
		if it := w.next(s); string(it.Data) != "1" {
			t.Errorf("P6.20: %+v", it)
		}
		if _, n, _ := w.srv.Present(w.ctx, server.Channel{Name: "r"}); n != 1 || ended.Load() > 0 {
			t.Errorf("P6.20: %d are present, OnDisconnect ran %d times", n, ended.Load())
		}
	})
}

// TestPollsMoveToAnotherNode: one line of polls, at another node from now on,
// is no end of its session: somebody renews its lease.
func TestPollsMoveToAnotherNode(t *testing.T) {
	var ended atomic.Int32
	o := server.Options{Authorize: allow, OnDisconnect: func(context.Context, server.Client) { ended.Add(1) }}
	inBubble(t, o, func(w *world) {
		o.Store = w.store
		_, other := w.node(o)
		h := hello("r", "")
		poll := func(hc *http.Client) {
			t.Helper()
			a, err := wireclient.SessionPoll(w.ctx, hc, base+"/poll?wait=1s", h)
			if err != nil {
				t.Fatal(err)
			}
			if a.Open.Token != "" {
				h.Token = a.Open.Token
			}
			h.Channels[0].After = a.Positions["r"]
		}
		for range 10 {
			poll(w.http)
		}
		for range 60 {
			poll(other)
			if _, n, _ := w.srv.Present(w.ctx, server.Channel{Name: "r"}); n != 1 {
				t.Errorf("P10.5: %d are present", n)
			}
		}
		if n := ended.Load(); n > 0 {
			t.Errorf("OnDisconnect ran %d times", n)
		}
	})
}

// TestPollsThatDoNotWaitArePresent, though hardly any time has a line of theirs.
func TestPollsThatDoNotWaitArePresent(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		h := hello("r", "")
		for i := range 60 {
			a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=0", h)
			if err != nil {
				t.Fatal(err)
			}
			if a.Open.Token != "" {
				h.Token = a.Open.Token
			}
			h.Channels[0].After = a.Positions["r"]
			time.Sleep(2 * time.Second)
			if _, n, _ := w.srv.Present(w.ctx, server.Channel{Name: "r"}); i > 5 && n != 1 {
				t.Fatalf("P10.5: after %d polls %d are present", i, n)
			}
		}
	})
}

// TestGoodbyeEndsTheConnection, whoever of the two closes it first (P6.20).
func TestGoodbyeEndsTheConnection(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 1, Line: 1})
		if err := s.Send([]byte(`{"close":{}}`)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.AfterFunc(time.Minute, s.Close)
		for _, err := s.Next(); err == nil; _, err = s.Next() {
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("P6.20: open for %v more", d)
		}
	})
}

// What OnConnect says anew of a line of polls is what others see.
func TestInfoOfAPollerIsRenewed(t *testing.T) {
	n := 0
	o := server.Options{Authorize: allow, OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
		n++
		return server.Welcome{Info: json.RawMessage(fmt.Sprint(n))}, nil
	}}
	inBubble(t, o, func(w *world) {
		h := hello("r", "")
		for range 60 {
			a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=2s", h)
			if err != nil {
				t.Fatal(err)
			}
			if a.Open.Token != "" {
				h.Token = a.Open.Token
			}
			h.Channels[0].After = a.Positions["r"]
		}
		m, _, _ := w.srv.Present(w.ctx, server.Channel{Name: "r"})
		if len(m) != 1 || string(m[0].Info) == "1" {
			t.Errorf("OnConnect was asked %d times, others see %s", n, m[0].Info)
		}
	})
}

// A poll that asks for presence, and not to wait, is answered without it, even
// by the store in memory: nobody else watches, so each poll makes a roster anew.
func TestPollWithoutWaitIsToldPresence(t *testing.T) {
	for _, takes := range []time.Duration{0, 5 * time.Millisecond} {
		o := server.Options{Authorize: allow, Store: lazyStore{takes}}
		inBubble(t, o, func(w *world) {
			h := wireclient.Hello{Version: 1, Line: 1, Presence: []wireclient.Watch{{Channel: "r"}}, Channels: []wireclient.Channel{{Channel: "a"}}}
			told := 0
			for range 50 {
				a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=0", h)
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range a.Items {
					if it.Presence != nil {
						told++
					}
				}
				time.Sleep(time.Second)
			}
			if told < 50 {
				t.Errorf("P10.2: a Store that takes %v: %d of 50 polls were told", takes, told)
			}
		})
	}
}

// presence over polls of a busy channel, with a Store that takes 5 ms.
func TestPresenceOverBusyPolls(t *testing.T) {
	synctestStore(t, 5*time.Millisecond, func(w *world) {
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.publish("busy", "1")
					time.Sleep(3 * time.Millisecond)
				}
			}
		}()
		h := wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "busy"}}, Presence: []wireclient.Watch{{Channel: "r"}}}
		told, polls := 0, 0
		began := time.Now()
		for told == 0 && time.Since(began) < 5*time.Minute {
			a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=25s", h)
			if err != nil {
				t.Fatal(err)
			}
			polls++
			if a.Open.Token != "" {
				h.Token = a.Open.Token
			}
			h.Channels[0].After = a.Positions["busy"]
			for _, it := range a.Items {
				if it.Presence != nil {
					told++
				}
			}
			time.Sleep(20 * time.Millisecond) // the way there and back
		}
		close(stop)
		time.Sleep(time.Second)
		if told == 0 {
			t.Errorf("P10.2: no snapshot in %d polls and %v", polls, time.Since(began))
		}
	})
}

func synctestStore(t *testing.T, present time.Duration, body func(*world)) {
	o := server.Options{Authorize: allow}
	o.Store = lazyStore{present}
	inBubble(t, o, body)
}

// lazyStore is a store that nobody is in, and that takes its time to say so.
type lazyStore struct{ takes time.Duration }

func (s lazyStore) Secret(context.Context) ([]byte, error) { return make([]byte, 32), nil }

func (s lazyStore) Claim(context.Context, session.Held, session.Lease) error { return nil }

func (s lazyStore) Touch(context.Context, []session.Held) ([]session.Held, error) { return nil, nil }

func (s lazyStore) Release(context.Context, session.Held, time.Duration) (bool, error) {
	return false, nil
}

func (s lazyStore) Present(context.Context, eventlog.Channel, int) ([]session.Member, int, error) {
	time.Sleep(s.takes)
	return nil, 0, nil
}

func (s lazyStore) Close() error { return nil }

// those who are present stay so while many others come, with a Store that
// takes 20 ms for a claim.
func TestManyClaimsDoNotHoldUpRenewals(t *testing.T) {
	o := server.Options{Authorize: allow, Authenticate: byHeader}
	o.Store = nil
	inner := &lateStore{}
	o.Store = inner
	inBubble(t, o, func(w *world) {
		inner.Store = w.store
		first, _ := w.line(w.as("first"), "sse", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
		defer first.Close()
		time.Sleep(10 * time.Second)
		if _, n, _ := w.store.Present(w.ctx, server.Channel{Name: "r"}, 0); n != 1 {
			t.Fatal("not present")
		}
		inner.claim = 50 * time.Millisecond
		for range 600 { // 30 s of claims
			s, _ := w.line(w.http, "sse", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "other"}}})
			defer s.Close()
		}
		for range 40 {
			time.Sleep(time.Second)
			if _, n, _ := w.store.Present(w.ctx, server.Channel{Name: "r"}, 0); n != 1 {
				t.Fatalf("P10.5: a session with a living line is not present")
			}
		}
	})
}

type lateStore struct {
	session.Store
	claim    time.Duration
	failures atomic.Int32
}

func (s *lateStore) Claim(ctx context.Context, h session.Held, l session.Lease) error {
	time.Sleep(s.claim)
	return s.Store.Claim(ctx, h, l)
}

func (s *lateStore) Release(ctx context.Context, h session.Held, idle time.Duration) (bool, error) {
	if s.failures.Add(-1) >= 0 {
		return false, session.ErrUnavailable
	}
	return s.Store.Release(ctx, h, idle)
}

// the Store fails once, when a goodbye is told to it.
func TestGoodbyeSurvivesOneFailureOfTheStore(t *testing.T) {
	inner := &lateStore{}
	var ended atomic.Int32
	o := server.Options{Authorize: allow, Store: inner, OnDisconnect: func(context.Context, server.Client) { ended.Add(1) }}
	inBubble(t, o, func(w *world) {
		inner.Store = w.store
		s := w.ws(hello("r", ""))
		time.Sleep(5 * time.Second)
		inner.failures.Store(1)
		if err := s.Send([]byte(`{"close":{}}`)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := ended.Load(); n != 1 {
			t.Errorf("OnDisconnect ran %d times", n)
		}
	})
}

// one impatient client while the keys are fetched.
func TestKeysSurviveAnImpatientClient(t *testing.T) {
	o := server.Options{Authorize: allow, Store: secretStore{lazyStore{}, time.Second}}
	inBubble(t, o, func(w *world) {
		ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
		go func() { _, _ = wireclient.SSESession(ctx, w.http, base+"/sse", hello("r", "")) }()
		time.Sleep(400 * time.Millisecond)
		cancel()
		_, open := w.line(w.http, "sse", hello("r", ""))
		if open.Token == "" {
			t.Error("P6.16: no token, though the Store works")
		}
	})
}

type secretStore struct {
	lazyStore
	takes time.Duration
}

func (s secretStore) Secret(ctx context.Context) ([]byte, error) {
	if !sleep(ctx, s.takes) {
		return nil, ctx.Err()
	}
	return make([]byte, 32), nil
}

// a client that comes back at another node within the grace has not left.
func TestBackAtAnotherNodeWithinTheGrace(t *testing.T) {
	bad := 0
	for step := range 20 {
		away := 10*time.Second + time.Duration(step)*250*time.Millisecond // of 15 s
		var ended atomic.Int32
		o := server.Options{Authorize: allow, Authenticate: byHeader, OnDisconnect: func(context.Context, server.Client) { ended.Add(1) }}
		inBubble(t, o, func(w *world) {
			o.Store = w.store
			_, b := w.node(o)
			channels := []wireclient.Channel{{Channel: "r"}}
			ann, open := w.line(w.as("ann"), "sse", wireclient.Hello{Line: 1, Channels: channels})
			time.Sleep(9900 * time.Millisecond)
			ann.Close()
			time.Sleep(away)
			hb := &http.Client{Transport: withHeader{b.Transport, "ann"}}
			s, _ := w.line(hb, "sse", wireclient.Hello{Line: 2, Token: open.Token, Channels: channels})
			time.Sleep(time.Minute)
			if n := ended.Load(); n > 0 {
				t.Logf("away for %v of 15 s: OnDisconnect ran %d times though a line lives", away, n)
				bad++
			}
			s.Close()
		})
	}
	if bad > 0 {
		t.Errorf("P10.5: %d of 20", bad)
	}
}
