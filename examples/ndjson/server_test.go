package ndjson_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/examples/ndjson"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// serve starts a server that has the transport beside its own.
func serve(t *testing.T, http2 bool) (*server.Server, *httptest.Server) {
	t.Helper()
	srv, err := server.New(server.Options{
		Transports: map[string]func(transport.Engine) server.Transport{
			"ndjson": func(engine transport.Engine) server.Transport { return ndjson.New(engine) },
		},
		Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error { return nil },
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(srv)
	if ts.EnableHTTP2 = http2; http2 {
		ts.StartTLS()
	} else {
		ts.Start()
	}
	t.Cleanup(func() { _ = srv.Close(); ts.Close() })
	return srv, ts
}

// A frame is any object that comes down.
type frame struct {
	Channel, Position string
	Data              json.RawMessage
	Open              *struct{ Token string }
	End, Close, Error *struct{ Code, Class string }
	Published         []struct{ Position string }
}

// A line is one request, over any carrier that streams.
type line struct {
	t    *testing.T
	said *io.PipeWriter // the rest of the request's body
	came *bufio.Scanner
	stop context.CancelFunc
}

// dial begins a line with a hello.
func dial(t *testing.T, ts *httptest.Server, path, hello string) *line {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	rest, said := io.Pipe()
	if path != "ndjson" {
		_ = said.Close() // the other carriers read the body to its end
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, ts.URL+"/realtime/"+path, io.MultiReader(strings.NewReader(hello+"\n"), rest))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := ts.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{t: t, said: said, came: bufio.NewScanner(resp.Body), stop: stop}
	t.Cleanup(func() { l.leave(); _ = resp.Body.Close() })
	return l
}

// leave ends it as a browser does that goes away.
func (l *line) leave() {
	l.stop()
	_ = l.said.CloseWithError(context.Canceled)
}

func (l *line) say(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l.said, text+"\n"); err != nil {
		l.t.Fatalf("say %s: %v", text, err)
	}
}

// next returns what comes next, and the text of it. Heartbeats are passed over.
func (l *line) next() (f frame, text string) {
	l.t.Helper()
	for l.came.Scan() {
		text = strings.TrimPrefix(l.came.Text(), "data: ") // of SSE
		if text == "" || text == "{}" {
			continue
		}
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			l.t.Fatalf("%s: %v", text, err)
		}
		return f, text
	}
	l.t.Fatalf("the line ended: %v", l.came.Err())
	return f, text
}

// event takes the next thing, which has to be an event with this data.
func (l *line) event(data string) (position string) {
	l.t.Helper()
	f, text := l.next()
	if string(f.Data) != data {
		l.t.Fatalf("%s came, not the event %s", text, data)
	}
	return f.Position
}

// open takes the answer to a hello, and the opening of a channel.
func (l *line) open() (token string) {
	l.t.Helper()
	f, text := l.next()
	if f.Open == nil {
		l.t.Fatalf("%s came, not an open", text)
	}
	if opening, text := l.next(); opening.Position == "" || opening.Data != nil {
		l.t.Fatalf("%s came, not an opening", text)
	}
	return f.Open.Token
}

func hello(line int, token, after string) string {
	return fmt.Sprintf(`{"hello":{"version":1,"line":%d,"token":%q,"channels":[{"channel":"room","after":%q}]}}`, line, token, after)
}

func publish(t *testing.T, srv *server.Server, data string) {
	t.Helper()
	if _, err := srv.Publish(t.Context(), "room", server.Message{Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

// TestFourthCarrier: a session begins over ndjson, publishes there, goes on over
// SSE, proves ndjson by a probe, comes back, and misses nothing.
func TestFourthCarrier(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			srv, ts := serve(t, http2)
			first := dial(t, ts, "ndjson", hello(1, "", "latest"))
			token := first.open()
			first.say(`{"publish":{"producer":"a-producer-of-22-chars","frames":[{"seq":1,"channel":"room","messages":[{"data":1}]}]}}`)
			position := first.answerAndEvent("1")
			first.leave()
			publish(t, srv, "2")

			stream := dial(t, ts, "sse", hello(2, token, position))
			stream.open()
			position = stream.event("2")

			probe := dial(t, ts, "ndjson", `{"hello":{"version":1,"line":3,"probe":true}}`)
			if f, text := probe.next(); f.Open == nil {
				t.Fatalf("%s answered a probe", text)
			}
			if !probe.came.Scan() || probe.came.Text() != "{}" {
				t.Fatalf("%q came for a proof, %v", probe.came.Text(), probe.came.Err())
			}
			probe.leave()

			second := dial(t, ts, "ndjson", hello(4, token, position))
			second.open()
			if f, text := stream.next(); f.Close == nil || f.Close.Code != "superseded" {
				t.Errorf("%s came on the line that was left", text)
			}
			publish(t, srv, "3")
			position = second.event("3")

			third := dial(t, ts, "ndjson", hello(5, token, position))
			third.open()
			if f, text := second.next(); f.Close == nil || second.came.Scan() || second.came.Err() != nil {
				t.Errorf("%s ended the line that was left, then %q came, %v", text, second.came.Text(), second.came.Err())
			}
			publish(t, srv, "4")
			third.event("4")
			third.say(`{"unsubscribe":["room"]}`)
			if f, text := third.next(); f.End == nil || f.End.Code != "unsubscribed" {
				t.Errorf("%s came for an unsubscribe", text)
			}
		})
	}
}

// answerAndEvent takes an event, and the answer to the publish that made it, in
// any order.
func (l *line) answerAndEvent(data string) (position string) {
	l.t.Helper()
	var answered string
	for position == "" || answered == "" {
		switch f, text := l.next(); {
		case len(f.Published) == 1:
			answered = f.Published[0].Position
		case string(f.Data) == data:
			position = f.Position
		default:
			l.t.Fatalf("%s came, neither the event nor the answer", text)
		}
	}
	if position != answered {
		l.t.Errorf("the event is at %s, and was published at %s", position, answered)
	}
	return position
}

// TestWrongLines: what a client says wrongly ends its line with a reason, and
// what is no hello is refused.
func TestWrongLines(t *testing.T) {
	_, ts := serve(t, false)
	for name, c := range map[string]struct{ say, code string }{
		"no JSON":      {"hello", "bad_request"},
		"second hello": {hello(2, "", ""), "bad_request"},
		"too long":     {`{"unsubscribe":["` + strings.Repeat("x", 100<<10) + `"]}`, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			l := dial(t, ts, "ndjson", hello(1, "", ""))
			l.open()
			go func() { _, _ = io.WriteString(l.said, c.say+"\n") }() // the server needn't read it all
			if f, text := l.next(); f.Close == nil || f.Close.Code != c.code {
				t.Errorf("%s came, not a close with %s", text, c.code)
			}
			if l.came.Scan() || l.came.Err() != nil {
				t.Errorf("%q follows the goodbye, %v", l.came.Text(), l.came.Err())
			}
		})
		t.Run(name+" for a hello", func(t *testing.T) {
			if name == "second hello" {
				c.say = `{"unsubscribe":["room"]}`
			}
			if f, text := dial(t, ts, "ndjson", c.say).next(); f.Error == nil || f.Error.Code != c.code {
				t.Errorf("%s came, not a refusal with %s", text, c.code)
			}
		})
	}
}

// TestIsMounted beside the server's own, behind its checks.
func TestIsMounted(t *testing.T) {
	_, ts := serve(t, false)
	for _, c := range []struct {
		method, origin string
		status         int
	}{
		{http.MethodPost, "https://evil.example.com", http.StatusForbidden},
		{http.MethodGet, "", http.StatusMethodNotAllowed},
		{http.MethodDelete, "", http.StatusMethodNotAllowed},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, ts.URL+"/realtime/ndjson", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", c.origin)
		if r, err := ts.Client().Do(req); err != nil || r.StatusCode != c.status {
			t.Errorf("%s from %q: %v, %v", c.method, c.origin, r, err)
		}
	}
	for _, name := range []string{"sse", "client.js", "a/b", ""} {
		_, err := server.New(server.Options{Transports: map[string]func(transport.Engine) server.Transport{name: nil}})
		if err == nil || !strings.Contains(err.Error(), "Transports") {
			t.Errorf("the name %q: %v", name, err)
		}
	}
}
