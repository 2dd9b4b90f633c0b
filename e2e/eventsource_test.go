package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

// A heard is what an EventSource handed to the page.
type heard struct{ Type, ID, Data string }

// cuts is how often a stream is cut in the tests below.
const cuts = 40

// cutStreams has the first streams break, each after another number of bytes,
// half of them rough; it returns how many were begun.
func (w *world) cutStreams(longest int) *atomic.Int32 {
	var begun atomic.Int32
	r := rand.New(rand.NewPCG(1, 2))
	w.onRequest(func(carrier string, l *line) {
		if n := begun.Add(1); carrier == "sse" && n <= cuts {
			l.cutAfter(1+r.IntN(longest), n%2 == 0)
		}
	})
	return &begun
}

// tell publishes one event to each channel, at a pace, while the page has seen
// fewer than all cuts, and a few more then.
func (w *world) tell(begun *atomic.Int32, truth map[string]*conformance.Oracle) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for rest := 20; rest > 0; {
		for channel, o := range truth {
			n, payload := o.Payload()
			o.Appended(n, w.publish(channel, string(payload)).String())
		}
		if begun.Load() > cuts {
			rest--
		}
		if time.Now().After(deadline) {
			w.Fatalf("only %d streams in %v", begun.Load(), patience)
		}
		time.Sleep(4 * time.Millisecond)
	}
}

func TestEventSourceOneChannel(t *testing.T) {
	t.Parallel() // it mostly waits
	w := start(t, server.Options{Retry: 20 * time.Millisecond})
	p := open(t, "page", w.origin)
	begin := w.head("a")
	o := conformance.NewOracle(begin)
	begun := w.cutStreams(2000)
	p.call(nil, "hear", "all", "/realtime/sse?channel=a&after="+begin)
	w.tell(begun, map[string]*conformance.Oracle{"a": o})
	p.until(`seen.all.at(-1)?.id === %q`, w.head("a"))

	var got []heard
	p.eval(&got, "seen.all")
	judge(t, o, begin, seenByID(t, got))
}

func TestEventSourceThreeChannels(t *testing.T) {
	t.Parallel() // it mostly waits
	w := start(t, server.Options{Retry: 20 * time.Millisecond})
	p := open(t, "page", w.origin)
	query, truth, begin := url.Values{"as": {"event"}, "after": {"latest"}}, map[string]*conformance.Oracle{}, map[string]string{}
	for _, c := range []string{"a", "b", "c"} {
		query.Add("channel", c)
		begin[c] = w.head(c)
		truth[c] = conformance.NewOracle(begin[c])
	}
	p.call(nil, "hear", "all", "/realtime/sse?"+query.Encode())
	p.until("seen.all.opens === 1") // that stream isn't cut, as it has no position yet
	begun := w.cutStreams(4000)
	w.kill("sse")
	w.tell(begun, truth)
	for c := range truth {
		p.until(`seen.all.some((e) => JSON.parse(e.data).position === %q)`, w.head(c))
	}

	var got []heard
	p.eval(&got, "seen.all")
	byChannel := map[string][]conformance.Seen{}
	for _, h := range got {
		var e struct {
			Channel, Position string
			Data              struct{ N int }
		}
		if err := json.Unmarshal([]byte(h.Data), &e); err != nil || h.Type != "message" {
			t.Fatalf("%v: %+v", err, h)
		}
		byChannel[e.Channel] = append(byChannel[e.Channel], conformance.Seen{N: e.Data.N, Position: e.Position})
	}
	for c, o := range truth {
		judge(t, o, begin[c], byChannel[c])
	}
}

// The oracle has to bite: a server that keeps one block back is found out.
func TestLostBlockIsSeen(t *testing.T) {
	w := start(t, server.Options{})
	p := open(t, "page", w.origin)
	begin := w.head("a")
	o := conformance.NewOracle(begin)
	w.onRequest(func(_ string, l *line) {
		writes := 0
		l.spoil(func(b []byte) []byte {
			if writes++; writes == 5 { // of a stream each flush is one chunk
				return nil
			}
			return b
		})
	})
	p.call(nil, "hear", "all", "/realtime/sse?channel=a&after="+begin)
	for range 10 {
		n, payload := o.Payload()
		o.Appended(n, w.publish("a", string(payload)).String())
		time.Sleep(20 * time.Millisecond)
	}
	p.until(`seen.all.at(-1)?.id === %q`, w.head("a"))
	var got []heard
	p.eval(&got, "seen.all")
	if v := o.Judge(begin, seenByID(t, got)); v.Lost == 0 {
		t.Errorf("a block was dropped, and the oracle says: %v", v)
	}
}

// seenByID reads what came in a plain stream of one channel.
func seenByID(t *testing.T, got []heard) (seen []conformance.Seen) {
	t.Helper()
	for _, h := range got {
		if h.Type == "throughline.gap" {
			g := gapOf(t, h)
			seen = append(seen, conformance.Seen{From: g.From, To: g.To})
			continue
		}
		n, err := conformance.Number([]byte(h.Data))
		if err != nil {
			t.Fatalf("%v: %+v", err, h)
		}
		seen = append(seen, conformance.Seen{N: n, Position: h.ID})
	}
	return seen
}

type gap struct{ From, To, Reason string }

func gapOf(t *testing.T, h heard) gap {
	t.Helper()
	var object struct{ Gap gap }
	if err := json.Unmarshal([]byte(h.Data), &object); err != nil || object.Gap.To != h.ID {
		t.Fatalf("not a gap with its `to` as id (%v): %+v", err, h)
	}
	return object.Gap
}

// judge demands that all came, without a gap.
func judge(t *testing.T, o *conformance.Oracle, begin string, got []conformance.Seen) {
	t.Helper()
	v := o.Judge(begin, got)
	t.Logf("%d items: %v", len(got), v)
	if !v.OK() || v.Missing+v.Unreached > 0 || len(got) < 2*cuts {
		t.Errorf("of %d items: %v", len(got), v)
	}
}

func TestEventSourcePayloads(t *testing.T) {
	w := start(t, server.Options{})
	p := open(t, "page", w.origin)
	begin := w.head("a")
	p.call(nil, "hear", "plain", "/realtime/sse?channel=a&after="+begin)
	p.call(nil, "hear", "named", "/realtime/sse?channel=a&events=named&after="+begin, "said")
	p.call(nil, "hear", "object", "/realtime/sse?channel=a&as=event&after="+begin)
	cases := []struct {
		m             server.Message
		plain, object string
	}{
		{server.Message{Type: "said", Data: []byte(`{"a": "ü"}`)}, `{"a": "ü"}`, `{"a": "ü"}`},
		{server.Message{Kind: server.Text, Data: []byte("two\nlines\n")}, "two\nlines\n", `"two\nlines\n"`},
		{server.Message{Kind: server.Text, Data: []byte(" a space\n\n: no comment")}, " a space\n\n: no comment", `" a space\n\n: no comment"`},
		{server.Message{Kind: server.Text, Data: []byte("carriage\rreturn")}, "data:;base64,Y2FycmlhZ2UNcmV0dXJu", `"carriage\rreturn"`},
		{server.Message{Kind: server.Text, Data: []byte("data:;base64,AAAA")}, "data:;base64,ZGF0YTo7YmFzZTY0LEFBQUE=", `"data:;base64,AAAA"`},
		{server.Message{Kind: server.Binary, Data: []byte{0, 255, 10}}, "data:;base64,AP8K", `"AP8K"`},
		{server.Message{Kind: server.Text}, "", `""`},
	}
	for i, c := range cases {
		at, err := w.srv.Publish(t.Context(), "a", c.m)
		if err != nil {
			t.Fatal(err)
		}
		p.until(`["plain", "named", "object"].every((name) => seen[name].length > %d)`, i)
		var got struct{ Plain, Named, Object heard }
		p.eval(&got, fmt.Sprintf("({plain: seen.plain[%d], named: seen.named[%[1]d], object: seen.object[%[1]d]})", i))

		kind := c.m.Type
		if kind == "" {
			kind = "message"
		}
		want := fmt.Sprintf(`{"channel":"a","position":"%v","type":%q,"data":%s`, at, kind, c.object)
		if c.m.Kind == server.Binary {
			want += `,"encoding":"base64"`
		}
		if got.Plain != (heard{"message", at.String(), c.plain}) {
			t.Errorf("P3.4: got %+v, want %q", got.Plain, c.plain)
		}
		if got.Named != (heard{kind, at.String(), c.plain}) {
			t.Errorf("P3.6: got %+v, want %q of type %s", got.Named, c.plain, kind)
		}
		if !sameJSON(got.Object.Data, want+"}") || got.Object.ID != at.String() {
			t.Errorf("P3.6: got %+v, want %s}", got.Object, want)
		}
	}
	// What the page makes of a data URL is the payload, byte by byte.
	var bytes []int
	p.eval(&bytes, `fetch(seen.plain[5].data).then((r) => r.arrayBuffer()).then((b) => [...new Uint8Array(b)])`)
	if fmt.Sprint(bytes) != "[0 255 10]" {
		t.Errorf("P3.5: the data URL holds %v", bytes)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && fmt.Sprint(x) == fmt.Sprint(y)
}

func TestEventSourceGap(t *testing.T) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{
		Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 5} },
	})
	t.Cleanup(func() { _ = log.Close() })
	w := start(t, server.Options{Log: log, Retry: 20 * time.Millisecond})
	p := open(t, "page", w.origin)
	begin := w.head("a")
	o := conformance.NewOracle(begin)
	publish := func(n int) {
		for range n {
			n, payload := o.Payload()
			o.Appended(n, w.publish("a", string(payload)).String())
		}
	}
	p.call(nil, "hear", "all", "/realtime/sse?channel=a&after="+begin)
	publish(1)
	p.until("seen.all.length === 1")
	w.forbid("sse")
	publish(20) // of which 5 are kept
	w.allow()
	p.until(`seen.all.at(-1).id === %q`, w.head("a"))
	w.kill("sse") // behind the gap it goes on as if nothing had been
	publish(3)
	p.until(`seen.all.at(-1).id === %q`, w.head("a"))

	var got []heard
	p.eval(&got, "seen.all")
	v := o.Judge(begin, seenByID(t, got))
	if !v.OK() || v.Missing != 15 || v.Unreached != 0 || len(got) != 1+1+5+3 {
		t.Errorf("%d items: %v", len(got), v)
	}
	if g := gapOf(t, got[1]); g.Reason != "trimmed" {
		t.Errorf("the gap's reason is %q", g.Reason)
	}
}

// refuse refuses everything, and counts how often it was asked.
func refuse(asked *atomic.Int32) func(context.Context, server.Identity, server.Action, server.Channel) error {
	return func(context.Context, server.Identity, server.Action, server.Channel) error {
		asked.Add(1)
		return errors.New("no")
	}
}

// A refusal ends an EventSource for good: it must not ask again and again.
func TestEventSourceRefused(t *testing.T) {
	var asked atomic.Int32
	w := start(t, server.Options{Retry: 20 * time.Millisecond, Authorize: refuse(&asked)})
	p := open(t, "page", w.origin)
	p.call(nil, "hear", "all", "/realtime/sse?channel=a")
	p.until("seen.all.errors > 0")
	var state int
	p.eval(&state, "seen.all.source.readyState")
	if state != 2 {
		t.Errorf("its readyState is %d, not CLOSED", state)
	}
	var later int
	p.eval(&later, "new Promise((done) => setTimeout(() => done(seen.all.errors), 300))")
	if later != 1 || asked.Load() != 1 {
		t.Errorf("%d errors, asked %d times", later, asked.Load())
	}
}
