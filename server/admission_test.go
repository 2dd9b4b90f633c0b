package server_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// from is a client at an address, as a proxy on this machine tells it.
func (w *world) from(address string, hc *http.Client) *http.Client {
	return &http.Client{Transport: withForwarded{hc.Transport, address}}
}

type withForwarded struct {
	next    http.RoundTripper
	address string
}

func (f withForwarded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", f.address)
	return f.next.RoundTrip(r)
}

// limited is the refusal in err, if it says that something was done too often.
func limited(err error) *wireclient.Refused {
	if r, ok := errors.AsType[*wireclient.Refused](err); ok && r.Code == "rate_limited" {
		return r
	}
	return nil
}

// TestAddressRates: who comes too often is refused before the program is asked
// anything, told when to come back, and let in then; others notice nothing.
func TestAddressRates(t *testing.T) {
	asked := 0
	o := server.Options{
		Authorize:    allow,
		Authenticate: func(*http.Request) (server.Identity, error) { asked++; return server.Identity{}, nil },
		AddressRates: server.Rates{Hellos: server.Rate{PerSecond: 1, Burst: 5}},
	}
	for _, carrier := range []string{"sse", "ws"} {
		t.Run(carrier, func(t *testing.T) {
			asked = 0
			inBubble(t, o, func(w *world) {
				begin := func(address string) error {
					s, _, err := w.begin(w.from(address, w.http), carrier, wireclient.Hello{})
					if err == nil {
						s.Close()
					}
					return err
				}
				for n := range 5 {
					if err := begin("192.0.2.1"); err != nil {
						t.Fatalf("%d: %v", n, err)
					}
				}
				err := begin("192.0.2.1")
				r := limited(err)
				if r == nil || r.Status != http.StatusTooManyRequests || r.Class != "later" || r.After < 900 || r.After > 3000 || !strings.Contains(r.Message, "Options.AddressRates") {
					t.Fatalf("one too many: %+v", err)
				}
				if asked != 5 {
					t.Errorf("Authenticate was asked %d times", asked)
				}
				if err := begin("192.0.2.2"); err != nil {
					t.Errorf("another address: %v", err)
				}
				time.Sleep(time.Duration(r.After) * time.Millisecond)
				if err := begin("192.0.2.1"); err != nil {
					t.Errorf("back when told: %v", err)
				}
			})
		})
	}
}

// TestAddressesOfOneNetwork: whoever has an IPv6 network has one bucket; what
// a client claims of itself counts for nothing.
func TestAddressesOfOneNetwork(t *testing.T) {
	o := server.Options{Authorize: allow, AddressRates: server.Rates{Hellos: server.Rate{PerSecond: 1, Burst: 3}}}
	inBubble(t, o, func(w *world) {
		refused := 0
		for n := range 6 {
			if _, _, err := w.begin(w.from(fmt.Sprintf("2001:db8::%x", n+1), w.http), "sse", wireclient.Hello{}); limited(err) != nil {
				refused++
			}
		}
		if refused != 3 {
			t.Errorf("%d of 6 were refused", refused)
		}
		refused = 0
		for n := range 6 { // the last hop is the proxy's own word
			if _, _, err := w.begin(w.from(fmt.Sprintf("192.0.2.%d, 198.51.100.7", n), w.http), "sse", wireclient.Hello{}); limited(err) != nil {
				refused++
			}
		}
		if refused != 3 {
			t.Errorf("%d of 6 claims were refused", refused)
		}
	})
}

// TestPlainStreamIsToldToReturn: an EventSource would give up after a 429.
func TestPlainStreamIsToldToReturn(t *testing.T) {
	o := server.Options{Authorize: allow, AddressRates: server.Rates{Hellos: server.Rate{PerSecond: 1, Burst: 1}}}
	inBubble(t, o, func(w *world) {
		hc := w.from("192.0.2.1", w.http)
		for n := range 2 {
			r, err := hc.Get(base + "/sse?channel=r")
			if err != nil {
				t.Fatal(err)
			}
			if n == 1 {
				text := make([]byte, 100)
				k, _ := r.Body.Read(text)
				if r.StatusCode != http.StatusOK || !strings.HasPrefix(string(text[:k]), "retry: ") {
					t.Errorf("%d %q", r.StatusCode, text[:k])
				}
			}
			_ = r.Body.Close()
		}
	})
}

// TestIdentityRates: each effort of a subject has its bucket, whatever carries
// it and wherever it comes from; what was refused is done when it is repeated.
func TestIdentityRates(t *testing.T) {
	one := server.Rate{PerSecond: 1, Burst: 3}
	ann := func(r *http.Request) (server.Identity, error) {
		return server.Identity{Subject: cmp.Or(r.Header.Get(who), "ann")}, nil
	}
	o := server.Options{
		Authorize: allow, Authenticate: ann, IdentityRates: server.Rates{Hellos: one, Resumes: one, Publishes: one, Calls: one},
		OnCall: func(context.Context, server.Request) (server.Payload, error) { return server.Payload{}, nil },
	}
	onWays(t, o, func(w *world, say mouth) {
		for n := range 3 {
			expect(w.T, "a call", reply(say(call(n+1, "x", "1"))), "null")
		}
		it := say(call(4, "x", "1"))
		if e := it.Reply.Error; e == nil || e.Code != "rate_limited" || e.Class != "later" || !strings.Contains(e.Message, "IdentityRates") {
			w.Errorf("a call too many: %+v", it.Reply)
		}
		for n := range 3 {
			expect(w.T, "a message", outcomes(say(batch(frame(n+1, "r")))), fmt.Sprintf("%d:ok", n+1))
		}
		it = say(batch(frame(4, "r"), frame(5, "q")))
		if p := it.Published; len(p) != 1 || p[0].Retry == nil || p[0].Retry.Code != "rate_limited" || p[0].Tried {
			w.Fatalf("a message too many: %+v", p)
		}
		time.Sleep(time.Duration(it.Published[0].Retry.After) * time.Millisecond)
		time.Sleep(time.Second)
		expect(w.T, "again", outcomes(say(batch(frame(4, "r"), frame(5, "q")))), "4:ok 5:ok")
	})
	inBubble(t, o, func(w *world) {
		for _, effort := range []wireclient.Hello{{}, {Channels: []wireclient.Channel{{Channel: "r", After: w.publish("r", "1").String()}}}} {
			refused := 0
			for n := range 6 {
				s, _, err := w.begin(w.as("ann"), sessionCarriers[n%3], effort)
				if err == nil {
					s.Close()
				} else if r := limited(err); r != nil && r.Class == "later" {
					refused++
				} else {
					t.Error(err)
				}
			}
			if refused != 3 {
				t.Errorf("%d of 6 hellos were refused", refused)
			}
			if _, _, err := w.begin(w.as("bob"), "sse", effort); err != nil {
				t.Errorf("somebody else: %v", err)
			}
		}
	})
}

// TestMaxConnections: as many as allowed, in total and by address, waiting polls
// among them; one that ends makes room.
func TestMaxConnections(t *testing.T) {
	for _, carrier := range []string{"sse", "ws", "poll"} {
		t.Run(carrier, func(t *testing.T) {
			o := server.Options{Authorize: allow, MaxConnections: 4, MaxConnectionsPerAddress: 3}
			inBubble(t, o, func(w *world) {
				ctx, cancel := context.WithCancel(w.ctx)
				at := w.publish("r", "1").String()
				begin := func(address string) error {
					hc := w.from(address, w.http)
					if carrier != "poll" {
						_, _, err := w.begin(hc, carrier, wireclient.Hello{})
						return err
					}
					done := make(chan error, 1)
					go func() {
						h := hello("r", at)
						_, err := wireclient.SessionPoll(ctx, hc, base+"/poll?wait=50s", h)
						done <- err
					}()
					synctest.Wait()
					select {
					case err := <-done:
						return err
					default:
						return nil // it waits
					}
				}
				for n := range 3 {
					if err := begin("192.0.2.1"); err != nil {
						t.Fatalf("%d: %v", n, err)
					}
				}
				if err := begin("192.0.2.1"); codeOf(err) != "busy" || !strings.Contains(err.Error(), "MaxConnectionsPerAddress") {
					t.Errorf("one too many of an address: %v", err)
				}
				if err := begin("192.0.2.2"); err != nil {
					t.Errorf("another address: %v", err)
				}
				if err := begin("192.0.2.3"); codeOf(err) != "busy" {
					t.Errorf("one too many: %v", err)
				}
				cancel()
			})
		})
	}
}

// TestMaxHandshakes: while the program takes its time to know people, no more
// than so many wait for that.
func TestMaxHandshakes(t *testing.T) {
	var waiting, most atomic.Int32
	o := server.Options{Authorize: allow, MaxHandshakes: 5, Authenticate: func(*http.Request) (server.Identity, error) {
		most.Store(max(most.Load(), waiting.Add(1)))
		time.Sleep(time.Second)
		waiting.Add(-1)
		return server.Identity{}, nil
	}}
	inBubble(t, o, func(w *world) {
		results := make(chan error, 20)
		for range 20 {
			go func() {
				r, err := w.http.Post(base+"/poll", "application/json", strings.NewReader(`{"hello":{"version":1,"line":1}}`))
				if err == nil {
					_ = r.Body.Close()
					if r.StatusCode == http.StatusServiceUnavailable {
						err = errors.New("busy")
					}
				}
				results <- err
			}()
		}
		refused := 0
		for range 20 {
			if <-results != nil {
				refused++
			}
		}
		if refused != 15 || most.Load() != 5 {
			t.Errorf("%d of 20 were refused, %d were asked for at once", refused, most.Load())
		}
	})
}

// TestMaxHeader: what a request says of itself is bounded, to the byte.
func TestMaxHeader(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, MaxHeader: 1000}, func(w *world) {
		ask := func(n int) (int, string) {
			req, _ := http.NewRequestWithContext(w.ctx, "GET", base+"/poll?channel=r", nil)
			req.Header.Set("User-Agent", "")
			req.Header.Set("X-Much", strings.Repeat("x", n))
			r, err := w.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			text := make([]byte, 500)
			k, _ := r.Body.Read(text)
			return r.StatusCode, string(text[:k])
		}
		most := 0
		for n := range 1001 {
			if status, _ := ask(n); status == http.StatusOK {
				most = n
			}
		}
		if status, text := ask(most + 1); most < 900 || most > 990 || status == http.StatusOK || !strings.Contains(text, "Options.MaxHeader") {
			t.Errorf("%d bytes pass, one more is answered %d %s", most, status, text)
		}
	})
}

// TestUntrustedProxies: without being named, a proxy is a client like others.
func TestUntrustedProxies(t *testing.T) {
	o := server.Options{Authorize: allow, TrustedProxies: []string{"203.0.113.0/24"}, AddressRates: server.Rates{Hellos: server.Rate{PerSecond: 1, Burst: 1}}}
	inBubble(t, o, func(w *world) {
		for n := range 5 {
			if _, _, err := w.begin(w.from(fmt.Sprintf("192.0.2.%d", n), w.http), "sse", wireclient.Hello{}); (limited(err) != nil) != (n > 0) {
				t.Error(n, err)
			}
		}
	})
	for name, o := range map[string]server.Options{
		"TrustedProxies": {TrustedProxies: []string{"10.0.0.1/8"}},
		"IPv6Prefix":     {IPv6Prefix: 129},
	} {
		if _, err := server.New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
