package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/ws"
)

// A wait reaches one option: it is set to d, and what waits by it is to end when
// d is over, and not before. They run with two values, so that no constant can
// stand in for the option.
type wait func(t *testing.T, d time.Duration)

// waits has a row for each field of server.Options that is a time.
var waits = map[string]wait{
	"HistoryMaxAge": historyMaxAge,
	"TokenLifetime": func(t *testing.T, d time.Duration) {
		var seen connected
		d *= 10 // a token's times are whole seconds
		inBubble(t, server.Options{TokenLifetime: d, OnConnect: seen.hook}, func(w *world) {
			token := ""
			for _, age := range []time.Duration{0, d*9/10 - time.Second, d + 2*time.Second} {
				time.Sleep(age)
				_, open := w.line(w.http, "poll", wireclient.Hello{Line: uint64(len(seen.clients) + 1), Token: token})
				token = max(token, open.Token)
			}
			_, _ = w.line(w.http, "poll", wireclient.Hello{Line: 9, Token: token})
			if seen.clients[0].Session != seen.clients[1].Session || seen.clients[1].Session == seen.clients[2].Session {
				t.Errorf("sessions by age: %+v", seen.clients)
			}
		})
	},
	"PublishTimeout": func(t *testing.T, d time.Duration) {
		o := server.Options{Authorize: allow, PublishTimeout: d, OnPublish: func(ctx context.Context, _ *server.Publication) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		inBubble(t, o, func(w *world) {
			defer w.takes(d)()
			w.do("POST", "/publish?channel=r", "1")
		})
	},
	"CallTimeout": func(t *testing.T, d time.Duration) {
		o := server.Options{Authorize: allow, CallTimeout: d, OnCall: func(ctx context.Context, _ server.Request) (server.Payload, error) {
			<-ctx.Done()
			return server.Payload{}, ctx.Err()
		}}
		inBubble(t, o, func(w *world) {
			defer w.takes(d)()
			expect(t, "P9.10", reply(w.up("", call(1, "x", "1"))), "unknown")
		})
	},
	"DisconnectTimeout": func(t *testing.T, d time.Duration) {
		var took atomic.Int64
		o := server.Options{DisconnectTimeout: d, OnDisconnect: func(ctx context.Context, _ server.Client) {
			began := time.Now()
			<-ctx.Done()
			took.Store(int64(time.Since(began)))
		}}
		inBubble(t, o, func(w *world) {
			s := w.ws(hello("r", ""))
			time.Sleep(3 * time.Second)
			_ = s.Send([]byte(`{"close":{}}`))
			time.Sleep(time.Minute)
			if got := time.Duration(took.Load()); got != d {
				t.Errorf("%v, not %v", got, d)
			}
		})
	},
	"StoreTimeout": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{}, func(w *world) {
			store := &slowStore{Store: w.store, took: make(chan time.Duration, 100)}
			_, hc := w.node(server.Options{StoreTimeout: d, Store: store})
			w.line(hc, "poll", wireclient.Hello{Line: 1})
			if got := <-store.took; got != d {
				t.Errorf("%v, not %v", got, d)
			}
		})
	},
	"PresenceGrace": func(t *testing.T, d time.Duration) {
		var gone atomic.Int64
		d *= 3
		o := server.Options{PresenceGrace: d, PresenceInterval: d / 3, OnDisconnect: func(context.Context, server.Client) { gone.Store(time.Now().UnixNano()) }}
		inBubble(t, o, func(w *world) {
			s := w.ws(hello("r", ""))
			time.Sleep(time.Minute)
			s.Close()
			left := time.Now()
			time.Sleep(time.Hour)
			if got := time.Unix(0, gone.Load()).Sub(left); got < d || got > d*5/3 {
				t.Errorf("%v, not %v and up to two intervals", got, d)
			}
		})
	},
	"PresenceInterval": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{}, func(w *world) {
			store := &slowStore{Store: w.store, touched: make(chan time.Time, 100)}
			_, hc := w.node(server.Options{PresenceGrace: 4 * d, PresenceInterval: d, Store: store})
			w.line(hc, "ws", wireclient.Hello{Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
			<-store.touched
			first := <-store.touched
			if got := (<-store.touched).Sub(first); got < d*8/10 || got > d {
				t.Errorf("renewed after %v, not %v", got, d)
			}
		})
	},
	"Heartbeat": func(t *testing.T, d time.Duration) {
		onEach(t, server.Options{Heartbeat: d}, func(w *world, c carrier) {
			if c.name[0] == 'p' || c.name == "ws" { // a poll has none, and a plain WebSocket's is a ping
				return
			}
			s := w.must(c, "r", "")
			isBeat := func(it wireclient.Item) bool { return it.Beat }
			_, _ = next(s, isBeat)
			began := time.Now()
			_, _ = next(s, isBeat)
			if got := time.Since(began); got < d*9/10 || got > d { // a tenth is by chance
				w.Errorf("it took %v, not %v", got, d)
			}
		})
	},
	"WriteTimeout": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{Authorize: allow, WriteTimeout: d, GoodbyeTimeout: time.Millisecond, MaxLag: 1 << 30}, func(w *world) {
			c := dial(w.T, w.net, "GET /realtime/sse?channel=r HTTP/1.1\r\nHost: h\r\n\r\n") // it is never read
			defer c.Close()
			synctest.Wait()
			defer w.takes(d)()
			w.publish("r", `"`+strings.Repeat("x", 2*memnet.Window)+`"`)
			w.untilNone("sse")
			if n := metric(w.T, w.srv, "throughline_evictions_total", "write_timeout"); n != 1 {
				t.Errorf("%v evictions because of WriteTimeout", n)
			}
		})
	},
	"PeerTimeout": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{PeerTimeout: d, Heartbeat: time.Second}, func(w *world) {
			s := w.dialSocket("/ws?channel=r") // it answers no ping
			began := time.Now()
			_, _ = io.Copy(io.Discard, s.r)
			if got := time.Since(began); got < d || got > d+time.Second {
				t.Errorf("noticed after %v, not %v after the first ping", got, d)
			}
		})
	},
	"GoodbyeTimeout": func(t *testing.T, d time.Duration) {
		d /= 2 // what answers pings gives up after 5 s by itself
		inBubble(t, server.Options{Authorize: allow, GoodbyeTimeout: d, PeerTimeout: time.Hour, Heartbeat: time.Hour}, func(w *world) {
			s := w.dialSocket("/ws?channel=r") // it is never read, though it asks for pongs
			synctest.Wait()
			defer w.takes(d)()
			go func() {
				for range memnet.Window / 127 * 2 {
					_, _ = io.WriteString(s, wsFrame(fin|9, strings.Repeat("x", 125)))
				}
			}()
			w.untilNone("ws")
		})
	},
	"CloseTimeout": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{CloseTimeout: d}, func(w *world) {
			s := w.dialSocket("/ws?channel=r")
			_, _ = io.WriteString(s, wsFrame(fin|text, "x"))
			_, _, _, _ = s.end()
			defer w.takes(d)()
			_, _ = io.Copy(io.Discard, s.r)
		})
	},
	"AttachTimeout": func(t *testing.T, d time.Duration) {
		slow := func(ctx context.Context, _ server.Identity, _ server.Action, _ server.Channel) error {
			<-ctx.Done()
			return ctx.Err()
		}
		inBubble(t, server.Options{AttachTimeout: d, Authorize: slow}, func(w *world) {
			defer w.takes(d)()
			w.do("GET", "/poll?channel=r", "")
		})
		authenticate := func(r *http.Request) (server.Identity, error) {
			<-r.Context().Done()
			return server.Identity{}, r.Context().Err()
		}
		inBubble(t, server.Options{AttachTimeout: d, Authenticate: authenticate}, func(w *world) {
			defer w.takes(d)()
			w.do("GET", "/poll?channel=r", "")
		})
	},
	"DrainTime": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{DrainTime: d, RetryDelay: time.Millisecond}, func(w *world) {
			var all []wireclient.Stream
			for range 20 {
				all = append(all, w.must(carriers[3], "r", ""))
			}
			_ = w.srv.Close()
			latest := time.Duration(0)
			for _, s := range all {
				it, err := next(s, func(it wireclient.Item) bool { return it.Close != nil })
				if err != nil {
					t.Fatal(err)
				}
				latest = max(latest, time.Duration(it.Close.After)*time.Millisecond)
			}
			if latest > d || latest < d*8/10 {
				t.Errorf("the last is told to come back after %v, not %v", latest, d)
			}
		})
	},
	"RefreshLead": func(t *testing.T, d time.Duration) {
		o := server.Options{RefreshLead: d, Authenticate: func(*http.Request) (server.Identity, error) {
			return server.Identity{Subject: "ann", Expires: time.Now().Add(10 * d)}, nil
		}}
		inBubble(t, o, func(w *world) {
			s := w.ws(hello("r", ""))
			defer w.takes(9 * d)()
			if it, err := next(s, isRefresh); err != nil || it.Refresh.Left != d.Milliseconds() {
				t.Errorf("%+v, %v", it.Refresh, err)
			}
		})
	},
	"ReadTimeout": func(t *testing.T, d time.Duration) {
		log := func() eventlog.Log { return muteLog{eventlog.NewMemory(eventlog.MemoryOptions{})} }
		inBubbleWith(t, log, server.Options{ReadTimeout: d, AttachTimeout: time.Hour}, func(w *world) {
			defer w.takes(d)()
			w.do("GET", "/poll?channel=mute", "")
		})
	},
	"RetryDelay": func(t *testing.T, d time.Duration) {
		flaky := newFlakyLog()
		inBubbleWith(t, flaky.open, server.Options{RetryDelay: d}, func(w *world) {
			at := w.publish("r", "1")
			flaky.down.Store(true)
			_, err := wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r&after="+at.String())
			r := refusal(err)
			if r == nil || time.Duration(r.After)*time.Millisecond < d || time.Duration(r.After)*time.Millisecond > 2*d {
				t.Errorf("%v", err)
			}
		})
	},
	"HelloTimeout": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{Authorize: allow, HelloTimeout: d}, func(w *world) {
			for _, path := range []string{"sse", "poll", "up", "publish?channel=r"} {
				done := w.takes(d)
				c, err := w.net.Dial(w.ctx, "", "")
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(c, "POST /realtime/"+path+" HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n{")
				_, _ = c.Read(make([]byte, 100))
				done()
				_ = c.Close()
			}
			done := w.takes(d)
			s := w.dialSocket("/ws")
			if code, reason, _, err := s.end(); code != 4002 || reason != "bad_request" {
				t.Errorf("%d %s %v", code, reason, err)
			}
			done()
		})
	},
	"MaxWait": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{MaxWait: d}, func(w *world) {
			at := w.publish("r", "1").String()
			defer w.takes(d)()
			w.do("GET", "/poll?channel=r&wait=1h&after="+at, "")
		})
	},
	"Retry": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{Retry: d}, func(w *world) {
			b, err := wireclient.NewParser(w.do("GET", "/sse?channel=r", "").Body).Next()
			if ms, _ := json.Marshal(d.Milliseconds()); err != nil || b.Retry != string(ms) {
				t.Errorf("%+v, %v", b, err)
			}
		})
	},
	"LagWindow": func(t *testing.T, d time.Duration) {
		if got, _ := laggard(t, server.Options{LagWindow: 10 * d}); got < 10*d || got > 10*d+time.Minute {
			t.Errorf("evicted after %v, not %v and what it takes to fall behind", got, 10*d)
		}
	},
	"EvictionDelay": func(t *testing.T, d time.Duration) {
		if _, told := laggard(t, server.Options{LagWindow: 10 * time.Second, EvictionDelay: d}); told != d {
			t.Errorf("told to come back after %v, not %v", told, d)
		}
	},
	"MaxEvictionDelay": func(t *testing.T, d time.Duration) {
		inBubble(t, server.Options{Authorize: allow, EvictionDelay: 2 * time.Second, MaxEvictionDelay: d, WriteTimeout: 100 * time.Millisecond}, func(w *world) {
			if got := w.evictions(4, 0); got[0] != 2*time.Second || got[3] != d {
				t.Errorf("delays of %v, not up to %v", got, d)
			}
		})
	},
	"EvictionMemory": func(t *testing.T, d time.Duration) {
		for keepsUp, again := range map[time.Duration]time.Duration{d: 2 * time.Second, d - time.Second: 4 * time.Second} {
			inBubble(t, server.Options{Authorize: allow, EvictionDelay: 2 * time.Second, EvictionMemory: d, WriteTimeout: 100 * time.Millisecond}, func(w *world) {
				if got := w.evictions(2, keepsUp); got[1] != again {
					t.Errorf("after %v: delays of %v, not %v", keepsUp, got, again)
				}
			})
		}
	},
	"BrokenWithin": func(t *testing.T, d time.Duration) {
		for lived, refused := range map[time.Duration]bool{d: false, d - time.Millisecond: true} {
			inBubble(t, server.Options{BrokenWithin: d}, func(w *world) {
				token := ""
				for line := range uint64(4) {
					h := hello("r", "")
					h.Line, h.Token = line+1, token
					s := w.ws(h)
					it, err := s.Next()
					if err != nil || it.Close != nil && (!refused || line < 3) || line == 3 && refused && it.Close == nil {
						t.Errorf("WebSockets that live %v: the one after %d is answered %+v, %v", lived, line, it, err)
						break
					}
					if it.Open != nil && it.Open.Token != "" {
						token = it.Open.Token
					}
					time.Sleep(lived)
					s.Close()
					synctest.Wait()
				}
			})
		}
	},
	"MaxLagAge": func(t *testing.T, d time.Duration) {
		if got, _ := laggard(t, server.Options{LagWindow: 10 * time.Second, MaxLagAge: 10 * d, MaxLag: 1 << 30}); got < 10*d+10*time.Second || got > 20*d+time.Minute {
			t.Errorf("evicted after %v, with events that were older than %v", got, 10*d)
		}
	},
}

// laggard reads more slowly than events come. It returns when it was evicted, and
// when it is told to come back.
func laggard(t *testing.T, o server.Options) (evicted, told time.Duration) {
	o.WriteTimeout, o.PeerTimeout, o.GoodbyeTimeout, o.CloseTimeout, o.MaxLag = time.Minute, time.Hour, time.Minute, time.Minute, max(10, o.MaxLag)
	inBubble(t, o, func(w *world) {
		s := w.ws(hello("r", ""))
		w.next(s)
		read := make(chan struct{})
		go func() {
			defer close(read)
			it, err := next(s, func(it wireclient.Item) bool { time.Sleep(3 * time.Second); return it.Close != nil })
			if err == nil {
				told = time.Duration(it.Close.After) * time.Millisecond
			}
		}()
		began := time.Now()
		for metric(t, w.srv, "throughline_evictions_total", "ws") == 0 && time.Since(began) < time.Hour {
			w.publish("r", fmt.Sprintf(`"%030000d"`, 1))
			time.Sleep(time.Second)
		}
		evicted = time.Since(began)
		<-read
	})
	return evicted, told
}

// untilNone waits until a carrier has no connections.
func (w *world) untilNone(carrier string) {
	for connections(w.T, w.srv, carrier) > 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// A slowStore answers nothing before its time is over, or notes when leases are
// renewed.
type slowStore struct {
	session.Store
	took    chan time.Duration
	touched chan time.Time
}

func (s *slowStore) Secret(ctx context.Context) ([]byte, error) {
	if s.took == nil {
		return s.Store.Secret(ctx)
	}
	began := time.Now()
	<-ctx.Done()
	s.took <- time.Since(began)
	return nil, ctx.Err()
}

func (s *slowStore) Touch(ctx context.Context, held []session.Held) ([]session.Held, error) {
	if s.touched != nil {
		s.touched <- time.Now()
	}
	return s.Store.Touch(ctx, held)
}

// A muteLog does not answer about one channel.
type muteLog struct{ eventlog.Log }

func (l muteLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if ch.Name == "mute" {
		<-ctx.Done()
		return eventlog.Position{}, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, ctx.Err())
	}
	return l.Log.Seek(ctx, ch, s)
}

// takes begins a measurement, and returns what ends it.
func (w *world) takes(d time.Duration) func() {
	w.Helper()
	began := time.Now()
	return func() {
		w.Helper()
		if got := time.Since(began); got < d || got > d+d/10 {
			w.Errorf("it took %v, not %v", got, d)
		}
	}
}

// durations are the fields of a struct of options that are times.
func durations(options any) (names []string) {
	for f := range reflect.TypeOf(options).Fields() {
		if f.Type == reflect.TypeFor[time.Duration]() {
			names = append(names, f.Name)
		}
	}
	return names
}

// TestEveryTimeoutIsReached: an option that is a time and has no row has nobody
// who shows that it does anything.
func TestEveryTimeoutIsReached(t *testing.T) {
	names := durations(server.Options{})
	if len(names) < 20 {
		t.Fatalf("only %q were found", names)
	}
	for _, name := range names {
		if waits[name] == nil {
			t.Errorf("Options.%s has no row in waits", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, d := range []time.Duration{3 * time.Second, 7 * time.Second} {
				waits[name](t, d)
			}
		})
	}
	for name := range waits {
		if !slices.Contains(names, name) {
			t.Errorf("a row for %s, which is no option", name)
		}
	}
}

// inner are times that the parts have and the server has not, each with the test
// that reaches it, or the option of the server that it is.
var inner = map[string]any{
	"core.FirstBeat":     TestProbe,
	"core.ProbeLifetime": TestProbe,
	"ws.WriteTimeout":    "GoodbyeTimeout",
}

// TestTimeoutsOfTheParts: those of the adapters and the engine are the server's,
// by the same names, or have tests of their own.
func TestTimeoutsOfTheParts(t *testing.T) {
	for part, options := range map[string]any{"core": core.Options{}, "ws": ws.Options{}, "sse": sse.Options{}, "longpoll": longpoll.Options{}} {
		for _, name := range durations(options) {
			is := inner[part+"."+name]
			if as, ok := is.(string); ok {
				name, is = as, nil
			}
			if is == nil && waits[name] == nil {
				t.Errorf("%s.Options.%s is reached by nothing", part, name)
			}
		}
	}
}
