package server_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// A bound is an option that bounds something: what is within it is fine, and one
// more is refused by a code, in words that name the option.
type bound struct {
	test func(t *testing.T)
	by   func(t *testing.T) // a test that runs by itself
}

// bounds has a row for each field of server.Options that is a whole number.
var bounds = map[string]bound{
	"MaxConnections":           {by: TestMaxConnections},
	"MaxConnectionsPerAddress": {by: TestMaxConnections},
	"MaxHandshakes":            {by: TestMaxHandshakes},
	"MaxHeader":                {by: TestMaxHeader},
	"IPv6Prefix":               {by: TestAddressesOfOneNetwork},
	"MaxPresent":               {by: TestManyArePresent},   // above it presence is a number
	"MaxLag":                   {by: TestLaggardIsEvicted}, // above it LagWindow begins
	"MaxLagBytes":              {by: TestLaggardInBytes},
	"MaxEvicted":               {by: TestEvictedAreBounded},
	"BrokenLines":              {by: TestBrokenWebSocketsAreClosedToTheirSession},
	"LaggardBytes":             {by: TestLaggardsShareTheirRoom},
	"PageBytes":                {test: pageBytes},
	"MaxChannels":              {test: maxChannels},
	"MaxName":                  {test: maxName},
	"MaxFrame":                 {test: maxFrame},
	"MaxMessage":               {test: maxMessage},
	"MemoryLimit":              {by: TestMemoryLimit},
	"MaxCalls":                 {test: maxCalls},
	"HistoryEvents":            {test: maxHistory(server.Options{HistoryEvents: 7}, "", 7)},
	"HistoryBytes":             {test: maxHistory(server.Options{HistoryBytes: 2000}, "", 7)},
	"HistoryScan":              {test: maxHistory(server.Options{HistoryBytes: 2000, HistoryScan: 4000}, "&type=none", 0)},
	"CompressOver":             {test: compressOver},
}

// TestEveryLimit: an option that bounds something and has no row has nobody who
// shows that it does.
func TestEveryLimit(t *testing.T) {
	seen := 0
	for f := range reflect.TypeFor[server.Options]().Fields() {
		if kind := f.Type.Kind(); kind != reflect.Int && (kind != reflect.Int64 || f.Type == reflect.TypeFor[time.Duration]()) {
			continue
		}
		seen++
		b, ok := bounds[f.Name]
		switch {
		case !ok:
			t.Errorf("Options.%s has no row in bounds", f.Name)
		case b.test != nil:
			t.Run(f.Name, b.test)
		case b.by == nil:
			t.Errorf("Options.%s: the row is empty", f.Name)
		}
	}
	if seen < 10 || seen != len(bounds) {
		t.Errorf("%d options and %d rows", seen, len(bounds))
	}
}

// maxName: of a channel, however it is said.
func maxName(t *testing.T) {
	const most = 20
	fits, tooLong := strings.Repeat("n", most), strings.Repeat("n", most+1)
	inBubble(t, server.Options{Authorize: allow, MaxName: most}, func(w *world) {
		for name, fine := range map[string]bool{fits: true, tooLong: false} {
			s := w.ws(hello(name, ""))
			switch it := w.next(s); {
			case fine && !it.Opening:
				t.Errorf("a name that fits: %+v", it)
			case !fine:
				tooMuch(t, "a channel", it.End, "bad_channel", "MaxName")
			}
			for what, r := range map[string]*http.Response{
				"publish": w.do("POST", "/publish?channel="+name, "1"), "poll": w.do("GET", "/poll?channel="+name, ""),
			} {
				if (r.StatusCode == http.StatusOK) != fine {
					t.Errorf("%s of %d bytes: %d", what, len(name), r.StatusCode)
				}
			}
		}
	})
	if _, err := server.New(server.Options{MaxName: 201}); err == nil || !strings.Contains(err.Error(), "MaxName") {
		t.Errorf("more than a log takes: %v", err)
	}
}

// tooMuch checks a refusal that names its option.
func tooMuch(t *testing.T, what string, r *wireclient.Reason, code, option string) {
	t.Helper()
	if r == nil || r.Code != code || !strings.Contains(r.Message, "Options."+option) {
		t.Errorf("%s: %+v, want %s and Options.%s", what, r, code, option)
	}
}

// refusal is the one in a response.
func (w *world) refusal(r *http.Response) *wireclient.Reason {
	w.Helper()
	why := w.refusedBy(r.Request.URL.Path, r)
	return &why
}

func maxFrame(t *testing.T) {
	const most = 1000
	pad := func(n int) string { return `{"hello":{"version":1,"line":1}}` + strings.Repeat(" ", n-32) }
	inBubble(t, server.Options{Authorize: allow, MaxFrame: most}, func(w *world) {
		for _, path := range []string{"/sse", "/poll"} {
			if r := w.do("POST", path, pad(most)); r.StatusCode != 200 {
				t.Errorf("%s: a hello of the limit: %d", path, r.StatusCode)
			}
			tooMuch(t, path, w.refusal(w.do("POST", path, pad(most+1))), "too_large", "MaxFrame")
		}
		for _, n := range []int{most, most + 1} {
			s := w.dialSocket("/ws")
			_, _ = io.WriteString(s, wsFrame(text, pad(n)[:500])+wsFrame(fin, pad(n)[500:])) // the message counts
			if n == most {
				_, _ = io.WriteString(s, wsFrame(fin|8, "\x03\xe8"))
			}
			code, reason, last, err := s.end()
			if n == most && code != 1000 || n > most && (code != 4002 || reason != "too_large" || !strings.Contains(last, "Options.MaxFrame")) || err != nil {
				t.Errorf("a message of %d bytes: %d %s %s, %v", n, code, reason, last, err)
			}
		}
		_, open := w.line(w.http, "ws", wireclient.Hello{Line: 1})
		if open.Limit != most {
			t.Errorf("P6.3: a limit of %d is told", open.Limit)
		}
	})
}

func maxMessage(t *testing.T) {
	const most = 100
	inBubble(t, server.Options{Authorize: allow, MaxMessage: most, OnCall: func(_ context.Context, r server.Request) (server.Payload, error) {
		return r.Payload, nil
	}}, func(w *world) {
		if r := w.do("POST", "/publish?channel=r", strings.Repeat("x", most)); r.StatusCode != 200 {
			t.Errorf("a message of the limit: %d", r.StatusCode)
		}
		tooMuch(t, "publish", w.refusal(w.do("POST", "/publish?channel=r", strings.Repeat("x", most+1))), "too_large", "MaxMessage")
		for i, way := range ways {
			say := way.open(w)
			of := func(seq, n int) string {
				return fmt.Sprintf(`{"seq":%d,"channel":"r%d","messages":[{"data":1},{"encoding":"base64","data":%q}]}`, seq, i, base64.StdEncoding.EncodeToString(make([]byte, n)))
			}
			expect(t, way.name+": a message of the limit", outcomes(say(batch(of(1, most)))), "1:ok")
			it := say(batch(of(2, most+1), frame(3, fmt.Sprint("q", i))))
			expect(t, way.name+": one byte more", outcomes(it), "2:too_large 3:ok")
			tooMuch(t, way.name, it.Published[0].Error, "too_large", "MaxMessage")
			expect(t, way.name+": a call", reply(say(call(1, "x", `"`+strings.Repeat("x", most-2)+`"`))), `"`+strings.Repeat("x", most-2)+`"`)
			tooMuch(t, way.name+": a call", say(call(2, "x", `"`+strings.Repeat("x", most-1)+`"`)).Reply.Error, "too_large", "MaxMessage")
		}
		body := `{"up":{"version":1},"close":{}}`
		limit := most*6 + 64<<10
		if r := w.do("POST", "/up", body+strings.Repeat(" ", limit-len(body))); r.StatusCode != 200 {
			t.Errorf("a body of the limit: %d", r.StatusCode)
		}
		tooMuch(t, "up", w.refusal(w.do("POST", "/up", body+strings.Repeat(" ", limit+1-len(body)))), "too_large", "MaxMessage")
		if _, err := w.srv.Publish(w.ctx, "r", server.Message{Kind: server.Text, Data: make([]byte, most+1)}); err != nil {
			t.Errorf("the program's own: %v", err)
		}
	})
	small := eventlog.NewMemory(eventlog.MemoryOptions{MaxData: 10})
	defer small.Close()
	if _, err := server.New(server.Options{Log: small, MaxMessage: 11}); err == nil || !strings.Contains(err.Error(), "Options.MaxMessage") {
		t.Errorf("more than the log takes: %v", err)
	}
}

func maxChannels(t *testing.T) {
	const most = 3
	named := func(n int) (h wireclient.Hello) {
		h = wireclient.Hello{Version: 1, Line: 1}
		for i := range n {
			h.Channels = append(h.Channels, wireclient.Channel{Channel: fmt.Sprint("c", i)})
		}
		return h
	}
	inBubble(t, server.Options{Authorize: allow, MaxChannels: most}, func(w *world) {
		for _, carrier := range sessionCarriers {
			w.line(w.http, carrier, named(most))
			_, _, err := w.begin(w.http, carrier, named(most+1))
			if r := refusal(err); r == nil {
				t.Errorf("%s: %v", carrier, err)
			} else {
				tooMuch(t, carrier, &r.Reason, "too_many_channels", "MaxChannels")
			}
			watching := wireclient.Hello{Presence: []wireclient.Watch{{Channel: "a"}, {Channel: "b"}, {Channel: "c"}, {Channel: "d"}}}
			if _, _, err = w.begin(w.http, carrier, watching); refusal(err) == nil {
				t.Errorf("%s: presence: %v", carrier, err)
			}
		}
		s := w.ws(named(most))
		_ = s.Send([]byte(`{"subscribe":[{"channel":"more"}]}`))
		it, err := next(s, func(it wireclient.Item) bool { return it.End != nil })
		if err != nil {
			t.Fatal(err)
		}
		tooMuch(t, "in flight", it.End, "too_many_channels", "MaxChannels")
		_ = s.Send([]byte(`{"unsubscribe":["c0"]}`))
		_, _ = next(s, func(it wireclient.Item) bool { return it.End != nil })
		_ = s.Send([]byte(`{"subscribe":[{"channel":"more"}]}`))
		if it := w.next(s); !it.Opening || it.Channel != "more" {
			t.Errorf("in place of another: %+v", it)
		}
	})
}

func maxCalls(t *testing.T) {
	const most = 3
	free := make(map[string]chan struct{})
	o := server.Options{Authorize: allow, MaxCalls: most, OnCall: func(context.Context, server.Request) (server.Payload, error) {
		<-free["all"]
		return server.Payload{}, nil
	}}
	inBubble(t, o, func(w *world) {
		free["all"] = make(chan struct{})
		s := w.ws(wireclient.Hello{Version: 1, Line: 1})
		for i := range most + 1 {
			_ = s.Send([]byte(call(i+1, "x", "1")))
		}
		it := w.next(s)
		if it.Reply == nil || it.Reply.ID != most+1 || it.Reply.Error == nil {
			t.Fatalf("%+v", it)
		}
		tooMuch(t, "calls", it.Reply.Error, "busy", "MaxCalls")
		close(free["all"])
		for range most {
			expect(t, "one of the limit", reply(w.next(s)), "null")
		}
	})
}

// pageBytes: what is written at once is bounded, but for one event that is
// larger.
func pageBytes(t *testing.T) {
	o := server.Options{Authorize: allow, PageBytes: 1000, WriteTimeout: time.Hour, PeerTimeout: time.Hour, MaxLag: 1 << 30}
	inBubble(t, o, func(w *world) {
		for range 500 {
			w.publish("r", `"`+strings.Repeat("x", 250)+`"`) // of 128 more in the log's count
		}
		r := w.do("GET", "/poll?channel=r&after=earliest", "")
		text, _ := io.ReadAll(r.Body)
		if n := strings.Count(string(text), `"position"`); n < 1 || n > 5 {
			t.Errorf("an answer of pages of 1000 bytes has %d events of 250", n)
		}
		synctest.Wait()
	})
}

// TestBoundsOfTheFormat: names and the like are bounded by the format; the last
// that fits does, and what is longer is refused in words that say the bound.
func TestBoundsOfTheFormat(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	o := server.Options{Authorize: allow, AddressRates: server.Unlimited, OnCall: func(context.Context, server.Request) (server.Payload, error) {
		return server.Payload{}, nil
	}, Authenticate: func(r *http.Request) (server.Identity, error) {
		return server.Identity{Subject: r.Header.Get(who), Namespace: r.Header.Get("X-Namespace")}, nil
	}}
	inBubble(t, o, func(w *world) {
		names := func(n int) string {
			var list []string
			for i := range n {
				list = append(list, fmt.Sprint("channel=c", i))
			}
			return strings.Join(list, "&")
		}
		key := func(n int) []string { return []string{"Idempotency-Key", x(n)} }
		for name, c := range map[string]struct {
			method, path, body string
			headers            []string
			code, says         string // empty: it is fine
		}{
			"a name":               {"GET", "/poll?channel=" + x(200), "", nil, "", ""},
			"a longer name":        {"GET", "/poll?channel=" + x(201), "", nil, "bad_channel", "200 bytes"},
			"a name to publish to": {"POST", "/publish?channel=" + x(201), "1", nil, "bad_channel", "200 bytes"},
			"a type":               {"POST", "/publish?channel=a&type=" + x(100), "1", nil, "", ""},
			"a longer type":        {"POST", "/publish?channel=a&type=" + x(101), "1", nil, "invalid", "100 bytes"},
			"a key":                {"POST", "/publish?channel=a", "1", key(16), "", ""},
			"the longest key":      {"POST", "/publish?channel=a", "1", key(256), "", ""},
			"a shorter key":        {"POST", "/publish?channel=a", "1", key(15), "bad_request", "16 to 256"},
			"a longer key":         {"POST", "/publish?channel=a", "1", key(257), "bad_request", "16 to 256"},
			"a position":           {"GET", "/poll?channel=a&after=a1.1", "", nil, "", ""},
			"a longer position":    {"GET", "/poll?channel=a&after=" + x(65), "", nil, "bad_position", "64 characters"},
			"the last events":      {"GET", "/poll?channel=a&after=last%3D10000", "", nil, "", ""},
			"more events":          {"GET", "/poll?channel=a&after=last%3D10001", "", nil, "bad_position", "10000"},
			"channels":             {"GET", "/sse?" + names(16), "", nil, "", ""},
			"more channels":        {"GET", "/sse?" + names(17), "", nil, "too_many_channels", "16 channel"},
			"a longer vector":      {"GET", "/sse?" + names(2), "", []string{"Last-Event-ID", "v" + x(2048)}, "bad_position", "2048 bytes"},
			"a call's name":        {"POST", "/up", `{"up":{"version":1},` + call(1, x(200), "1")[1:], nil, "", ""},
			"a longer call's name": {"POST", "/up", `{"up":{"version":1},` + call(1, x(201), "1")[1:], nil, "bad_request", "200 bytes"},
			"a subject":            {"GET", "/poll?channel=a", "", []string{who, x(256)}, "", ""},
			"a longer subject":     {"GET", "/poll?channel=a", "", []string{who, x(257)}, "unauthorized", "Options.Authenticate"},
			"a namespace":          {"GET", "/poll?channel=a", "", []string{"X-Namespace", x(100)}, "", ""},
			"a longer namespace":   {"GET", "/poll?channel=a", "", []string{"X-Namespace", x(101)}, "unauthorized", "Options.Authenticate"},
		} {
			r := w.do(c.method, c.path, c.body, c.headers...)
			if c.code == "" {
				if r.StatusCode != http.StatusOK {
					t.Errorf("%s: %d %+v", name, r.StatusCode, w.refusedBy(name, r))
				}
			} else if got := w.refusedBy(name, r); got.Code != c.code || !strings.Contains(got.Message, c.says) {
				t.Errorf("%s: %+v, want %s and %q", name, got, c.code, c.says)
			}
			_ = r.Body.Close()
		}
	})
}

// TestNothingIsCompressed: what the client sends is bounded as it comes, so it
// comes as it is.
func TestNothingIsCompressed(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow}, func(w *world) {
		for _, path := range []string{"/sse", "/poll", "/up", "/publish?channel=r"} {
			for _, coding := range []string{"gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"} {
				r := w.do("POST", path, "1", "Content-Encoding", coding)
				if got := w.refusedBy(path, r); r.StatusCode != http.StatusUnsupportedMediaType || got.Code != "bad_encoding" ||
					!strings.Contains(got.Message, "Content-Encoding") || r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("%s with %s: %d %+v", path, coding, r.StatusCode, got)
				}
			}
			if r := w.do("POST", path, "1", "Content-Encoding", "Identity"); r.StatusCode == http.StatusUnsupportedMediaType {
				t.Errorf("%s: identity is refused", path)
			}
		}
		w.dialSocket("/ws") // checks that permessage-deflate isn't agreed to
	})
}
