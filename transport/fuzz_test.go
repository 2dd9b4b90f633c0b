package transport_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// isRefusal fails unless an error is a refusal that a person can read.
func isRefusal(t *testing.T, err error) {
	t.Helper()
	var r *transport.Refusal
	if !errors.As(err, &r) || r.Code == "" || r.Message == "" || len(r.Message) > 500 {
		t.Errorf("not a fit refusal: %v", err)
	}
}

func FuzzParseUp(f *testing.F) {
	for _, seed := range []string{
		`{"hello":{"version":1,"token":"","line":3,"channels":[{"channel":"room:42","after":"a1.2"},{"channel":"news"}]}}`,
		`{"hello":{"version":1,"probe":true}}`, `{"hello":{"version":2}}`, `{"hello":null}`,
		`{"subscribe":[{"channel":"a","after":"last=5"}]}`, `{"unsubscribe":["a",""]}`,
		`{}`, `[]`, `null`, ``, `{"hello":{"version":1}}{}`, "\xff", `{"hello":{"version":1e400}}`,
		`{"hello":{"version":1,"line":-1}}`, `{"subscribe":[],"unsubscribe":[]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		up, err := transport.ParseUp(text)
		if err != nil {
			isRefusal(t, err)
			return
		}
		switch {
		case (up.Hello == nil) == (up.Frame == nil):
			t.Errorf("%q is both or neither of hello and frame", text)
		case up.Hello != nil && (up.Hello.Version != transport.Version || up.Hello.Probe && len(up.Hello.Channels) > 0):
			t.Errorf("%q: %+v was let through", text, up.Hello)
		case !utf8.Valid(text):
			t.Errorf("%q is not UTF-8", text)
		}
	})
}

func FuzzParseAfter(f *testing.F) {
	for _, seed := range []string{"", "latest", "earliest", "last=1", "last=10000", "last=10001", "last=-1", "a1.2", "a01.2", "A1.2", "a1.0", "a" + strings.Repeat("z", 80), "last=+5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, s, err := transport.ParseAfter(text)
		switch {
		case err != nil:
			isRefusal(t, err)
		case !p.IsZero() && (s != eventlog.Start{} || p.String() != text):
			t.Errorf("%q became %v and %+v", text, p, s)
		case s.Last < 0 || s.Last > 10_000 || s.Earliest && s.Last > 0:
			t.Errorf("%q became %+v", text, s)
		}
	})
}

func FuzzPlainHello(f *testing.F) {
	for _, seed := range []string{"channel=a", "channel=a&channel=b&after=earliest", "channel=a&channel=a", "after=a1.2", "channel=%ff&after=last=3", "channel=a;b&x=%zz"} {
		f.Add(seed, 16)
	}
	f.Fuzz(func(t *testing.T, query string, most int) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/sse", RawQuery: query}}
		h, err := transport.PlainHello(r, most, r.URL.Query().Get("after"))
		if err != nil {
			isRefusal(t, err)
			return
		}
		if len(h.Channels) == 0 || len(h.Channels) > most || h.Version != 0 {
			t.Errorf("%q became %+v", query, h)
		}
	})
}

// FuzzEventJSON: whatever a log takes is one line of JSON that gives it back.
func FuzzEventJSON(f *testing.F) {
	f.Add("room", "said", "x", []byte(`{"a":"\u2028"}`), uint8(0))
	f.Add("r\"\\", "t", "", []byte("a\r\nb\x00\x7f\u2028"), uint8(1))
	f.Add("r", "", "", []byte{0xff, 0}, uint8(2))
	f.Add("r", "", "", []byte("{\r\n}"), uint8(0))
	f.Fuzz(func(t *testing.T, channel, kind, _ string, data []byte, k uint8) {
		m := eventlog.Message{Type: kind, Kind: eventlog.Kind(k % 3), Data: data}
		ch := eventlog.Channel{Name: channel}
		if ch.Check() != nil || m.Check(0) != nil {
			return
		}
		e := &eventlog.Event{Message: m, At: eventlog.Position{Offset: 1, Mark: 2}}
		text := transport.AppendEventJSON(nil, channel, e)
		if strings.ContainsAny(string(text), "\r\n") {
			t.Fatalf("%q has more than one line", text)
		}
		var o struct {
			Channel, Position, Type, Encoding string
			Data                              json.RawMessage
		}
		if err := json.Unmarshal(text, &o); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if o.Channel != channel || o.Type != kind || o.Position != "a1.2" {
			t.Errorf("%q lost something", text)
		}
		checkData(t, e, o.Data, o.Encoding)
	})
}

func checkData(t *testing.T, e *eventlog.Event, data json.RawMessage, encoding string) {
	t.Helper()
	switch e.Kind {
	case eventlog.JSON:
		var got, want any
		if json.Unmarshal(data, &got) != nil || json.Unmarshal(e.Data, &want) != nil {
			t.Errorf("JSON %q came as %q", e.Data, data)
		}
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if string(a) != string(b) {
			t.Errorf("JSON %q came as %q", e.Data, data)
		}
	case eventlog.Text:
		var got string
		if json.Unmarshal(data, &got) != nil || got != string(e.Data) {
			t.Errorf("text %q came as %q", e.Data, data)
		}
	default:
		var got []byte
		if encoding != "base64" || json.Unmarshal(data, &got) != nil || string(got) != string(e.Data) {
			t.Errorf("binary %q came as %q", e.Data, data)
		}
	}
}

func FuzzReadHello(f *testing.F) {
	f.Add([]byte(`{"hello":{"version":1}}`), int64(10))
	f.Fuzz(func(t *testing.T, body []byte, limit int64) {
		r := httptest.NewRequest(http.MethodPost, "/sse", strings.NewReader(string(body)))
		if _, err := transport.ReadHello(httptest.NewRecorder(), r, max(limit, 0), time.Minute); err != nil {
			isRefusal(t, err)
		} else if int64(len(body)) > limit {
			t.Errorf("%d bytes were read, over the limit of %d", len(body), limit)
		}
	})
}

// FuzzParseUpstream: whatever is let through is within its bounds.
func FuzzParseUpstream(f *testing.F) {
	for _, seed := range []string{
		`{"up":{"version":1,"token":"t"},"publish":{"producer":"0123456789abcdef012345","frames":[{"seq":1,"channel":"a","messages":[{"type":"t","data":"AAEC","encoding":"base64"},{"data":{}}],"repeat":true}]}}`,
		`{"up":{"version":1},"publish":{"producer":"0123456789abcdef012345","frames":[{"seq":2,"channel":"a","messages":[{"data":1}]},{"seq":1,"channel":"b","messages":[{"data":1}]}]}}`,
		`{"up":{"version":1},"call":{"id":3,"name":"add","data":[1,2],"key":"k"}}`,
		`{"up":{"version":1},"call":{"id":3,"name":"","data":"x","encoding":"text"}}`,
		`{"up":{"version":1},"close":{"line":18446744073709551615}}`, `{"up":{"version":1}}`, `{"up":null}`, `{"close":{}}`,
		`{"up":{"version":1},"close":{},"call":{}}`, `{"up":{"version":1},"publish":{"producer":"0123456789abcdef012345","frames":[]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		up, err := transport.ParseUpstream(text)
		if err != nil {
			isRefusal(t, err)
			return
		}
		switch f := up.Frame; {
		case up.Version != transport.Version:
			t.Errorf("%q: version %d", text, up.Version)
		case f.Kind == transport.FramePublish:
			checkPublish(t, f.Publish)
		case f.Kind == transport.FrameCall:
			if f.Call.Name == "" || f.Call.Data == nil || len(f.Call.Key) > 64 {
				t.Errorf("%q became %+v", text, f.Call)
			}
		case f.Kind != transport.FrameGoodbye:
			t.Errorf("%q became a frame of kind %d", text, f.Kind)
		}
	})
}

func checkPublish(t *testing.T, p *transport.Publish) {
	t.Helper()
	if len(p.Producer) < 22 || len(p.Producer) > 64 || len(p.Frames) == 0 || len(p.Frames) > 64 {
		t.Errorf("%+v was let through", p)
	}
	last := uint64(0)
	channels := make(map[string]bool)
	for _, f := range p.Frames {
		if f.Seq <= last || channels[f.Channel] || len(f.Messages) == 0 || len(f.Messages) > 100 {
			t.Errorf("P9.2: %+v was let through", p)
		}
		last, channels[f.Channel] = f.Seq, true
		for _, m := range f.Messages {
			if m.Data == nil && m.Kind == eventlog.JSON {
				t.Errorf("a message without data: %+v", m)
			}
		}
	}
}

// FuzzParseHistory: what is taken for a question can be asked of a log, and by
// a frame as well.
func FuzzParseHistory(f *testing.F) {
	for _, seed := range []string{
		"channel=a", "channel=a&channel=b", "channel=a&after=a1.1&until=a2.2&order=desc&limit=3", "channel=a&last=20&type=said&tag=x&tag=y&key=k",
		"channel=a&since=0&before=253402300799999", "channel=a&since=-1", "channel=a&limit=99999999999999999999", "channel=%ff&key=%00", "channel=a&after=latest&last=0",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, _ := url.ParseQuery(text)
		q, err := transport.ParseHistory(values)
		if err != nil {
			isRefusal(t, err)
			return
		}
		if q.Range.Check() != nil || q.Events < 0 || q.Filter != nil && (q.Filter.Check() != nil || q.Filter.IsZero()) {
			t.Errorf("%q was taken for %+v", text, q)
		}
	})
}

// FuzzAcceptsGzip: whoever says that it takes no gzip gets none.
func FuzzAcceptsGzip(f *testing.F) {
	for _, seed := range []string{"gzip", "gzip;q=0", "*", "*;q=0, gzip", "br;q=1.0, GZIP ; Q=0.001", "identity", ";q=", "gzip;q=x", "x-gzip", ",,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		accepts := transport.AcceptsGzip(http.Header{"Accept-Encoding": {text}})
		if accepts && !strings.Contains(strings.ToLower(text), "gzip") && !strings.Contains(text, "*") {
			t.Errorf("%q takes no gzip", text)
		}
		if transport.AcceptsGzip(http.Header{"Accept-Encoding": {"gzip;q=0.0, " + text}}) {
			t.Errorf("gzip was refused before %q", text)
		}
	})
}
