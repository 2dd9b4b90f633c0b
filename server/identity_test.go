package server_test

import (
	"context"
	"errors"
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

// who is the header by which the tests of sessions log in.
const who = "X-Subject"

func byHeader(r *http.Request) (server.Identity, error) {
	return server.Identity{Subject: r.Header.Get(who)}, nil
}

// as is a client that sends its subject with each request.
func (w *world) as(subject string) *http.Client {
	return &http.Client{Transport: withHeader{w.http.Transport, subject}}
}

type withHeader struct {
	next    http.RoundTripper
	subject string
}

func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(who, h.subject)
	return h.next.RoundTrip(r)
}

// sessions are the ways to begin a line of a session; open fails the test if
// the line is refused.
var sessionCarriers = []string{"ws", "sse", "poll"}

// begin opens a line and returns it with what opened it.
func (w *world) begin(hc *http.Client, carrier string, h wireclient.Hello) (wireclient.Stream, *wireclient.Open, error) {
	w.Helper()
	if h.Version == 0 {
		h.Version = 1
	}
	var s wireclient.Stream
	var err error
	switch carrier {
	case "ws":
		s, err = wireclient.WS(w.ctx, hc, base+"/ws", &h)
	case "sse":
		s, err = wireclient.SSESession(w.ctx, hc, base+"/sse", h)
	case "poll":
		a, err := wireclient.SessionPoll(w.ctx, hc, base+"/poll?wait=0", h)
		if err != nil {
			return nil, nil, err
		}
		return a, a.Open, nil
	}
	if err != nil {
		return nil, nil, err
	}
	w.Cleanup(s.Close)
	it, err := s.Next()
	if err != nil {
		return nil, nil, err
	}
	if it.Close != nil { // a WebSocket is refused by a frame
		return nil, nil, &wireclient.Refused{Reason: *it.Close}
	}
	if it.Open == nil {
		return nil, nil, fmt.Errorf("began with %+v", it)
	}
	return s, it.Open, nil
}

// line is begin for a line that must begin.
func (w *world) line(hc *http.Client, carrier string, h wireclient.Hello) (wireclient.Stream, *wireclient.Open) {
	w.Helper()
	s, open, err := w.begin(hc, carrier, h)
	if err != nil {
		w.Fatalf("%s: %v", carrier, err)
	}
	return s, open
}

// endOf reads a stream to its goodbye.
func endOf(s wireclient.Stream) (string, error) {
	for {
		it, err := s.Next()
		if err != nil {
			return "", err
		}
		if it.Close != nil {
			return it.Close.Code, nil
		}
	}
}

// connected notes who OnConnect was asked about, in order.
type connected struct{ clients []server.Client }

func (c *connected) hook(_ context.Context, who server.Client) (server.Welcome, error) {
	c.clients = append(c.clients, who)
	return server.Welcome{}, nil
}

func (c *connected) last() string { return c.clients[len(c.clients)-1].Session }

// TestSessionGoesOn: the token of one line continues the session on any other.
func TestSessionGoesOn(t *testing.T) {
	for _, from := range sessionCarriers {
		for _, to := range sessionCarriers {
			t.Run(from+" to "+to, func(t *testing.T) {
				var seen connected
				inBubble(t, server.Options{Authenticate: byHeader, OnConnect: seen.hook}, func(w *world) {
					ann := w.as("ann")
					_, open := w.line(ann, from, wireclient.Hello{Line: 1})
					if open.Token == "" || open.Limit != 64<<10 || open.Remembered != 600_000 {
						t.Errorf("P6.3: %+v", open)
					}
					_, again := w.line(ann, to, wireclient.Hello{Line: 2, Token: open.Token})
					if again.Token != "" {
						t.Errorf("P6.3: a token that is good was replaced")
					}
					if len(seen.clients) != 2 || seen.clients[0].Session != seen.last() || seen.last() == "" || seen.clients[0].Subject != "ann" {
						t.Errorf("P6.16: %+v", seen.clients)
					}
				})
			})
		}
	}
}

// TestTokenThatDoesNotVerify: a new session from the hello's positions, and
// nobody refused.
func TestTokenThatDoesNotVerify(t *testing.T) {
	keys := func(id string) []server.Key {
		return []server.Key{{ID: id, Secret: []byte("0123456789abcdef0123456789abcdef")}}
	}
	for name, take := range map[string]func(w *world, good string) (hc *http.Client, token string){
		"stolen":    func(w *world, good string) (*http.Client, string) { return w.as("mallory"), good },
		"anonymous": func(w *world, good string) (*http.Client, string) { return w.http, good },
		"forged":    func(w *world, good string) (*http.Client, string) { return w.as("ann"), good[:len(good)-2] + "AA" },
		"older":     func(w *world, good string) (*http.Client, string) { return w.as("ann"), "Z" + good[1:] },
		"newer":     func(w *world, good string) (*http.Client, string) { return w.as("ann"), "b" + good[1:] },
		"no token":  func(w *world, _ string) (*http.Client, string) { return w.as("ann"), "rubbish" },
		"expired": func(w *world, good string) (*http.Client, string) {
			time.Sleep(2 * time.Hour)
			return w.as("ann"), good
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen connected
			inBubble(t, server.Options{Authenticate: byHeader, Authorize: allow, OnConnect: seen.hook, Keys: keys("one"), TokenLifetime: time.Hour}, func(w *world) {
				mine, open := w.line(w.as("ann"), "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
				at := w.next(mine).Position
				first := seen.last()
				w.publish("r", "1")
				w.next(mine)
				hc, token := take(w, open.Token)
				s, again := w.line(hc, "sse", wireclient.Hello{Line: 9, Token: token, Channels: []wireclient.Channel{{Channel: "r", After: at}}})
				if again.Token == "" || seen.last() == first {
					t.Errorf("P6.16: it went on as the session %q, with token %q", seen.last(), again.Token)
				}
				if it := w.next(s); !it.Opening || it.Position != at {
					t.Errorf("P6.16: not from its position: %+v", it)
				}
				if it := w.next(s); !it.Event || string(it.Data) != "1" {
					t.Errorf("P6.16: %+v", it)
				}
				// The owner's line was neither opened nor ended.
				w.publish("r", "2")
				if it := w.next(mine); !it.Event || string(it.Data) != "2" {
					t.Errorf("P6.16: the owner's line: %+v", it)
				}
			})
		})
	}
}

// TestRestartWithAnotherSecret: all sessions begin anew, from where they were.
func TestRestartWithAnotherSecret(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		s, open := w.line(w.http, "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
		at := w.next(s).Position
		w.publish("r", "1")
		for _, restart := range []struct {
			store session.Store
			goes  bool
		}{{nil, false}, {w.store, true}} {
			srv := w.restart(server.Options{Authorize: allow, Store: restart.store})
			r, again := w.line(srv, "sse", wireclient.Hello{Line: 2, Token: open.Token, Channels: []wireclient.Channel{{Channel: "r", After: at}}})
			if (again.Token == "") != restart.goes {
				t.Errorf("with the same store %v: the token was replaced by %q", restart.goes, again.Token)
			}
			w.next(r)
			if it := w.next(r); string(it.Data) != "1" {
				t.Errorf("%+v", it)
			}
		}
	})
}

// TestTokensAreRenewed: by age, and by keys that were rotated.
func TestTokensAreRenewed(t *testing.T) {
	var seen connected
	secret := func(c byte) []byte { return []byte("0123456789abcdef0123456789abcde" + string(c)) }
	o := server.Options{Keys: []server.Key{{ID: "one", Secret: secret('1')}}, TokenLifetime: time.Hour, OnConnect: seen.hook}
	inBubble(t, o, func(w *world) {
		_, open := w.line(w.http, "poll", wireclient.Hello{Line: 1})
		time.Sleep(29 * time.Minute)
		if _, again := w.line(w.http, "poll", wireclient.Hello{Line: 2, Token: open.Token}); again.Token != "" {
			t.Error("a token was renewed before half of its time")
		}
		time.Sleep(2 * time.Minute)
		_, renewed := w.line(w.http, "poll", wireclient.Hello{Line: 3, Token: open.Token})
		if renewed.Token == "" || seen.last() != seen.clients[0].Session {
			t.Errorf("a token was not renewed: %+v", renewed)
		}
		o.Keys = []server.Key{{ID: "two", Secret: secret('2')}, o.Keys[0]}
		srv := w.restart(o)
		_, rotated := w.line(srv, "poll", wireclient.Hello{Line: 4, Token: renewed.Token})
		if seen.last() != seen.clients[0].Session || rotated.Token != "" {
			t.Errorf("the old key does not verify any more: %+v", rotated)
		}
		o.Keys = o.Keys[:1]
		srv = w.restart(o)
		if w.line(srv, "poll", wireclient.Hello{Line: 5, Token: renewed.Token}); seen.last() == seen.clients[0].Session {
			t.Error("a key that is gone still verifies")
		}
	})
}

// TestHigherLineEndsLower: one line feeds, and the one before is told.
func TestHigherLineEndsLower(t *testing.T) {
	for _, below := range []string{"ws", "sse"} {
		for _, above := range sessionCarriers {
			for _, number := range []uint64{5, 6} {
				t.Run(fmt.Sprint(below, " by ", above, " ", number), func(t *testing.T) {
					inBubble(t, server.Options{}, func(w *world) {
						old, open := w.line(w.http, below, wireclient.Hello{Line: 5})
						w.line(w.http, above, wireclient.Hello{Line: number, Token: open.Token})
						if code, err := endOf(old); code != "superseded" {
							t.Errorf("P6.17: ended with %q, %v", code, err)
						}
						_, _, err := w.begin(w.http, "poll", wireclient.Hello{Line: 4, Token: open.Token})
						if r := refusal(err); r == nil || r.Code != "superseded" || r.Class != "now" {
							t.Errorf("P6.17: a lower line that came late: %v", err)
						}
					})
				})
			}
		}
	}
}

func refusal(err error) *wireclient.Refused {
	var r *wireclient.Refused
	errors.As(err, &r)
	return r
}

// TestPollEndsItsPrevious: it answers with the positions it presented, so that
// it doesn't matter which of the answers arrives.
func TestPollEndsItsPrevious(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		first, _ := wireclient.SessionPoll(w.ctx, w.http, base+"/poll", hello("r", ""))
		h := hello("r", first.Positions["r"])
		h.Token = first.Open.Token
		answers := make(chan *wireclient.Answer, 2)
		for range 2 {
			go func() {
				a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=30s", h)
				if err != nil {
					t.Error(err)
				}
				answers <- a
			}()
			synctest.Wait()
		}
		began := time.Now()
		a := <-answers
		if a == nil || a.Goodbye == nil || a.Goodbye.Code != "superseded" || len(a.Items) != 0 || a.Positions["r"] != h.Channels[0].After {
			t.Errorf("P6.17: %+v", a)
		}
		if time.Since(began) != 0 {
			t.Errorf("it was ended after %v", time.Since(began))
		}
		w.publish("r", "1")
		if a := <-answers; a == nil || len(a.Items) != 1 {
			t.Errorf("the one that follows: %+v", a)
		}
	})
}

// TestLostHello: a line whose open never arrived leaves a session behind that
// nobody continues. It is forgotten, and nothing else is.
func TestLostHello(t *testing.T) {
	var gone atomic.Int32
	o := server.Options{Authorize: allow, OnDisconnect: func(context.Context, server.Client) { gone.Add(1) }}
	inBubble(t, o, func(w *world) {
		at := w.publish("r", "1")
		h := hello("r", at.String())
		for range 3 { // the client never hears of these
			ctx, cancel := context.WithCancel(w.ctx)
			s, err := wireclient.SSESession(ctx, w.http, base+"/sse", h)
			if err != nil {
				t.Fatal(err)
			}
			w.publish("r", `"lost"`)
			s.Close()
			cancel()
			synctest.Wait()
		}
		s, _ := w.line(w.http, "sse", h)
		w.next(s)
		for range 3 {
			if it := w.next(s); string(it.Data) != `"lost"` {
				t.Errorf("%+v", it)
			}
		}
		time.Sleep(time.Minute)
		if n := gone.Load(); n != 0 {
			t.Errorf("%d sessions that never lived 2 s had a disconnect", n)
		}
		if members, _, _ := w.srv.Present(w.ctx, server.Channel{Name: "r"}); len(members) != 1 {
			t.Errorf("present: %+v", members)
		}
	})
}

// TestTwoProgramsOneToken: each gets superseded, and goes on as a session of
// its own. Neither misses anything.
func TestTwoProgramsOneToken(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		_, open := w.line(w.http, "poll", wireclient.Hello{Line: 1})
		a, _ := w.line(w.http, "ws", wireclient.Hello{Line: 2, Token: open.Token, Channels: []wireclient.Channel{{Channel: "r"}}})
		at := w.next(a).Position
		b, _ := w.line(w.http, "ws", wireclient.Hello{Line: 3, Token: open.Token, Channels: []wireclient.Channel{{Channel: "r"}}})
		w.next(b)
		if code, err := endOf(a); code != "superseded" {
			t.Fatalf("%q, %v", code, err)
		}
		w.publish("r", "1")
		// The first holds no higher line: it goes on without the token.
		a, again := w.line(w.http, "ws", wireclient.Hello{Line: 3, Channels: []wireclient.Channel{{Channel: "r", After: at}}})
		if again.Token == "" {
			t.Error("no token")
		}
		w.next(a)
		for _, s := range []wireclient.Stream{a, b} {
			if it := w.next(s); string(it.Data) != "1" {
				t.Errorf("%+v", it)
			}
		}
		w.publish("r", "2")
		for _, s := range []wireclient.Stream{a, b} {
			if it := w.next(s); string(it.Data) != "2" {
				t.Errorf("%+v", it)
			}
		}
	})
}

// TestIdentitiesThatCannotBe: the library's own namespaces are nobody's.
func TestIdentitiesThatCannotBe(t *testing.T) {
	for _, id := range []server.Identity{{Namespace: "$throughline"}, {Subject: "a\nb"}, {Namespace: "\xff"}} {
		o := server.Options{Authorize: allow, Authenticate: func(*http.Request) (server.Identity, error) { return id, nil }}
		inBubble(t, o, func(w *world) {
			if r := w.do("GET", "/poll?channel=control", ""); r.StatusCode != http.StatusUnauthorized {
				t.Errorf("%+v: %d", id, r.StatusCode)
			}
		})
	}
}

// TestStoreThatFails: hellos are answered all the same, without a token.
func TestStoreThatFails(t *testing.T) {
	store := &failingStore{}
	inBubble(t, server.Options{Authorize: allow, Store: store, RetryDelay: time.Second}, func(w *world) {
		store.Store = w.store
		store.down.Store(true)
		s, open := w.line(w.http, "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
		if open.Token != "" {
			t.Error("a token that nobody could have signed")
		}
		w.next(s)
		time.Sleep(time.Minute)
		w.publish("r", "1")
		if it := w.next(s); string(it.Data) != "1" {
			t.Errorf("%+v", it)
		}
		store.down.Store(false)
		time.Sleep(openFor) // of the breaker before it
		if _, open = w.line(w.http, "ws", wireclient.Hello{Line: 2}); open.Token == "" {
			t.Error("no token though the store is back")
		}
		time.Sleep(10 * time.Second)
		if members, _, err := w.srv.Present(w.ctx, server.Channel{Name: "r"}); len(members) != 1 {
			t.Errorf("present once the store is back: %+v, %v", members, err)
		}
	})
}

// A failingStore is down when it is told to be.
type failingStore struct {
	session.Store
	down atomic.Bool
}

func (s *failingStore) Secret(ctx context.Context) ([]byte, error) {
	if s.down.Load() {
		return nil, session.ErrUnavailable
	}
	return s.Store.Secret(ctx)
}

func (s *failingStore) Claim(ctx context.Context, h session.Held, l session.Lease) error {
	if s.down.Load() {
		return session.ErrUnavailable
	}
	return s.Store.Claim(ctx, h, l)
}

func (s *failingStore) Touch(ctx context.Context, held []session.Held) ([]session.Held, error) {
	if s.down.Load() {
		return nil, session.ErrUnavailable
	}
	return s.Store.Touch(ctx, held)
}

func (s *failingStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	if s.down.Load() {
		return nil, 0, session.ErrUnavailable
	}
	return s.Store.Present(ctx, ch, most)
}
