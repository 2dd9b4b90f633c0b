package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// ask is one request of a fuzz target, and its answer, which is one JSON object
// whatever was asked.
func ask(t *testing.T, srv http.Handler, r *http.Request) (int, map[string]json.RawMessage) {
	t.Helper()
	rec := httptest.NewRecorder()
	srv.ServeHTTP(rec, r)
	var body map[string]json.RawMessage
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatalf("%d %q: %v", rec.Code, rec.Body, err)
	}
	if rec.Code != http.StatusOK {
		var why wireclient.Reason
		if json.Unmarshal(body["error"], &why) != nil || why.Code == "" || len(why.Message) < 10 || len(why.Message) > 600 {
			t.Fatalf("%d %q", rec.Code, rec.Body)
		}
	}
	return rec.Code, body
}

func quiet(tb testing.TB, o server.Options) (*server.Server, eventlog.Log) {
	tb.Helper()
	log := eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 3} }})
	o.Log, o.Logger, o.AddressRates = log, slog.New(slog.DiscardHandler), server.Unlimited
	srv, err := server.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = srv.Close(); _ = log.Close() })
	return srv, log
}

// FuzzPublish: what is taken is in the log as it came, of the kind that its
// Content-Type says; what isn't is nowhere.
func FuzzPublish(f *testing.F) {
	f.Add("a", "said", "application/json", "", "", []byte("{}"))
	f.Add("a\n", "open", "text/plain; charset=utf-8", "0123456789abcdef", "7", []byte("\xff"))
	f.Add("$a", "t\x00", "application/x-www-form-urlencoded", "k", "-1", []byte("{"))
	f.Add("é", "", "image/svg+xml; a=\"b", "0123456789abcdef\xff", "18446744073709551616", []byte{0})
	f.Add("a", "", "application/vnd.x+json", "", "1", []byte("1 2"))
	srv, log := quiet(f, server.Options{Authorize: allow})
	f.Fuzz(func(t *testing.T, channel, kind, media, key, seq string, data []byte) {
		r := httptest.NewRequest("POST", "/publish?"+url.Values{"channel": {channel}, "type": {kind}}.Encode(), bytes.NewReader(data))
		for name, value := range map[string]string{"Content-Type": media, "Idempotency-Key": key, "Producer-Seq": seq} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		status, body := ask(t, srv, r)
		ch := server.Channel{Name: channel}
		if status != http.StatusOK {
			return
		}
		if ch.Check() != nil || key != "" && (len(key) < 16 || len(key) > 256) || key == "" && seq != "" {
			t.Fatalf("%q %q %q was taken", channel, key, seq)
		}
		if string(body["duplicate"]) == "true" {
			return
		}
		at, err := log.Seek(t.Context(), ch, eventlog.Start{Last: 1})
		if err != nil {
			t.Fatal(err)
		}
		page, err := log.Read(t.Context(), ch, at, eventlog.Limit{})
		if err != nil || len(page.Events) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
		e := page.Events[0]
		if !bytes.Equal(e.Data, data) || kind != "" && e.Type != kind || string(body["position"]) != `"`+e.At.String()+`"` {
			t.Errorf("%q of type %q is in the log as %+v, told as %s", data, kind, e, body)
		}
		if e.Kind == server.JSON && !json.Valid(data) || e.Kind == server.Text && !utf8.Valid(data) || strings.HasPrefix(media, "text/plain") && e.Kind != server.Text {
			t.Errorf("%q, said to be %q, is taken as %v", data, media, e.Kind)
		}
	})
}

// FuzzOrigin: whoever is let in was named, or is the host that was asked.
func FuzzOrigin(f *testing.F) {
	const friend = "https://friend.example.com"
	for _, c := range [][3]string{
		{"https://app.example.com", "app.example.com", ""},
		{friend, "a", "cross-site"},
		{"null", "a", ""},
		{"", "a", "none"},
		{"http://a@b", "b", ""},
		{"http://[::1]:80", "[::1]:80", ""},
		{"HTTP://A", "a", ""},
		{friend + ".evil", "a", "same-site"},
		{"//a", "a", ""},
	} {
		f.Add(c[0], c[1], c[2])
	}
	srv, _ := quiet(f, server.Options{AllowedOrigins: []string{friend}})
	f.Fuzz(func(t *testing.T, origin, host, site string) {
		r := httptest.NewRequest("GET", "/poll?channel=a", nil)
		r.Host = host
		r.Header["Origin"], r.Header["Sec-Fetch-Site"] = []string{origin}, []string{site}
		rec := httptest.NewRecorder()
		srv.ServeHTTP(rec, r)
		if rec.Header().Get("Access-Control-Allow-Origin") != "" && !strings.EqualFold(origin, friend) {
			t.Errorf("%q may read", origin)
		}
		if rec.Code == http.StatusForbidden || strings.EqualFold(origin, friend) || site == "same-origin" || site == "none" || site == "" && origin == "" {
			return
		}
		_, authority, found := strings.Cut(origin, "//")
		authority, _, _ = strings.Cut(authority, "/")
		authority = authority[strings.LastIndex(authority, "@")+1:]
		if site != "" || !found || host == "" || !strings.HasPrefix(strings.ToLower(unescaped(authority)), strings.ToLower(host)) {
			t.Errorf("a page of %q was let in at %q, with %q", origin, host, site)
		}
	})
}

func unescaped(host string) string {
	if text, err := url.PathUnescape(host); err == nil {
		return text
	}
	return host
}

// FuzzSocket: whatever bytes come on a WebSocket, what goes back is frames of
// RFC 6455, with nothing after a close frame, and others notice nothing.
func FuzzSocket(f *testing.F) {
	hello := wsFrame(fin|text, `{"hello":{"version":1,"line":1,"channels":[{"channel":"good"}]}}`)
	for _, seed := range []string{
		hello, hello + wsFrame(fin|text, `{"unsubscribe":["good"]}`), hello + wsFrame(fin|9, "x") + wsFrame(fin|8, "\x03\xe8"), wsFrame(text, "{") + wsFrame(0, "}"),
		wsFrame(fin|text, `{"credentials":"x"}`) + hello, "\x81\x02{}", wsFrame(fin|2, "x"), wsFrame(fin|text, "\xff"), "\x88\x80abcd", "\x89\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		hello + wsFrame(fin|text, batch(frame(1, "good"))), hello + wsFrame(fin|text, call(1, "x", "1")), hello + wsFrame(fin|text, `{"close":{}}`),
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, bytes []byte, plain bool) {
		inBubble(t, server.Options{Authorize: allow}, func(w *world) {
			good := w.must(carriers[0], "good", "")
			w.next(good)
			path := "/ws"
			if plain {
				path += "?channel=good"
			}
			s := w.dialSocket(path)
			go func() { _, _ = s.Write(bytes) }()
			_, _, _, err := s.end() // at the latest for HelloTimeout, or PeerTimeout
			if err == nil {
				if rest, _ := io.ReadAll(s.r); len(rest) > 0 {
					t.Errorf("%q came after a close frame", rest)
				}
			} else if strings.Contains(err.Error(), "RFC") {
				t.Error(err)
			}
			_ = s.Close()
			at := w.publish("good", `"last"`).String()
			if it, err := next(good, func(it wireclient.Item) bool { return it.Gap != nil || it.Position == at }); err != nil || it.Gap != nil {
				t.Errorf("another client got %+v, %v", it, err)
			}
		})
	})
}
