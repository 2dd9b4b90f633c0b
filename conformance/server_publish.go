package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// What §7 of PROTOCOL.md promises to who publishes by a request.
var publishClauses = []serverClause{
	{
		id: "P7.1_ContentTypes", group: "payloads", over: allForms, clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: the Content-Type of what is published says whether it is JSON, text or binary, and without one, or with that of curl's -d, what it looks like.",
		run:  (*serverCheck).contentTypes,
	},
	{
		id: "P7.1_BadBodies", group: "malformed input", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: a body that is not what its Content-Type says is refused with invalid, one that is compressed with bad_encoding, and nothing is published.",
		run:  (*serverCheck).badBodies,
	},
	{
		id: "P7.1_TooLarge", group: "malformed input", clock: anyClock, needs: []Feature{PublishByRequest},
		text:  "MUST: a body over the limit is refused with too_large, and one of the limit's size is published.",
		setup: ServerSetup{MaxMessage: 3000},
		run:   (*serverCheck).bodiesOverTheLimit,
	},
	{
		id: "P7.1_BadRequests", group: "malformed input", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: a request to publish without a channel, to one that can't be, or of a type that can't be is refused, and nothing is published.",
		run:  (*serverCheck).badPublishes,
	},
	{
		id: "P7.1_Types", group: "payloads", over: []form{plainWS, plainPoll, sessionSSE, sessionWS, sessionPoll}, clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: \"type\" names the type of what is published, which is \"message\" without it.",
		run:  (*serverCheck).publishedTypes,
	},
	{
		id: "P7.1_Rights", group: "rights", clock: anyClock, needs: []Feature{PublishByRequest, Rights},
		text: "MUST: who may not publish to a channel is refused with the program's code and its status, and nothing is published.",
		setup: ServerSetup{Refuse: func(action, _, channel string) (code string) {
			if action != "publish" {
				return ""
			}
			return refuseSome("", "", channel)
		}},
		run: (*serverCheck).rightsToPublish,
	},
	{
		id: "P7.2_Answer", group: "upstream", over: allForms, clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: the answer has the event's position, where readers find it, and for how long producers are remembered.",
		run:  (*serverCheck).publishAnswer,
	},
	{
		id: "P7.3_RepeatsAreDuplicates", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: a message that is repeated with the same key and number is appended once, and answered as a duplicate with the first position.",
		run:  (*serverCheck).repeatsAreDuplicates,
	},
	{
		id: "P7.3_NumbersRise", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: of a key each higher number is appended, whether or not it leaves some out, and a lower one is refused with 409 stale.",
		run:  (*serverCheck).numbersRise,
	},
	{
		id: "P7.3_EachChannelForItself", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: a key's numbers are a channel's own, and other keys' are others.",
		run:  (*serverCheck).numbersOfEachChannel,
	},
	{
		id: "P7.3_ManyAtOnce", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: of copies of a message that come at once one is appended, and all are answered with its position.",
		run:  (*serverCheck).copiesAtOnce,
	},
	{
		id: "P7.3_KeysOfSubjects", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest, Identities},
		text:  "MUST: a key counts together with who uses it: the same key of another subject is another one.",
		setup: ServerSetup{Subjects: true},
		run:   (*serverCheck).keysOfSubjects,
	},
	{
		id: "P7.3_Remembered", group: "upstream", needs: []Feature{PublishByRequest},
		text:  "MUST: a repeat is a duplicate for as long as the answer says that producers are remembered.",
		setup: ServerSetup{Remember: 2 * time.Minute},
		run:   (*serverCheck).repeatsAreRemembered,
	},
	{
		id: "P7.3_BadKeys", group: "malformed input", clock: anyClock, needs: []Feature{PublishByRequest},
		text: "MUST: a key that has not 16 to 256 characters, a number that is none from 1, and one without a key are refused with 400 bad_request, and nothing is published.",
		run:  (*serverCheck).badKeys,
	},
	{
		id: "P7.4_Busy", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest},
		text:  "MUST: where too many producers are remembered a new one is refused with 503 busy and a delay, nothing is published, and those that are known go on.",
		setup: ServerSetup{MaxProducers: 3},
		run:   (*serverCheck).busyWithProducers,
	},
	{
		id: "P7.4_Unavailable", group: "upstream", clock: anyClock, needs: []Feature{PublishByRequest, Outages},
		text: "MUST: while the log can't be reached the answer is 503 unavailable with a delay; the same key and number then have the message in the log once.",
		run:  (*serverCheck).publishThroughOutage,
	},
}

// A publishedBody is what answers a publish.
type publishedBody struct {
	Position   string
	Duplicate  bool
	Remembered *int64
}

// post publishes by a request, which has to be accepted.
func (c *serverCheck) post(query, body string, headers ...string) (p publishedBody) {
	r := c.ask(c.http, "POST", "/publish"+query, body, headers...)
	media, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
	if err := json.Unmarshal([]byte(r.text), &p); err != nil || r.status != 200 || media != "application/json" || p.Position == "" {
		c.fatalf("POST /publish%.100s %.60q with %.100q was answered %d %.200q, not with a position", query, body, headers, r.status, r.text)
	}
	return p
}

const (
	keyA = "a-key-of-many-characters"
	keyB = "b-key-of-many-characters"
)

func (c *serverCheck) contentTypes() {
	r := c.read("room", "")
	r.opening()
	const none, curl = "", "application/x-www-form-urlencoded"
	for _, p := range []struct {
		contentType, body string
		kind              eventlog.Kind
	}{
		{"application/json", `{"a":1}`, eventlog.JSON},
		{"application/json; charset=utf-8", `"é"`, eventlog.JSON},
		{"application/ld+json", `1`, eventlog.JSON},
		{"Application/JSON", ` null `, eventlog.JSON},
		{"text/plain", `{"a":1}`, eventlog.Text},
		{"text/plain; charset=utf-8", "é\n", eventlog.Text},
		{"text/html", "<b>", eventlog.Text},
		{"image/png", "\x89PNG", eventlog.Binary},
		{"application/octet-stream", `1`, eventlog.Binary},
		{"application/xml", "<a/>", eventlog.Binary},
		{curl, `{"curl":"-d"}`, eventlog.JSON},
		{curl, `hello there`, eventlog.Text},
		{curl, "\xff\xfe", eventlog.Binary},
		{curl, "42", eventlog.JSON},
		{none, `[1]`, eventlog.JSON},
		{none, "hello", eventlog.Text},
		{none, "\"\xff\"", eventlog.Binary},
		{none, "\xc3", eventlog.Binary},
	} {
		var headers []string
		if p.contentType != none {
			headers = []string{"Content-Type", p.contentType}
		}
		at := c.post("?channel=room&type=said", p.body, headers...).Position
		it := r.next()
		if !it.Event || it.Position != at {
			c.fatalf("%s: %q of the type %q was published at %q, and then %s came", c.form.name, p.body, p.contentType, at, inWords(it))
		}
		if how := differs(it, eventlog.Message{Kind: p.kind, Data: []byte(p.body)}, c.form.name == plainSSE.name); how != "" {
			c.errorf("%s: %q of the Content-Type %q is %v, and %s", c.form.name, p.body, p.contentType, p.kind, how)
		}
	}
}

func (c *serverCheck) badBodies() {
	const jsonType, textType = "application/json", "text/plain"
	unharmed := c.neighbour()
	for _, p := range []struct{ contentType, body string }{
		{jsonType, "{"},
		{jsonType, "hello"},
		{jsonType, `{"a":1}{"a":2}`},
		{jsonType, "\"\xff\""},
		{"application/x+json", "{]"},
		{jsonType, strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)},
		{textType, "\xff"},
		{"text/html", "a\xc3"},
		{jsonType, "1,"},
		{jsonType, "\x00"},
	} {
		what := fmt.Sprintf("the body %.40q with the Content-Type %q", p.body, p.contentType)
		c.refusedInWords(what, c.ask(c.http, "POST", "/publish?channel=room", p.body, "Content-Type", p.contentType), 400, "invalid", "never")
		unharmed(what)
	}
	c.refusedInWords("a compressed body", c.ask(c.http, "POST", "/publish?channel=room", "x", "Content-Encoding", "gzip"), 415, "bad_encoding", "never")
	c.holds("room")
}

func (c *serverCheck) bodiesOverTheLimit() {
	unharmed := c.neighbour()
	limit := c.setup.MaxMessage
	for _, over := range []int{1, 10, 50_000} {
		what := fmt.Sprintf("%d bytes, where %d are allowed", limit+over, limit)
		c.refusedInWords(what, c.ask(c.http, "POST", "/publish?channel=room", strings.Repeat("1", limit+over)), 413, "too_large", "never")
		unharmed(what)
	}
	c.post("?channel=room", strings.Repeat("1", limit))
	c.holds("room", strings.Repeat("1", limit))
}

func (c *serverCheck) badPublishes() {
	for query, want := range map[string]string{"": "bad_request", "?type=said": "bad_request", "?channel=": "bad_channel", "?channel=%ff": "bad_channel", "?channel=a%0Ab": "bad_channel", "?channel=" + strings.Repeat("x", 201): "bad_channel"} {
		c.refusedInWords("POST /publish"+query, c.ask(c.http, "POST", "/publish"+query, "1"), 400, want, "never")
	}
	for _, kind := range []string{"throughline.gap", "throughline.", "open", "error", "a%0Ab", "a%0D%0Aid:%20x", "%ff"} {
		c.refusedInWords("type="+kind, c.ask(c.http, "POST", "/publish?channel=room&type="+kind, "1"), 400, "invalid", "never")
	}
	c.holds("room")
}

func (c *serverCheck) publishedTypes() {
	r := c.read("room", "")
	r.opening()
	for query, want := range map[string]string{"": "message", "&type=": "message", "&type=message": "message", "&type=said": "said", "&type=a%20b%2Fc%C3%A9": "a b/cé"} {
		at := c.post("?channel=room"+query, "1").Position
		if it := r.next(); it.Position != at || it.Type != want {
			c.errorf("%s: published with %q, %s of the type %q came, not %q", c.form.name, query, inWords(it), it.Type, want)
		}
	}
}

func (c *serverCheck) rightsToPublish() {
	c.refusedInWords("a channel that is forbidden", c.ask(c.http, "POST", "/publish?channel=secret", "1"), 403, "forbidden", "never")
	r := c.ask(c.http, "POST", "/publish?channel=crowded", "1")
	if reason := c.refusedInWords("a channel that is busy", r, 503, "busy", "later"); reason.Class != "later" || reason.After != 1500 || r.header.Get("Retry-After") != "2" {
		c.errorf("a channel that is busy for 1500 ms: refused with %+v and Retry-After %q", reason, r.header.Get("Retry-After"))
	}
	c.post("?channel=room", "1")
	c.holds("room", "1")
	c.holds("secret")
	c.holds("crowded")
}

func (c *serverCheck) publishAnswer() {
	begin := c.publish("room", "0")
	live := c.read("room", begin)
	live.opening()
	for n := 1; n <= 4; n++ {
		p := c.post("?channel=room&type=said", fmt.Sprint(n))
		if p.Remembered == nil || *p.Remembered <= 0 || p.Duplicate {
			c.errorf("%s: a message was answered with remembered %v and duplicate %v", c.form.name, p.Remembered, p.Duplicate)
		}
		live.event(p.Position, fmt.Sprint(n))
		back := c.read("room", p.Position)
		if at := back.opening(); at != p.Position {
			c.errorf("%s: presented the position of the answer, %q, it opened at %q", c.form.name, p.Position, at)
		}
		back.stream.Close()
	}
	live.quiet()
}

func (c *serverCheck) repeatsAreDuplicates() {
	for i, seq := range [][]string{nil, {"Producer-Seq", "1"}, {"Producer-Seq", "7"}} {
		channel := fmt.Sprint("room", i)
		headers := append([]string{"Idempotency-Key", keyA}, seq...)
		first := c.post("?channel="+channel, "1", headers...)
		c.post("?channel="+channel, "2")
		for n := range 3 {
			again := c.post("?channel="+channel, "1", headers...)
			if !again.Duplicate || again.Position != first.Position {
				c.errorf("with %q, repeat %d was answered as duplicate %v at %q, not as one of the message at %q", headers, n+1, again.Duplicate, again.Position, first.Position)
			}
		}
		if first.Duplicate {
			c.errorf("with %q, the first message was answered as a duplicate", headers)
		}
		c.holds(channel, "1", "2")
	}
}

func (c *serverCheck) numbersRise() {
	number := func(n string) []string { return []string{"Idempotency-Key", keyA, "Producer-Seq", n} }
	for _, n := range []string{"1", "2", "5", "18446744073709551614"} {
		p := c.post("?channel=room", n, number(n)...)
		if p.Duplicate {
			c.errorf("number %s, which is higher than all before, was answered as a duplicate", n)
		}
		for _, lower := range []string{"1", "2", "4", "5"} {
			if len(lower) < len(n) || lower < n {
				c.refusedInWords("number "+lower+" after "+n, c.ask(c.http, "POST", "/publish?channel=room", lower, number(lower)...), 409, "stale", "never")
			}
		}
		if again := c.post("?channel=room", n, number(n)...); !again.Duplicate || again.Position != p.Position {
			c.errorf("number %s again was answered as duplicate %v at %q, not as one of the message at %q", n, again.Duplicate, again.Position, p.Position)
		}
	}
	c.holds("room", "1", "2", "5", "18446744073709551614")
}

func (c *serverCheck) numbersOfEachChannel() {
	for _, channel := range []string{"a", "b"} {
		for _, key := range []string{keyA, keyB} {
			if p := c.post("?channel="+channel, "1", "Idempotency-Key", key, "Producer-Seq", "3"); p.Duplicate {
				c.errorf("the first message of the key %q in %q was answered as a duplicate", key, channel)
			}
		}
	}
	c.holds("a", "1", "1")
	c.holds("b", "1", "1")
}

func (c *serverCheck) copiesAtOnce() {
	const copies = 12
	ctx, cancel := context.WithTimeout(c.ctx, c.patience())
	defer cancel()
	answers := make(chan publishedBody, copies)
	for range copies {
		go func() {
			var p publishedBody
			r, err := c.tryAsk(ctx, c.http, "POST", "/publish?channel=room", "1", "Idempotency-Key", keyA)
			if err != nil || r.status != 200 || json.Unmarshal([]byte(r.text), &p) != nil {
				c.errorf("a copy was answered %d %.200q, %v", r.status, r.text, err)
			}
			answers <- p
		}()
	}
	first, position := 0, ""
	for range copies {
		p := <-answers
		if position == "" {
			position = p.Position
		}
		if !p.Duplicate {
			first++
		}
		if p.Position != position {
			c.errorf("copies of a message were answered with the positions %q and %q", position, p.Position)
		}
	}
	if first != 1 {
		c.errorf("of %d copies of a message %d were not answered as duplicates", copies, first)
	}
	c.holds("room", "1")
}

func (c *serverCheck) keysOfSubjects() {
	as := func(subject, key string) []string {
		return []string{"Authorization", "Bearer " + subject, "Idempotency-Key", key}
	}
	ann, bob := c.post("?channel=room", "1", as("ann", keyA)...), c.post("?channel=room", "2", as("bob", keyA)...)
	// Subjects and keys whose texts joined are the same.
	one, other := c.post("?channel=room", "3", as("x", "b"+keyA)...), c.post("?channel=room", "4", as("xb", keyA)...)
	for n, p := range []publishedBody{ann, bob, one, other} {
		if p.Duplicate {
			c.errorf("message %d, of a subject who had said nothing, was answered as a duplicate", n+1)
		}
	}
	if again := c.post("?channel=room", "1", as("ann", keyA)...); !again.Duplicate || again.Position != ann.Position {
		c.errorf("a subject's own repeat was answered as duplicate %v at %q, not as one of the message at %q", again.Duplicate, again.Position, ann.Position)
	}
	c.refusedInWords("nobody", c.ask(c.http, "POST", "/publish?channel=room", "5"), 401, "unauthorized", "never")
	if at := []string{ann.Position, bob.Position, one.Position, other.Position}; distinct(at) != 4 {
		c.errorf("four messages were published at %q", at)
	}
}

// distinct counts texts that differ.
func distinct(texts []string) int {
	seen := map[string]bool{}
	for _, t := range texts {
		seen[t] = true
	}
	return len(seen)
}

func (c *serverCheck) repeatsAreRemembered() {
	headers := []string{"Idempotency-Key", keyA}
	first := c.post("?channel=room", "1", headers...)
	if first.Remembered == nil || *first.Remembered != c.setup.Remember.Milliseconds() {
		c.fatalf("a server that remembers producers for %v says remembered %v", c.setup.Remember, first.Remembered)
	}
	time.Sleep(c.setup.Remember - time.Second)
	if again := c.post("?channel=room", "1", headers...); !again.Duplicate || again.Position != first.Position {
		c.errorf("repeated a second before producers are forgotten, it was answered as duplicate %v at %q, not as one of the message at %q", again.Duplicate, again.Position, first.Position)
	}
	c.holds("room", "1")
}

func (c *serverCheck) badKeys() {
	key := strings.Repeat("k", 20)
	for what, headers := range map[string][]string{
		"a key of 15 characters": {"Idempotency-Key", strings.Repeat("k", 15)}, "a key of 257 characters": {"Idempotency-Key", strings.Repeat("k", 257)}, "a number without a key": {"Producer-Seq", "1"},
		"the number 0": {"Idempotency-Key", key, "Producer-Seq", "0"}, "the number -1": {"Idempotency-Key", key, "Producer-Seq", "-1"}, "the number x": {"Idempotency-Key", key, "Producer-Seq", "x"},
		"the number 1.5": {"Idempotency-Key", key, "Producer-Seq", "1.5"}, "the number 2^64": {"Idempotency-Key", key, "Producer-Seq", "18446744073709551616"},
	} {
		c.refusedInWords(what, c.ask(c.http, "POST", "/publish?channel=room", "1", headers...), 400, "bad_request", "never")
	}
	for i, good := range []string{strings.Repeat("k", 16), strings.Repeat("k", 256)} {
		c.post("?channel=room", fmt.Sprint(i), "Idempotency-Key", good)
	}
	c.holds("room", "0", "1")
}

func (c *serverCheck) busyWithProducers() {
	key := func(n int) []string { return []string{"Idempotency-Key", fmt.Sprint(keyA, n)} }
	for n := range c.setup.MaxProducers {
		c.post("?channel=room", fmt.Sprint(n), key(n)...)
	}
	r := c.ask(c.http, "POST", "/publish?channel=room", "9", key(9)...)
	if reason := c.refusedInWords("one producer more than are remembered", r, 503, "busy", "later"); reason.Class != "later" || r.header.Get("Retry-After") == "" {
		c.errorf("one producer more than are remembered was refused with class %q and Retry-After %q", reason.Class, r.header.Get("Retry-After"))
	}
	if again := c.post("?channel=room", "0", key(0)...); !again.Duplicate {
		c.errorf("while it is busy, a repeat of a known producer was not answered as a duplicate")
	}
	if next := c.post("?channel=room", "3", append(key(0), "Producer-Seq", "2")...); next.Duplicate {
		c.errorf("while it is busy, the next message of a known producer was answered as a duplicate")
	}
	c.post("?channel=room", "4") // no producer at all
	c.holds("room", "0", "1", "2", "3", "4")
}

// answersAgain waits until publishes are taken again: a server may spare a log that
// failed, for the delays that it says.
func (c *serverCheck) answersAgain() {
	for range 5 {
		r := c.ask(c.http, "POST", "/publish?channel=other", "0")
		if r.status != 503 {
			return
		}
		time.Sleep(time.Duration(c.refusedInWords("after an outage", r, 503, "unavailable", "later").After) * time.Millisecond)
	}
}

func (c *serverCheck) publishThroughOutage() {
	c.testee.Outage(true)
	for n := range 3 {
		headers := []string{"Idempotency-Key", fmt.Sprint(keyA, n)}
		r := c.ask(c.http, "POST", "/publish?channel=room", fmt.Sprint(n), headers...)
		if reason := c.refusedInWords("while the log does not answer", r, 503, "unavailable", "later"); reason.Class != "later" || r.header.Get("Retry-After") == "" {
			c.errorf("while the log does not answer: class %q and Retry-After %q", reason.Class, r.header.Get("Retry-After"))
		}
	}
	c.testee.Outage(false)
	c.answersAgain()
	var want []string
	positions := map[string]bool{}
	for n := range 3 {
		headers := []string{"Idempotency-Key", fmt.Sprint(keyA, n)}
		p := c.post("?channel=room", fmt.Sprint(n), headers...)
		again := c.post("?channel=room", fmt.Sprint(n), headers...)
		if !again.Duplicate || again.Position != p.Position {
			c.errorf("after the outage, message %d was answered with %q, and a repeat with duplicate %v at %q", n, p.Position, again.Duplicate, again.Position)
		}
		positions[p.Position] = true
	}
	f := plainPoll
	if f.lacking(c.server) != "" {
		return
	}
	r := c.readOver(f, c.site, "room", "earliest")
	for range 3 {
		it := r.next()
		if !positions[it.Position] {
			c.errorf("after the outage the channel holds %s, which is none of the messages' positions, %v", inWords(it), positions)
		}
		want = append(want, it.Position)
	}
	if last := c.publish("room", "9"); r.next().Position != last || distinct(want) != 3 {
		c.errorf("after the outage the channel holds %q and more, not three messages", want)
	}
}
