package server_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// Reauthorize must reach a client whose intake is full.
func TestReauthorizeReachesABusyClient(t *testing.T) {
	var denied atomic.Bool
	hold := make(chan struct{})
	o := server.Options{Authenticate: byHeader, AttachTimeout: time.Hour, Authorize: func(ctx context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
		if ch.Name == "slow" {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return errors.New("no")
		}
		if denied.Load() {
			return errors.New("no")
		}
		return nil
	}}
	inBubble(t, o, func(w *world) {
		hold = make(chan struct{})
		s, _ := w.line(w.as("ann"), "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "secret"}}})
		ws := s.(*wireclient.WSStream)
		w.next(s)
		send := func(f string) {
			if err := ws.Send([]byte(f)); err != nil {
				t.Fatal(err)
			}
		}
		send(`{"subscribe":[{"channel":"slow"}]}`) // the intake is at work on it
		synctest.Wait()
		for range 64 { // as many as may wait
			send(`{"unsubscribe":["nothing"]}`)
		}
		synctest.Wait()
		denied.Store(true)
		if err := w.srv.Reauthorize(w.ctx, server.Target{Subject: "ann"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(hold)
		time.Sleep(time.Minute)
		w.publish("secret", `"after the right was taken"`)
		for {
			it, err := s.Next()
			if err != nil {
				return // cut off: fine
			}
			if it.End != nil && it.Channel == "secret" {
				return // fine
			}
			if it.Event {
				t.Fatalf("the right was taken and Reauthorize said so, and yet: %s", it.Data)
			}
		}
	})
}

// one channel's own "later" must not refuse the others of a hello (P6.9).
func TestLaterOfOneChannel(t *testing.T) {
	for _, carrier := range sessionCarriers {
		t.Run(carrier, func(t *testing.T) {
			o := server.Options{Authorize: func(_ context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
				if ch.Name == "full" {
					return transport.RefuseFor(5*time.Second, "room_full", "come back")
				}
				return nil
			}}
			inBubble(t, o, func(w *world) {
				s, _, err := w.begin(w.http, carrier, wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "a"}, {Channel: "full"}}})
				if err != nil {
					t.Fatalf("P6.9: the line is refused: %v", err)
				}
				defer s.Close()
				ends := 0
				for range 2 {
					if it := w.next(s); it.End != nil && it.Channel == "full" {
						ends++
					} else if it.Close != nil {
						t.Fatalf("P6.9: the line is refused: %+v", it.Close)
					}
				}
				if ends != 1 {
					t.Error("P6.9: no end")
				}
			})
		})
	}
}

// an error of From refuses the channel as Authorize's does: forbidden.
func TestErrorOfFrom(t *testing.T) {
	o := server.Options{Authorize: allow, Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{
		"r": {From: func(context.Context, server.Identity, server.Channel) (time.Time, error) {
			return time.Time{}, errors.New("never was a member")
		}},
	}}}}
	inBubble(t, o, func(w *world) {
		s, _, err := w.begin(w.http, "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "a"}, {Channel: "r"}}})
		if err != nil {
			t.Fatalf("the line: %v", err)
		}
		w.next(s)
		if it := w.next(s); it.End == nil || it.End.Code != "forbidden" {
			t.Errorf("%+v", it)
		}
	})
}

// more names in one frame than a line may have (P6.14).
func TestTooManyNames(t *testing.T) {
	inBubble(t, server.Options{MaxChannels: 2}, func(w *world) {
		s := w.ws(hello("r", ""))
		if err := s.Send([]byte(`{"unsubscribe":["a","b","c"]}`)); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, s.Close)
		if code, err := endOf(s); code != "too_many_channels" {
			t.Errorf("P6.14: %q %v", code, err)
		}
	})
}

// who was disconnected and whom OnConnect refuses now stays out, also by polls.
func TestDisconnectedPollerStaysOut(t *testing.T) {
	var banned atomic.Bool
	o := server.Options{Authorize: allow, Authenticate: byHeader, OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
		if banned.Load() {
			return server.Welcome{}, errors.New("banned")
		}
		return server.Welcome{}, nil
	}}
	inBubble(t, o, func(w *world) {
		h := hello("r", "")
		a, err := wireclient.SessionPoll(w.ctx, w.as("ann"), base+"/poll?wait=0", h)
		if err != nil {
			t.Fatal(err)
		}
		h.Token, h.Channels[0].After = a.Open.Token, a.Positions["r"]
		polled := make(chan *wireclient.Answer, 1)
		go func() {
			a, _ := wireclient.SessionPoll(w.ctx, w.as("ann"), base+"/poll?wait=25s", h)
			polled <- a
		}()
		synctest.Wait()
		banned.Store(true)
		if err := w.srv.Disconnect(w.ctx, server.Target{Subject: "ann"}, transport.Reason{}); err != nil {
			t.Fatal(err)
		}
		if a := <-polled; a == nil {
			t.Errorf("the poll: %+v", a)
		}
		began := time.Now()
		for time.Since(began) < time.Minute {
			a, err := wireclient.SessionPoll(w.ctx, w.as("ann"), base+"/poll?wait=0", h)
			if err != nil {
				if d := time.Since(began); d > 0 {
					t.Errorf("it was let in for %v more", d)
				}
				return
			}
			_ = a
			time.Sleep(time.Second)
		}
		t.Error("never refused")
	})
}

// TestPause: a paused channel is acknowledged, sends nothing, stays the client's,
// and goes on from where the client says (P6.18).
func TestPause(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "a"}, {Channel: "b"}, {Channel: "c", Paused: true}}})
		send := func(frame string) {
			t.Helper()
			if err := s.Send([]byte(frame)); err != nil {
				t.Fatal(err)
			}
		}
		end := func(channel, code string) {
			t.Helper()
			if it := w.next(s); it.Channel != channel || it.End == nil || it.End.Code != code || it.End.Class != "now" {
				t.Fatalf("P6.18: %+v, not the end %s of %s", it, code, channel)
			}
		}
		w.next(s)
		w.next(s)
		end("c", "paused") // in place of an opening
		at := w.publish("a", "1")
		w.next(s)
		send(`{"pause":["a"]}`)
		end("a", "paused")
		w.publish("a", "2")
		w.publish("c", "2")
		synctest.Wait()
		w.publish("b", "3")
		if it := w.next(s); it.Channel != "b" {
			t.Errorf("P6.18: of a paused channel came %+v", it)
		}
		send(`{"subscribe":[{"channel":"a","after":"` + at.String() + `"}]}`)
		if it := w.next(s); !it.Opening || it.Position != at.String() {
			t.Errorf("P6.18: %+v", it)
		}
		if it := w.next(s); string(it.Data) != "2" {
			t.Errorf("P6.18: %+v", it)
		}
		send(`{"unsubscribe":["c"]}`)
		end("c", "unsubscribed")
	})
}

// TestTakenAwayIsNotGranted: what OnConnect gave and Unsubscribe took needs the
// right when the client asks for it again.
func TestTakenAwayIsNotGranted(t *testing.T) {
	o := server.Options{Authenticate: byHeader, OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
		return server.Welcome{Channels: []string{"$x"}}, nil
	}}
	inBubble(t, o, func(w *world) {
		s, _ := w.line(w.as("ann"), "ws", wireclient.Hello{Line: 1})
		w.next(s)
		if err := w.srv.Unsubscribe(w.ctx, server.Target{Subject: "ann"}, "$x"); err != nil {
			t.Fatal(err)
		}
		w.next(s)
		if err := s.(*wireclient.WSStream).Send([]byte(`{"subscribe":[{"channel":"$x"}]}`)); err != nil {
			t.Fatal(err)
		}
		if it := w.next(s); it.End == nil || it.End.Code != "forbidden" {
			t.Errorf("%+v", it)
		}
	})
}

// TestUnreadAnswersAreBounded: who calls and reads nothing is told so.
func TestUnreadAnswersAreBounded(t *testing.T) {
	big := make([]byte, 300<<10)
	o := server.Options{Authorize: allow, MaxChannels: 2, MaxCalls: 2, OnCall: func(context.Context, server.Request) (server.Payload, error) {
		return server.Payload{Kind: server.Binary, Data: big}, nil
	}}
	inBubble(t, o, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 1, Line: 1})
		for range 50 { // the window is full with the first of them
			if s.Send([]byte(`{"call":{"id":1,"name":"x","data":1}}`)) != nil {
				break
			}
			synctest.Wait()
		}
		if code, err := endOf(s); code != "bad_request" {
			t.Errorf("P6.14: %q, %v", code, err)
		}
	})
}

// TestFramesThatWaitAreBounded: 64 may wait to be worked on, one more is the end
// of the line, for a while (P6.14).
func TestFramesThatWaitAreBounded(t *testing.T) {
	o := server.Options{AttachTimeout: time.Hour, Authorize: func(ctx context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
		if ch.Name == "slow" {
			<-ctx.Done()
			return errors.New("no")
		}
		return nil
	}}
	inBubble(t, o, func(w *world) {
		s := w.ws(hello("r", ""))
		if err := s.Send([]byte(`{"subscribe":[{"channel":"slow"}]}`)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the intake is at work on it
		for range 65 {
			if err := s.Send([]byte(`{"unsubscribe":["nothing"]}`)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.AfterFunc(time.Minute, s.Close)
		if code, err := endOf(s); code != "busy" {
			t.Errorf("P6.14: %q, %v", code, err)
		}
	})
}

// deafLog can't say where the orders are, for a while.
type deafLog struct {
	eventlog.Log
	deaf *atomic.Bool
}

func (l deafLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if ch == core.Control && l.deaf.Load() {
		return eventlog.Position{}, eventlog.ErrUnavailable
	}
	return l.Log.Seek(ctx, ch, s)
}

// TestOrdersBeforeTheLogAnswered: a node that could not follow from its start
// takes what it did not hear for missed.
func TestOrdersBeforeTheLogAnswered(t *testing.T) {
	var deaf, denied atomic.Bool
	deaf.Store(true)
	o := server.Options{Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error {
		if denied.Load() {
			return errors.New("no")
		}
		return nil
	}}
	inBubbleWith(t, func() eventlog.Log { return deafLog{eventlog.NewMemory(eventlog.MemoryOptions{}), &deaf} }, o, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "a"}}})
		w.next(s)
		denied.Store(true) // and another node's order says so
		deaf.Store(false)
		time.AfterFunc(time.Minute, s.Close)
		if it := w.next(s); it.End == nil || it.End.Code != "forbidden" {
			t.Errorf("%+v", it)
		}
	})
}

// TestOrdersStayInTheirNamespace: two tenants may have a subject of one name.
func TestOrdersStayInTheirNamespace(t *testing.T) {
	o := server.Options{Authorize: allow, Authenticate: func(r *http.Request) (server.Identity, error) {
		return server.Identity{Namespace: r.Header.Get(who), Subject: "ann"}, nil
	}}
	inBubble(t, o, func(w *world) {
		other, _ := w.line(w.as("two"), "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "a"}}})
		w.next(other)
		one := server.Target{Namespace: "one", Subject: "ann"}
		for _, err := range []error{
			w.srv.Subscribe(w.ctx, one, "b"), w.srv.Unsubscribe(w.ctx, one, "a"), w.srv.Disconnect(w.ctx, one, transport.Reason{}),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if _, err := w.srv.PublishTo(w.ctx, server.Channel{Namespace: "two", Name: "a"}, server.Message{Data: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		if it := w.next(other); string(it.Data) != "1" {
			t.Errorf("S6: %+v", it)
		}
	})
}
