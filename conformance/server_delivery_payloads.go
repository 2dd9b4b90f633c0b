package conformance

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
)

// What an event looks like: P2.2, and that it looks the same to everybody.
var payloadClauses = []serverClause{
	{
		id: "P2.2_Payloads", group: "payloads", over: allForms, clock: anyClock,
		text: "MUST: JSON, text and binary of any content come as they were published, live and from the history.",
		run:  (*serverCheck).payloads,
	},
	{
		id: "P2.2_Types", group: "payloads", over: []form{plainWS, plainPoll, sessionSSE, sessionWS, sessionPoll}, clock: anyClock,
		text: "MUST: an event has the type it was published with, and \"message\" if that was none.",
		run:  (*serverCheck).types,
	},
	{
		id: "P2.2_Members", group: "payloads", over: []form{plainSSE, plainWS, plainPoll}, clock: anyClock,
		text: "MUST: an event is an object of its channel, position, type and data, with the encoding \"base64\" beside binary data and none beside other.",
		run:  (*serverCheck).members,
	},
	{
		id: "P2.1_ReplayEqualsLive", group: "payloads", over: allForms, clock: anyClock,
		text: "MUST: who catches up is shown the same events as who was there: positions, types and data.",
		run:  (*serverCheck).replayEqualsLive,
	},
	{
		id: "P2.1_AllFormsShowTheSame", group: "payloads", clock: anyClock,
		text: "MUST: all carriers and forms show the same events of a channel at the same positions.",
		run:  (*serverCheck).allFormsShowTheSame,
	},
}

// payloadKinds are messages in which something is easily got wrong.
func payloadKinds() []eventlog.Message {
	bytes := make([]byte, 256)
	for i := range bytes {
		bytes[i] = byte(i) //nolint:gosec // that is meant
	}
	var all []eventlog.Message
	for _, data := range []string{
		`{"a":[1,2,{"b":null}],"c":"d"}`, `null`, `true`, `0`, `-1.50e+3`, `123456789012345678901234567890`, `""`, `"plain"`, `[]`, `{}`,
		"{\n  \"a\": [1,\r\n 2],\t\"b\" : 3\n}", `"\u0000\ud83d\ude00\r\n\\\""`, `"é 日本 😀 ` + "\u2028\u2029" + `"`, `"</script>&<!--"`, `{"data":"x","gap":1,"channel":"other","position":"p"}`,
		`[` + strings.Repeat("[1],", 2000) + `"` + strings.Repeat("x", 70_000) + `"]`, `"\n\nid: forged\ndata: forged"`,
	} {
		all = append(all, eventlog.Message{Type: "said", Kind: eventlog.JSON, Data: []byte(data)})
	}
	for _, data := range []string{
		"", " ", "hello", " leading and trailing ", "one\ntwo\n\nfour\n", "\n", "a\rb", "a\r\nb\r", "{\"not\": \"JSON", "123", "\x00\x01\x1f\x7f",
		"data:;base64,AAAA", "data: x", "id: forged\n\nevent: forged", "é 日本 😀 \u2028\ufeff\u202e", "\ufeffa mark first", ":", strings.Repeat("long ", 20_000),
	} {
		all = append(all, eventlog.Message{Type: "said", Kind: eventlog.Text, Data: []byte(data)})
	}
	for _, data := range [][]byte{{}, {0}, bytes, []byte("text all the same"), []byte("\xff\xfe\r\n"), slices.Repeat(bytes, 300)} {
		all = append(all, eventlog.Message{Type: "said", Kind: eventlog.Binary, Data: data})
	}
	return all
}

// differs says how an event that came differs from the message published; "" if
// it doesn't.
func differs(it wireclient.Item, m eventlog.Message, plainSSE bool) string {
	want, got := string(m.Data), string(it.Data)
	switch {
	case plainSSE:
	case m.Kind == eventlog.Binary && it.JSON:
		return "it came without an encoding"
	case m.Kind != eventlog.Binary && !it.JSON:
		return "it came with an encoding"
	case m.Kind == eventlog.JSON:
		want, got = compactJSON(m.Data), compactJSON(it.Data)
	case m.Kind == eventlog.Text:
		if json.Unmarshal(it.Data, &got) != nil {
			return fmt.Sprintf("%.60q came, not a JSON string", it.Data)
		}
	}
	if got != want {
		return fmt.Sprintf("%.60q (%d bytes) came", got, len(got))
	}
	return ""
}

func (c *serverCheck) payloads() {
	live := c.read("room", "")
	begin := live.opening()
	all := payloadKinds()
	positions := make([]string, len(all))
	show := func(r *reading, when string, i int) {
		it := r.next()
		if !it.Event || it.Position != positions[i] {
			c.fatalf("%s: %s came, not the %v %.60q at %q", r.form.name, inWords(it), all[i].Kind, all[i].Data, positions[i])
		}
		if how := differs(it, all[i], r.form.name == plainSSE.name); how != "" {
			c.errorf("%s, %s: for the %v %.60q (%d bytes) %s", r.form.name, when, all[i].Kind, all[i].Data, len(all[i].Data), how)
		}
	}
	for i, m := range all {
		positions[i] = c.publishMessage("room", m)
		show(live, "live", i)
	}
	history := c.read("room", begin)
	history.opening()
	for i := range all {
		show(history, "from the history", i)
	}
}

func (c *serverCheck) types() {
	r := c.read("room", "")
	r.opening()
	for published, want := range map[string]string{"": "message", "message": "message", "said": "said", "room.said/2": "room.said/2", "Größe 😀 \"quoted\"": "Größe 😀 \"quoted\""} {
		at := c.publishMessage("room", eventlog.Message{Type: published, Data: []byte("1")})
		if it := r.next(); !it.Event || it.Position != at || it.Type != want {
			c.errorf("%s: published with the type %q, %s of the type %q came", c.form.name, published, inWords(it), it.Type)
		}
	}
}

// objects returns the JSON objects of the events after a position, as they cross
// the wire, and the rest.
func (c *serverCheck) objects(channel, after string, n int) (events []map[string]json.RawMessage) {
	query := wireclient.Query(after, channel)
	var texts []string
	switch c.form.carrier {
	case "sse":
		s := c.stream(query + "&as=event")
		s.block() // the opening
		for len(texts) < n {
			texts = append(texts, strings.Join(fields(s.news(), "data"), "\n"))
		}
	case "ws":
		s := c.socket("/ws" + query)
		s.text() // the opening
		for len(texts) < n {
			texts = append(texts, s.text())
		}
	default:
		var answer struct{ Events []json.RawMessage }
		if r := c.ask(c.http, "GET", "/poll"+query, ""); json.Unmarshal([]byte(r.text), &answer) != nil || len(answer.Events) != n {
			c.fatalf("GET /poll%s: %d %.200q has not %d events", query, r.status, r.text, n)
		}
		for _, e := range answer.Events {
			texts = append(texts, string(e))
		}
	}
	for _, text := range texts {
		var o map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &o) != nil {
			c.fatalf("%s: %.200q came, not a JSON object", c.form.name, text)
		}
		events = append(events, o)
	}
	return events
}

func (c *serverCheck) members() {
	const name = `room "42"/é`
	begin := c.publish(name, "0")
	messages := []eventlog.Message{
		{Type: "said", Data: []byte(`{"a":1}`)}, {Data: []byte(`"x"`)}, {Kind: eventlog.Text, Data: []byte("te\"xt\n")}, {Kind: eventlog.Binary, Data: []byte{0, 255, 62, 63}},
	}
	data := []string{`{"a":1}`, `"x"`, `"te\"xt\n"`, `"` + base64.StdEncoding.EncodeToString(messages[3].Data) + `"`}
	var positions []string
	for _, m := range messages {
		positions = append(positions, c.publishMessage(name, m))
	}
	text := func(raw json.RawMessage) (s string) {
		_ = json.Unmarshal(raw, &s)
		return s
	}
	for i, o := range c.objects(name, begin, len(messages)) {
		kind, encoding := "message", ""
		if messages[i].Type != "" {
			kind = messages[i].Type
		}
		if messages[i].Kind == eventlog.Binary {
			encoding = "base64"
		}
		shown, _ := json.Marshal(o)
		if text(o["channel"]) != name || text(o["position"]) != positions[i] || text(o["type"]) != kind || compactJSON(o["data"]) != data[i] || text(o["encoding"]) != encoding || (o["encoding"] == nil) != (encoding == "") {
			c.errorf("%s: for the %v %q of type %q in %q at %q came %s", c.form.name, messages[i].Kind, messages[i].Data, kind, name, positions[i], shown)
		}
	}
}

func (c *serverCheck) replayEqualsLive() {
	live := c.read("room", "")
	begin := live.opening()
	all := payloadKinds()
	var seen []wireclient.Item
	for i, m := range all {
		m.Type = []string{"", "said", "moved"}[i%3]
		c.publishMessage("room", m)
		if i%4 == 3 { // one by one, and several at once
			seen = append(seen, live.takeEvents(4)...)
		}
	}
	seen = append(seen, live.takeEvents(len(all)-len(seen))...)
	replay := c.read("room", begin)
	replay.opening()
	for i, it := range replay.takeEvents(len(all)) {
		if same := seen[i]; it.Position != same.Position || it.Type != same.Type || it.JSON != same.JSON || !bytes.Equal(it.Data, same.Data) {
			c.errorf("%s: event %d was %s of type %q live, and %s of type %q from the history", c.form.name, i, inWords(same), same.Type, inWords(it), it.Type)
		}
	}
}

// takeEvents takes events.
func (r *reading) takeEvents(n int) (events []wireclient.Item) {
	for len(events) < n {
		it := r.next()
		if !it.Event {
			r.check.fatalf("%s: %s came, not an event", r.form.name, inWords(it))
		}
		events = append(events, it)
	}
	return events
}

func (c *serverCheck) allFormsShowTheSame() {
	begin := c.publish("room", "0")
	var lines []*reading
	for _, f := range allForms {
		if f.lacking(c.server) == "" {
			r := c.readOver(f, c.site, "room", begin)
			r.opening()
			lines = append(lines, r)
		}
	}
	all := payloadKinds()
	for i, m := range all {
		m.Type = []string{"", "said", "moved"}[i%3]
		at := c.publishMessage("room", m)
		for _, r := range lines {
			it := r.next()
			how := differs(it, m, r.form.name == plainSSE.name)
			if !it.Event || it.Position != at || how != "" || r.form.name != plainSSE.name && it.Type != cmp.Or(m.Type, "message") {
				c.fatalf("for the %v %.60q of type %q at %q, %s shows %s of type %q; %s", m.Kind, m.Data, m.Type, at, r.form.name, inWords(it), it.Type, how)
			}
		}
	}
}
