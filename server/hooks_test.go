package server_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// notes are what hooks wrote down.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, fmt.Sprintf(format, args...))
}

func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.list
	n.list = nil
	return list
}

// TestHooks: which are called, for whom and how often.
func TestHooks(t *testing.T) {
	var n notes
	o := server.Options{
		Authorize:    allow,
		Authenticate: byHeader,
		OnConnect: func(_ context.Context, who server.Client) (server.Welcome, error) {
			n.add("connect %s %s", who.Subject, who.Transport)
			return server.Welcome{}, nil
		},
		OnSubscribe: func(_ context.Context, who server.Client, ch server.Channel) error {
			n.add("subscribe %s %s", who.Subject, ch.Name)
			return nil
		},
		OnDisconnect: func(_ context.Context, who server.Client) { n.add("disconnect %s", who.Subject) },
	}
	expect := func(t *testing.T, when string, want ...string) {
		t.Helper()
		synctest.Wait()
		if got := n.take(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, not %q", when, got, want)
		}
	}
	inBubble(t, o, func(w *world) {
		ann := w.as("ann")
		s, open := w.line(ann, "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "a"}}})
		expect(t, "a line", "connect ann ws", "subscribe ann a")
		w.line(ann, "ws", wireclient.Hello{Line: 2, Probe: true})
		expect(t, "a probe")
		w.must(carriers[0], "p", "")
		expect(t, "plain use", "subscribe  p")
		time.Sleep(3 * time.Second)
		s.Close()
		time.Sleep(10 * time.Second)
		w.line(ann, "sse", wireclient.Hello{Line: 3, Token: open.Token, Channels: []wireclient.Channel{{Channel: "a"}}})
		expect(t, "a change of carrier", "connect ann sse", "subscribe ann a")
		time.Sleep(time.Hour)
		expect(t, "an hour")
	})

	t.Run("polls", func(t *testing.T) {
		inBubble(t, o, func(w *world) {
			h := hello("r", "")
			for range 20 {
				a, err := wireclient.SessionPoll(w.ctx, w.as("bob"), base+"/poll?wait=2s", h)
				if err != nil {
					t.Fatal(err)
				}
				if a.Open.Token != "" {
					h.Token = a.Open.Token
				}
				h.Channels[0].After = a.Positions["r"]
			}
			got := n.take()
			connects := 0
			for _, line := range got {
				if line == "connect bob poll" {
					connects++
				}
			}
			if connects != 2 { // one for each 30 s
				t.Errorf("OnConnect was called %d times for 40 s of polls: %q", connects, got)
			}
			time.Sleep(time.Minute)
			expect(t, "once they stop", "disconnect bob")
		})
	})
}

// TestHooksRefuse: by their own codes, and by panics, which harm nobody else.
func TestHooksRefuse(t *testing.T) {
	own := &transport.Refusal{Reason: transport.Reason{Code: "pay_first", Class: transport.Never, Message: "the bill is open"}}
	how := map[string]func() error{
		"forbidden":   func() error { return errors.New("secret reason") },
		"pay_first":   func() error { return own },
		"unavailable": func() error { panic("oh no") },
	}
	var wrong string // the code to answer with, for the subject "bad"
	ask := func(who server.Client) error {
		if who.Subject == "bad" {
			return how[wrong]()
		}
		return nil
	}
	for code := range how {
		for _, carrier := range sessionCarriers {
			t.Run(code+" "+carrier, func(t *testing.T) {
				wrong = code
				inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader, OnConnect: func(_ context.Context, who server.Client) (server.Welcome, error) {
					return server.Welcome{}, ask(who)
				}}, func(w *world) {
					other, _ := w.line(w.as("good"), "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
					w.next(other)
					if got := w.refusedWith(carrier, "bad"); got != code {
						t.Errorf("OnConnect: refused with %q", got)
					}
					w.publish("r", "1")
					if it := w.next(other); string(it.Data) != "1" {
						t.Errorf("somebody else: %+v", it)
					}
				})
				inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader, OnSubscribe: func(_ context.Context, who server.Client, ch server.Channel) error {
					if ch.Name != "r" {
						return nil
					}
					return ask(who)
				}}, func(w *world) {
					if code == "unavailable" {
						return // of class later: the line is refused, as above
					}
					s, _ := w.line(w.as("bad"), "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}, {Channel: "other"}}})
					if it := w.next(s); it.End == nil || it.End.Code != code {
						t.Errorf("OnSubscribe: %+v", it)
					}
					if it := w.next(s); !it.Opening || it.Channel != "other" {
						t.Errorf("OnSubscribe, another channel: %+v", it)
					}
				})
			})
		}
	}
}

// TestHookThatCouldNotAsk: a function that hands on that the log or the store can't be
// asked has refused nobody for good.
func TestHookThatCouldNotAsk(t *testing.T) {
	for _, err := range []error{eventlog.ErrUnavailable, session.ErrUnavailable} {
		inBubble(t, server.Options{Authorize: allow, Authenticate: byHeader, OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
			return server.Welcome{}, fmt.Errorf("telling others: %w", err)
		}}, func(w *world) {
			for _, carrier := range sessionCarriers {
				if got := w.refusedWith(carrier, "ann"); got != "unavailable" {
					t.Errorf("%s, %v: refused with %q", carrier, err, got)
				}
			}
		})
	}
}

// refusedWith begins a line that must be refused, and returns the code.
func (w *world) refusedWith(carrier, subject string) string {
	w.Helper()
	if carrier == "ws" { // the refusal is a close frame of the line
		s, err := wireclient.WS(w.ctx, w.as(subject), base+"/ws", &wireclient.Hello{Version: 1, Line: 1})
		if err != nil {
			w.Fatal(err)
		}
		defer s.Close()
		code, _ := endOf(s)
		return code
	}
	_, _, err := w.begin(w.as(subject), carrier, wireclient.Hello{Line: 1})
	if r := refusal(err); r != nil {
		return r.Code
	}
	w.Fatalf("not refused: %v", err)
	return ""
}

// TestChannelsOfOnConnect: the client's, at every attach, without Authorize.
func TestChannelsOfOnConnect(t *testing.T) {
	for _, carrier := range sessionCarriers {
		t.Run(carrier, func(t *testing.T) {
			inBubble(t, server.Options{Authenticate: byHeader, OnConnect: func(_ context.Context, who server.Client) (server.Welcome, error) {
				return server.Welcome{Channels: []string{"$user:" + who.Subject, "$user:" + who.Subject}}, nil
			}}, func(w *world) {
				ann := w.as("ann")
				s, open := w.line(ann, carrier, wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "news"}}})
				it := w.next(s)
				if it.Channel == "news" { // a poll's positions have no order
					it = w.next(s)
				}
				if !it.Opening || it.Channel != "$user:ann" {
					t.Fatalf("P6.19: %+v", it)
				}
				w.publish("$user:ann", "1")
				// It is presented at the next attach, and named again by the hook.
				s, _ = w.line(ann, carrier, wireclient.Hello{Line: 2, Token: open.Token, Channels: []wireclient.Channel{{Channel: "$user:ann", After: it.Position}}})
				if carrier != "poll" {
					w.next(s)
				}
				if it := w.next(s); string(it.Data) != "1" {
					t.Errorf("P6.19: %+v", it)
				}
				// Nobody else may name it.
				other, _ := w.line(w.as("bob"), carrier, wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "$user:ann", After: it.Position}}})
				if it := w.next(other); it.End == nil || it.End.Code != "forbidden" {
					t.Errorf("somebody else's: %+v", it)
				}
			})
		})
	}
}

// TestServerSteers: subscribe, unsubscribe, disconnect and reauthorize reach
// clients on all nodes, by session and by subject.
func TestServerSteers(t *testing.T) {
	for _, node := range []string{"the same node", "another node"} {
		for _, carrier := range []string{"ws", "sse"} {
			t.Run(node+" "+carrier, func(t *testing.T) {
				var seen connected
				denied := ""
				o := server.Options{Authenticate: byHeader, OnConnect: seen.hook, Authorize: func(_ context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
					if ch.Name == denied {
						return errors.New("no")
					}
					return nil
				}}
				inBubble(t, o, func(w *world) {
					ctx, srv := w.ctx, w.srv
					if node == "another node" {
						srv, _ = w.node(o)
					}
					s, _ := w.line(w.as("ann"), carrier, wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "a"}}})
					other, _ := w.line(w.as("bob"), carrier, wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "a"}}})
					w.next(s)
					w.next(other)
					ann := server.Target{Subject: "ann"}
					must := func(err error) {
						t.Helper()
						if err != nil {
							t.Fatal(err)
						}
					}
					must(srv.Subscribe(ctx, ann, "b"))
					must(srv.Subscribe(ctx, ann, "b")) // once is enough
					if it := w.next(s); !it.Opening || it.Channel != "b" {
						t.Errorf("Subscribe: %+v", it)
					}
					w.publish("b", "1")
					if it := w.next(s); string(it.Data) != "1" {
						t.Errorf("Subscribe: %+v", it)
					}
					must(srv.Unsubscribe(ctx, server.Target{Session: seen.clients[0].Session}, "b"))
					if it := w.next(s); it.End == nil || it.End.Code != "removed" || it.End.Class != "never" {
						t.Errorf("Unsubscribe: %+v", it)
					}
					synctest.Wait()
					denied = "c"
					must(srv.Subscribe(ctx, ann, "c")) // gives no right
					synctest.Wait()
					denied = "a"
					must(srv.Reauthorize(ctx, ann))
					if it := w.next(s); it.End == nil || it.End.Code != "forbidden" || it.Channel != "a" {
						t.Errorf("Reauthorize: %+v", it)
					}
					must(srv.Disconnect(ctx, ann, transport.Reason{}))
					if code, err := endOf(s); code != "disconnected" {
						t.Errorf("Disconnect: %q, %v", code, err)
					}
					must(srv.Disconnect(ctx, server.Target{Session: seen.last()}, transport.Reason{Code: "moved", Class: transport.Now}))
					if code, err := endOf(other); code != "moved" {
						t.Errorf("Disconnect: %q, %v", code, err)
					}
				})
			})
		}
	}
}

// TestSteeringIsRefused tells which argument is wrong.
func TestSteeringIsRefused(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		for name, err := range map[string]error{
			"nobody":     w.srv.Disconnect(w.ctx, server.Target{Namespace: "n"}, transport.Reason{}),
			"no channel": w.srv.Subscribe(w.ctx, server.Target{Subject: "a"}, ""),
			"bad code":   w.srv.Disconnect(w.ctx, server.Target{Subject: "a"}, transport.Reason{Code: "No Code"}),
		} {
			if err == nil {
				t.Errorf("%s was let through", name)
			}
		}
	})
}

// TestDismissed: who is told not to come back is present no more, and the hook
// runs, without the grace; who may come back stays.
func TestDismissed(t *testing.T) {
	for _, test := range []struct {
		why  transport.Reason
		gone bool
	}{
		{transport.Reason{}, true},
		{transport.Refuse("kicked", "go").Reason, true},
		{transport.Reason{Code: "kicked", Message: "the zero class keeps a client out"}, true},
		{transport.Reason{Code: "moved", Class: transport.Now}, false},
		{transport.RefuseFor(time.Second, "moved", "later").Reason, false},
	} {
		var n notes
		o := server.Options{Authenticate: byHeader, Authorize: allow, OnDisconnect: func(_ context.Context, who server.Client) { n.add("%s", who.Subject) }}
		inBubble(t, o, func(w *world) {
			s, _ := w.line(w.as("ann"), "ws", wireclient.Hello{Channels: []wireclient.Channel{{Channel: "r"}}})
			time.Sleep(5 * time.Second)
			if err := w.srv.Disconnect(w.ctx, server.Target{Subject: "ann"}, test.why); err != nil {
				t.Fatal(err)
			}
			for {
				it, err := s.Next()
				if err != nil {
					t.Fatal(err)
				}
				if it.Close != nil {
					if class := it.Close.Class; (class == "never") != test.gone {
						t.Errorf("%v: told the class %s", test.why, class)
					}
					break
				}
			}
			synctest.Wait()
			members, _, err := w.srv.Present(w.ctx, server.Channel{Name: "r"})
			if hooked := n.take(); err != nil || (len(members) == 0) != test.gone || (len(hooked) == 1) != test.gone {
				t.Errorf("%v: %v are present (%v), the hook saw %v", test.why, members, err, hooked)
			}
		})
	}
}

// TestOptionsThatCannotWork are refused by name.
func TestOptionsThatCannotWork(t *testing.T) {
	rule := func(r server.Rule) server.Options {
		return server.Options{Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{"r": r}}}}
	}
	for name, o := range map[string]server.Options{
		"Heartbeat":        {Heartbeat: -1},
		"MaxChannels":      {MaxChannels: -1},
		"PresenceInterval": {PresenceInterval: 10 * time.Second},
		"Hellos":           {AddressRates: server.Rates{Hellos: server.Rate{Burst: 3}}},
		"Calls":            {IdentityRates: server.Rates{Calls: server.Rate{PerSecond: math.NaN()}}},
		"Publishes":        {AddressRates: server.Rates{Publishes: server.Rate{PerSecond: 1, Burst: -3}}},
		"TokenLifetime":    {TokenLifetime: time.Millisecond},
		"Allow":            rule(server.Rule{Allow: []server.Action{"write"}}),
		"MaxLag":           rule(server.Rule{MaxLag: -1}),
	} {
		srv, err := server.New(o)
		if err == nil {
			_ = srv.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAuthenticateThatPanics: the client may try again, and nobody else notices.
func TestAuthenticateThatPanics(t *testing.T) {
	o := server.Options{Authenticate: func(r *http.Request) (server.Identity, error) {
		if r.Header.Get(who) == "bad" {
			panic("a bug of the program")
		}
		return server.Identity{}, nil
	}}
	inBubble(t, o, func(w *world) {
		for _, carrier := range sessionCarriers {
			_, _, err := w.begin(w.as("bad"), carrier, wireclient.Hello{})
			if code := codeOf(err); code != "unavailable" {
				t.Errorf("%s: %q, %v", carrier, code, err)
			}
		}
	})
}

// TestLastIsTheLast, however large the events are.
func TestLastIsTheLast(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		for n := range 20 {
			w.publish("r", fmt.Sprintf("%d%s", n+10, strings.Repeat(" ", 20_000)))
		}
		page, err := w.srv.Last(w.ctx, server.Channel{Name: "r"}, 10)
		if err != nil || len(page.Events) != 10 || page.Next != page.Events[9].At || page.More() ||
			!strings.HasPrefix(string(page.Events[0].Data), "20 ") || !strings.HasPrefix(string(page.Events[9].Data), "29 ") {
			t.Errorf("%d events, more: %v, %v", len(page.Events), page.More(), err)
		}
	})
}

// TestDisconnectReachesPlainUse, which has no session but may have a subject.
func TestDisconnectReachesPlainUse(t *testing.T) {
	inBubble(t, server.Options{Authenticate: byHeader}, func(w *world) {
		s, err := wireclient.SSE(w.ctx, w.as("ann"), base+"/sse?channel=a", "")
		if err != nil {
			t.Fatal(err)
		}
		w.next(s)
		if err := w.srv.Disconnect(w.ctx, server.Target{Subject: "ann"}, transport.Reason{}); err != nil {
			t.Fatal(err)
		}
		if it, err := s.Next(); err == nil {
			t.Errorf("it went on: %+v", it)
		}
	})
}

// TestOrdersThatWereMissed: a node that can't know what it was told asks
// Authorize again for all.
func TestOrdersThatWereMissed(t *testing.T) {
	forgetful := func() eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 1} }})
	}
	denied := false
	o := server.Options{Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error {
		if denied {
			return errors.New("no")
		}
		return nil
	}}
	inBubbleWith(t, forgetful, o, func(w *world) {
		s := w.ws(hello("a", ""))
		w.next(s)
		synctest.Wait()
		denied = true
		order := server.Message{Type: "disconnect", Data: []byte(`{"do":"disconnect","target":{"subject":"somebody"}}`)}
		if _, err := w.srv.PublishTo(w.ctx, core.Control, order, order, order); err != nil {
			t.Fatal(err)
		}
		if it := w.next(s); it.End == nil || it.End.Code != "forbidden" {
			t.Errorf("%+v", it)
		}
	})
}

// TestGoodbye: the session is over at once, its presence too, and the hook runs
// once.
func TestGoodbye(t *testing.T) {
	for _, carrier := range sessionCarriers {
		t.Run(carrier, func(t *testing.T) {
			var n notes
			o := server.Options{Authorize: allow, OnDisconnect: func(_ context.Context, who server.Client) { n.add("%s", who.Session) }}
			inBubble(t, o, func(w *world) {
				h := hello("r", "")
				s, open := w.line(w.http, carrier, h)
				if carrier == "poll" {
					time.Sleep(time.Second)
					h.Token = open.Token
					w.line(w.http, carrier, h)
				}
				time.Sleep(2500 * time.Millisecond)
				if _, total, err := w.srv.Present(w.ctx, server.Channel{Name: "r"}); total != 1 || err != nil {
					t.Fatalf("present: %d, %v", total, err)
				}
				if ws, ok := s.(*wireclient.WSStream); ok {
					if err := ws.Send([]byte(`{"close":{}}`)); err != nil {
						t.Fatal(err)
					}
				} else if r := w.do("POST", "/up", `{"up":{"version":1,"token":"`+open.Token+`"},"close":{"line":1}}`); r.StatusCode != http.StatusOK {
					t.Errorf("P6.20: %d", r.StatusCode)
				}
				synctest.Wait()
				if got := n.take(); len(got) != 1 {
					t.Errorf("P6.20: OnDisconnect ran %d times", len(got))
				}
				if _, total, _ := w.srv.Present(w.ctx, server.Channel{Name: "r"}); total != 0 {
					t.Errorf("P10.5: %d are present", total)
				}
				time.Sleep(time.Hour)
				if got := n.take(); len(got) != 0 {
					t.Errorf("OnDisconnect ran again: %q", got)
				}
			})
		})
	}
}

// TestGiftAndQuestionMeet: the client subscribes a channel while the server
// gives it; the client's place counts.
func TestGiftAndQuestionMeet(t *testing.T) {
	var seen connected
	o := server.Options{Authorize: allow, OnConnect: func(ctx context.Context, who server.Client) (server.Welcome, error) {
		_, _ = seen.hook(ctx, who)
		return server.Welcome{Channels: []string{"a"}}, nil
	}}
	inBubble(t, o, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 1, Line: 1})
		w.next(s) // the opening of a, the gift
		at := map[string]server.Position{}
		for _, name := range []string{"a", "b"} {
			at[name] = w.publish(name, "1")
			w.publish(name, "2")
		}
		w.next(s)
		w.next(s) // what a brings
		who := server.Target{Session: seen.last()}
		if err := w.srv.Subscribe(w.ctx, who, "b"); err != nil {
			t.Fatal(err)
		}
		w.next(s)
		for _, name := range []string{"a", "b"} {
			if err := s.Send(fmt.Appendf(nil, `{"subscribe":[{"channel":%q,"after":%q}]}`, name, at[name])); err != nil {
				t.Fatal(err)
			}
			if it := w.next(s); !it.Opening || it.Channel != name || it.Position != at[name].String() {
				t.Errorf("P6.19: %s: %+v", name, it)
			}
			if it := w.next(s); string(it.Data) != "2" {
				t.Errorf("P6.19: %s: %+v", name, it)
			}
		}
		if err := s.Send([]byte(`{"subscribe":[{"channel":"a"}]}`)); err != nil {
			t.Fatal(err)
		}
		if code, err := endOf(s); code != "bad_request" {
			t.Errorf("P6.10: asked for twice: %q, %v", code, err)
		}
	})
}
