package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

func start(t *testing.T) *httptest.Server {
	t.Helper()
	srv, err := newServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(handler(srv))
	t.Cleanup(func() {
		hs.Close()
		_ = srv.Close()
	})
	return hs
}

func request(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d does
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(b)
}

func TestThePageIsServedWithWhatItNeeds(t *testing.T) {
	hs := start(t)
	for path, want := range map[string]struct{ kind, content string }{
		"/":                   {"text/html", "<title>Throughline chat</title>"},
		"/app.js":             {"text/javascript", `from "./realtime/client.js"`},
		"/style.css":          {"text/css", "prefers-reduced-motion"},
		"/realtime/client.js": {"text/javascript", "export"},
		"/metrics":            {"text/plain", ""},
	} {
		response, body := request(t, "GET", hs.URL+path, "")
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), want.kind) || !strings.Contains(body, want.content) {
			t.Errorf("%s: %s, %s, %.60q; want %v", path, response.Status, response.Header.Get("Content-Type"), body, want)
		}
	}
	for _, path := range []string{"/main.go", "/nothing"} {
		if response, _ := request(t, "GET", hs.URL+path, ""); response.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	response, _ := request(t, "GET", hs.URL, "")
	if got := response.Header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy: %q", got)
	}
}

func TestWhatIsSaidInARoomCanBeReadThere(t *testing.T) {
	base := start(t).URL + "/realtime"
	response, body := request(t, "POST", base+"/publish?channel=room:lobby", "hello")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("publish: %s %s", response.Status, body)
	}
	var first struct{ Position string }
	if err := json.Unmarshal([]byte(body), &first); err != nil {
		t.Fatal(err)
	}
	request(t, "POST", base+"/publish?channel=room:lobby", "again")

	for after, want := range map[string]string{"last=50": "hello again", first.Position: "again"} {
		_, body = request(t, "GET", base+"/poll?channel=room:lobby&after="+url.QueryEscape(after), "")
		var answer struct{ Events []struct{ Data string } }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		var got []string
		for _, event := range answer.Events {
			got = append(got, event.Data)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("after %s: %q, want %q", after, got, want)
		}
	}
	if _, body := request(t, "GET", strings.TrimSuffix(base, "/realtime")+"/metrics", ""); !strings.Contains(body, `throughline_publishes_total{namespace="",result="appended"} 2`) {
		t.Errorf("the metrics don't count: %s", body)
	}
}

func TestOnlyRoomsAreOpen(t *testing.T) {
	base := start(t).URL + "/realtime"
	for _, channel := range []string{"news", "$control", "roomy"} {
		for what, ask := range map[string]struct{ method, path, body string }{
			"subscribe": {"GET", "/poll?channel=" + channel, ""},
			"history":   {"GET", "/poll?after=earliest&channel=" + channel, ""},
			"publish":   {"POST", "/publish?channel=" + channel, "x"},
		} {
			response, body := request(t, ask.method, base+ask.path, ask.body)
			if response.StatusCode != http.StatusForbidden || !strings.Contains(body, `"forbidden"`) {
				t.Errorf("%s of %s: %s %s", what, channel, response.Status, body)
			}
		}
	}
	if authorize(t.Context(), server.Identity{}, "undreamt-of", server.Channel{Name: "room:a"}) == nil {
		t.Error("an action that the chat does not know is allowed")
	}
}

func TestAPortThatIsTakenIsPassedOverUnlessItWasAskedFor(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port

	next, err := listen("", port, port+50)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	if got := next.Addr().(*net.TCPAddr).Port; got <= port {
		t.Errorf("port %d, with %d taken", got, port)
	}
	if l, err := listen(taken.Addr().String(), port, port+50); err == nil {
		_ = l.Close()
		t.Error("an address that was asked for and is taken was replaced")
	} else if !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "-addr") {
		t.Errorf("the error helps nobody: %v", err)
	}
	if _, err := listen("", port, port); err == nil || !strings.Contains(err.Error(), "-addr") {
		t.Errorf("with no port free: %v", err)
	}
}

func TestTheLinkCanBeFollowed(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080/",
		"[::]:8081":      "http://localhost:8081/",
		"[::1]:8081":     "http://[::1]:8081/",
	} {
		resolved, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := link(resolved); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestTheEndIsOrderlyWithAStreamOpen(t *testing.T) {
	srv, err := newServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen("127.0.0.1:0", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, srv) }()

	r, err := http.NewRequestWithContext(t.Context(), "GET", link(l.Addr())+"realtime/sse?channel=room:lobby", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	stop()
	if b, err := io.ReadAll(response.Body); err != nil || strings.Count(string(b), "retry:") != 2 {
		t.Errorf("the stream ended with %v after %q; want a word of goodbye", err, b)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * endWithin):
		t.Error("the program does not end")
	}
}

func TestWhoIsHere(t *testing.T) {
	base := start(t).URL + "/realtime"
	hello := func(token, seen string) (string, string) {
		t.Helper()
		_, body := request(t, "POST", base+"/poll?wait=3s", `{"hello":{"version":1,"token":"`+token+`","line":1,`+
			`"channels":[{"channel":"room:lobby","paused":true}],"presence":[{"channel":"room:lobby","seen":"`+seen+`"}]}}`)
		var answer struct {
			Open     struct{ Token string }
			Presence []struct{ Presence struct{ Version string } }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, p := range answer.Presence {
			seen = p.Presence.Version
		}
		if answer.Open.Token != "" {
			token = answer.Open.Token
		}
		if strings.Contains(body, `"info":{"name":`) {
			return token, "here"
		}
		return token, seen
	}
	token, seen := hello("", "")
	for range 5 {
		if token, seen = hello(token, seen); seen == "here" {
			break
		}
	}
	if seen != "here" {
		t.Error("who polls is not seen to be here")
	}
	_, body := request(t, "POST", base+"/up", `{"up":{"version":1,"token":"`+token+`"},"call":{"id":1,"name":"rename","data":null}}`)
	if !strings.Contains(body, `"data":true`) {
		t.Errorf("rename: %s", body)
	}
}
