package server_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// session opens a line over a carrier.
func (w *world) session(carrier string, h wireclient.Hello) wireclient.Stream {
	w.Helper()
	if carrier == "ws" {
		return w.ws(h)
	}
	s, err := wireclient.SSESession(w.ctx, w.http, base+"/sse", h)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(s.Close)
	return s
}

// ws opens a line of the session protocol on a WebSocket.
func (w *world) ws(h wireclient.Hello) *wireclient.WSStream {
	w.Helper()
	s, err := wireclient.WS(w.ctx, w.http, base+"/ws", &h)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(s.Close)
	return s
}

func TestHelloIsAnsweredFirst(t *testing.T) {
	inBubble(t, server.Options{Heartbeat: 10 * time.Second}, func(w *world) {
		for i := range 3 {
			w.publish("r", fmt.Sprint(i))
		}
		h := hello("r", "")
		h.Line = 7
		poll, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll", h)
		if err != nil || poll.Open == nil || poll.Open.Line != 7 || poll.Open.Heartbeat != 10_000 {
			t.Errorf("P6.4: %+v, %v", poll, err)
		}
		for _, name := range []string{"sse", "ws"} {
			s := w.session(name, h)
			it, err := s.Next()
			if err != nil || it.Open == nil || it.Open.Version != 1 || it.Open.Line != 7 || it.Open.Heartbeat != 10_000 {
				t.Errorf("P6.3: %s begins with %+v, %v", name, it, err)
			}
			if it, _ = s.Next(); !it.Opening || it.Channel != "r" {
				t.Errorf("P6.9: %s goes on with %+v", name, it)
			}
			began := time.Now()
			if it, _ = s.Next(); !it.Beat || time.Since(began) < 200*time.Millisecond {
				t.Errorf("P6.5: %s: %+v after %v", name, it, time.Since(began))
			}
			began = time.Now()
			if it, _ = s.Next(); !it.Beat || time.Since(began) < 8*time.Second || time.Since(began) > 11*time.Second {
				t.Errorf("P6.5: %s: %+v after %v", name, it, time.Since(began))
			}
		}
	})
}

func TestChannelsChangeInFlight(t *testing.T) {
	inBubble(t, server.Options{MaxChannels: 3}, func(w *world) {
		s := w.ws(hello("a", ""))
		w.next(s)
		send := func(frame string) {
			t.Helper()
			if err := s.Send([]byte(frame)); err != nil {
				t.Fatal(err)
			}
		}
		p := w.publish("b", "1")
		send(`{"subscribe":[{"channel":"b","after":"` + w.seekEarliest("b") + `"},{"channel":"$c"}]}`)
		if it := w.next(s); !it.Opening || it.Channel != "b" {
			t.Fatalf("P6.10: %+v", it)
		}
		for range 2 { // in either order, as they are of two channels
			it := w.next(s)
			switch {
			case it.Event && it.Channel == "b" && it.Position == p.String():
			case it.End != nil && it.Channel == "$c" && it.End.Code == "forbidden" && it.End.Class == "never":
			default:
				t.Fatalf("P6.9: %+v", it)
			}
		}
		send(`{"unsubscribe":["b"]}`)
		if it := w.next(s); it.End == nil || it.Channel != "b" || it.End.Code != "unsubscribed" {
			t.Fatalf("P6.10: %+v", it)
		}
		w.publish("b", "2")
		at := w.publish("a", "3")
		if it := w.next(s); it.Channel != "a" || it.Position != at.String() {
			t.Fatalf("P6.10: after unsubscribing: %+v", it)
		}
		send(`{"subscribe":[{"channel":"b","after":"` + p.String() + `"}]}`)
		if it := w.next(s); !it.Opening || it.Position != p.String() {
			t.Fatalf("P6.10: subscribed again: %+v", it)
		}
		if it := w.next(s); string(it.Data) != "2" {
			t.Fatalf("P6.10: what came meanwhile: %+v", it)
		}
		send(`{"subscribe":[{"channel":"x"},{"channel":"y"}]}`)
		w.next(s)
		if it := w.next(s); it.End == nil || it.Channel != "y" || it.End.Code != "too_many_channels" {
			t.Fatalf("one channel too many: %+v", it)
		}
		send(`{"subscribe":[{"channel":"a"}]}`)
		if it := w.next(s); it.Close == nil || it.Close.Code != "bad_request" {
			t.Fatalf("subscribed twice: %+v", it)
		}
	})
}

func (w *world) seekEarliest(channel string) string {
	return w.seek(channel, earliest).String()
}

func TestBadFramesEndTheLine(t *testing.T) {
	for _, frame := range []string{"", "hello", `{}`, `{"subscribe":1}`, `{"hello":{"version":1}}`, "{\"unsubscribe\":[\"\xff\"]}"} {
		inBubble(t, server.Options{}, func(w *world) {
			s := w.ws(hello("r", ""))
			w.next(s)
			if err := s.Send([]byte(frame)); err != nil {
				t.Fatal(err)
			}
			it := w.next(s)
			if it.Close == nil || it.Close.Class != "never" || it.Close.Message == "" {
				t.Fatalf("P6.14: %q is answered with %+v", frame, it)
			}
			_, err := s.Next()
			if code := websocket.CloseStatus(err); code != 4002 && (code != 1007 || utf8.ValidString(frame)) {
				t.Errorf("P4.5: %q: ended with %v", frame, err)
			}
		})
	}
	inBubble(t, server.Options{}, func(w *world) {
		s := w.ws(wireclient.Hello{Version: 9})
		if it := w.next(s); it.Close == nil || it.Close.Code != "bad_version" || len(it.Close.Versions) != 1 {
			t.Errorf("P6.2: %+v", it.Close)
		}
		s, err := wireclient.WS(w.ctx, w.http, base+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		began := time.Now()
		it, err := s.Next()
		if err != nil || it.Close == nil || it.Close.Code != "bad_request" || time.Since(began) > 11*time.Second {
			t.Errorf("no hello: %+v, %v after %v", it.Close, err, time.Since(began))
		}
	})
}

// TestBadPositionEndsItsChannelAlone: a page that stored garbage for one
// channel still hears the others.
func TestBadPositionEndsItsChannelAlone(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		h := wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "bad", After: "x y"}, {Channel: "good"}}}
		s := w.ws(h)
		if it := w.next(s); it.End == nil || it.Channel != "bad" || it.End.Code != "bad_position" || it.End.Message == "" {
			t.Fatalf("P6.9: %+v", it)
		}
		if it := w.next(s); !it.Opening || it.Channel != "good" {
			t.Fatalf("P6.9: %+v", it)
		}
		a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll", h)
		if err != nil || len(a.Items) != 1 || a.Items[0].End == nil || a.Positions["good"] == "" {
			t.Errorf("P6.9: %+v, %v", a, err)
		}
	})
}

func TestProbe(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		probe := wireclient.Hello{Version: 1, Line: 4, Probe: true}
		sse, err := wireclient.SSESession(w.ctx, w.http, base+"/sse", probe)
		if err != nil {
			t.Fatal(err)
		}
		defer sse.Close()
		ws := w.ws(probe)
		began := time.Now()
		for name, s := range map[string]wireclient.Stream{"sse": sse, "ws": ws} {
			if it, err := s.Next(); err != nil || it.Open == nil || it.Open.Line != 4 {
				t.Errorf("P6.7: %s: %+v, %v", name, it, err)
			}
			if it, err := s.Next(); err != nil || !it.Beat || time.Since(began) < 200*time.Millisecond {
				t.Errorf("P6.7: %s: %+v, %v after %v", name, it, err, time.Since(began))
			}
		}
		began = time.Now()
		if a, err := wireclient.SessionPoll(w.ctx, w.http, base+"/poll?wait=25s", probe); err != nil || a.Open == nil || time.Since(began) > 0 {
			t.Errorf("P6.7: a probing poll: %+v, %v after %v", a, err, time.Since(began))
		}
		it, err := sse.Next()
		if err != nil || it.Close == nil || it.Close.Code != "probe_over" || it.Close.Class != "now" {
			t.Errorf("P6.7: in the end: %+v, %v", it, err)
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("P6.7: a probe lasted %v", took)
		}
	})
}

// TestProbeBecomesLine: the client goes up to a WebSocket without a hole.
func TestProbeBecomesLine(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		begin := w.publish("r", "0")
		ws := w.ws(wireclient.Hello{Version: 1, Line: 2, Probe: true})
		for range 2 {
			if _, err := ws.Next(); err != nil {
				t.Fatal(err)
			}
		}
		at := w.publish("r", "1") // while the old line feeds
		h := hello("r", begin.String())
		h.Line = 3
		if err := ws.Send(h.Frame()); err != nil {
			t.Fatal(err)
		}
		if it, err := ws.Next(); err != nil || it.Open == nil || it.Open.Line != 3 {
			t.Fatalf("P6.8: %+v, %v", it, err)
		}
		if it := w.next(ws); !it.Opening || it.Position != begin.String() {
			t.Errorf("P6.8: %+v", it)
		}
		if it := w.next(ws); it.Position != at.String() {
			t.Errorf("P6.8: %+v", it)
		}
		time.Sleep(time.Minute) // the probe's ten seconds don't count any more
		at = w.publish("r", "2")
		if it := w.next(ws); it.Position != at.String() {
			t.Errorf("P6.8: after a minute: %+v", it)
		}
	})
}

// TestSlowReaderIsEvictedAlone: who doesn't read is cut off by the deadline,
// can come back, and nobody else notices.
func TestSlowReaderIsEvictedAlone(t *testing.T) {
	o := server.Options{WriteTimeout: 5 * time.Second}
	for _, c := range carriers {
		if c.name == "poll" || c.name == "poll session" {
			continue // between polls nothing counts
		}
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, o, func(w *world) {
				fast, slow := w.must(c, "r", ""), w.must(c, "r", "")
				w.next(fast)
				position := w.next(slow).Position
				began := time.Now()
				for range 60 {
					n := w.publish("r", fmt.Sprintf(`"%060000d"`, 1))
					if it := w.next(fast); it.Position != n.String() {
						t.Fatalf("the fast reader got %+v, want %v", it, n)
					}
				}
				if took := time.Since(began); took > 0 {
					t.Errorf("the fast reader's events took %v beside a slow one", took)
				}
				time.Sleep(6 * time.Second)
				synctest.Wait()
				got := 0
				for it, err := slow.Next(); err == nil; it, err = slow.Next() {
					if it.Event {
						got++
						position = it.Position
					}
				}
				if got == 0 || got >= 60 {
					t.Fatalf("the slow reader got %d of 60 events before it was cut off", got)
				}
				time.Sleep(5 * time.Second) // Options.EvictionDelay
				back := w.must(c, "r", position)
				w.next(back)
				for range 60 - got {
					w.next(back)
				}
			})
		})
	}
}

// TestLaggardIsEvicted: who reads, but slower than events come, is told.
func TestLaggardIsEvicted(t *testing.T) {
	o := server.Options{
		WriteTimeout: time.Minute, MaxLag: 10, LagWindow: 20 * time.Second, EvictionDelay: 4 * time.Minute,
		GoodbyeTimeout: 10 * time.Second, CloseTimeout: 10 * time.Second, // it comes after all that was sent before
	}
	var book logbook
	o.Logger = book.logger()
	inBubble(t, o, func(w *world) {
		s, open := w.line(w.http, "ws", hello("r", ""))
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 200 {
				w.publish("r", fmt.Sprintf(`"%060000d"`, 1))
				time.Sleep(time.Second)
			}
		}()
		began := time.Now()
		for {
			it, err := s.Next()
			if err != nil {
				t.Fatalf("ended with %v, not with a word of goodbye", err)
			}
			if it.Close != nil {
				if it.Close.Code != "slow_consumer" || it.Close.Class != "later" || it.Close.After != 240_000 {
					t.Errorf("P6.13: %+v", it.Close)
				}
				break
			}
			time.Sleep(3 * time.Second)
		}
		if took := time.Since(began); took < 30*time.Second || took > 3*time.Minute {
			t.Errorf("evicted after %v", took)
		}
		if n := metric(t, w.srv, "throughline_evictions_total", "lag"); n != 1 {
			t.Errorf("%v evictions because of lag", n)
		}
		back := hello("r", "")
		back.Line, back.Token = 2, open.Token
		if _, _, err := w.begin(w.http, "sse", back); refusal(err) == nil || refusal(err).Code != "slow_consumer" {
			t.Errorf("back too soon: %v", err)
		}
		said := book.lines(t, "msg", "refused", "action", "connect", "code", "slow_consumer")
		if len(said) != 1 || said[0]["for"].(float64) < float64(time.Minute) || said[0]["for"].(float64) > float64(4*time.Minute) {
			t.Errorf("the refusal says %v", said)
		}
		<-done
	})
}

// TestCatchingUpIsNotLagging: however far behind somebody begins.
func TestCatchingUpIsNotLagging(t *testing.T) {
	o := server.Options{Authorize: allow, WriteTimeout: time.Minute, MaxLag: 10, LagWindow: 5 * time.Second}
	inBubble(t, o, func(w *world) {
		for range 100 {
			w.publish("r", fmt.Sprintf(`"%060000d"`, 1))
		}
		s := w.ws(hello("r", "earliest"))
		for n := 0; n < 100; {
			it := w.next(s)
			if it.Close != nil {
				t.Fatalf("evicted after %d events: %+v", n, it.Close)
			}
			if it.Event {
				n++
				time.Sleep(time.Second)
			}
		}
	})
}

func TestCloseSaysGoodbye(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		ws := w.ws(hello("r", ""))
		sse, err := wireclient.SSE(w.ctx, w.http, base+"/sse?channel=r", "")
		if err != nil {
			t.Fatal(err)
		}
		defer sse.Close()
		w.next(ws)
		at := w.next(sse).Position
		answered := make(chan *wireclient.Answer, 1)
		go func() {
			a, _ := wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r&wait=50s&after="+at)
			answered <- a
		}()
		synctest.Wait()
		began := time.Now()
		go w.srv.Close()
		if it := w.next(ws); it.Close == nil || it.Close.Code != "shutdown" || it.Close.After < 1000 {
			t.Errorf("P6.13: %+v", it)
		}
		if b, err := sse.Parser.Next(); err != nil || b.Retry == "" {
			t.Errorf("P3.11: %+v, %v", b, err)
		}
		if a := <-answered; a == nil || a.Positions["r"] != at {
			t.Errorf("a parked poll: %+v", a)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}
		_, err = wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r")
		var r *wireclient.Refused
		if !errors.As(err, &r) || r.Status != 503 || r.Code != "shutdown" || r.Header.Get("Retry-After") == "" {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestUnavailableLogIsNotALoss: a log that can't be asked is asked again, and
// nobody hears of a gap.
func TestUnavailableLogIsNotALoss(t *testing.T) {
	flaky := newFlakyLog()
	inBubbleWith(t, flaky.open, server.Options{}, func(w *world) {
		s := w.ws(hello("r", ""))
		w.next(s)
		flaky.down.Store(true)
		at := w.publish("r", "1")
		time.Sleep(30 * time.Second)
		_, err := wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r&after="+at.String())
		var r *wireclient.Refused
		if !errors.As(err, &r) || r.Status != 503 || r.Code != "unavailable" || r.Class != "later" {
			t.Errorf("attached while the log was down: %v", err)
		}
		flaky.down.Store(false)
		if it := w.next(s); it.Position != at.String() {
			t.Errorf("after the log came back: %+v", it)
		}
	})
}

// TestUnencodableIsAGapOfOne: a log that holds what no carrier can show.
func TestUnencodableIsAGapOfOne(t *testing.T) {
	onEachWith(t, newCorruptLog, server.Options{}, func(w *world, c carrier) {
		begin := w.seekEarliest("r")
		w.publish("r", "1")
		bad := w.publish("r", `"corrupt"`)
		w.publish("r", "3")
		s := w.must(c, "r", begin)
		var got []string
		for len(got) < 3 {
			it := w.next(s)
			switch {
			case it.Event:
				got = append(got, string(it.Data))
			case it.Gap != nil:
				got = append(got, it.Gap.Reason)
				if it.Gap.To != bad.String() {
					t.Errorf("P2.5: the gap ends at %v, want %v", it.Gap.To, bad)
				}
			}
		}
		if fmt.Sprint(got) != "[1 unencodable 3]" {
			t.Errorf("P2.5: %v came", got)
		}
	})
}
