package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// lines reads so many lines of a response.
func lines(t *testing.T, r *http.Response, n int) string {
	t.Helper()
	scanner := bufio.NewScanner(r.Body)
	var all []string
	for len(all) < n && scanner.Scan() {
		all = append(all, scanner.Text())
	}
	return strings.Join(all, "\n")
}

func TestPlainSSEOnTheWire(t *testing.T) {
	inBubble(t, server.Options{Authorize: allow, Retry: 1500 * time.Millisecond}, func(w *world) {
		say := func(m server.Message) string {
			at, err := w.srv.Publish(w.ctx, "r", m)
			if err != nil {
				t.Fatal(err)
			}
			return at.String()
		}
		p1 := say(server.Message{Type: "said", Data: []byte(`{"a": [1,
 2]}`)})
		p2 := say(server.Message{Kind: server.Text, Data: []byte("two\nlines")})
		p3 := say(server.Message{Kind: server.Binary, Data: []byte{0, 255}})
		p4 := say(server.Message{Kind: server.Text, Data: []byte("a\rb")})

		r := w.do("GET", "/sse?channel=r&after=earliest", "")
		if got := r.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type %q", got)
		}
		if got := r.Header.Get("X-Accel-Buffering"); got != "no" {
			t.Errorf("X-Accel-Buffering %q", got)
		}
		got := lines(t, r, 17)
		id0, rest, _ := strings.Cut(strings.TrimPrefix(got, "retry: 1500\nid: "), "\n")
		want := "\ndata: {\"a\": [1,\ndata:  2]}\nid: " + p1 +
			"\n\ndata: two\ndata: lines\nid: " + p2 +
			"\n\ndata: data:;base64,AP8=\nid: " + p3 +
			"\n\ndata: data:;base64,YQ1i\nid: " + p4 + "\n"
		if rest != want {
			t.Errorf("P3.3 to P3.5: after the opening %q:\n%q\nwant\n%q", id0, rest, want)
		}

		r = w.do("GET", "/sse?channel=r&after="+p1+"&as=event&events=named", "")
		got = lines(t, r, 12)
		want = "retry: 1500\nid: " + p1 +
			"\n\ndata: {\"channel\":\"r\",\"position\":\"" + p2 + "\",\"type\":\"message\",\"data\":\"two\\nlines\"}\nid: " + p2 +
			"\n\ndata: {\"channel\":\"r\",\"position\":\"" + p3 + "\",\"type\":\"message\",\"encoding\":\"base64\",\"data\":\"AP8=\"}\nid: " + p3
		if !strings.HasPrefix(got, want) {
			t.Errorf("P3.6:\n%s\nwant\n%s", got, want)
		}
		r = w.do("GET", "/sse?channel=r&after="+id0+"&events=named", "")
		if got = lines(t, r, 4); !strings.HasSuffix(got, "\n\nevent: said") {
			t.Errorf("P3.6: %q has no event: said", got)
		}
	})
}

func TestLastEventIDWins(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		p1, p2 := w.publish("r", "1").String(), w.publish("r", "2").String()
		s, err := wireclient.SSE(w.ctx, w.http, base+"/sse"+wireclient.Query("earliest", "r"), p1)
		if err != nil {
			t.Fatal(err) // earliest would be refused
		}
		defer s.Close()
		if it := w.next(s); !it.Opening || it.Position != p1 {
			t.Errorf("P3.2: opens with %+v", it)
		}
		if it := w.next(s); it.Position != p2 {
			t.Errorf("P3.2: then %+v", it)
		}
	})
}

func TestVectorResumesEachChannel(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		channels := []string{"a", "b", "c"}
		target := base + "/sse" + wireclient.Query("", channels...) + "&as=event"
		open := func(id string) *wireclient.SSEStream {
			s, err := wireclient.SSE(w.ctx, w.http, target, id)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := open("")
		w.next(s)
		s.Close()
		id := s.LastEventID
		for i := range 30 { // a connection for each two events
			want := map[string]bool{
				w.publish(channels[i%3], "1").String():     true,
				w.publish(channels[(i+1)%3], "2").String(): true,
			}
			s = open(id)
			if it := w.next(s); !it.Opening || it.Position != id {
				t.Fatalf("P2.6: opens with %+v, not with %s", it, id)
			}
			for range 2 {
				if it := w.next(s); !want[it.Position] {
					t.Fatalf("round %d: %+v came, want %v", i, it, want)
				}
			}
			id = s.LastEventID
			s.Close()
		}
		_, err := wireclient.SSE(w.ctx, w.http, base+"/sse"+wireclient.Query("", "b", "a", "c"), id)
		expectCode(t, err, 400, "bad_position")
	})
}

func TestGapCarriesItsOwnPosition(t *testing.T) {
	log := smallLog(5)
	inBubbleWith(t, log, server.Options{}, func(w *world) {
		var at []string
		for range 12 {
			at = append(at, w.publish("r", "1").String())
		}
		r := w.do("GET", "/sse?channel=r&after="+at[1], "")
		want := "retry: 1000\nevent: throughline.gap\ndata: {\"channel\":\"r\",\"gap\":{\"from\":\"" + at[1] + "\",\"to\":\"" + at[6] + "\",\"reason\":\"trimmed\"}}\nid: " + at[6] + "\n"
		if got := lines(t, r, 5); got != want {
			t.Errorf("P3.7: \n%s\nwant\n%s", got, want)
		}
		r = w.do("GET", "/poll?channel=r&after="+at[1], "")
		body, _ := io.ReadAll(r.Body)
		var answer struct {
			Events    []struct{ Position string }
			Positions map[string]string
			Gaps      []struct {
				Channel string
				Gap     struct{ From, To, Reason string }
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Gaps) != 1 || answer.Gaps[0].Gap.To != at[6] || len(answer.Events) != 5 || answer.Positions["r"] != at[11] {
			t.Errorf("P5.3: %s", body)
		}
	})
}

func TestPollWaits(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		p := w.publish("r", "1").String()
		for _, c := range []struct {
			query string
			want  time.Duration
		}{
			{"", 0},                       // P5.2: absent: at once
			{"&wait=25s", 0},              // P5.4: no position: at once
			{"&after=latest&wait=25s", 0}, // nor here
			{"&after=" + p, 0},            //
			{"&after=" + p + "&wait=25s", 25 * time.Second},
			{"&after=" + p + "&wait=7", 7 * time.Second},
			{"&after=" + p + "&wait=1500ms", 1500 * time.Millisecond},
			{"&after=" + p + "&wait=2h", 55 * time.Second},
		} {
			began := time.Now()
			a, err := wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r"+c.query)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != c.want || a.Positions["r"] != p || len(a.Items) != 0 {
				t.Errorf("poll%s took %v, not %v: %+v", c.query, took, c.want, a)
			}
		}
		answered := make(chan time.Time, 1)
		go func() {
			_, _ = wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r&wait=25s&after="+p)
			answered <- time.Now()
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		published := time.Now()
		w.publish("r", "2")
		if d := (<-answered).Sub(published); d != 0 {
			t.Errorf("P5.4: a parked poll was answered %v after the event", d)
		}
	})
}

func TestPlainWebSocketIsOneWay(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		s, err := wireclient.WS(w.ctx, w.http, base+"/ws?channel=r", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		w.next(s)
		if err := s.Send([]byte(`{"subscribe":[]}`)); err != nil {
			t.Fatal(err)
		}
		_, err = s.Next()
		var ce websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != 4002 || ce.Reason != "bad_request" {
			t.Errorf("P4.3: ended with %v", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	big := strings.Repeat("x", 2<<20)
	deny := func(_ context.Context, _ server.Identity, what server.Action, ch server.Channel) error {
		switch {
		case ch.Name == "secret":
			return errors.New("the reason is nobody's business")
		case what == server.History:
			return errors.New("no")
		}
		return nil
	}
	seventeen := "/sse?channel=" + strings.Join(strings.Split("abcdefghijklmnopq", ""), "&channel=")
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     string
		headers                  []string
	}{
		{"no channel", "GET", "/sse", "", 400, "bad_request", nil},
		{"empty channel", "GET", "/sse?channel=", "", 400, "bad_channel", nil},
		{"control character", "GET", "/poll?channel=a%0Ab", "", 400, "bad_channel", nil},
		{"not UTF-8", "GET", "/poll?channel=%ff", "", 400, "bad_channel", nil},
		{"long name", "GET", "/poll?channel=" + strings.Repeat("x", 201), "", 400, "bad_channel", nil},
		{"17 channels", "GET", seventeen, "", 400, "too_many_channels", nil},
		{"two in a poll", "GET", "/poll?channel=a&channel=b", "", 400, "too_many_channels", nil},
		{"two on a WebSocket", "GET", "/ws?channel=a&channel=b", "", 400, "too_many_channels", nil},
		{"one channel twice", "GET", "/sse?channel=a&channel=a", "", 400, "bad_request", nil},
		{"bad after", "GET", "/sse?channel=a&after=yesterday", "", 400, "bad_position", nil},
		{"bad last", "GET", "/sse?channel=a&after=last=0", "", 400, "bad_position", nil},
		{"bad Last-Event-ID", "GET", "/sse?channel=a", "", 400, "bad_position", []string{"Last-Event-ID", "7"}},
		{"one position for two", "GET", "/sse?channel=a&channel=b&after=a1.2", "", 400, "bad_position", nil},
		{"bad wait", "GET", "/poll?channel=a&wait=soon", "", 400, "bad_request", nil},
		{"forbidden", "GET", "/sse?channel=secret", "", 403, "forbidden", nil},
		{"one of two forbidden", "GET", "/sse?channel=a&channel=secret", "", 403, "forbidden", nil},
		{"history", "GET", "/poll?channel=a&after=earliest", "", 403, "forbidden", nil},
		{"no path", "GET", "/", "", 404, "not_found", nil},
		{"wrong path", "GET", "/events", "", 404, "not_found", nil},
		{"wrong method", "DELETE", "/sse", "", 405, "bad_request", nil},
		{"GET publish", "GET", "/publish?channel=a", "", 405, "bad_request", nil},
		{"hello without version", "POST", "/sse", `{"hello":{}}`, 400, "bad_version", nil},
		{"hello of the future", "POST", "/poll", `{"hello":{"version":2}}`, 400, "bad_version", nil},
		{"no hello", "POST", "/poll", `{"subscribe":[]}`, 400, "bad_request", nil},
		{"two frames", "POST", "/poll", `{"hello":{"version":1}}{}`, 400, "bad_request", nil},
		{"not JSON", "POST", "/sse", `hello`, 400, "bad_request", nil},
		{"probe with channels", "POST", "/sse", `{"hello":{"version":1,"probe":true,"channels":[{"channel":"a"}]}}`, 400, "bad_request", nil},
		{"named twice", "POST", "/sse", `{"hello":{"version":1,"channels":[{"channel":"a"},{"channel":"a"}]}}`, 400, "bad_request", nil},
		{"large hello", "POST", "/sse", big, 413, "too_large", nil},
		{"publish what is not JSON", "POST", "/publish?channel=a", "{", 400, "invalid", []string{"Content-Type", "application/json"}},
		{"publish a reserved type", "POST", "/publish?channel=a&type=throughline.gap", "1", 400, "invalid", nil},
		{"publish too much", "POST", "/publish?channel=a", big, 413, "too_large", nil},
		{"publish without channel", "POST", "/publish", "1", 400, "bad_request", nil},
		{"publish to secret", "POST", "/publish?channel=secret", "1", 403, "forbidden", nil},
		{"short key", "POST", "/publish?channel=a", "1", 400, "bad_request", []string{"Idempotency-Key", "short"}},
		{"number without key", "POST", "/publish?channel=a", "1", 400, "bad_request", []string{"Producer-Seq", "1"}},
		{"number 0", "POST", "/publish?channel=a", "1", 400, "bad_request", []string{"Idempotency-Key", "0123456789abcdef", "Producer-Seq", "0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, server.Options{Authorize: deny}, func(w *world) {
				r := w.do(c.method, c.path, c.body, c.headers...)
				body, _ := io.ReadAll(r.Body)
				var answer struct {
					Error struct{ Code, Class, Message string }
				}
				if err := json.Unmarshal(body, &answer); err != nil || r.StatusCode != c.status || answer.Error.Code != c.code || answer.Error.Class != "never" || answer.Error.Message == "" {
					t.Errorf("P8.1: %d %s, want %d %s", r.StatusCode, body, c.status, c.code)
				}
				if strings.Contains(string(body), "nobody's business") {
					t.Errorf("the program's own words are shown: %s", body)
				}
			})
		})
	}
}

func TestDefaultRights(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		for path, want := range map[string]int{
			"/poll?channel=room:1":           200,
			"/poll?channel=$private":         403,
			"/poll?channel=a&after=earliest": 403,
			"/poll?channel=a&after=last=3":   403,
			"/poll?channel=a&after=a1.2":     200,
		} {
			if r := w.do("GET", path, ""); r.StatusCode != want {
				t.Errorf("GET %s: %d, want %d", path, r.StatusCode, want)
			}
		}
		r := w.do("POST", "/publish?channel=a", "1")
		body, _ := io.ReadAll(r.Body)
		if r.StatusCode != 403 || !strings.Contains(string(body), "Options.Authorize") {
			t.Errorf("a refusal that does not name the option: %d %s", r.StatusCode, body)
		}
	})
}

// expectCode checks that an error is a refusal.
func expectCode(t *testing.T, err error, status int, code string) {
	t.Helper()
	var r *wireclient.Refused
	if !errors.As(err, &r) || r.Status != status || r.Code != code {
		t.Errorf("got %v, want %d %s", err, status, code)
	}
}
