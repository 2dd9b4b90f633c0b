package conformance

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/throughline/throughline/internal/wireclient"
)

// declared ends a test of a server that can't be tested as it is declared: a
// misspelt group would run nothing and pass, and a control that is missing would
// be found in the middle of a clause.
func (s Server) declared(t *testing.T) {
	t.Helper()
	groups, features := map[string]bool{}, map[Feature]bool{}
	for _, c := range slices.Concat(serverClauses...) {
		groups[c.group] = true
		for _, f := range c.needs {
			features[f] = true
		}
		for _, f := range c.over {
			features[f.needs] = true
		}
	}
	delete(features, "")
	for _, g := range s.Groups {
		if !groups[g] {
			t.Fatalf("conformance: Server.Groups names %q. The groups are: %s", g, strings.Join(slices.Sorted(maps.Keys(groups)), ", "))
		}
	}
	for f := range s.Lacks {
		if !features[f] {
			t.Fatalf("conformance: Server.Lacks names %q. The features are: %q", f, slices.Sorted(maps.Keys(features)))
		}
	}
	if missing := s.missing(t); missing != "" {
		t.Fatalf("conformance: %s", missing)
	}
}

// missing starts a server, and returns what is neither there nor declared as
// lacking; also that it doesn't answer where it says it does.
func (s Server) missing(t *testing.T) (missing string) {
	start := func(t *testing.T) {
		alone := s
		alone.Through = nil
		testee := s.Start(t, ServerSetup{})
		if missing = testee.missing(s.Lacks); missing != "" {
			if testee != nil && testee.Close != nil {
				testee.Close()
			}
			return
		}
		alone.Start = func(*testing.T, ServerSetup) *Testee { return testee }
		c := newServerCheck(t, alone, ServerSetup{}, form{})
		defer c.tearDown()
		missing = c.astray()
	}
	if s.TCP {
		start(t)
	} else if left := inBubble(t, start); left != "" && missing == "" {
		missing = "a server was started, asked once, and closed (Testee.Close): " + left
	}
	return missing
}

// astray asks the server for the first thing that it has, and returns what came
// if it was something else.
func (c *serverCheck) astray() string {
	hello := string(wireclient.HelloFor("", "room").Frame())
	for _, first := range []struct {
		of                 Feature
		method, path, body string
		status             int
	}{
		{PlainPoll, "GET", "/poll?channel=room", "", http.StatusOK},
		{SessionPoll, "POST", "/poll", hello, http.StatusOK},
		{PlainSSE, "GET", "/sse?channel=room", "", http.StatusOK},
		{SessionSSE, "POST", "/sse", hello, http.StatusOK},
		{PlainWS, "GET", "/ws?channel=room", "", http.StatusUpgradeRequired}, // no handshake
		{SessionWS, "GET", "/ws", "", http.StatusUpgradeRequired},
		{PublishByRequest, "POST", "/publish?channel=room", "1", http.StatusOK},
	} {
		if _, lacks := c.server.Lacks[first.of]; lacks {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.patience())
		defer cancel()
		asked := first.method + " " + c.base + first.path
		r, err := c.request(ctx, c.http, first.method, first.path, first.body)
		if err != nil {
			return fmt.Sprintf("%s was not answered within %s: %v", asked, c.waited(), err)
		}
		defer func() { _ = r.Body.Close() }()
		if r.StatusCode == first.status {
			return ""
		}
		text, _ := io.ReadAll(io.LimitReader(r.Body, 200))
		if r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden {
			return fmt.Sprintf("%s was answered %d %q: where ServerSetup.Subjects is not set, clients show no credentials, and have to be let in", asked, r.StatusCode, text)
		}
		return fmt.Sprintf("%s was answered %d %q, not %d: is Testee.Base, %q, where Testee.Handler serves? If there is no %q, say so in Server.Lacks",
			asked, r.StatusCode, text, first.status, c.testee.Base, first.of)
	}
	return ""
}

func (t *Testee) missing(lacks map[Feature]string) string {
	if t == nil {
		return "Server.Start returned nil"
	}
	if strings.HasSuffix(t.Base, "/") {
		return fmt.Sprintf("Testee.Base is %q: leave out the slash at its end", t.Base)
	}
	for _, control := range []struct {
		name  string
		there bool
		of    Feature
	}{
		{"Handler", t.Handler != nil, ""},
		{"Publish", t.Publish != nil, ""},
		{"Shutdown", t.Shutdown != nil, ""},
		{"Close", t.Close != nil, ""},
		{"Another", t.Another != nil, Nodes},
		{"Outage", t.Outage != nil, Outages},
		{"Lag", t.Lag != nil, Lagging},
		{"Subscribe", t.Subscribe != nil, Steering},
		{"Unsubscribe", t.Unsubscribe != nil, Steering},
		{"Disconnect", t.Disconnect != nil, Steering},
	} {
		_, declared := lacks[control.of]
		switch {
		case control.there || declared:
		case control.of == "":
			return "Testee." + control.name + " is nil"
		default:
			return "Testee." + control.name + " is nil: set it, or say in Server.Lacks why there is none (the Feature \"" + string(control.of) + "\")"
		}
	}
	return ""
}
