package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// An askedLog counts what it is asked about channels that clients read.
type askedLog struct {
	eventlog.Log
	asked atomic.Int64
}

func (l *askedLog) memory() eventlog.Log {
	l.Log = eventlog.NewMemory(eventlog.MemoryOptions{})
	return l
}

func (l *askedLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if ch.Namespace == "" {
		l.asked.Add(1)
	}
	return l.Log.Read(ctx, ch, after, limit)
}

func (l *askedLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if ch.Namespace == "" {
		l.asked.Add(1)
	}
	return l.Log.Seek(ctx, ch, s)
}

// A stalled client is one that took its opening and then reads nothing: its
// network holds what it was sent.
func (w *world) stall(channel string, bytes int) {
	for range bytes / 60_000 {
		w.publish(channel, fmt.Sprintf(`"%060000d"`, 1))
	}
}

// TestBreakerKeepsOutWhoStalls: who was evicted is told by any transport how
// long to wait, before the log is asked; then one trial, and it goes on without
// a gap. Each time it happens again the delay is longer.
func TestBreakerKeepsOutWhoStalls(t *testing.T) {
	for _, c := range carriers {
		if strings.HasPrefix(c.name, "poll") {
			continue // between polls nothing counts
		}
		t.Run(c.name, func(t *testing.T) {
			reads := &askedLog{}
			o := server.Options{WriteTimeout: 5 * time.Second, EvictionDelay: 8 * time.Second, MaxEvictionDelay: 20 * time.Second}
			inBubbleWith(t, reads.memory, o, func(w *world) {
				s, err := c.open(w, "r", "")
				if err != nil {
					t.Fatal(err)
				}
				token, at := "", ""
				for at == "" {
					it, err := s.Next()
					if err != nil {
						t.Fatal(err)
					}
					if it.Open != nil {
						token = it.Open.Token
					}
					at = it.Position
				}
				for _, delay := range []time.Duration{8 * time.Second, 16 * time.Second, 20 * time.Second} {
					w.stall("r", 3_000_000)
					time.Sleep(5*time.Second + time.Millisecond) // the deadline
					synctest.Wait()
					at = lastPosition(s, at)
					time.Sleep(time.Second)
					asked := reads.asked.Load()
					for _, back := range backs {
						if plain := !strings.Contains(c.name, "session"); plain != back.plain {
							continue
						}
						after := back.refused(w, token, at)
						if want := delay - time.Second - time.Millisecond; after < want-time.Millisecond || after > want {
							t.Errorf("%s may come back after %v, want %v", back.name, after, want)
						}
					}
					if n := reads.asked.Load() - asked; n > 0 {
						t.Errorf("the log was asked %d times", n)
					}
					time.Sleep(delay)
					if s, err = reopen(w, c.name, token, at); err != nil {
						t.Fatalf("after the delay: %v", err)
					}
				}
				if got := drain(w, s, 3_000_000/60_000); got == 0 {
					t.Error("it got nothing after its last trial")
				}
			})
		})
	}
}

// TestTrialOnAWebSocketGoesPageByPage: who was evicted because it read nothing, and comes back
// to read nothing, gets no more than what it reads ahead and a page, and is evicted again; who
// reads gets all.
func TestTrialOnAWebSocketGoesPageByPage(t *testing.T) {
	const events, size, few = 300, 4000, (wireclient.ReadAhead + 16<<10) / 4000
	for _, c := range carriers {
		if !strings.HasPrefix(c.name, "ws") {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, server.Options{WriteTimeout: 5 * time.Second, EvictionDelay: 8 * time.Second}, func(w *world) {
				begin := w.publish("r", `"first"`)
				for range events {
					w.publish("r", fmt.Sprintf(`"%0*d"`, size, 1))
				}
				s := w.must(c, "r", begin.String()) // and reads nothing
				evicted := func() int { return int(metric(t, w.srv, "throughline_evictions_total", "ws")) }
				delivered := func() int { return int(metric(t, w.srv, "throughline_deliveries_total", "ws")) }
				time.Sleep(6 * time.Second)
				if n := delivered(); evicted() != 1 || n <= 2*few {
					t.Fatalf("it was sent %d events, and evicted %d times", n, evicted())
				}
				token, at := "", begin.String()
				for it, err := s.Next(); err == nil; it, err = s.Next() {
					if it.Open != nil {
						token = it.Open.Token
					}
					if it.Event {
						at = it.Position
					}
				}
				s.Close()
				time.Sleep(8 * time.Second)
				before := delivered()
				s, err := reopen(w, c.name, token, at)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(4 * time.Second)
				if n := delivered() - before; n == 0 || n > few || evicted() != 1 {
					t.Errorf("it was sent %d events on trial, and evicted %d times", n, evicted())
				}
				time.Sleep(2 * time.Second)
				if evicted() != 2 {
					t.Errorf("it read nothing, and was evicted %d times", evicted())
				}
				at = lastPosition(s, at)
				time.Sleep(16 * time.Second)
				if s, err = reopen(w, c.name, token, at); err != nil {
					t.Fatal(err)
				}
				for head := w.seek("r", eventlog.Start{}).String(); at != head; {
					if it := w.next(s); it.Event {
						at = it.Position
					}
				}
				if evicted() != 2 {
					t.Error("it was evicted though it read all")
				}
			})
		})
	}
}

// lastPosition reads what a client that was cut off still finds in its network.
func lastPosition(s wireclient.Stream, at string) string {
	for it, err := s.Next(); err == nil; it, err = s.Next() {
		if it.Event {
			at = it.Position
		}
		if it.Gap != nil {
			at = it.Gap.To
		}
	}
	s.Close()
	return at
}

// drain counts events until so many came.
func drain(w *world, s wireclient.Stream, events int) (got int) {
	for got < events {
		if it := w.next(s); it.Event {
			got++
		}
	}
	return got
}

func reopen(w *world, name, token, at string) (wireclient.Stream, error) {
	h := hello("r", at)
	h.Token, h.Line = token, 2
	switch name {
	case "sse session":
		return wireclient.SSESession(w.ctx, w.http, base+"/sse", h)
	case "ws session":
		return wireclient.WS(w.ctx, w.http, base+"/ws", &h)
	case "sse":
		return wireclient.SSE(w.ctx, w.http, base+"/sse"+wireclient.Query(at, "r"), "")
	}
	return wireclient.WS(w.ctx, w.http, base+"/ws"+wireclient.Query(at, "r"), nil)
}

// backs are ways to come back too early.
var backs = []struct {
	name    string
	plain   bool
	refused func(w *world, token, at string) time.Duration
}{
	{"SSE session", false, func(w *world, token, at string) time.Duration {
		_, err := reopen(w, "sse session", token, at)
		return w.slowRefusal(err)
	}},
	{"poll session", false, func(w *world, token, at string) time.Duration {
		h := hello("r", at)
		h.Token, h.Line = token, 2
		_, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=25s", h)
		return w.slowRefusal(err)
	}},
	{"WebSocket session", false, func(w *world, token, at string) time.Duration {
		s, err := reopen(w, "ws session", token, at)
		if err != nil {
			w.Fatal(err)
		}
		defer s.Close()
		it, err := s.Next()
		if err != nil || it.Close == nil || it.Close.Code != "slow_consumer" || it.Close.Class != "later" {
			w.Errorf("a WebSocket was answered %+v, %v", it, err)
			return 0
		}
		return time.Duration(it.Close.After) * time.Millisecond
	}},
	{"EventSource", true, func(w *world, _, at string) time.Duration {
		r := w.do("GET", "/sse?channel=r", "", "Last-Event-ID", at)
		body, _ := io.ReadAll(r.Body)
		var ms int
		if _, err := fmt.Sscanf(string(body), "retry: %d\n\n", &ms); err != nil || r.StatusCode != 200 || strings.Contains(string(body), "data") {
			w.Errorf("an EventSource was answered %d %q", r.StatusCode, body)
		}
		return time.Duration(ms) * time.Millisecond
	}},
	{"plain poll", true, func(w *world, _, at string) time.Duration {
		_, err := wireclient.PlainPoll(w.ctx, w.http, base+"/poll"+wireclient.Query(at, "r")+"&wait=25s")
		return w.slowRefusal(err)
	}},
}

func (w *world) slowRefusal(err error) time.Duration {
	w.Helper()
	r, ok := errors.AsType[*wireclient.Refused](err)
	if !ok || r.Status != 503 || r.Code != "slow_consumer" || r.Class != "later" {
		w.Errorf("refused with %v", err)
		return 0
	}
	return time.Duration(r.After) * time.Millisecond
}

// TestBrokenWebSocketsAreClosedToTheirSession: a session whose WebSockets are cut
// again and again, after they had proved themselves, is told what to use
// instead. Others aren't, and it comes back to WebSockets by a trial.
func TestBrokenWebSocketsAreClosedToTheirSession(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		line, token := uint64(0), ""
		open := func() (wireclient.Stream, wireclient.Item) {
			line++
			h := hello("r", "")
			h.Line, h.Token = line, token
			s := w.ws(h)
			it, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if it.Open != nil && it.Open.Token != "" {
				token = it.Open.Token
			}
			return s, it
		}
		cut := func(after time.Duration) {
			s, it := open()
			if it.Open == nil {
				t.Fatalf("line %d: %+v", line, it)
			}
			time.Sleep(after)
			s.Close() // without a close frame
			synctest.Wait()
		}
		for range 5 {
			cut(100 * time.Millisecond) // before it has proved itself: its client sees to that
		}
		for range 3 {
			cut(time.Second)
		}
		s, it := open()
		if it.Close == nil || it.Close.Code != "broken_carrier" || it.Close.Class != "later" || it.Close.After != 5000 ||
			fmt.Sprint(it.Close.Instead) != "[sse poll]" {
			t.Errorf("the next was answered %+v", it.Close)
		}
		s.Close()
		h := hello("r", "")
		h.Line, h.Token = line+1, token
		s, err := wireclient.SSESession(w.ctx, w.http, base+"/sse", h)
		if err != nil {
			t.Fatalf("by SSE: %v", err)
		}
		s.Close()
		w.must(carriers[4], "r", "") // another session
		line++
		time.Sleep(5 * time.Second)
		cut(time.Second)
		if _, it := open(); it.Close == nil || it.Close.After != 10_000 {
			t.Errorf("after a trial that was cut: %+v", it)
		}
	})
}

// TestSkipToLatest: in a channel whose policy says so, who falls behind goes on
// with the newest event, is told what it missed, and is not evicted.
func TestSkipToLatest(t *testing.T) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			o := server.Options{
				Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{
					"quotes:*": {MaxLag: 10, Slow: server.SkipToLatest, Allow: []server.Action{server.Subscribe}},
				}}},
				MaxLag: 10, LagWindow: time.Hour, Authorize: allow, WriteTimeout: time.Minute,
			}
			inBubble(t, o, func(w *world) {
				oracle := conformance.NewOracle(w.seekEarliest("quotes:x"))
				var last, first string
				for n := 1; n <= 30; n++ {
					last = w.publish("quotes:x", fmt.Sprintf(`{"n":%d}`, n)).String()
					oracle.Payload()
					oracle.Appended(n, last)
					if n == 1 {
						first = last
					}
				}
				s := w.must(c, "quotes:x", first)
				var seen []conformance.Seen
				for {
					it := w.next(s)
					if it.Gap != nil {
						if it.Gap.Reason != "skipped" || it.Gap.From != first {
							t.Fatalf("%+v", it.Gap)
						}
						seen = append(seen, conformance.Seen{From: it.Gap.From, To: it.Gap.To})
					}
					if it.Event {
						n, _ := conformance.Number(it.Data)
						seen = append(seen, conformance.Seen{N: n, Position: it.Position})
						break
					}
				}
				if v := oracle.Judge(first, seen); !v.OK() || v.Unreached > 0 || v.Missing != 28 || seen[len(seen)-1].N != 30 {
					t.Errorf("it got %+v: %v", seen, v)
				}
				for range 5 { // within the policy nothing is left out
					at := w.publish("quotes:x", `{}`)
					if it := w.next(s); it.Position != at.String() {
						t.Errorf("then %+v", it)
					}
				}
			})
		})
	}
}

// An absentLog can't be read while it is away; what is appended stays.
type absentLog struct {
	askedLog
	away atomic.Bool
}

func (l *absentLog) open() eventlog.Log {
	l.memory()
	return l
}

func (l *absentLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if l.away.Load() && ch.Namespace == "" {
		return eventlog.Page{}, eventlog.ErrUnavailable
	}
	return l.askedLog.Read(ctx, ch, after, limit)
}

// TestNothingIsSkippedAfterAnOutage: who is behind because the log was away, and not
// by its own fault, gets all of it.
func TestNothingIsSkippedAfterAnOutage(t *testing.T) {
	for _, c := range carriers {
		if strings.HasPrefix(c.name, "poll") {
			continue // who comes after the outage is judged as it comes
		}
		t.Run(c.name, func(t *testing.T) {
			var log absentLog
			o := server.Options{
				Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{"quotes": {MaxLag: 10, Slow: server.SkipToLatest}}}},
				Authorize:  allow, Dependencies: server.Dependencies{Disabled: true},
			}
			inBubbleWith(t, log.open, o, func(w *world) {
				s := w.must(c, "quotes", w.publish("quotes", "0").String())
				w.next(s)
				log.away.Store(true)
				var want []string
				for n := range 40 {
					want = append(want, w.publish("quotes", fmt.Sprint(n)).String())
					synctest.Wait()
				}
				log.away.Store(false)
				for n, at := range want {
					if it := w.next(s); it.Position != at || it.Gap != nil {
						t.Fatalf("in place of event %d came %+v", n, it)
					}
				}
			})
		})
	}
}

// TestASendIsNoMoreThanAPage: events that are nearly as large as a page come one by
// one, also from several channels, so that who is slow meets its deadline.
func TestASendIsNoMoreThanAPage(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		for range 4 {
			w.publish("a", fmt.Sprintf(`"%060000d"`, 1))
			w.publish("b", fmt.Sprintf(`"%060000d"`, 1))
		}
		for _, ask := range []struct{ method, path, body string }{
			{"GET", "/poll?channel=a&after=earliest", ""},
			{"POST", "/poll", `{"hello":{"version":1,"line":1,"channels":[{"channel":"a","after":"earliest"},{"channel":"b","after":"earliest"}]}}`},
		} {
			r := w.do(ask.method, ask.path, ask.body)
			body, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if n := strings.Count(string(body), `"data"`); err != nil || n != 1 {
				t.Errorf("%s %s: an answer of %d bytes has %d events of 60 kB, want one (PageBytes is 64 KiB): %v", ask.method, ask.path, len(body), n, err)
			}
		}
	})
}

// TestLaggardsShareTheirRoom: however many catch up at once from places of their
// own, what is on its way to them stays within Options.LaggardBytes, those who
// read nothing don't keep the others out, and live readers don't wait.
func TestLaggardsShareTheirRoom(t *testing.T) {
	o := server.Options{LaggardBytes: 256 << 10, WriteTimeout: 10 * time.Second, Authorize: allow}
	inBubble(t, o, func(w *world) {
		var positions []string
		for range 400 {
			positions = append(positions, w.publish("r", fmt.Sprintf(`"%04000d"`, 1)).String())
		}
		live := w.must(carriers[0], "r", "")
		w.next(live)
		for i := range 100 { // they read nothing
			w.must(carriers[i%2], "r", positions[i])
		}
		synctest.Wait()
		began := time.Now()
		for range 20 {
			at := w.publish("r", `"now"`)
			if it := w.next(live); it.Position != at.String() {
				t.Fatalf("the live reader got %+v", it)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("live events took %v", took)
		}
		reader := w.must(carriers[4], "r", positions[0])
		for got := 0; got < 399+20; {
			if w.next(reader).Event {
				got++
			}
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("who reads had caught up after %v", took)
		}
	})
}

// evictions has a session evicted again and again, which keeps up for a while
// in between, and returns for how long it was kept out, in whole seconds.
func (w *world) evictions(times int, keepsUp time.Duration) (out []time.Duration) {
	token, at, last := "", "", w.publish("r", `"first"`).String()
	for n := range times {
		h := hello("r", at)
		h.Line, h.Token = uint64(n)+1, token
		if n == 0 {
			h.Channels[0].After = "earliest"
		}
		s := w.ws(h)
		for at != last {
			it, err := s.Next()
			if err != nil {
				w.Fatal(err)
			}
			if it.Open != nil && it.Open.Token != "" {
				token = it.Open.Token
			}
			if it.Event {
				at = it.Position
			}
		}
		time.Sleep(keepsUp)
		for metric(w.T, w.srv, "throughline_evictions_total", "ws") == float64(n) {
			last = w.publish("r", fmt.Sprintf(`"%060000d"`, 1)).String()
			time.Sleep(10 * time.Millisecond)
		}
		h.Line, h.Token = h.Line+1, token
		_, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll", h)
		after := w.slowRefusal(err)
		out = append(out, (after + time.Second - time.Millisecond).Truncate(time.Second))
		time.Sleep(after)
		at = lastPosition(s, at)
	}
	return out
}

// TestLaggardInBytes: a few large events are far behind, too.
func TestLaggardInBytes(t *testing.T) {
	for most, evicted := range map[int64]bool{300_000: true, 1 << 40: false} {
		inBubble(t, server.Options{MaxLag: 1 << 30, MaxLagBytes: most, LagWindow: 20 * time.Second, WriteTimeout: time.Minute, PeerTimeout: time.Hour}, func(w *world) {
			s := w.ws(hello("r", ""))
			done := make(chan struct{})
			go func() {
				defer close(done)
				for it, err := s.Next(); err == nil && it.Close == nil; it, err = s.Next() {
					time.Sleep(3 * time.Second)
				}
			}()
			for range 120 {
				w.publish("r", fmt.Sprintf(`"%030000d"`, 1))
				time.Sleep(time.Second)
			}
			if got := metric(t, w.srv, "throughline_evictions_total", "ws") > 0; got != evicted {
				t.Errorf("with a bound of %d bytes: evicted %v", most, got)
			}
			s.Close()
			<-done
		})
	}
}

// TestEvictedAreBounded: of many who were evicted, and are away, the last are
// known.
func TestEvictedAreBounded(t *testing.T) {
	o := server.Options{MaxEvicted: 3, WriteTimeout: time.Second, EvictionDelay: time.Minute}
	o.Authenticate = func(r *http.Request) (server.Identity, error) {
		return server.Identity{Subject: r.Header.Get(who)}, nil
	}
	inBubble(t, o, func(w *world) {
		for i := range 10 {
			r := w.do("GET", "/sse?channel=r", "", who, fmt.Sprint("client ", i))
			defer r.Body.Close() //nolint:revive // until the end: nobody reads it
			synctest.Wait()
			w.stall("r", 1_000_000)
			time.Sleep(2 * time.Second)
		}
		for i := range 10 {
			r := w.do("GET", "/poll?channel=r", "", who, fmt.Sprint("client ", i))
			if refused := r.StatusCode == 503; refused != (i >= 7) {
				t.Errorf("client %d is answered %d", i, r.StatusCode)
			}
		}
	})
}

// TestOtherNodesHearOfEvictions, by the log that they share.
func TestOtherNodesHearOfEvictions(t *testing.T) {
	inBubble(t, server.Options{WriteTimeout: time.Second}, func(w *world) {
		_, there := w.node(server.Options{Store: w.store})
		s := w.ws(hello("r", ""))
		it, err := s.Next()
		if err != nil || it.Open == nil {
			t.Fatalf("%+v, %v", it, err)
		}
		time.Sleep(time.Second)
		w.stall("r", 3_000_000)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		h := hello("r", "")
		h.Line, h.Token = 2, it.Open.Token
		_, err = wireclient.SessionPoll(w.ctx, there, base+"/poll", h)
		if after := w.slowRefusal(err); after < 4*time.Second || after > 5*time.Second {
			t.Errorf("the other node keeps it out for %v", after)
		}
	})
}
