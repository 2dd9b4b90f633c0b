package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// A mouth says one frame to a server and returns what answers it. A refusal of
// the whole of it is an item with Close.
type mouth func(frame string) wireclient.Item

// A way is one to say something.
type way struct {
	name string
	open func(w *world) mouth
}

var ways = []way{{"ws", (*world).sayOnLine}, {"request", (*world).sayByRequest}}

// sayOnLine opens a line; what ends it is its last answer.
func (w *world) sayOnLine() mouth {
	s := w.ws(wireclient.Hello{Version: 1, Line: 1})
	return func(frame string) wireclient.Item {
		w.Helper()
		if err := s.Send([]byte(frame)); err != nil {
			w.Fatalf("send: %v", err)
		}
		return w.next(s)
	}
}

func (w *world) sayByRequest() mouth {
	return func(frame string) wireclient.Item {
		w.Helper()
		return w.up("", frame)
	}
}

// up posts a frame with a head.
func (w *world) up(token, frame string) wireclient.Item {
	w.Helper()
	return w.post1(`{"up":{"version":1,"token":"` + token + `"},` + frame[1:])
}

// post1 posts a body to {base}/up.
func (w *world) post1(body string) wireclient.Item {
	w.Helper()
	r := w.do("POST", "/up", body)
	var answer struct {
		Published []wireclient.Outcome
		Answer    *wireclient.Reply
		Error     *wireclient.Reason
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		w.Fatalf("status %d: %v", r.StatusCode, err)
	}
	if (r.StatusCode == http.StatusOK) != (answer.Error == nil) {
		w.Errorf("P9.1: status %d with %+v", r.StatusCode, answer)
	}
	return wireclient.Item{Published: answer.Published, Reply: answer.Answer, Close: answer.Error}
}

// onWays runs a test in a bubble of its own for each way up.
func onWays(t *testing.T, o server.Options, body func(*world, mouth)) {
	t.Helper()
	onWaysWith(t, func() eventlog.Log { return eventlog.NewMemory(eventlog.MemoryOptions{}) }, o, body)
}

func onWaysWith(t *testing.T, log func() eventlog.Log, o server.Options, body func(*world, mouth)) {
	t.Helper()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			inBubbleWith(t, log, o, func(w *world) { body(w, way.open(w)) })
		})
	}
}

const producer = "0123456789abcdefghij_-"

// batch is a frame publish, of publish frames in JSON.
func batch(frames ...string) string {
	return `{"publish":{"producer":"` + producer + `","frames":[` + strings.Join(frames, ",") + `]}}`
}

// frame is a publish frame of one message, which is its number.
func frame(seq int, channel string) string {
	name, _ := json.Marshal(channel)
	return fmt.Sprintf(`{"seq":%d,"channel":%s,"messages":[{"data":%d}]}`, seq, name, seq)
}

func repeated(frame string) string { return frame[:len(frame)-1] + `,"repeat":true}` }

func call(id int, name, data string) string {
	text, _ := json.Marshal(name)
	return fmt.Sprintf(`{"call":{"id":%d,"name":%s,"data":%s}}`, id, text, data)
}

// outcomes are the entries of an answer in short: a number with "ok", "dup", a
// code, or "again" with a code.
func outcomes(it wireclient.Item) string {
	var list []string
	for _, o := range it.Published {
		word := "ok"
		switch {
		case o.Error != nil:
			word = o.Error.Code
		case o.Retry != nil:
			word = "again:" + o.Retry.Code
		case o.Duplicate:
			word = "dup"
		}
		if o.Tried {
			word += ":tried"
		}
		list = append(list, fmt.Sprintf("%d:%s", o.Seq, word))
	}
	if it.Close != nil {
		list = append(list, "refused:"+it.Close.Code)
	}
	return strings.Join(list, " ")
}

// reply is the answer to a call in short: its data or its code.
func reply(it wireclient.Item) string {
	switch {
	case it.Reply == nil:
		return fmt.Sprintf("no answer: %+v", it)
	case it.Reply.Error != nil:
		return it.Reply.Error.Code
	}
	return string(it.Reply.Data) + it.Reply.Encoding
}

// holds are the data of a channel's events.
func (w *world) holds(channel string) (data []string) {
	w.Helper()
	page, err := w.log.Read(w.ctx, server.Channel{Name: channel}, w.seek(channel, earliest), eventlog.Limit{})
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range page.Events {
		data = append(data, string(e.Data))
	}
	return data
}

func expect(t *testing.T, clause, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", clause, got, want)
	}
}

func TestTokenOfAnUpstream(t *testing.T) {
	var n notes
	o := server.Options{Authorize: allow, OnPublish: func(_ context.Context, p *server.Publication) error {
		n.add("%t %s", p.Client.Session != "", p.Client.Transport)
		return nil
	}}
	inBubble(t, o, func(w *world) {
		ws, open := w.line(w.http, "ws", wireclient.Hello{Line: 1})
		expect(t, "P9.1", outcomes(w.up(open.Token, batch(frame(1, "a")))), "1:ok")
		expect(t, "P9.1", outcomes(w.up("", batch(frame(2, "a")))), "2:ok")
		expect(t, "P9.1", outcomes(w.up(open.Token[1:], batch(frame(3, "a")))), "3:ok")
		if err := ws.(*wireclient.WSStream).Send([]byte(batch(frame(4, "a")))); err != nil {
			t.Fatal(err)
		}
		expect(t, "P9.1", outcomes(w.next(ws)), "4:ok")
		expect(t, "P9.1: who spoke", fmt.Sprintf("%q", n.take()), `["true " "false " "false " "true ws"]`)
		w.up("", `{"close":{"line":1}}`)
		w.publish("b", "1")
		if err := ws.(*wireclient.WSStream).Send([]byte(batch(frame(5, "a")))); err != nil {
			t.Error("P9.1: a goodbye without a token ended a line")
		}
		expect(t, "P9.1", outcomes(w.next(ws)), "5:ok")
	})
}

func TestRequestsThatCantBeRead(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		for body, code := range map[string]string{
			batch(frame(1, "a")):                         "bad_request", // no head
			`{"up":{"version":1}}`:                       "bad_request",
			`{"up":{"version":1},"subscribe":[]}`:        "bad_request",
			`{"up":{"version":1},"close":{},"call":{}}`:  "bad_request",
			`{"up":{"version":2},"later":"perhaps"}`:     "bad_version",
			`{"up":{}`:                                   "bad_request",
			`{"up":{"version":1},"close":{}} {"more":1}`: "bad_request",
		} {
			expect(t, "P9.1: "+body, outcomes(w.post1(body)), "refused:"+code)
		}
		long := fmt.Sprintf(`{"seq":1,"channel":"a","messages":[{"encoding":"base64","data":%q}]}`, base64.StdEncoding.EncodeToString(make([]byte, 1<<20)))
		expect(t, "P9.1: a message of the log's bound", outcomes(w.up("", batch(long))), "1:ok")
		expect(t, "P6.14: too long for a line", outcomes(w.sayOnLine()(batch(long))), "refused:too_large")
	})
}

func TestMalformedBatches(t *testing.T) {
	manyFrames := func(n int) string {
		var frames []string
		for i := range n {
			frames = append(frames, frame(i+1, fmt.Sprint("c", i)))
		}
		return batch(frames...)
	}
	messages := func(list string) string { return batch(`{"seq":1,"channel":"a","messages":[` + list + `]}`) }
	for name, text := range map[string]string{
		"falling numbers":      batch(frame(2, "a"), frame(1, "b")),
		"equal numbers":        batch(frame(1, "a"), frame(1, "b")),
		"number 0":             batch(frame(0, "a")),
		"two of a channel":     batch(frame(1, "a"), frame(2, "a")),
		"65 frames":            manyFrames(65),
		"no frame":             batch(),
		"no message":           messages(""),
		"101 messages":         messages(strings.TrimSuffix(strings.Repeat(`{"data":1},`, 101), ",")),
		"short producer":       strings.Replace(batch(frame(1, "a")), producer, producer[1:], 1),
		"long producer":        strings.Replace(batch(frame(1, "a")), producer, strings.Repeat("a", 65), 1),
		"bad producer":         strings.Replace(batch(frame(1, "a")), producer, "+"+producer, 1),
		"no producer":          strings.Replace(batch(frame(1, "a")), producer, "", 1),
		"unknown encoding":     messages(`{"data":"","encoding":"hex"}`),
		"missing data":         messages(`{"type":"t"}`),
		"a number as text":     messages(`{"data":1,"encoding":"text"}`),
		"no base64":            messages(`{"data":"_-","encoding":"base64"}`),
		"a call too":           strings.TrimSuffix(batch(frame(1, "a")), "}") + `,"call":{"id":1,"name":"a","data":1}}`,
		"a call's empty name":  call(1, "", "1"),
		"a call's long name":   call(1, strings.Repeat("a", 201), "1"),
		"a call without data":  `{"call":{"id":1,"name":"a"}}`,
		"a call's long key":    `{"call":{"id":1,"name":"a","data":1,"key":"` + strings.Repeat("k", 65) + `"}}`,
		"a call's bad key":     `{"call":{"id":1,"name":"a","data":1,"key":"a b"}}`,
		"a call's negative id": call(-1, "a", "1"),
	} {
		onWays(t, server.Options{Authorize: allow}, func(w *world, say mouth) {
			expect(w.T, "P9.2, P9.9: "+name, outcomes(say(text)), "refused:bad_request")
			if got := w.holds("a"); len(got) > 0 {
				w.Errorf("P9.2: %s: %q was appended", name, got)
			}
		})
	}
	onWays(t, server.Options{Authorize: allow}, func(w *world, say mouth) {
		it := say(manyFrames(64))
		if len(it.Published) != 64 || it.Published[63].Position == "" {
			w.Errorf("P9.2: 64 frames: %s", outcomes(it))
		}
		hundred := strings.Replace(messages(strings.TrimSuffix(strings.Repeat(`{"data":1},`, 100), ",")), `"seq":1`, `"seq":65`, 1)
		expect(w.T, "P9.2: 100 messages", outcomes(say(hundred)), "65:ok")
	})
}

func TestBatchIsAppended(t *testing.T) {
	onWays(t, server.Options{Authorize: allow}, func(w *world, say mouth) {
		three := `{"seq":7,"channel":"a","messages":[{"type":"said","data":{"a": [1]}},{"data":"AAEC","encoding":"base64"},{"data":"plain","encoding":"text"}]}`
		it := say(batch(three, frame(9, "b")))
		expect(w.T, "P9.4", outcomes(it), "7:ok 9:ok")
		page, err := w.log.Read(w.ctx, server.Channel{Name: "a"}, w.seek("a", earliest), eventlog.Limit{})
		if err != nil || len(page.Events) != 3 {
			w.Fatalf("P9.2: %+v, %v", page, err)
		}
		got := ""
		for _, e := range page.Events {
			got += fmt.Sprintf("%s %v %q;", e.Type, e.Kind, e.Data)
		}
		expect(w.T, "P9.2", got, `said JSON "{\"a\": [1]}";message binary "\x00\x01\x02";message text "plain";`)
		expect(w.T, "P9.4: the position", it.Published[0].Position, page.Head.String())

		again := say(batch(repeated(three), frame(9, "b"), frame(10, "c")))
		expect(w.T, "P9.4", outcomes(again), "7:dup 9:dup 10:ok")
		expect(w.T, "P9.4: the first position", again.Published[0].Position, it.Published[0].Position)
		expect(w.T, "P9.2: numbers rise over all channels, and each counts its own", outcomes(say(batch(frame(8, "c"), frame(11, "b")))), "8:stale 11:ok")
	})
}

func TestSecondBatchOnALine(t *testing.T) {
	free := make(map[string]chan struct{})
	o := server.Options{Authorize: allow, OnPublish: func(ctx context.Context, p *server.Publication) error {
		if ch := free[p.Channel.Name]; ch != nil {
			<-ch
		}
		return nil
	}}
	inBubble(t, o, func(w *world) {
		free["slow"] = make(chan struct{})
		s := w.ws(wireclient.Hello{Version: 1, Line: 1})
		for _, text := range []string{batch(frame(1, "slow")), batch(frame(2, "b"))} {
			if err := s.Send([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, "P9.3", outcomes(w.next(s)), "refused:bad_request")
		close(free["slow"])
		say := w.sayOnLine()
		for i := range 2000 { // right after the answer the next may come
			expect(t, "P9.3", outcomes(say(batch(frame(i+2, "b")))), fmt.Sprintf("%d:ok", i+2))
		}
	})
}

// rulesByName refuse by what a channel is called.
func rulesByName(o server.Options) server.Options {
	o.Authorize = func(_ context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
		switch ch.Name {
		case "forbidden":
			return errDenied
		case "unsure":
			panic("oh no")
		}
		return nil
	}
	o.OnPublish = func(_ context.Context, p *server.Publication) error {
		switch p.Channel.Name {
		case "own":
			return transport.Refuse("pay_first", "the bill is open")
		case "later":
			return transport.RefuseFor(3*time.Second, "slow_down", "not so fast")
		case "hidden":
			return errors.New("a secret")
		case "panic":
			panic("oh no")
		}
		return nil
	}
	return o
}

func TestRefusedForGood(t *testing.T) {
	small := func() eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{MaxData: 10, MaxProducersPerChannel: 1})
	}
	onWaysWith(t, small, rulesByName(server.Options{}), func(w *world, say mouth) {
		other := strings.Replace(batch(frame(1, "busy")), producer, strings.Repeat("x", 22), 1)
		expect(w.T, "another producer", outcomes(say(other)), "1:ok")
		expect(w.T, "the one after", outcomes(say(batch(frame(5, "stale")))), "5:ok")
		bad := []string{
			frame(1, "forbidden"), frame(2, "own"), frame(3, "hidden"), frame(4, "stale"), frame(5, "panic"), frame(6, "\x01"), frame(7, "busy"),
			`{"seq":8,"channel":"type","messages":[{"data":1},{"data":1,"type":"throughline.x"}]}`,
			`{"seq":9,"channel":"large","messages":[{"data":12345678901}]}`,
		}
		it := say(batch(append(bad, frame(10, "good"))...))
		expect(w.T, "P9.7, and P9.4: later frames go on", outcomes(it),
			"1:forbidden 2:pay_first 3:forbidden 4:stale 5:failed 6:bad_channel 7:busy 8:invalid 9:too_large 10:ok")
		if len(it.Published) != 10 {
			return
		}
		if busy := it.Published[6].Error; busy == nil || busy.After == 0 {
			w.Errorf("P9.7: busy without a delay: %+v", busy)
		}
		if strings.Contains(it.Published[2].Error.Message, "secret") {
			w.Errorf("the text of the program's error is shown: %+v", it.Published[2].Error)
		}
		for i := range bad {
			bad[i] = repeated(bad[i])
		}
		expect(w.T, "P9.6", outcomes(say(batch(bad...))),
			"1:unknown 2:unknown 3:unknown 4:unknown 5:unknown 6:bad_channel 7:unknown 8:invalid 9:unknown")
		for _, name := range []string{"forbidden", "own", "hidden", "panic", "type", "large"} {
			if got := w.holds(name); len(got) > 0 {
				w.Errorf("P9.4: %q is in %s", got, name)
			}
		}
	})
}

func TestBatchStops(t *testing.T) {
	down := false
	log := func() eventlog.Log {
		return &appendLog{Log: eventlog.NewMemory(eventlog.MemoryOptions{}), fails: func() bool { return down }}
	}
	onWaysWith(t, log, rulesByName(server.Options{RetryDelay: time.Second}), func(w *world, say mouth) {
		it := say(batch(frame(1, "a"), frame(2, "forbidden"), frame(3, "later"), frame(4, "b")))
		expect(w.T, "P9.5", outcomes(it), "1:ok 2:forbidden 3:again:slow_down")
		if r := it.Published[len(it.Published)-1].Retry; r == nil || r.Class != "later" || r.After != 3000 {
			w.Errorf("P9.5: %+v", r)
		}
		expect(w.T, "P9.5: a question that was not answered", outcomes(say(batch(frame(3, "unsure"), frame(4, "b")))), "3:again:unavailable")
		down = true
		it = say(batch(frame(4, "b"), frame(5, "a")))
		down = false
		expect(w.T, "P9.5", outcomes(it), "4:again:unavailable:tried")
		if r := it.Published[0].Retry; r == nil || r.Class != "later" || r.After < 1000 {
			w.Errorf("P9.5: %+v", r)
		}
		expect(w.T, "P9.5: nothing after it was worked on", fmt.Sprint(w.holds("a"), w.holds("b")), "[1] []")
		expect(w.T, "P9.6", outcomes(say(batch(repeated(frame(4, "b")), frame(5, "a")))), "4:ok 5:ok")
	})
}

// An appendLog fails to append now and then; nothing was appended then.
type appendLog struct {
	eventlog.Log
	fails func() bool
}

func (l *appendLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	if l.fails() && b.Producer != (eventlog.Producer{}) {
		return eventlog.Position{}, false, eventlog.ErrUnavailable
	}
	return l.Log.Append(ctx, ch, b)
}

func TestSlowPublishIsBrokenOff(t *testing.T) {
	o := server.Options{Authorize: allow, PublishTimeout: 2 * time.Second, OnPublish: func(ctx context.Context, p *server.Publication) error {
		if p.Channel.Name == "slow" {
			<-ctx.Done()
			return errors.New("broken off")
		}
		return nil
	}}
	onWays(t, o, func(w *world, say mouth) {
		began := time.Now()
		expect(w.T, "P9.5: a hook that was broken off said nothing", outcomes(say(batch(frame(1, "a"), frame(2, "slow"), frame(3, "b")))), "1:ok 2:again:unavailable")
		if took := time.Since(began); took != 2*time.Second {
			w.Errorf("PublishTimeout: %v", took)
		}
	})
}

// TestProducersOfTwoSections: an Idempotency-Key is no producer of a page.
func TestProducersOfTwoSections(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		for _, key := range []string{producer, "p:" + producer} {
			if _, p := w.post("/publish?channel=a", "0", "Idempotency-Key", key); p.Duplicate || p.Position == "" {
				t.Errorf("P9.8: %+v", p)
			}
		}
		expect(t, "P9.8", outcomes(w.up("", batch(frame(1, "a")))), "1:ok")
	})
}

func TestPanicInOnPublish(t *testing.T) {
	var log bytes.Buffer
	o := rulesByName(server.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	onWays(t, o, func(w *world, say mouth) {
		log.Reset()
		expect(w.T, "P9.7", outcomes(say(batch(frame(1, "panic"), frame(2, "a")))), "1:failed 2:ok")
		if !strings.Contains(log.String(), "function=OnPublish panic") {
			w.Errorf("the log does not say so: %s", log.String())
		}
	})
}
