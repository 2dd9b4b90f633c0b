package conformance

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// TestMissingControlsAreNamed before a clause falls over them.
func TestMissingControlsAreNamed(t *testing.T) {
	some := Testee{
		Handler:  http.NotFoundHandler(),
		Publish:  func(context.Context, string, eventlog.Message) (string, error) { return "", nil },
		Shutdown: func(context.Context) error { return nil },
		Close:    func() {},
	}
	if got := some.missing(nil); !strings.Contains(got, "Testee.Another") || !strings.Contains(got, `"nodes"`) {
		t.Errorf("%q", got)
	}
	lacks := map[Feature]string{Nodes: "one", Outages: "none", Lagging: "none", Steering: "none"}
	if got := some.missing(lacks); got != "" {
		t.Errorf("all that is missing is declared, and %q is said", got)
	}
	some.Publish = nil
	if got := some.missing(lacks); !strings.Contains(got, "Testee.Publish is nil") {
		t.Errorf("%q", got)
	}
}

// TestWrongBaseIsNamed before a clause asks there: what was asked, and what came.
func TestWrongBaseIsNamed(t *testing.T) {
	handler := http.NewServeMux()
	handler.HandleFunc("/realtime/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	at := func(base string) Server {
		return Server{
			Lacks: map[Feature]string{Nodes: "one", Outages: "none", Lagging: "none", Steering: "none"},
			Start: func(*testing.T, ServerSetup) *Testee {
				return &Testee{
					Handler: handler, Base: base, Close: func() {},
					Publish:  func(context.Context, string, eventlog.Message) (string, error) { return "", nil },
					Shutdown: func(context.Context) error { return nil },
				}
			},
		}
	}
	if got := at("/realtime").missing(t); got != "" {
		t.Errorf("the right base: %s", got)
	}
	got := at("/real-time").missing(t)
	for _, want := range []string{"GET http://", "/real-time/poll?channel=room was answered 404", "404 page not found", `Testee.Base, "/real-time"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q does not hold %q", got, want)
		}
	}
}

// TestFailuresSayWhatWasAwaited: what was asked, what should have come, how long
// it was waited for and in whose time, and where in the clause.
func TestFailuresSayWhatWasAwaited(t *testing.T) {
	silent := &Testee{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}),
		Close:   func() {},
		Publish: func(context.Context, string, eventlog.Message) (string, error) { return "a1.x", nil },
	}
	waits := serverClause{run: func(c *serverCheck) {
		c.publish("room", "7")
		c.read("room", "a0.y").event("a1.x", "7")
	}}
	failures := waits.try(t, Server{Start: func(*testing.T, ServerSetup) *Testee { return silent }}, plainSSE)
	if len(failures) != 1 {
		t.Fatalf("%q", failures)
	}
	for _, want := range []string{
		"plain sse: nothing came within 1h0m0s of the bubble's time", `where the event 7 at "a1.x" was awaited`,
		`asked: "room" after "a0.y"`, `published last "7" to "room", at "a1.x"`, "(server_declared_test.go:",
	} {
		if !strings.Contains(failures[0], want) {
			t.Errorf("%q does not hold %q", failures[0], want)
		}
	}
	if words := (ServerSetup{MaxFrame: 4096, Heartbeat: time.Second, Refuse: refuseSome}).inWords(); words != "\n  ServerSetup: Heartbeat is 1s, MaxFrame is 4096, Refuse set" {
		t.Errorf("%q", words)
	}
}
