package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// How a line begins, and shows that it lives: P6.1 and P6.3 to P6.5.
var helloClauses = []serverClause{
	{
		id: "P6.1_HelloIsFirst", group: "handshake", over: sessionForms, clock: anyClock,
		text: "MUST: what begins with another frame than a hello is refused with bad_request, and begins no line.",
		run:  (*serverCheck).helloIsFirst,
	},
	{
		id: "P6.1_LittleIsNeeded", group: "handshake", over: sessionForms, clock: anyClock,
		text: "MUST: a hello may leave out its channels and its token, or have empty ones.",
		run:  (*serverCheck).littleIsNeeded,
	},
	{
		id: "P6.1_AnyContentType", group: "handshake", over: []form{sessionSSE, sessionPoll}, clock: anyClock,
		text: "MUST: a hello is taken whatever the Content-Type of its request, or without one.",
		run:  (*serverCheck).anyContentType,
	},
	{
		id: "P6.1_EachChannelHasItsPlace", group: "resume", over: sessionForms, clock: anyClock,
		text: "MUST: each channel of a hello begins after its own position or start, and nothing of another decides it.",
		run:  (*serverCheck).eachChannelHasItsPlace,
	},
	{
		id: "P6.3_OpenComesFirst", group: "handshake", over: sessionForms, clock: anyClock,
		text: "MUST: the first frame that comes back is open, with the version and the number of the line, before anything about a channel, and there is one.",
		run:  (*serverCheck).openComesFirst,
	},
	{
		id: "P6.3_OpenSaysTheBounds", group: "handshake", over: sessionForms, clock: anyClock,
		text:  "MUST: open says the heartbeat and how long producers are remembered, both in milliseconds, and the most bytes of a frame, as they are.",
		setup: ServerSetup{Heartbeat: 7 * time.Second, Remember: 7 * time.Minute, MaxFrame: 4096},
		run:   (*serverCheck).openSaysTheBounds,
	},
	{
		id: "P6.3_TokenOnlyIfAnother", group: "handshake", over: sessionForms, clock: anyClock,
		text: "MUST: open brings a token where none was presented, and none where the one presented is to be used further.",
		run:  (*serverCheck).tokenOnlyIfAnother,
	},
	{
		id: "P6.3_ProbesOpenIsBare", group: "handshake", over: sessionForms, clock: anyClock,
		text: "MUST: the open of a probe says the version, the line and the heartbeat, and nothing of frames, producers and tokens.",
		run:  (*serverCheck).probesOpenIsBare,
	},
	{
		id: "P6.4_StreamIsLinesOfJSON", group: "payloads", over: []form{sessionSSE}, clock: anyClock,
		text: "MUST: on SSE each frame is one block of one data: line that holds one JSON object, and lines end with LF.",
		run:  (*serverCheck).streamIsLinesOfJSON,
	},
	{
		id: "P6.4_MessageIsOneFrame", group: "payloads", over: []form{sessionWS}, clock: anyClock,
		text: "MUST: on WebSocket each frame is one text message that holds one JSON object.",
		run:  (*serverCheck).messageIsOneFrame,
	},
	{
		id: "P6.4_PollAnswer", group: "payloads", over: []form{sessionPoll}, clock: anyClock,
		text: "MUST: the answer to a poll has events, positions and gaps, open beside them, and ends only if there are any.",
		run:  (*serverCheck).pollAnswer,
	},
	{
		id: "P6.4_PollWaits", group: "handshake", over: []form{sessionPoll},
		text:  "MUST: a poll waits as long as it asks to if it has channels and presents positions for all that are not paused, and else is answered at once.",
		setup: ServerSetup{MaxWait: time.Minute},
		run:   (*serverCheck).pollWaits,
	},
	{
		id: "P6.5_FirstHeartbeat", group: "heartbeats", over: sessionStreams,
		text:  "MUST: the first heartbeat comes 200 ms after open or later and within an interval of heartbeats, whatever else is sent.",
		setup: ServerSetup{Heartbeat: 5 * time.Second},
		run:   (*serverCheck).firstHeartbeat,
	},
	{
		id: "P6.5_SilentLineBeats", group: "heartbeats", over: sessionStreams,
		text:  "MUST: a line on which nothing happens has heartbeats, and is never silent for twice the interval that open says.",
		setup: ServerSetup{Heartbeat: 5 * time.Second},
		run:   (*serverCheck).silentLineBeats,
	},
	{
		id: "P6.5_PingGoesWithIt", group: "heartbeats", over: []form{sessionWS},
		text:  "MUST: with each heartbeat of a WebSocket goes a ping.",
		setup: ServerSetup{Heartbeat: 5 * time.Second},
		run:   (*serverCheck).pingGoesWithIt,
	},
}

func (c *serverCheck) helloIsFirst() {
	for _, text := range []string{`{"subscribe":[{"channel":"room"}]}`, `{"unsubscribe":["room"]}`, `{"presence":[{"channel":"room"}]}`, `{"close":{}}`, `{}`} {
		c.replyRefused(text, 400, "bad_request")
	}
}

func (c *serverCheck) littleIsNeeded() {
	for _, text := range []string{
		`{"hello":{"version":1,"line":1}}`,
		`{"hello":{"version":1,"line":1,"channels":[]}}`,
		`{"hello":{"version":1,"line":1,"token":""}}`,
		`{"hello":{"version":1,"token":"","line":1,"channels":[]}}`,
	} {
		if got := c.replyTo(text); got.refused != nil {
			c.errorf("%s was refused with %q: %s", text, got.refused.Code, got.refused.Message)
		}
	}
}

func (c *serverCheck) anyContentType() {
	for _, kind := range []string{"", "application/json", "application/json; charset=utf-8", "text/plain;charset=UTF-8", "application/octet-stream"} {
		var headers []string
		if kind != "" {
			headers = []string{"Content-Type", kind}
		}
		if got := c.replyTo(`{"hello":{"version":1,"line":1}}`, headers...); got.refused != nil {
			c.errorf("with the Content-Type %q a hello was refused with %q: %s", kind, got.refused.Code, got.refused.Message)
		}
	}
}

func (c *serverCheck) eachChannelHasItsPlace() {
	names := []string{"from a position", "from the earliest", "the last two", "from now on", "unwritten"}
	places := map[string][]string{}
	for _, name := range names[:4] {
		places[name] = c.publishMany(name, 1, 3)
	}
	h := helloOf(1, names...)
	for i, after := range []string{places[names[0]][0], "earliest", "last=2", ""} {
		h.Channels[i].After = after
	}
	l := c.line(h)
	got := map[string][]string{}
	read := func(events int) {
		for events > 0 {
			switch it := l.next(); {
			case it.Event:
				got[it.Channel] = append(got[it.Channel], string(it.Data))
				events--
			case !it.Opening:
				c.fatalf("%s: %s came", l.form.name, whole(it))
			}
		}
	}
	read(2 + 3 + 2)
	for _, name := range names {
		c.publish(name, "4")
	}
	read(len(names))
	for i, want := range []string{"2 3 4", "1 2 3 4", "2 3 4", "4", "4"} {
		if events := strings.Join(got[names[i]], " "); events != want {
			c.errorf("%q after %q brought the events %s, not %s", names[i], h.Channels[i].After, events, want)
		}
	}
}

func (c *serverCheck) openComesFirst() {
	c.publish("room", "1")
	h := helloOf(77, "room")
	h.Channels[0].After = "earliest"
	got := c.replyTo(string(h.Frame()))
	if got.refused != nil {
		c.fatalf("it was refused with %q", got.refused.Code)
	}
	if got.open.Version != 1 || got.open.Line != 77 {
		c.errorf("the open of line 77 says version %d, line %d", got.open.Version, got.open.Line)
	}
	if c.form.carrier == "poll" {
		return
	}
	h.Line = 78
	l := c.line(h)
	for seen := false; !seen; {
		it := l.any()
		if it.Open != nil {
			c.errorf("a second open came")
		}
		seen = it.Event
	}
}

func (c *serverCheck) openSaysTheBounds() {
	open := c.line(helloOf(1)).opened
	if want := c.setup.Heartbeat.Milliseconds(); open.Heartbeat != want {
		c.errorf("open says heartbeat %d, not %d", open.Heartbeat, want)
	}
	if want := int64(c.setup.MaxFrame); open.Limit != want {
		c.errorf("open says limit %d, not %d", open.Limit, want)
	}
	if _, lacks := c.server.Lacks[Upstream]; lacks {
		return
	}
	if most := c.setup.Remember.Milliseconds(); open.Remembered <= 0 || open.Remembered > most {
		c.errorf("open says remembered %d, and producers are remembered for %d ms", open.Remembered, most)
	}
}

func (c *serverCheck) tokenOnlyIfAnother() {
	first := c.line(helloOf(1))
	if first.opened.Token == "" {
		c.fatalf("the first open of a session brought no token")
	}
	h := helloOf(2)
	h.Token = first.token
	if second := c.line(h); second.opened.Token != "" {
		c.errorf("the token of a moment ago was presented, and open brought %s", sameOrNot(second.opened.Token, first.token))
	}
}

func sameOrNot(token, presented string) string {
	if token == presented {
		return "it again"
	}
	return "another one"
}

func (c *serverCheck) probesOpenIsBare() {
	got := c.replyTo(`{"hello":{"version":1,"line":4,"probe":true}}`)
	if got.refused != nil {
		c.fatalf("a probe was refused with %q", got.refused.Code)
	}
	if got.open.Version != 1 || got.open.Line != 4 || got.open.Heartbeat <= 0 {
		c.errorf("the open of a probe on line 4 says version %d, line %d, heartbeat %d", got.open.Version, got.open.Line, got.open.Heartbeat)
	}
	for _, name := range []string{"remembered", "limit", "token"} {
		if _, has := got.members[name]; has {
			c.errorf("the open of a probe has %q", name)
		}
	}
}

// oddWords are JSON whose own bytes a carrier could stumble over.
var oddWords = []string{`"a\r\nb"`, "{\n  \"x\" :\r\n 1 }", `"data: x\n\nid: y"`, "\"\u2028\u2029\"", `"\u0000"`, "\"\ufeff\""}

func (c *serverCheck) publishOddWords() {
	for _, word := range oddWords {
		c.publish("room", word)
	}
	c.publishMessage("room", eventlog.Message{Kind: eventlog.Text, Data: []byte("one\r\n\r\ntwo\rthree")})
	c.publishMessage("room", eventlog.Message{Kind: eventlog.Binary, Data: []byte("\n\n\x00\xff")})
}

// jsonObject says what is wrong with a frame.
func jsonObject(text []byte) string {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil || object == nil {
		return fmt.Sprintf("%.100q is not one JSON object", text)
	}
	return ""
}

func (c *serverCheck) streamIsLinesOfJSON() {
	c.publishOddWords()
	h := helloOf(1, "room")
	h.Channels[0].After = "earliest"
	ctx, cancel := context.WithTimeout(c.ctx, c.patience())
	defer cancel()
	r := c.begin(ctx, c.http, "/sse", string(h.Frame()))
	defer r.Body.Close()
	var stream []byte
	buffer := make([]byte, 4096)
	for frames := len(oddWords) + 2 + 3; bytes.Count(stream, []byte("\n\n")) < frames; { // the open, the opening, a heartbeat
		n, err := r.Body.Read(buffer)
		stream = append(stream, buffer[:n]...)
		if err != nil {
			c.fatalf("the stream ended after %d of %d frames: %v", bytes.Count(stream, []byte("\n\n")), frames, err)
		}
	}
	if bytes.ContainsRune(stream, '\r') {
		c.errorf("the stream holds a CR")
	}
	for block := range bytes.SplitSeq(bytes.TrimSuffix(stream, []byte("\n\n")), []byte("\n\n")) {
		data, ok := bytes.CutPrefix(block, []byte("data:"))
		if !ok || bytes.ContainsRune(data, '\n') {
			c.errorf("the block %.100q is not one data: line", block)
		} else if wrong := jsonObject(bytes.TrimPrefix(data, []byte(" "))); wrong != "" {
			c.errorf("%s", wrong)
		}
	}
}

func (c *serverCheck) messageIsOneFrame() {
	c.publishOddWords()
	h := helloOf(1, "room")
	h.Channels[0].After = "earliest"
	s := c.lineSocket(h)
	for range len(oddWords) + 2 + 3 {
		f, err := s.message()
		switch {
		case err != nil:
			c.fatalf("the line ended: %v", err)
		case f.opcode() != wsText:
			c.fatalf("a frame of opcode %d came: %.100q", f.opcode(), f.payload)
		}
		if wrong := jsonObject(f.payload); wrong != "" {
			c.errorf("%s", wrong)
		}
	}
}

func (c *serverCheck) pollAnswer() {
	c.publish("room", "1")
	ask := func(channels string) map[string]json.RawMessage {
		a := c.ask(c.http, "POST", "/poll", `{"hello":{"version":1,"line":1,"channels":[`+channels+`]}}`)
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(a.text), &members); err != nil || a.status != 200 {
			c.fatalf("a poll was answered with %d and %.200q: %v", a.status, a.text, err)
		}
		return members
	}
	fine := ask(`{"channel":"room","after":"earliest"}`)
	for name, begins := range map[string]byte{"open": '{', "events": '[', "positions": '{', "gaps": '['} {
		if v := fine[name]; len(v) == 0 || v[0] != begins {
			c.errorf("the answer's member %q is %.100q", name, v)
		}
	}
	if ends, has := fine["ends"]; has {
		c.errorf("nothing ended, and the answer has ends: %.100q", ends)
	}
	var ends []struct {
		Channel string
		End     wireclient.Reason
	}
	if err := json.Unmarshal(ask(`{"channel":"room"},{"channel":""}`)["ends"], &ends); err != nil || len(ends) != 1 || ends[0].Channel != "" || ends[0].End.Code != "bad_channel" {
		c.errorf("a channel without a name was refused, and the answer's ends are %+v, %v", ends, err)
	}
}

func (c *serverCheck) pollWaits() {
	at := c.publish("room", "1")
	place := func(name, after string) wireclient.Channel { return wireclient.Channel{Channel: name, After: after} }
	paused := wireclient.Channel{Channel: "other", Paused: true}
	const wait = 20 * time.Second
	for _, q := range []struct {
		what     string
		waits    bool
		channels []wireclient.Channel
	}{
		{"no channels", false, nil},
		{"a channel from now on", false, []wireclient.Channel{place("room", "")}},
		{"one with a position and one without", false, []wireclient.Channel{place("room", at), place("other", "")}},
		{"news", false, []wireclient.Channel{place("room", "earliest")}},
		{"a position", true, []wireclient.Channel{place("room", at)}},
		{"a position and a paused one", true, []wireclient.Channel{place("room", at), paused}},
		{"a paused one", true, []wireclient.Channel{paused}},
	} {
		began := time.Now()
		h := wireclient.Hello{Version: 1, Line: 1, Channels: q.channels}
		if _, err := wireclient.SessionPoll(c.ctx, c.http, c.base+"/poll?wait=20s", h); err != nil {
			c.errorf("with %s: %v", q.what, err)
		}
		took := time.Since(began)
		if q.waits && (took < wait || took > wait+time.Second) || !q.waits && took > time.Second {
			c.errorf("with %s a poll that asks for %v was answered after %v", q.what, wait, took)
		}
	}
}

func (c *serverCheck) firstHeartbeat() {
	for _, busy := range []bool{false, true} {
		l := c.line(helloOf(1, "room"))
		began := time.Now()
		for n := 0; ; n++ {
			it := l.any()
			after := time.Since(began)
			if it.Beat && after >= 200*time.Millisecond && after <= c.setup.Heartbeat {
				break
			}
			if it.Beat || after > c.setup.Heartbeat {
				c.fatalf("%s, where events come %v: %s came %v after open, and no heartbeat when it was due", l.form.name, busy, inWords(it), after)
			}
			if busy {
				time.Sleep(5 * time.Millisecond)
				c.publish("room", fmt.Sprint(n))
			}
		}
		l.stop()
	}
}

func (c *serverCheck) silentLineBeats() {
	l := c.line(helloOf(1, "room"))
	l.opens("room", "")
	last := time.Now()
	most := 2 * time.Duration(l.opened.Heartbeat) * time.Millisecond
	for range 8 {
		it := l.any()
		if !it.Beat {
			c.fatalf("%s: %s came", l.form.name, inWords(it))
		}
		if silent := time.Since(last); silent >= most {
			c.fatalf("%s: it was silent for %v, and open says a heartbeat of %d ms", l.form.name, silent, l.opened.Heartbeat)
		}
		last = time.Now()
	}
}

func (c *serverCheck) pingGoesWithIt() {
	s := c.lineSocket(helloOf(1, "room"))
	began := time.Now()
	var beats, pings []time.Duration
	for len(beats) < 5 {
		f, err := s.any()
		if silent := 20 * c.setup.Heartbeat; time.Since(began) > silent {
			err = fmt.Errorf("%d heartbeats came in %v", len(beats), silent)
		}
		switch {
		case err != nil:
			c.fatalf("after %v: %v", time.Since(began), err)
		case f.opcode() == wsPing:
			pings = append(pings, time.Since(began))
		case string(f.payload) == "{}":
			beats = append(beats, time.Since(began))
		}
	}
	for _, beat := range beats[:4] { // what goes with the last may be on its way
		with := func(ping time.Duration) bool { return max(beat-ping, ping-beat) < 100*time.Millisecond }
		if !slices.ContainsFunc(pings, with) {
			c.errorf("with the heartbeat %v after open went no ping; they came after %v", beat, pings)
		}
	}
}
