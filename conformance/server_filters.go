package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// What P2.9 of PROTOCOL.md promises to who reads a part of a channel's events.
var filterClauses = []serverClause{
	{
		id: "P2.9_OnlyWhatIsWanted", group: "channels", over: allForms, clock: anyClock, needs: []Feature{Filters},
		text: "MUST: who names types, tags or keys gets the events that have one of each list, once and in order, those from before and those that come, and no others.",
		run:  (*serverCheck).onlyWhatIsWanted,
	},
	{
		id: "P2.9_PositionsAreTheSame", group: "resume", over: allForms, clock: anyClock, needs: []Feature{Filters},
		text: "MUST: a position is the same with any filter: who goes on from one with another filter, or none, gets what lies after it.",
		run:  (*serverCheck).positionsAreTheSame,
	},
	{
		id: "P2.9_BadFilters", group: "malformed input", over: allForms, clock: anyClock, needs: []Feature{Filters},
		text: "MUST: a filter that can't be is refused with bad_request.",
		run:  (*serverCheck).badFilters,
	},
	{
		id: "P2.3_MovesOverWhatIsLeftOut", group: "heartbeats", over: []form{plainSSE, sessionSSE, sessionWS}, needs: []Feature{Filters},
		text:  "MUST: who reads with a filter hears with a heartbeat at the latest where it is, though nothing came.",
		setup: ServerSetup{Heartbeat: 10 * time.Second},
		run:   (*serverCheck).movesOverWhatIsLeftOut,
	},
	{
		id: "P5.4_LeftOutIsNoNews", group: "plain use", over: []form{plainPoll, sessionPoll}, needs: []Feature{Filters},
		text:  "MUST: what a filter leaves out does not end a poll's wait, but its answer has the position after it.",
		setup: ServerSetup{MaxWait: 40 * time.Second},
		run:   (*serverCheck).leftOutIsNoNews,
	},
}

// A choice is a filter, as a client names it.
type choice struct {
	Types []string `json:"types,omitempty"`
	Tags  []string `json:"tags,omitempty"`
	Keys  []string `json:"keys,omitempty"`
}

// query is the choice in a plain request.
func (f choice) query() string {
	q := url.Values{"type": f.Types, "tag": f.Tags, "key": f.Keys}
	if text := q.Encode(); text != "" {
		return "&" + text
	}
	return ""
}

// hello asks for a channel with the choice.
func (f choice) hello(channel, after string) wireclient.Hello {
	h := wireclient.HelloFor(after, channel)
	h.Channels[0].Filter = f
	return h
}

// choose opens a line of the clause's form with a filter.
func (c *serverCheck) choose(channel, after string, f choice) (wireclient.Stream, error) {
	plain := func(path, after string) string { return c.base + path + wireclient.Query(after, channel) + f.query() }
	again := func(ask func(ctx context.Context, after string) (*wireclient.Answer, error)) (wireclient.Stream, error) {
		return wireclient.NewPollStream(c.ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at[channel]; ok {
				after = p
			}
			return ask(ctx, after)
		}), nil
	}
	hello := f.hello(channel, after)
	switch c.form.name {
	case plainSSE.name:
		return wireclient.SSE(c.ctx, c.http, plain("/sse", after), "")
	case plainWS.name:
		return wireclient.WS(c.ctx, c.http, plain("/ws", after), nil)
	case plainPoll.name:
		return again(func(ctx context.Context, after string) (*wireclient.Answer, error) {
			return wireclient.PlainPoll(ctx, c.http, plain("/poll", after)+"&wait=25s")
		})
	case sessionSSE.name:
		return wireclient.SSESession(c.ctx, c.http, c.base+"/sse", hello)
	case sessionWS.name:
		return wireclient.WS(c.ctx, c.http, c.base+"/ws", &hello)
	}
	return again(func(ctx context.Context, after string) (*wireclient.Answer, error) {
		return wireclient.SessionPoll(ctx, c.http, c.base+"/poll?wait=25s", f.hello(channel, after))
	})
}

// reads opens such a line, which has to be accepted.
func (c *serverCheck) reads(channel, after string, f choice) *reading {
	stream, err := c.choose(channel, after, f)
	if err != nil {
		c.fatalf("%s of %q after %q with %+v was not accepted: %v", c.form.name, channel, after, f, err)
	}
	c.atEnd(stream.Close)
	return &reading{check: c, stream: stream, form: c.form, presented: after, asked: fmt.Sprintf("%q after %q with %+v", channel, after, f)}
}

// wanted reads the events with these data, whatever is said of positions
// meanwhile.
func (r *reading) wanted(data ...string) (last string) {
	for _, want := range data {
		it := r.until(fmt.Sprintf("the event %s", want), func(it wireclient.Item) bool { return it.Event || it.Gap != nil || it.End != nil || it.Close != nil })
		if string(it.Data) != want {
			r.check.fatalf("%s: %s came, not the event %s; asked: %s", r.form.name, inWords(it), want, r.asked)
		}
		last = it.Position
	}
	return last
}

// aMix publishes what choices are made from: of each message its number.
func (c *serverCheck) aMix(channel string, first int) {
	for i, m := range []eventlog.Message{
		{Type: "said", Key: "k", Tags: []string{"x", "y"}},
		{},
		{Type: "seen", Tags: []string{"y"}},
		{Type: "said", Key: "l"},
		{Type: "message", Key: "k"},
	} {
		m.Data = fmt.Append(nil, first+i)
		c.publishMessage(channel, m)
	}
}

// choices are filters, and which of a mix they let through.
var choices = []struct {
	choice
	of []int
}{
	{choice{}, []int{0, 1, 2, 3, 4}},
	{choice{Types: []string{"said"}}, []int{0, 3}},
	{choice{Types: []string{"seen", "none", "said"}}, []int{0, 2, 3}},
	{choice{Types: []string{"message"}}, []int{1, 4}},
	{choice{Tags: []string{"y"}}, []int{0, 2}},
	{choice{Keys: []string{"l", "k"}}, []int{0, 3, 4}},
	{choice{Types: []string{"said"}, Keys: []string{"k"}, Tags: []string{"x"}}, []int{0}},
}

func numbers(first int, of []int) (all []string) {
	for _, n := range of {
		all = append(all, fmt.Sprint(first+n))
	}
	return all
}

func (c *serverCheck) onlyWhatIsWanted() {
	for i, f := range choices {
		room := fmt.Sprint("room ", i)
		c.aMix(room, 0)
		c.aMix(room, 10)
		r := c.reads(room, "earliest", f.choice)
		r.wanted(numbers(0, f.of)...)
		r.wanted(numbers(10, f.of)...)
		c.aMix(room, 20)
		r.wanted(numbers(20, f.of)...)
		r.stream.Close()
	}
}

func (c *serverCheck) positionsAreTheSame() {
	c.aMix("room", 0)
	r := c.reads("room", "earliest", choice{Types: []string{"said"}})
	at := r.wanted("0")
	r.stream.Close()
	r = c.reads("room", at, choice{Keys: []string{"k"}})
	at = r.wanted("4")
	c.aMix("room", 10)
	r.wanted("10", "14")
	r.stream.Close()
	r = c.reads("room", at, choice{})
	r.wanted("10", "11", "12", "13", "14")
}

func (c *serverCheck) badFilters() {
	var many []string
	for i := range 17 {
		many = append(many, fmt.Sprint("w", i))
	}
	for _, f := range []choice{{Types: many}, {Tags: many}, {Keys: many}, {Types: []string{strings.Repeat("x", 101)}}, {Keys: []string{"a\nb"}}} {
		it, err := wireclient.Item{}, error(nil)
		stream, err := c.choose("room", "", f)
		if err == nil {
			r := &reading{check: c, stream: stream, form: c.form}
			for it, err = r.take(); err == nil && (it.Beat || it.Open != nil); it, err = r.take() {
			}
			stream.Close()
		}
		code := ""
		switch r, ok := refusalOf(err); {
		case ok:
			code = r.Code
		case it.End != nil:
			code = it.End.Code
		case it.Close != nil:
			code = it.Close.Code
		}
		if code != "bad_request" {
			c.errorf("%s with the filter %.100v was answered with %s, %v, not refused with bad_request", c.form.name, f, inWords(it), err)
		}
	}
}

func (c *serverCheck) movesOverWhatIsLeftOut() {
	c.publish("moves", "0")
	r := c.reads("moves", "", choice{Types: []string{"wanted"}})
	r.opening()
	var at string
	for n := range 3 {
		time.Sleep(time.Second)
		at = c.publish("moves", fmt.Sprint(n))
	}
	began := time.Now()
	r.until(fmt.Sprintf("the position %q", at), func(it wireclient.Item) bool { return it.Opening && it.Position == at })
	if took := time.Since(began); took > 21*time.Second {
		c.errorf("%s: where it is was told after %v, with heartbeats each 10s", c.form.name, took)
	}
}

// pollFor asks once, by the clause's form.
func (c *serverCheck) pollFor(after, wait string, f choice) (b pollBody) {
	if c.form.name == plainPoll.name {
		return c.plainPoll(wireclient.Query(after, "room") + "&wait=" + wait + f.query())
	}
	a := c.ask(c.http, "POST", "/poll?wait="+wait, string(f.hello("room", after).Frame()))
	if err := json.Unmarshal([]byte(a.text), &b); err != nil || a.status != 200 {
		c.fatalf("a poll of %+v was answered %d %.200q", f, a.status, a.text)
	}
	return b
}

func (c *serverCheck) leftOutIsNoNews() {
	after := c.publish("room", "0")
	f := choice{Types: []string{"wanted"}}
	published := make(chan string, 1)
	time.AfterFunc(5*time.Second, func() {
		at, _ := c.testee.Publish(c.ctx, "room", said(1))
		published <- at
	})
	began := time.Now()
	b := c.pollFor(after, "20s", f)
	if took, last := time.Since(began), <-published; took < 20*time.Second || len(b.Events) > 0 || b.Positions["room"] != last {
		c.errorf("a poll with a filter was answered after %v with %d events and the position %q, not after 20s with none and %q, after what was left out", took, len(b.Events), b.Positions["room"], last)
	}
	time.AfterFunc(5*time.Second, func() {
		_, _ = c.testee.Publish(c.ctx, "room", said(2))
		at, _ := c.testee.Publish(c.ctx, "room", eventlog.Message{Type: "wanted", Data: []byte("3")})
		published <- at
	})
	began = time.Now()
	b = c.pollFor(after, "20s", f)
	if took, last := time.Since(began), <-published; took < 5*time.Second || took > 6*time.Second || len(b.Events) != 1 || b.Positions["room"] != last {
		c.errorf("a poll with a filter was answered after %v with %d events and the position %q, not after 5s with the one that is wanted, at %q", took, len(b.Events), b.Positions["room"], last)
	}
}
