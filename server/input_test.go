package server_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// neighbours are good clients, one of each carrier, of a server that others treat
// badly.
type neighbours struct {
	*world
	streams map[string]wireclient.Stream
	n       int
}

func (w *world) neighbours() *neighbours {
	w.Helper()
	n := &neighbours{world: w, streams: map[string]wireclient.Stream{}}
	begin := w.publish("good", "0").String()
	for _, c := range carriers {
		n.streams[c.name] = w.must(c, "good", begin)
	}
	return n
}

// notice nothing: the next event is the next that all of them get.
func (n *neighbours) notice(after string) {
	n.Helper()
	n.n++
	at := n.publish("good", fmt.Sprint(n.n)).String()
	for name, s := range n.streams {
		it, err := next(s, func(it wireclient.Item) bool { return it.Event || it.Gap != nil })
		if err != nil || it.Position != at || string(it.Data) != fmt.Sprint(n.n) {
			n.Fatalf("after %s, %s got %+v, %v", after, name, it, err)
		}
	}
}

// fit checks that a person can read what a refusal says, and that it repeats
// little of what was sent.
func (w *world) fit(name string, r wireclient.Reason) {
	w.Helper()
	if r.Code == "" || r.Class == "" || len(r.Message) < 10 || len(r.Message) > 600 {
		w.Errorf("%s: refused with %+v (%d bytes)", name, r, len(r.Message))
	}
	for _, c := range r.Message {
		if !unicode.IsPrint(c) {
			w.Errorf("%s: the words hold %q: %q", name, c, r.Message)
		}
	}
}

// refusedBy is the refusal in a response, whose type and length are checked.
func (w *world) refusedBy(name string, r *http.Response) wireclient.Reason {
	w.Helper()
	text, _ := io.ReadAll(r.Body)
	var body struct{ Error wireclient.Reason }
	d := json.NewDecoder(strings.NewReader(string(text)))
	if err := d.Decode(&body); err != nil || d.More() {
		w.Errorf("%s: %d %q is not one JSON object: %v", name, r.StatusCode, text, err)
	}
	if h := r.Header; h.Get("Content-Type") != "application/json" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		w.Errorf("%s: %v", name, h)
	}
	w.fit(name, body.Error)
	return body.Error
}

// query is a path with parameters given as name, value, …
func query(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return path + "?" + q.Encode()
}

const manyBytes = 1 << 20

// TestBadRequests: each is refused with a code and words, whichever carrier it
// is for, and the others notice nothing.
func TestBadRequests(t *testing.T) {
	long := strings.Repeat("x", 201)
	vector := "v" + strings.Repeat("~a1.1", 500)
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	type request struct {
		method, path, body string
		headers            []string
		want               string
	}
	cases := map[string]request{
		"no handshake":              {"GET", "/ws?channel=a", "", nil, "426 bad_request"},
		"an old handshake":          {"GET", "/ws?channel=a", "", []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8"}, "400 "},
		"a method":                  {"DELETE", "/sse?channel=a", "", nil, "405 bad_request"},
		"a path":                    {"GET", "/../../etc/passwd%00", "", nil, "404 not_found"},
		"two vectors":               {"GET", "/sse?channel=a&channel=b&after=" + vector, "", nil, "400 bad_position"},
		"a huge vector":             {"GET", "/sse?channel=a&channel=b", "", []string{"Last-Event-ID", "v" + strings.Repeat("~", 5000)}, "400 bad_position"},
		"a vector of one":           {"GET", "/sse?channel=a", "", []string{"Last-Event-ID", vector}, "400 bad_position"},
		"an id with a NUL":          {"GET", "/sse?channel=a&after=a1.1%00", "", nil, "400 bad_position"},
		"a position for two":        {"GET", "/sse?channel=a&channel=b&after=a1.1", "", nil, "400 bad_position"},
		"last=0":                    {"GET", "/poll?channel=a&after=last%3D0", "", nil, "400 bad_position"},
		"last=10001":                {"GET", "/poll?channel=a&after=last%3D10001", "", nil, "400 bad_position"},
		"last=1e9":                  {"GET", "/poll?channel=a&after=last%3D1e9", "", nil, "400 bad_position"},
		"a wait below zero":         {"GET", "/poll?channel=a&wait=-1s", "", nil, "400 bad_request"},
		"a wait that is none":       {"GET", "/poll?channel=a&wait=" + long, "", nil, "400 bad_request"},
		"17 channels":               {"GET", "/sse?channel=" + strings.Join(strings.Split("abcdefghijklmnopq", ""), "&channel="), "", nil, "400 too_many_channels"},
		"the same channel twice":    {"GET", "/sse?channel=a&channel=a", "", nil, "400 bad_request"},
		"a producer without number": {"POST", "/publish?channel=a", "1", []string{"Producer-Seq", "1"}, "400 bad_request"},
		"a short key":               {"POST", "/publish?channel=a", "1", []string{"Idempotency-Key", "123456789012345"}, "400 bad_request"},
		"a long key":                {"POST", "/publish?channel=a", "1", []string{"Idempotency-Key", strings.Repeat("k", 257)}, "400 bad_request"},
		"a number below one":        {"POST", "/publish?channel=a", "1", []string{"Idempotency-Key", strings.Repeat("k", 20), "Producer-Seq", "0"}, "400 bad_request"},
		"a number too large":        {"POST", "/publish?channel=a", "1", []string{"Idempotency-Key", strings.Repeat("k", 20), "Producer-Seq", "18446744073709551616"}, "400 bad_request"},
		"a long type":               {"POST", "/publish?channel=a&type=" + strings.Repeat("t", 101), "1", nil, "400 invalid"},
		"a type of ours":            {"POST", "/publish?channel=a&type=throughline.gap", "1", nil, "400 invalid"},
		"an EventSource's type":     {"POST", "/publish?channel=a&type=error", "1", nil, "400 invalid"},
		"no JSON":                   {"POST", "/publish?channel=a", "{", []string{"Content-Type", "application/json"}, "400 invalid"},
		"JSON that isn't UTF-8":     {"POST", "/publish?channel=a", "\"\xff\"", []string{"Content-Type", "application/json"}, "400 invalid"},
		"text that isn't UTF-8":     {"POST", "/publish?channel=a", "\xff", []string{"Content-Type", "text/plain"}, "400 invalid"},
		"deep JSON":                 {"POST", "/publish?channel=a", strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), []string{"Content-Type", "application/json"}, "400 invalid"},
		"a large message":           {"POST", "/publish?channel=a", strings.Repeat("x", manyBytes+1), nil, "413 too_large"},
		"a compressed message":      {"POST", "/publish?channel=a", "x", []string{"Content-Encoding", "gzip"}, "415 bad_encoding"},
		"a compressed frame":        {"POST", "/up", "x", []string{"Content-Encoding", "x-" + long}, "415 bad_encoding"},
		"a large frame":             {"POST", "/up", strings.Repeat("x", 6*manyBytes+64<<10+1), nil, "413 too_large"},
		"an address":                {"GET", "/poll?channel=a&x=" + strings.Repeat("x", 20_000), "", nil, "413 too_large"},
		"a header":                  {"GET", "/sse?channel=a", "", []string{"Cookie", strings.Repeat("x", 20_000)}, "413 too_large"},
		"a foreign page":            {"GET", "/poll?channel=a", "", []string{"Origin", "https://evil.example/" + strings.Repeat("\u202e", 300)}, "403 foreign_origin"},
		"a foreign page's host":     {"GET", "/poll?channel=a", "", []string{"Origin", "https://evil.example", "Host", strings.Repeat("h", 5000)}, "403 foreign_origin"},
	}
	for _, path := range []string{"/sse", "/poll", "/ws"} {
		var headers []string
		if path == "/ws" {
			headers = upgrade
		}
		for name, c := range map[string]struct{ q, want string }{
			"no name":          {query(path, "channel", ""), "400 bad_channel"},
			"a long name":      {query(path, "channel", long), "400 bad_channel"},
			"a NUL in a name":  {query(path, "channel", "a\x00"), "400 bad_channel"},
			"lines in a name":  {query(path, "channel", "a\r\nid: x"), "400 bad_channel"},
			"C1 in a name":     {query(path, "channel", "a\u0085b"), "400 bad_channel"},
			"bytes in a name":  {query(path, "channel", "a\xff"), "400 bad_channel"},
			"a bad position":   {query(path, "channel", "a", "after", "a1.0"), "400 bad_position"},
			"a long position":  {query(path, "channel", "a", "after", strings.Repeat("a", 65)), "400 bad_position"},
			"lines in a place": {query(path, "channel", "a", "after", "a1.1\r\ndata: x"), "400 bad_position"},
			"unicode place":    {query(path, "channel", "a", "after", strings.Repeat("\U000e0001", 60)), "400 bad_position"},
		} {
			if path == "/ws" && strings.HasSuffix(c.want, "bad_channel") {
				continue // the engine says so, when the connection stands
			}
			cases[path+": "+name] = request{"GET", c.q, "", headers, c.want}
		}
	}
	for name, body := range badFrames() {
		want := "400 " + body.code
		cases["/sse: "+name] = request{"POST", "/sse", body.text, nil, want}
		cases["/poll: "+name] = request{"POST", "/poll", body.text, nil, want}
	}
	for _, path := range []string{"/sse", "/poll"} {
		cases[path+": a compressed hello"] = request{"POST", path, "x", []string{"Content-Encoding", "gzip"}, "415 bad_encoding"}
		cases[path+": a large hello"] = request{"POST", path, strings.Repeat(" ", 64<<10+1), nil, "413 too_large"}
		cases[path+": a GET with a body"] = request{"GET", path + "?channel=a", "x", nil, "400 bad_request"}
	}
	inBubble(t, server.Options{Authorize: allow, AddressRates: server.Unlimited}, func(w *world) {
		good := w.neighbours()
		for name, c := range cases {
			r := w.do(c.method, c.path, c.body, c.headers...)
			got := fmt.Sprintf("%d ", r.StatusCode)
			if c.want != "400 " { // one that the library answers
				got += w.refusedBy(name, r).Code
			}
			if got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
			good.notice(name)
		}
	})
}

// badFrames are first frames that no line begins with.
func badFrames() map[string]struct{ text, code string } {
	hello := func(members string) string { return `{"hello":{"version":1,"line":1,` + members + `}}` }
	var names []string
	for i := range 129 {
		names = append(names, fmt.Sprintf(`{"channel":"c%d"}`, i))
	}
	return map[string]struct{ text, code string }{
		"nothing":              {"", "bad_request"},
		"no JSON":              {"hello", "bad_request"},
		"half a frame":         {`{"hello":{"version":1`, "bad_request"},
		"two frames":           {`{"hello":{"version":1}}{"hello":{"version":1}}`, "bad_request"},
		"no object":            {`[1]`, "bad_request"},
		"a NUL":                {"{\"hello\":{\"version\":1}}\x00", "bad_request"},
		"bad UTF-8":            {hello(`"token":"` + "\xc3\x28" + `"`), "bad_request"},
		"a BOM":                {"\ufeff" + hello(`"channels":[]`), "bad_request"},
		"raw lines":            {hello(`"token":"` + "\r\n" + `"`), "bad_request"},
		"deep nesting":         {hello(`"x":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000)), "bad_request"},
		"a number out of all":  {`{"hello":{"version":1,"line":` + strings.Repeat("9", 60_000) + `}}`, "bad_request"},
		"a huge exponent":      {`{"hello":{"version":1e999999999}}`, "bad_request"},
		"a line below zero":    {`{"hello":{"version":1,"line":-1}}`, "bad_request"},
		"a wrong type":         {hello(`"channels":{"channel":"a"}`), "bad_request"},
		"a long wrong value":   {hello(`"channels":"` + strings.Repeat("\U000e0001", 5000) + `"`), "bad_request"},
		"another version":      {`{"hello":{"version":2}}`, "bad_version"},
		"a channel twice":      {hello(`"channels":[{"channel":"` + strings.Repeat("é", 99) + `"},{"channel":"` + strings.Repeat("é", 99) + `"}]`), "bad_request"},
		"a presence twice":     {hello(`"presence":[{"channel":"a"},{"channel":"a"}]`), "bad_request"},
		"a probe with more":    {hello(`"probe":true,"channels":[{"channel":"a"}]`), "bad_request"},
		"129 channels":         {hello(`"channels":[` + strings.Join(names, ",") + `]`), "too_many_channels"},
		"20,000 channels":      {hello(`"channels":[` + strings.Repeat("{},", 20_000) + `{}]`), "bad_request"},
		"not a hello":          {`{"subscribe":[{"channel":"a"}]}`, "bad_request"},
		"a hello and a friend": {`{"hello":{"version":1},"close":{}}`, "bad_request"},
		"a frame of requests":  {`{"up":{"version":1},"close":{}}`, "bad_request"},
	}
}

// poison is what somebody may put where a word is wanted.
var poison = map[string]string{
	"lines":          "a\r\nid: forged\r\n\r\ndata: forged\r\n\r\n",
	"a line feed":    "a\n\ndata: forged\n\n",
	"a return":       "a\r\rdata: forged\r\r",
	"NUL":            "a\x00b",
	"escape":         "\x1b[31mred",
	"C1":             "a\u0085b",
	"DEL":            "a\x7f",
	"quotes":         `"},{"channel":"x","data":"forged"}`,
	"markup":         `</script><script>alert(1)</script>`,
	"a separator":    "a\u2028data: forged\u2029",
	"a BOM":          "\ufeffdata: forged",
	"right to left":  "a\u202eb",
	"bytes":          "a\xff\xfeb",
	"half a rune":    "a\xf0\x9f",
	"a surrogate":    "a\xed\xa0\x80b",
	"a data URL":     "data:;base64,AAAA",
	"fields":         "id: forged",
	"a percent":      "%0d%0aX: forged%00",
	"a path":         "../../$admin",
	"a star":         "room:*",
	"another tenant": "other/room",
	"much":           strings.Repeat("x", 300),
}

// a line of a stream, by WHATWG HTML §9.2.5, as this server writes them.
var sseLine = regexp.MustCompile(`^(|:|retry: \d+|id: [a-z0-9.~]+|event: [^\r\n\x00]+|data: [^\r\n]*)$`)

// streamOf reads the blocks of a stream up to one whose data or id holds what is
// last, and fails if anything in it is not what this server writes. It knows
// nothing of the clients' parsers.
func (w *world) streamOf(name string, r *http.Response, last string) (blocks [][]string) {
	w.Helper()
	text := bufio.NewReader(r.Body)
	for {
		var block []string
		for {
			line, err := text.ReadString('\n')
			if err != nil {
				w.Fatalf("%s: the stream ended: %v, %q", name, err, blocks)
			}
			line = strings.TrimSuffix(line, "\n")
			if !sseLine.MatchString(line) || !utf8.ValidString(line) {
				w.Fatalf("%s: a stream holds the line %q", name, line)
			}
			if line == "" {
				break
			}
			block = append(block, line)
		}
		blocks = append(blocks, block)
		if strings.Contains(strings.Join(block, "\n"), last) {
			return blocks
		}
	}
}

// TestPoisonInNames: a name is refused, or is a name and nothing else on every
// carrier.
func TestPoisonInNames(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, AddressRates: server.Unlimited}, func(w *world) {
		good := w.neighbours()
		for name, text := range poison {
			begin, err := w.srv.Publish(w.ctx, text, server.Message{Data: []byte("0")})
			if unfit := !utf8.ValidString(text) || len(text) > 200 || strings.ContainsFunc(text, unicode.IsControl); unfit != (err != nil) {
				t.Errorf("%s as a name: %v", name, err)
			}
			if err != nil {
				w.poisonRefused(name, text)
				good.notice(name)
				continue
			}
			for _, c := range carriers {
				s := w.must(c, text, begin.String())
				at := w.publish(text, `"1"`).String()
				it, err := next(s, func(it wireclient.Item) bool { return it.Event })
				if err != nil || it.Position != at || it.Channel != text && it.Channel != "" || strings.Trim(string(it.Data), `"`) != "1" {
					t.Errorf("%s on %s: %+v, %v", name, c.name, it, err)
				}
				begin = w.publish(text, "2")
				if it := w.next(s); it.Position != begin.String() {
					t.Errorf("%s on %s: something came between: %+v", name, c.name, it)
				}
				s.Close()
			}
			r := w.do("GET", query("/sse", "as", "event", "channel", text, "after", "last=1"), "")
			if b := w.streamOf(name, r, `"data":2`); len(b) != 2 || len(b[1]) != 2 {
				t.Errorf("%s: %q", name, b)
			}
			_ = r.Body.Close()
			good.notice(name)
		}
	})
}

// poisonRefused checks that no carrier takes a name. JSON has no bytes but
// UTF-8: encoding/json, which these clients write with, makes them U+FFFD.
func (w *world) poisonRefused(name, text string) {
	w.Helper()
	for _, c := range carriers {
		if !utf8.ValidString(text) && strings.Contains(c.name, "session") {
			continue
		}
		s, err := c.open(w, text, "")
		if err == nil {
			var it wireclient.Item
			for err == nil && it.End == nil {
				if it, err = s.Next(); it.Event || it.Opening {
					w.Errorf("%s on %s: %+v", name, c.name, it)
				}
			}
			s.Close()
			if it.End != nil {
				w.fit(name, *it.End)
				err = &wireclient.Refused{Reason: *it.End}
			}
		}
		if !strings.Contains(fmt.Sprint(err), "bad_channel") {
			w.Errorf("%s on %s: %v", name, c.name, err)
		}
	}
	r := w.do("POST", query("/publish", "channel", text), "1")
	if got := w.refusedBy(name, r); got.Code != "bad_channel" {
		w.Errorf("publish to %s: %+v", name, got)
	}
}

// TestPoisonInEvents: types and data are refused, or come out on every carrier
// as they went in, as one event each.
func TestPoisonInEvents(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, AddressRates: server.Unlimited}, func(w *world) {
		good := w.neighbours()
		streams := map[string]wireclient.Stream{}
		begin := w.publish("r", "0").String()
		for _, c := range carriers {
			streams[c.name] = w.must(c, "r", begin)
		}
		for name, text := range poison {
			quoted, _ := json.Marshal(text)
			for kind, m := range map[string]server.Message{
				"as a type": {Type: text, Data: []byte("1")},
				"as text":   {Kind: server.Text, Data: []byte(text)},
				"as JSON":   {Data: append([]byte("\r\n"), quoted...)},
				"as bytes":  {Kind: server.Binary, Data: []byte(text)},
			} {
				at, err := w.srv.Publish(w.ctx, "r", m)
				if err != nil {
					media := map[eventlog.Kind]string{server.JSON: "application/json", server.Text: "text/plain", server.Binary: "image/png"}[m.Kind]
					r := w.do("POST", query("/publish", "channel", "r", "type", m.Type), string(m.Data), "Content-Type", media)
					if got := w.refusedBy(name, r); got.Code != "invalid" {
						t.Errorf("%s %s: %+v by request, %v here", name, kind, got, err)
					}
					continue
				}
				for carrier, s := range streams {
					it, err := next(s, func(it wireclient.Item) bool { return it.Event || it.Gap != nil })
					if err != nil || it.Position != at.String() || !sameData(it, m) {
						t.Fatalf("%s %s on %s: %+v, %v", name, kind, carrier, it, err)
					}
				}
				for _, view := range []string{"", "&events=named", "&as=event", "&events=named&as=event"} {
					r := w.do("GET", "/sse?channel=r&after=last%3D1"+view, "")
					if b := w.streamOf(name, r, "id: "+at.String()); len(b) != 2 {
						t.Errorf("%s %s with %q: %q", name, kind, view, b)
					}
					_ = r.Body.Close()
				}
			}
			good.notice(name)
		}
	})
}

// sameData reports whether an item holds what was published.
func sameData(it wireclient.Item, m server.Message) bool {
	got := string(it.Data)
	if it.JSON && m.Kind == server.Text {
		_ = json.Unmarshal(it.Data, &got)
	}
	want := string(m.Data)
	if m.Kind == server.JSON {
		got, want = strings.TrimSpace(got), strings.TrimSpace(want)
	}
	return got == want && (m.Type == "" || it.Type == m.Type || it.Type == "message" && !it.JSON)
}

// TestPoisonInRequests: whatever stands in a field of a request, the answer is
// one JSON object, or one stream of blocks, without a header of somebody else's.
func TestPoisonInRequests(t *testing.T) {
	o := server.Options{Authorize: allow, AddressRates: server.Unlimited, OnCall: func(_ context.Context, r server.Request) (server.Payload, error) {
		return r.Payload, nil
	}}
	inBubble(t, o, func(w *world) {
		good := w.neighbours()
		answer := func(name string, r *http.Response) {
			for h := range r.Header {
				if strings.HasPrefix(h, "X") && h != "X-Content-Type-Options" && h != "X-Accel-Buffering" || h == "Set-Cookie" {
					t.Errorf("%s: a header %s", name, h)
				}
			}
			if r.StatusCode != http.StatusOK {
				w.refusedBy(name, r)
				return
			}
			if r.Header.Get("Content-Type") == "text/event-stream" {
				w.streamOf(name, r, "id: ")
				_ = r.Body.Close()
				return
			}
			text, err := io.ReadAll(r.Body)
			if d := strings.TrimSuffix(string(text), "\n"); err != nil || !json.Valid(text) || strings.ContainsAny(d, "\r\n") {
				t.Errorf("%s: %q is not one line of JSON", name, text)
			}
		}
		for name, text := range poison {
			quoted, _ := json.Marshal(text)
			for _, path := range []string{
				query("/sse", "channel", "a", "as", text), query("/sse", "channel", "a", "events", text), query("/sse", "channel", "a", text, text),
				query("/poll", "channel", "a", "wait", text), query("/poll", "channel", "a", "after", text), query("/" + url.PathEscape(text)),
			} {
				answer(name+": "+path, w.do("GET", path, ""))
			}
			for _, members := range []string{`"token":%s`, `"channels":[{"channel":"a","after":%s}]`, `"presence":[{"channel":%s,"seen":%[1]s}]`, `%s:1`} {
				body := `{"hello":{"version":1,"line":1,` + fmt.Sprintf(members, quoted) + `}}`
				answer(name+": "+body, w.do("POST", "/poll", body))
			}
			for _, frame := range []string{
				`"call":{"id":1,"name":%s,"data":1}`, `"call":{"id":1,"name":"a","key":%s,"data":1}`, `"call":{"id":1,"name":"a","data":%s}`,
				`"call":{"id":1,"name":"a","data":1,"encoding":%s}`, `"close":{"line":%s}`, `"publish":{"producer":%s,"frames":[]}`,
				`"publish":{"producer":"` + producer + `","frames":[{"seq":1,"channel":%s,"messages":[{"data":1,"type":%[1]s}]}]}`,
			} {
				body := `{"up":{"version":1,"token":` + string(quoted) + `},` + fmt.Sprintf(frame, quoted) + `}`
				answer(name+": "+body, w.do("POST", "/up", body))
			}
			for _, header := range []string{"Idempotency-Key", "Producer-Seq", "Content-Type", "Last-Event-ID", "Authorization", "Cookie", "X-Forwarded-For", "Forwarded", "Origin", "Sec-Fetch-Site"} {
				for _, request := range []string{"POST /publish?channel=a", "GET /sse?channel=a", "POST /poll"} {
					if r := w.rawRequest(request, header, text); r != nil {
						answer(name+" in "+header+" of "+request, r)
					}
				}
			}
			good.notice(name)
		}
	})
}

// rawRequest sends a header as it is. It is nil if net/http refused it, which
// has words of its own.
func (w *world) rawRequest(request, header, value string) *http.Response {
	w.Helper()
	method, path, _ := strings.Cut(request, " ")
	c, err := w.net.Dial(w.ctx, "", "")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	go func() {
		_, _ = fmt.Fprintf(c, "%s /realtime%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, path, header, value)
	}()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
		if err == nil && r.StatusCode != http.StatusBadRequest {
			w.Errorf("%s: %s: %d", header, value, r.StatusCode)
		}
		return nil
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{r.Body, c} // that of the response would read on
	return r
}

// TestPoisonOfTheProgram: what hooks give is the program's, but can't break what
// a client reads either.
func TestPoisonOfTheProgram(t *testing.T) {
	for name, text := range poison {
		t.Run(name, func(t *testing.T) {
			quoted, _ := json.Marshal(text)
			info := fmt.Appendf(nil, "{\r\n\r\n%s:\r\n\n%s}", quoted, quoted)
			o := server.Options{
				Authorize: allow, AddressRates: server.Unlimited, IdentityRates: server.Unlimited,
				Authenticate: func(r *http.Request) (server.Identity, error) {
					if r.Header.Get(who) == "poisoned" {
						return server.Identity{Subject: text}, nil
					}
					if r.Header.Get(who) == "refused" {
						return server.Identity{}, transport.Refuse(text, "%s", text)
					}
					return server.Identity{Subject: "ann", Claims: text}, nil
				},
				OnConnect: func(context.Context, server.Client) (server.Welcome, error) {
					return server.Welcome{Channels: []string{text}, Info: info}, nil
				},
			}
			inBubble(t, o, func(w *world) {
				for _, carrier := range sessionCarriers {
					for _, subject := range []string{"poisoned", "refused"} {
						_, _, err := w.begin(w.as(subject), carrier, wireclient.Hello{Line: 1, Presence: []wireclient.Watch{{Channel: "r"}}})
						if r := refusal(err); r != nil {
							w.fitCode(name, r.Reason)
						} else if err != nil {
							t.Errorf("%s, %s on %s: %v", name, subject, carrier, err)
						}
					}
				}
				h := wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}, Presence: []wireclient.Watch{{Channel: "r"}}}
				r := w.do("POST", "/sse", string(h.Frame()))
				for _, b := range w.streamOf(name, r, `"total":1`) {
					if len(b) != 1 || !json.Valid([]byte(strings.TrimPrefix(b[0], "data: "))) {
						t.Errorf("%s: a block %q", name, b)
					}
				}
				_ = r.Body.Close()
			})
		})
	}
}

// fitCode checks that a code is one that PROTOCOL allows.
func (w *world) fitCode(name string, r wireclient.Reason) {
	w.Helper()
	if !regexp.MustCompile(`^[a-z0-9_]{1,50}$`).MatchString(r.Code) {
		w.Errorf("%s: the code %q", name, r.Code)
	}
}

// A socket is a WebSocket of somebody who writes the frames himself.
type socket struct {
	net.Conn
	r *bufio.Reader
}

// dialSocket does the handshake, offering compression.
func (w *world) dialSocket(path string) *socket {
	w.Helper()
	c, err := w.net.Dial(w.ctx, "", "")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "GET /realtime%s HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", path)
	if err != nil {
		w.Fatal(err)
	}
	s := &socket{c, bufio.NewReader(c)}
	r, err := http.ReadResponse(s.r, nil)
	if err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		w.Fatalf("%v, %v", r, err)
	}
	if r.Header.Get("Sec-WebSocket-Extensions") != "" {
		w.Errorf("compression was agreed to: %v", r.Header)
	}
	return s
}

// wsFrame is a masked frame (RFC 6455 §5.2) with the first byte as it is given.
func wsFrame(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

// end reads to the close frame, and returns its code and reason, and the last
// text before it.
func (s *socket) end() (code int, reason, text string, err error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(s.r, head[:]); err != nil {
			return 0, "", text, err
		}
		n := uint64(head[1])
		if head[1] == 126 {
			var more [2]byte
			_, _ = io.ReadFull(s.r, more[:])
			n = uint64(binary.BigEndian.Uint16(more[:]))
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(s.r, payload); err != nil {
			return 0, "", text, err
		}
		switch head[0] & 0xF {
		case 1:
			text = string(payload)
		case 8:
			if n == 0 {
				return 1005, "", text, nil
			}
			if head[0] != 0x88 || n < 2 || n > 125 || !utf8.Valid(payload[2:]) {
				return 0, "", text, fmt.Errorf("the close frame %x %q is against RFC 6455 §5.5.1", head, payload)
			}
			return int(binary.BigEndian.Uint16(payload)), string(payload[2:]), text, nil
		}
	}
}

const (
	fin  = 0x80
	text = 1
)

// TestBadFrames: whoever breaks RFC 6455, or its rule of UTF-8, or sends what
// isn't taken, is told so by a close frame, and nobody else is harmed.
func TestBadFrames(t *testing.T) {
	hello := `{"hello":{"version":1,"line":1,"channels":[{"channel":"good"}]}}`
	broken, refused, notUTF8 := "1002 ", "4002 bad_request", "1007 bad_request"
	cases := map[string]struct{ bytes, want string }{
		"unmasked":                       {"\x81\x02{}", broken},
		"the first reserved bit":         {wsFrame(fin|0x40|text, "{}"), broken},
		"the second":                     {wsFrame(fin|0x20|text, "{}"), broken},
		"the third":                      {wsFrame(fin|0x10|text, "{}"), broken},
		"an unknown opcode":              {wsFrame(fin|3, "{}"), broken},
		"an unknown control":             {wsFrame(fin|0xB, ""), broken},
		"a fragmented ping":              {wsFrame(9, "x"), broken},
		"a long ping":                    {wsFrame(fin|9, strings.Repeat("x", 126)), broken},
		"no beginning":                   {wsFrame(fin, "{}"), broken},
		"two beginnings":                 {wsFrame(text, "{") + wsFrame(fin|text, "}"), broken},
		"a negative length":              {"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", broken},
		"half a close code":              {wsFrame(fin|8, "\x03"), broken},
		"a close code of nobody":         {wsFrame(fin|8, "\x03\xed"), broken},
		"binary":                         {wsFrame(fin|2, "{}"), refused},
		"bad UTF-8":                      {wsFrame(fin|text, "{\"x\":\"\xff\"}"), notUTF8},
		"bad UTF-8 in fragments":         {wsFrame(text, "{\"x\":\"\xc3") + wsFrame(fin, "\x28\"}"), notUTF8},
		"half a rune at the end":         {wsFrame(text, "{}\xf0\x9f") + wsFrame(0, "\x98") + wsFrame(fin, ""), notUTF8},
		"a surrogate":                    {wsFrame(fin|text, "\"\xed\xa0\x80\""), notUTF8},
		"no JSON":                        {wsFrame(fin|text, "{"), refused},
		"a rune in fragments, no JSON":   {wsFrame(text, "\"\xc3") + wsFrame(fin, "\xa9\""), refused},
		"too long":                       {wsFrame(fin|text, strings.Repeat("x", 64<<10+1)), "4002 too_large"},
		"too long in fragments":          {wsFrame(text, strings.Repeat("x", 40<<10)) + wsFrame(0, strings.Repeat("x", 40<<10)), "4002 too_large"},
		"endless, of which some came":    {"\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00\x01\x02\x03\x04" + strings.Repeat("x", 70_000), "4002 too_large"},
		"a close frame, as it should be": {wsFrame(fin|8, "\x03\xe8bye"), "1000 bye"},
	}
	inBubble(t, server.Options{Authorize: allow, AddressRates: server.Unlimited}, func(w *world) {
		good := w.neighbours()
		for _, way := range []struct{ name, path, first string }{
			{"plain", "/ws?channel=good", ""}, {"first frame", "/ws", ""}, {"session", "/ws", wsFrame(fin|text, hello)},
		} {
			for name, c := range cases {
				name = way.name + ": " + name
				s := w.dialSocket(way.path)
				began := time.Now()
				_, _ = io.WriteString(s, way.first)
				synctest.Wait()
				if _, err := io.WriteString(s, c.bytes); err != nil {
					t.Fatal(err)
				}
				code, reason, last, err := s.end()
				if got := fmt.Sprintf("%d %s", code, reason); err != nil || !strings.HasPrefix(got, c.want) && (way.name != "plain" || c.want != "4002 too_large" || got != refused) {
					t.Errorf("%s: %s, want %s, %v", name, got, c.want, err)
				}
				var f struct{ Close wireclient.Reason }
				if json.Unmarshal([]byte(last), &f); way.name == "session" && code > 1002 {
					w.fit(name, f.Close)
				}
				if rest, _ := io.ReadAll(s.r); len(rest) > 0 {
					t.Errorf("%s: %q came after the close frame", name, rest)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("%s: it took %v", name, took)
				}
				_ = s.Close()
				good.notice(name)
			}
		}
		for name, f := range badFrames() { // PROTOCOL §6, as over requests
			s := w.dialSocket("/ws")
			if _, err := io.WriteString(s, wsFrame(fin|text, f.text)); err != nil {
				t.Fatal(err)
			}
			code, reason, last, err := s.end()
			var g struct{ Close wireclient.Reason }
			if json.Unmarshal([]byte(last), &g) != nil || err != nil || g.Close.Code != f.code || reason != f.code || code != 4002 && (code != 1007 || name != "bad UTF-8") {
				t.Errorf("%s: %d %s %s, %v", name, code, reason, last, err)
			}
			w.fit(name, g.Close)
			_ = s.Close()
			good.notice(name)
		}
	})
}

// TestRunesInFragments: UTF-8 counts for a message, not for its frames (RFC 6455
// §5.6).
func TestRunesInFragments(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		s := w.dialSocket("/ws")
		hello := `{"hello":{"version":1,"line":1,"channels":[{"channel":"é"}]}}`
		cut := strings.Index(hello, "é") + 1
		if _, err := io.WriteString(s, wsFrame(text, hello[:cut])+wsFrame(fin|9, "ping")+wsFrame(fin, hello[cut:])); err != nil {
			t.Fatal(err)
		}
		at := w.publish("é", "1").String()
		if _, err := io.WriteString(s, wsFrame(fin|text, `{"unsubscribe":["é"]}`)+wsFrame(fin|text, "1")); err != nil {
			t.Fatal(err)
		}
		if code, _, last, err := s.end(); code != 4002 || err != nil || !strings.Contains(last, `"close"`) {
			t.Errorf("%d %s %v, %s", code, last, err, at)
		}
	})
}

// countingLog counts how often it is asked.
type countingLog struct {
	eventlog.Log
	asked atomic.Int32
}

func (l *countingLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	l.asked.Add(1)
	return l.Log.Read(ctx, ch, after, limit)
}

// TestForgedPositions: a position that is made up, or of another channel, is
// told as rewritten, shows nothing of the other one, and costs one look.
func TestForgedPositions(t *testing.T) {
	var log *countingLog
	makeLog := func() eventlog.Log {
		log = &countingLog{Log: eventlog.NewMemory(eventlog.MemoryOptions{})}
		return log
	}
	inBubbleWith(t, makeLog, server.Options{Authorize: allow, AddressRates: server.Unlimited}, func(w *world) {
		var mine, other server.Position
		for i := range 500 {
			mine = w.publish("mine", fmt.Sprint(i))
			other = w.publish("other", `"secret"`)
		}
		tenant, err := w.srv.PublishTo(w.ctx, server.Channel{Namespace: "tenant", Name: "mine"}, server.Message{Data: []byte(`"secret"`)})
		if err != nil {
			t.Fatal(err)
		}
		unborn := w.seek("unborn", earliest)
		for name, p := range map[string]server.Position{
			"another channel's": other, "another tenant's": tenant, "an unborn channel's": unborn,
			"ahead": {Offset: mine.Offset + 1, Mark: mine.Mark}, "behind": {Offset: 1, Mark: mine.Mark},
			"far ahead": {Offset: 1<<64 - 1, Mark: mine.Mark}, "a guess": {Offset: mine.Offset, Mark: mine.Mark ^ 1},
			"a large mark": {Offset: mine.Offset, Mark: 1<<64 - 1}, "the beginning": {Offset: 0, Mark: mine.Mark},
		} {
			for _, c := range carriers {
				log.asked.Store(0)
				s := w.must(c, "mine", p.String())
				it := w.next(s)
				if it.Gap == nil || it.Gap.Reason != "rewritten" || it.Gap.From != p.String() || it.Gap.To != mine.String() {
					t.Errorf("%s on %s: %+v", name, c.name, it)
				}
				mine = w.publish("mine", "1")
				if it := w.next(s); it.Position != mine.String() || string(it.Data) != "1" {
					t.Errorf("%s on %s, then: %+v", name, c.name, it)
				}
				if n := log.asked.Load(); n > 6 {
					t.Errorf("%s on %s: the log was asked %d times", name, c.name, n)
				}
				s.Close()
			}
		}
	})
}
