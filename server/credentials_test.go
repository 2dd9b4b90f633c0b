package server_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// A gatekeeper knows people by what they bring in an Authorization header.
type gatekeeper struct {
	known map[string]server.Identity
	slow  time.Duration // how long it takes to look at something
}

func (g *gatekeeper) authenticate(r *http.Request) (server.Identity, error) {
	if g.slow > 0 {
		select {
		case <-time.After(g.slow):
		case <-r.Context().Done():
		}
	}
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	id, ok := g.known[text]
	if !ok {
		return id, errors.New("nobody's")
	}
	return id, nil
}

// learn has the gatekeeper know one more, for so long.
func (g *gatekeeper) learn(text, subject string, lasts time.Duration, rights ...string) {
	if g.known == nil {
		g.known = map[string]server.Identity{}
	}
	id := server.Identity{Subject: subject, Claims: rights}
	if lasts > 0 {
		id.Expires = time.Now().Add(lasts)
	}
	g.known[text] = id
}

// byClaims allows the channels that the claims name, or all without claims.
func byClaims(_ context.Context, who server.Identity, _ server.Action, ch server.Channel) error {
	rights, _ := who.Claims.([]string)
	if len(rights) == 0 || slices.Contains(rights, ch.Name) {
		return nil
	}
	return errors.New("no")
}

// bearing is a client that sends credentials with each request.
func (w *world) bearing(text string) *http.Client {
	return &http.Client{Transport: withBearer{w.http.Transport, text}}
}

type withBearer struct {
	next http.RoundTripper
	text string
}

func (b withBearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.text)
	return b.next.RoundTrip(r)
}

// TestFirstFrameShowsWho: a page can't give a WebSocket headers (P6.21).
func TestFirstFrameShowsWho(t *testing.T) {
	g, seen := gatekeeper{}, connected{}
	inBubble(t, server.Options{Authenticate: g.authenticate, Authorize: allow, OnConnect: seen.hook}, func(w *world) {
		g.learn("anns", "ann", 0)
		g.learn("bobs", "bob", 0)
		begin := func(h wireclient.Hello) (wireclient.Stream, string) {
			t.Helper()
			h.Version = 1
			s, err := wireclient.WS(w.ctx, w.http, base+"/ws", &h)
			if err != nil {
				t.Fatalf("the handshake was refused: %v", err)
			}
			w.Cleanup(s.Close)
			it, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if it.Close != nil {
				return s, it.Close.Code
			}
			return s, ""
		}
		if _, code := begin(wireclient.Hello{}); code != "unauthorized" {
			t.Errorf("without credentials: %q", code)
		}
		if _, code := begin(wireclient.Hello{Credentials: "forged"}); code != "unauthorized" {
			t.Errorf("with bad ones: %q", code)
		}
		if len(seen.clients) > 0 {
			t.Fatal("strangers were welcomed")
		}
		if _, code := begin(wireclient.Hello{Credentials: "anns"}); code != "" || seen.clients[0].Subject != "ann" {
			t.Errorf("ann was welcomed as %+v, with %q", seen.clients, code)
		}
		// What the probe showed counts for the line that follows it.
		s, code := begin(wireclient.Hello{Credentials: "bobs", Probe: true, Line: 1})
		if code != "" {
			t.Fatal(code)
		}
		if err := s.(*wireclient.WSStream).Send(wireclient.Hello{Version: 1, Line: 2}.Frame()); err != nil {
			t.Fatal(err)
		}
		if _, err := next(s, func(it wireclient.Item) bool { return it.Open != nil && it.Open.Line == 2 }); err != nil || seen.clients[1].Subject != "bob" {
			t.Errorf("after a probe: %v, %+v", err, seen.clients)
		}
		if _, err := wireclient.WS(w.ctx, w.http, base+"/ws?channel=r", nil); codeOf(err) != "unauthorized" {
			t.Errorf("plain: %v", err)
		}
		for _, carrier := range []string{"sse", "poll"} {
			if _, _, err := w.begin(w.http, carrier, wireclient.Hello{}); codeOf(err) != "unauthorized" {
				t.Errorf("%s: %v", carrier, err)
			}
		}
	})
}

// next reads a stream up to something.
func next(s wireclient.Stream, is func(wireclient.Item) bool) (wireclient.Item, error) {
	for {
		if it, err := s.Next(); err != nil || is(it) {
			return it, err
		}
	}
}

func isRefresh(it wireclient.Item) bool { return it.Refresh != nil }

func codeOf(err error) string {
	if r, ok := errors.AsType[*wireclient.Refused](err); ok {
		return r.Code
	}
	return ""
}

// waiting is a poll that waits, as a stream.
func (w *world) waiting(hc *http.Client, h wireclient.Hello) wireclient.Stream {
	s := wireclient.NewPollStream(w.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
		for i := range h.Channels {
			if p := at[h.Channels[i].Channel]; p != "" {
				h.Channels[i].After = p
			}
		}
		a, err := wireclient.SessionPoll(ctx, hc, base+"/poll?wait=55s", h)
		if err == nil && a.Open != nil && a.Open.Token != "" {
			h.Token = a.Open.Token
		}
		return a, err
	})
	w.Cleanup(s.Close)
	return s
}

// TestCredentialsEnd: who doesn't bring fresh ones is asked in time, ended with
// expired when it is time, and goes on with fresh ones as if nothing had
// happened.
func TestCredentialsEnd(t *testing.T) {
	for _, carrier := range sessionCarriers {
		t.Run(carrier, func(t *testing.T) {
			g := gatekeeper{}
			inBubble(t, server.Options{Authenticate: g.authenticate, Authorize: allow}, func(w *world) {
				g.learn("first", "ann", 5*time.Minute)
				began := time.Now()
				h := wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}}
				s := w.waiting(w.bearing("first"), h)
				if carrier != "poll" {
					s, _ = w.line(w.bearing("first"), carrier, h)
				}
				it, err := next(s, func(it wireclient.Item) bool { return it.Opening })
				if err != nil {
					t.Fatal(err)
				}
				at := it.Position
				if it, err = next(s, isRefresh); err != nil {
					t.Fatal(err)
				}
				// A poll that begins shortly before has half of what is left to itself.
				if after := time.Since(began); after < 4*time.Minute || after > 4*time.Minute+30*time.Second || it.Refresh.Left < 30_000 || it.Refresh.Left > 60_000 {
					t.Errorf("it was asked after %v, with %d ms left", after, it.Refresh.Left)
				}
				it, err = next(s, func(it wireclient.Item) bool { return it.Close != nil })
				if err != nil {
					t.Fatal(err)
				}
				if after := time.Since(began); it.Close.Code != "expired" || it.Close.Class != "now" || after < 5*time.Minute || after > 5*time.Minute+time.Second {
					t.Errorf("it ended after %v: %+v", after, it.Close)
				}
				w.publish("r", "1")
				if _, _, err := w.begin(w.bearing("first"), carrier, h); codeOf(err) != "expired" {
					t.Errorf("with the old ones: %v", err)
				}
				g.learn("second", "ann", 0)
				h.Line, h.Channels[0].After = 2, at
				s, _ = w.line(w.bearing("second"), carrier, h)
				if it, err := next(s, func(it wireclient.Item) bool { return it.Event || it.Gap != nil }); err != nil || string(it.Data) != "1" {
					t.Errorf("with fresh ones: %+v, %v", it, err)
				}
			})
		})
	}
}

// TestPlainStreamsExpire: they end when the credentials do.
func TestPlainStreamsExpire(t *testing.T) {
	for _, carrier := range []string{"sse", "ws"} {
		t.Run(carrier, func(t *testing.T) {
			g := gatekeeper{}
			inBubble(t, server.Options{Authenticate: g.authenticate, Authorize: allow}, func(w *world) {
				g.learn("first", "ann", time.Minute)
				began := time.Now()
				var s wireclient.Stream
				var err error
				if carrier == "sse" {
					s, err = wireclient.SSE(w.ctx, w.bearing("first"), base+"/sse?channel=r", "")
				} else {
					s, err = wireclient.WS(w.ctx, w.bearing("first"), base+"/ws?channel=r", nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				for err == nil {
					var it wireclient.Item
					if it, err = s.Next(); isRefresh(it) {
						t.Error("a plain client was asked for something")
					}
				}
				if after := time.Since(began); after < time.Minute || after > time.Minute+time.Second {
					t.Errorf("it ended after %v: %v", after, err)
				}
			})
		})
	}
}

// TestFreshCredentials: on a WebSocket they are brought in a frame, and the line
// goes on with the rights that they give.
func TestFreshCredentials(t *testing.T) {
	g := gatekeeper{}
	inBubble(t, server.Options{Authenticate: g.authenticate, Authorize: byClaims}, func(w *world) {
		g.learn("first", "ann", 5*time.Minute, "a", "b")
		begin := func() *wireclient.WSStream {
			s, _ := w.line(w.http, "ws", wireclient.Hello{Credentials: "first", Channels: []wireclient.Channel{{Channel: "a"}, {Channel: "b"}}})
			return s.(*wireclient.WSStream)
		}
		bring := func(s *wireclient.WSStream, text string) {
			t.Helper()
			if err := s.SendCredentials(text); err != nil {
				t.Fatal(err)
			}
		}
		s := begin()
		if _, err := next(s, isRefresh); err != nil {
			t.Fatal(err)
		}
		g.learn("second", "ann", 10*time.Minute, "a")
		brought := time.Now()
		g.slow = 5 * time.Second
		bring(s, "second")
		w.publish("b", "1") // nothing waits for what looks at them
		if _, err := next(s, func(it wireclient.Item) bool { return it.Event }); err != nil || time.Since(brought) > time.Second {
			t.Errorf("an event came after %v: %v", time.Since(brought), err)
		}
		it, err := next(s, func(it wireclient.Item) bool { return it.End != nil })
		if err != nil || it.Channel != "b" || it.End.Code != "forbidden" {
			t.Errorf("a right that is gone: %+v, %v", it, err)
		}
		g.slow = 0
		w.publish("a", "2")
		if it, err := next(s, func(it wireclient.Item) bool { return it.Event }); err != nil || string(it.Data) != "2" {
			t.Errorf("the other one: %+v, %v", it, err)
		}
		if it, err = next(s, isRefresh); err != nil {
			t.Fatal(err)
		}
		if after := time.Since(brought); after < 9*time.Minute || after > 9*time.Minute+time.Second {
			t.Errorf("it was asked again after %v", after)
		}
		for text, want := range map[string]string{"forged": "unauthorized", "bobs": "expired"} {
			g.learn("first", "ann", 5*time.Minute)
			g.learn("bobs", "bob", 0)
			s := begin()
			bring(s, text)
			if code, err := endOf(s); code != want {
				t.Errorf("%s ended it with %q, %v", text, code, err)
			}
		}
		s = begin()
		g.slow = time.Second
		bring(s, "first")
		bring(s, "first")
		if code, _ := endOf(s); code != "bad_request" {
			t.Errorf("a flood of credentials ended it with %q", code)
		}
	})
}

// TestCredentialsOverAndOver: those that last a moment do not make the server
// ask without end.
func TestCredentialsOverAndOver(t *testing.T) {
	g := gatekeeper{}
	inBubble(t, server.Options{Authenticate: g.authenticate, Authorize: allow}, func(w *world) {
		g.learn("first", "ann", 10*time.Second)
		s, _ := w.line(w.http, "ws", wireclient.Hello{Credentials: "first"})
		asked := 0
		for range 10 {
			if _, err := next(s, isRefresh); err != nil {
				t.Fatal(err)
			}
			asked++
			g.learn("first", "ann", 10*time.Second)
			if err := s.(*wireclient.WSStream).SendCredentials("first"); err != nil {
				t.Fatal(err)
			}
		}
		if lasted := time.Since(g.known["first"].Expires.Add(-10 * time.Second)); asked != 10 || lasted > time.Second {
			t.Error(asked, lasted)
		}
		if began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC); time.Since(began) < 50*time.Second {
			t.Errorf("it was asked ten times in %v", time.Since(began))
		}
	})
}
