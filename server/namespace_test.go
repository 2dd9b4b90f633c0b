package server_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// TestRules: the longest pattern that matches counts, in its own namespace.
func TestRules(t *testing.T) {
	o := server.Options{
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Namespace: r.Header.Get("X-Tenant")}, nil
		},
		Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error { return errors.New("no") },
		Namespaces: map[string]server.Namespace{
			"": {Rules: map[string]server.Rule{
				"*":          {Allow: []server.Action{server.Subscribe}},
				"room:*":     {Allow: []server.Action{server.Subscribe, server.Publish}},
				"room:quiet": {Allow: []server.Action{server.Subscribe}},
				"staff:*":    {},
			}},
			"tenant": {Rules: map[string]server.Rule{"x": {Allow: []server.Action{server.Publish}}}},
		},
	}
	inBubble(t, o, func(w *world) {
		for _, c := range []struct {
			tenant, channel    string
			subscribe, publish int
		}{
			{"", "news", 200, 403},
			{"", "room:1", 200, 200},
			{"", "room:quiet", 200, 403},
			{"", "room:quieter", 200, 200},
			{"", "staff:1", 403, 403},
			{"tenant", "room:1", 403, 403},
			{"tenant", "x", 403, 200},
			{"other", "x", 403, 403},
		} {
			if r := w.do("GET", "/poll?channel="+c.channel, "", "X-Tenant", c.tenant); r.StatusCode != c.subscribe {
				t.Errorf("%q %s: subscribe gave %d", c.tenant, c.channel, r.StatusCode)
			}
			if r := w.do("POST", "/publish?channel="+c.channel, "1", "X-Tenant", c.tenant); r.StatusCode != c.publish {
				t.Errorf("%q %s: publish gave %d", c.tenant, c.channel, r.StatusCode)
			}
		}
	})
}

// TestRulesThatCannotBe are told when the server is made.
func TestRulesThatCannotBe(t *testing.T) {
	for _, n := range []map[string]server.Namespace{
		{"$mine": {}},
		{"": {Rules: map[string]server.Rule{"": {}}}},
		{"": {Rules: map[string]server.Rule{"a*b": {}}}},
		{"": {Rules: map[string]server.Rule{"a**": {}}}},
	} {
		if srv, err := server.New(server.Options{Namespaces: n}); err == nil {
			_ = srv.Close()
			t.Errorf("%v was let through", n)
		} else {
			t.Log(err)
		}
	}
}

// TestGrantSaysFromWhen: what was before is withheld, by a gap if a position
// was presented, on every carrier.
func TestGrantSaysFromWhen(t *testing.T) {
	var from time.Time
	o := server.Options{Authorize: allow, Namespaces: map[string]server.Namespace{"": {Rules: map[string]server.Rule{
		"r": {From: func(context.Context, server.Identity, server.Channel) (time.Time, error) { return from, nil }},
	}}}}
	onEach(t, o, func(w *world, c carrier) {
		from = time.Time{}
		at := []server.Position{w.publish("r", "0")}
		for _, data := range []string{"1", "2", "3"} {
			time.Sleep(time.Second)
			at = append(at, w.publish("r", data))
		}
		from = time.Now() // what was published last has this time
		for _, after := range []string{"earliest", "last=4"} {
			s := w.must(c, "r", after)
			for it := w.next(s); !it.Event; it = w.next(s) {
				if it.Gap != nil {
					t.Errorf("after %s: %+v", after, it)
				} else if it.Position != at[2].String() {
					t.Errorf("after %s it begins at %s", after, it.Position)
				}
			}
		}
		s := w.must(c, "r", at[0].String())
		if it := w.next(s); it.Gap == nil || it.Gap.Reason != "withheld" || it.Gap.From != at[0].String() || it.Gap.To != at[2].String() {
			t.Errorf("a resume: %+v, %+v", it, it.Gap)
		}
		if it := w.next(s); string(it.Data) != "3" {
			t.Errorf("a resume: %+v", it)
		}
		// One who is past it is told nothing.
		s = w.must(c, "r", at[2].String())
		for it := w.next(s); !it.Event; it = w.next(s) {
			if it.Gap != nil {
				t.Errorf("%+v", it.Gap)
			}
		}
	})
}
