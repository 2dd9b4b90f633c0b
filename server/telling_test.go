package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// A logbook keeps what a server writes.
type logbook struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *logbook) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func (b *logbook) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// A logged is a line.
type logged map[string]any

// lines returns those that have these attributes, given as name, value, ….
func (b *logbook) lines(t *testing.T, attrs ...string) (found []logged) {
	t.Helper()
	for text := range strings.Lines(b.text()) {
		var line logged
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		fits := true
		for i := 0; i+1 < len(attrs); i += 2 {
			fits = fits && fmt.Sprint(line[attrs[i]]) == attrs[i+1]
		}
		if fits {
			found = append(found, line)
		}
	}
	return found
}

// TestFollowOneSession: from its first connection over a change of carrier and
// a gap to its end, by the log alone.
func TestFollowOneSession(t *testing.T) {
	var book logbook
	o := server.Options{Authenticate: byHeader, Authorize: allow, Logger: book.logger()}
	inBubbleWith(t, smallLog(3), o, func(w *world) {
		other, _ := w.line(w.as("bob"), "ws", wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
		defer other.Close()
		ann := w.as("ann")
		first, open := w.line(ann, "ws", wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "r"}, {Channel: "bad\x01name"}}})
		w.next(first)
		w.next(first)
		at := w.publish("r", "1").String()
		w.next(first)
		time.Sleep(3 * time.Second)
		second, _ := w.line(ann, "sse", wireclient.Hello{Version: 1, Line: 2, Token: open.Token, Channels: []wireclient.Channel{{Channel: "r", After: at}}})
		synctest.Wait()
		w.publish("r", "2")
		w.next(second)
		w.next(second)
		time.Sleep(7 * time.Second)
		second.Close()
		synctest.Wait()
		for range 10 {
			w.publish("r", "3")
		}
		third, _ := w.line(ann, "ws", wireclient.Hello{Version: 1, Line: 3, Token: open.Token, Channels: []wireclient.Channel{{Channel: "r", After: at}}})
		time.Sleep(3 * time.Second)
		if err := third.(*wireclient.WSStream).Send([]byte(`{"close":{}}`)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	})

	begun := book.lines(t, "msg", "connection began", "subject", "ann", "line", "1")
	if len(begun) != 1 {
		t.Fatalf("ann's first connection: %v", begun)
	}
	story := book.lines(t, "session", begun[0]["session"].(string))
	var conns []string // in order
	tell := func(line logged) string {
		c := line["connection"].(string)
		if !slices.Contains(conns, c) {
			conns = append(conns, c)
		}
		said := fmt.Sprintf("%s: %d", line["msg"], 1+slices.Index(conns, c))
		for _, key := range []string{"transport", "kind", "channels", "positions", "action", "code", "reason", "from", "to", "delivered", "lag"} {
			if v, ok := line[key]; ok {
				said += fmt.Sprintf(" %s=%v", key, v)
			}
		}
		if by, ok := line["superseded_by"]; ok {
			if !slices.Contains(conns, by.(string)) {
				conns = append(conns, by.(string)) // its own line comes right after
			}
			said += fmt.Sprintf(" superseded_by=%d", 1+slices.Index(conns, by.(string)))
		}
		return said
	}
	var got []string
	for _, line := range story {
		if line["subject"] != "ann" || line["addr"] != "127.0.0.1" {
			t.Errorf("not of ann: %v", line)
		}
		got = append(got, tell(line))
	}
	want := []string{
		"refused: 1 transport=ws action=subscribe code=bad_channel",
		"connection began: 1 transport=ws kind=new channels=2 positions=0",
		"connection ended: 1 transport=ws code=superseded delivered=1 lag=0 superseded_by=2",
		"connection began: 2 transport=sse kind=continued channels=1 positions=1",
		"connection ended: 2 transport=sse code=left delivered=1 lag=0",
		"gap told: 3 transport=ws reason=trimmed from=1 to=9",
		"connection began: 3 transport=ws kind=continued channels=1 positions=1",
		"connection ended: 3 transport=ws code=goodbye delivered=3 lag=0",
		"session ended: 3 transport=ws",
	}
	// Two pairs are not ordered: an old connection's end and the new one's
	// beginning, and the last one's end and that of the session.
	for _, i := range []int{2, 7} {
		if len(got) == len(want) && got[i] == want[i+1] {
			got[i], got[i+1] = got[i+1], got[i]
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log tells\n\t%s\nnot\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	for _, line := range story {
		if line["msg"] == "connection ended" && line["code"] == "left" {
			if line["lasted"].(float64) != 7e9 || line["last_write"].(float64) > 7e9 {
				t.Errorf("%v", line)
			}
		}
	}
}

// TestRefusedBeforeALine: each has a connection's name and an address, whatever
// it was refused by.
func TestRefusedBeforeALine(t *testing.T) {
	var book logbook
	o := server.Options{Logger: book.logger(), MaxChannels: 1, Authenticate: func(r *http.Request) (server.Identity, error) {
		if r.Header.Get(who) == "nobody" {
			return server.Identity{}, errors.New("no such user")
		}
		return server.Identity{Subject: r.Header.Get(who)}, nil
	}}
	inBubble(t, o, func(w *world) {
		expect := func(action, code, cause string) {
			t.Helper()
			synctest.Wait()
			lines := book.lines(t, "msg", "refused")
			if len(lines) == 0 {
				t.Fatalf("%s was not logged", code)
			}
			last := lines[len(lines)-1]
			if last["action"] != action || last["code"] != code || last["connection"] == "" || last["addr"] != "127.0.0.1" || last["level"] != "INFO" ||
				(cause != "") != (last["error"] == cause) {
				t.Errorf("%s %s %q: %v", action, code, cause, last)
			}
			book.out.Reset()
		}
		w.do("GET", "/nothing", "")
		expect("request", "not_found", "")
		w.do("DELETE", "/sse", "")
		expect("request", "bad_request", "")
		w.do("GET", "/sse?channel=r", "", "Sec-Fetch-Site", "cross-site")
		expect("request", "foreign_origin", "")
		w.do("GET", "/sse?channel=r", "", who, "nobody")
		expect("request", "unauthorized", "no such user")
		w.do("GET", "/sse", "")
		expect("connect", "bad_request", "")
		w.do("GET", "/poll?channel=r&wait=x", "")
		expect("connect", "bad_request", "")
		w.do("GET", "/ws?channel=r", "")
		expect("connect", "bad_request", "")
		w.do("POST", "/sse", "no JSON")
		expect("connect", "bad_request", "")
		w.do("GET", "/sse?channel=a&channel=b", "")
		expect("connect", "too_many_channels", "")
		w.do("GET", "/sse?channel=$a", "")
		expect("connect", "forbidden", "")
		w.do("POST", "/publish?channel=a", "1")
		expect("publish", "forbidden", "")
		w.do("POST", "/up", "1")
		expect("up", "bad_request", "")
		s := w.ws(wireclient.Hello{Version: 9})
		w.next(s)
		expect("connect", "bad_version", "")
	})
}

// TestRefusalsAreSampled: a flood of them is not one of lines.
func TestRefusalsAreSampled(t *testing.T) {
	var book logbook
	inBubble(t, server.Options{Logger: book.logger(), AddressRates: server.Unlimited}, func(w *world) {
		for range 500 {
			w.do("GET", "/sse?channel=$a", "").Body.Close()
			w.do("GET", "/nothing", "").Body.Close()
		}
		time.Sleep(time.Minute)
	})
	for _, code := range []string{"forbidden", "not_found"} {
		if n := len(book.lines(t, "msg", "refused", "code", code)); n != 10 {
			t.Errorf("%d lines of %s", n, code)
		}
		if n := len(book.lines(t, "msg", "lines left out", "event", "refused", "code", code, "count", "490")); n != 1 {
			t.Errorf("%s: %v", code, book.lines(t, "msg", "lines left out"))
		}
	}
}

// TestFaultsAreSampled: while the log is down each client's read fails, again and
// again.
func TestFaultsAreSampled(t *testing.T) {
	var book logbook
	flaky := newFlakyLog()
	inBubbleWith(t, flaky.open, server.Options{Logger: book.logger()}, func(w *world) {
		for range 20 {
			w.next(w.must(carriers[0], "r", ""))
		}
		flaky.down.Store(true)
		w.publish("r", "1")
		time.Sleep(time.Hour)
		flaky.down.Store(false)
		time.Sleep(time.Minute)
	})
	n := len(book.lines(t, "msg", "log failed", "level", "WARN", "operation", "read"))
	if out := len(book.lines(t, "msg", "lines left out", "event", "log failed", "level", "WARN")); n > 610 || n < 590 || out < 55 {
		t.Errorf("%d lines in an hour, %d tell of more", n, out)
	}
}

const secret = "SECRET-9f2c4a"

// TestSecretsAreNotLogged puts a mark into everything that is nobody's business,
// has everything happen that can, and searches the log for it.
func TestSecretsAreNotLogged(t *testing.T) {
	var book logbook
	payload := fmt.Sprintf("%q", secret)
	o := server.Options{
		Logger: book.logger(),
		Authenticate: func(r *http.Request) (server.Identity, error) {
			if r.Header.Get(who) == "panics" {
				panic("Authenticate")
			}
			id := server.Identity{Subject: r.Header.Get(who), Claims: map[string]string{"c": secret}, Expires: time.Now().Add(time.Hour)}
			if r.Header.Get("Authorization") != "Bearer "+secret {
				return id, errors.New("not the one")
			}
			if id.Subject == "bad" {
				id.Namespace = "\x00"
			}
			return id, nil
		},
		Authorize: func(_ context.Context, _ server.Identity, _ server.Action, ch server.Channel) error {
			switch ch.Name {
			case "panics":
				panic("Authorize")
			case "forbidden":
				return errors.New("not yours")
			}
			return nil
		},
		OnConnect: func(_ context.Context, c server.Client) (server.Welcome, error) {
			if c.Subject == "info" {
				return server.Welcome{Info: []byte(secret)}, nil
			}
			return server.Welcome{Info: []byte(payload)}, nil
		},
		OnPublish: func(_ context.Context, p *server.Publication) error {
			if p.Channel.Name == "hook panics" {
				panic("OnPublish")
			}
			return nil
		},
		OnCall: func(_ context.Context, r server.Request) (server.Payload, error) {
			switch r.Name {
			case "panics":
				panic("OnCall")
			case "fails":
				return server.Payload{}, errors.New("it did not work")
			case "bad":
				return server.Payload{Data: []byte(secret)}, nil
			}
			return r.Payload, nil
		},
		OnDisconnect: func(context.Context, server.Client) { panic("OnDisconnect") },
		MaxFrame:     2000,
	}
	tokens := []string{}
	flaky := newFlakyLog()
	inBubbleWith(t, flaky.open, o, func(w *world) {
		hc := func(subject string) *http.Client {
			return &http.Client{Transport: withHeader{withBearer{withCookie{w.http.Transport}, secret}, subject}}
		}
		ann := hc("ann")
		at := w.publish("r", payload).String()
		up := func(u wireclient.Up) { _, _ = wireclient.Post(w.ctx, ann, base, "", u) }
		raw := func(method, path, body string, headers ...string) {
			w.do(method, path, body, append(headers, "Authorization", "Bearer "+secret, "Cookie", "sid="+secret)...)
		}
		for i, carrier := range []string{"ws", "sse"} {
			h := wireclient.Hello{Version: 1, Line: uint64(i) + 1, Channels: []wireclient.Channel{{Channel: "r", After: at}, {Channel: "forbidden"}, {Channel: "bad", After: secret}}, Presence: []wireclient.Watch{{Channel: "forbidden", Seen: secret}}}
			s, open := w.line(ann, carrier, h)
			tokens = append(tokens, open.Token)
			w.publish("r", payload)
			time.Sleep(3 * time.Second)
			s.Close()
			h.Token, h.Line = open.Token+secret, 9
			s, _ = w.line(ann, carrier, h)
			s.Close()
			h.Channels = append(h.Channels, wireclient.Channel{Channel: "panics"})
			_, _, _ = w.begin(ann, carrier, h)
			_, _, _ = w.begin(hc("info"), carrier, h)
			_, _, _ = w.begin(hc("bad"), carrier, h)
			_, _, _ = w.begin(hc("panics"), carrier, h)
		}
		// Frames of a WebSocket: good ones, and bad ones in each way.
		for _, frame := range []string{
			`{"publish":{"producer":"` + secret + `-12345678901234","frames":[{"seq":1,"channel":"r","messages":[{"data":` + payload + `}]},{"seq":2,"channel":"forbidden","messages":[{"data":` + payload + `}]},{"seq":3,"channel":"hook panics","messages":[{"data":` + payload + `}]}]}}`,
			`{"call":{"id":1,"name":"fails","key":"` + secret + `","data":` + payload + `}}`,
			`{"call":{"id":1,"name":"panics","key":"` + secret + `","data":` + payload + `}}`,
			`{"call":{"id":1,"name":"bad","data":` + payload + `}}`,
			`{"call":{"id":1,"name":"x","encoding":"` + secret + `","data":1}}`,
			`{"credentials":"` + secret + `"}`,
			`{"credentials":"` + secret + `-not"}`,
			`{"` + secret + `":1}`,
			secret,
			`{"subscribe":[{"channel":"r","after":"` + secret + `"}]}`,
			strings.Repeat(secret, 200),
		} {
			h := hello("r2", "")
			s, err := wireclient.WS(w.ctx, ann, base+"/ws", &h)
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Send([]byte(frame))
			time.Sleep(time.Second)
			s.Close()
		}
		// The first frame of one, and a close frame.
		for _, first := range []string{`{"credentials":"` + secret + `"}`, `{"credentials":"no` + secret + `"}`, secret, `{"hello":{"version":"` + secret + `"}}`} {
			c, _, err := websocket.Dial(w.ctx, base+"/ws?x="+secret, &websocket.DialOptions{HTTPClient: w.http})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Write(w.ctx, websocket.MessageText, []byte(first))
			_ = c.Write(w.ctx, websocket.MessageText, hello("r", "").Frame())
			_, _, _ = c.Read(w.ctx)
			_ = c.Close(4000, secret)
		}
		// Requests.
		for _, path := range []string{
			"/sse?channel=r&after=" + secret, "/poll?channel=r&wait=" + secret, "/poll?channel=r&after=" + at + "&token=" + secret, "/ws?channel=r&after=" + secret, "/sse?" + secret,
			"/" + secret + "?q=" + secret, "/sse?channel=r&after=last=" + secret,
		} {
			raw("GET", path, "", "Last-Event-ID", "")
			raw("GET", path, "", "Last-Event-ID", secret)
			raw("GET", path, "", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", secret, "Sec-WebSocket-Key", secret)
		}
		for _, body := range []string{payload, secret, `{"up":{"version":1,"token":"` + secret + `"},"call":{"id":1,"name":"fails","key":"` + secret + `","data":` + payload + `}}`} {
			for _, path := range []string{"/publish?channel=r&type=t", "/publish?channel=forbidden", "/publish?channel=hook+panics&x=" + secret, "/up", "/sse", "/poll?wait=" + secret} {
				raw("POST", path, body, "Content-Type", "application/json", "Idempotency-Key", secret+"-and-more", "Producer-Seq", "1")
				raw("POST", path, body, "Content-Type", "application/json", "Idempotency-Key", secret+"-and-more", "Producer-Seq", secret)
			}
		}
		for _, name := range []string{"ok", "fails", "panics", "bad"} {
			up(wireclient.Up{Call: &wireclient.Call{ID: 1, Name: name, Key: secret, Data: []byte(payload)}})
		}
		up(wireclient.Up{Publish: &wireclient.Publish{Producer: wireclient.Producer(secret), Frames: []wireclient.PublishFrame{{Seq: 1, Channel: "forbidden", Messages: []wireclient.Message{wireclient.Say(payload)}}}}})
		s, _ := w.line(ann, "sse", hello("r", ""))
		defer s.Close()
		flaky.down.Store(true)
		w.publish("r", payload)
		time.Sleep(time.Minute)
		flaky.down.Store(false)
		time.Sleep(time.Minute)
	})
	text := book.text()
	for line := range strings.Lines(text) {
		if strings.Contains(line, secret) {
			t.Errorf("a secret is in the log: %s", line)
		}
	}
	for _, token := range tokens {
		if token == "" || strings.Contains(text, token) {
			t.Errorf("a token is in the log, or there was none: %q", token)
		}
	}
	happened := map[string]bool{}
	for _, line := range book.lines(t) {
		happened[fmt.Sprint(line["msg"])] = true
	}
	for _, name := range []string{
		"connection began", "connection ended", "session ended", "token not accepted", "refused", "call failed", "function panicked", "bad identity given", "bad info given", "bad answer given", "log failed",
	} {
		if !happened[name] {
			t.Errorf("%q is not in the log: the test has not had it happen (%q)", name, slices.Sorted(maps.Keys(happened)))
		}
	}
}

type withCookie struct{ next http.RoundTripper }

func (c withCookie) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Cookie", "sid="+secret)
	return c.next.RoundTrip(r)
}
