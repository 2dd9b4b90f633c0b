package e2e

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/throughline/throughline/server"
)

// speaking is between two messages of a page: 20 a second.
const speaking = 50

// Two pages send 20 messages a second each while what carries them is taken
// away, downstream and upstream in turn, and one of them is reloaded in the
// middle and goes on at the position it stored. Both pages and the log have to
// hold the same messages, once, in each author's order.
func TestBothWaysSurvive(t *testing.T) {
	t.Parallel() // it mostly waits
	w := start(t, server.Options{})
	c := &chat{world: w, begin: w.head("room"), pages: map[string]*page{}}
	for _, name := range []string{"ada", "bob"} {
		p := open(t, name, w.origin)
		c.pages[name] = p
		p.connect("/realtime", nil)
		p.follow("room", c.begin)
		p.until(`carrier() === "websocket"`)
		p.call(nil, "speak", "room", name, speaking)
	}
	c.on("websocket")
	c.forbid("ws") // what was under way on it is lost, both ways
	c.on("sse")
	c.forbid("up") // nothing goes up, and what comes down goes on
	c.stuck()
	c.allow()
	c.forbid("ws", "sse")
	c.on("poll")
	c.forbid("up")
	c.stuck()
	c.allow()
	c.on("websocket")
	c.reload("ada")
	c.on("websocket")
	c.forbid("ws", "sse", "poll", "up")
	for _, p := range c.pages {
		p.until(`carrier() === "waiting"`)
	}
	c.allow()
	c.on("websocket")
	c.finish()
}

// stuck waits until messages of both pages wait to be answered.
func (c *chat) stuck() {
	c.Helper()
	for _, p := range c.pages {
		p.until("told.sent - told.published > 10")
	}
}

// reload reloads a page, which goes on where it was as another author. Messages
// of the first that were not answered may or may not be in the log.
func (c *chat) reload(name string) {
	c.Helper()
	p := c.pages[name]
	p.eval(nil, `keepOverReload("all"), void (window.old = true)`)
	p.cdp("Page.reload", nil)
	p.becomes(`typeof window.old === "undefined" && typeof followOn === "function" && document.readyState === "complete"`, true)
	p.connect("/realtime", nil)
	p.eval(nil, `followOn("all", "room")`)
	p.until(`carrier() === "websocket"`)
	again := name + " again"
	p.call(nil, "speak", "room", again, speaking)
	delete(c.pages, name)
	c.pages[again] = p
}

func double(_ context.Context, r server.Request) (server.Payload, error) {
	var n int
	err := json.Unmarshal(r.Data, &n)
	return server.Payload{Data: []byte(strconv.Itoa(2 * n))}, err
}

// Answers of publishes are lost after the server appended them: repeats must not
// appear twice.
func TestLostAnswersArePublishedOnce(t *testing.T) {
	t.Parallel() // it mostly waits
	for transport, lose := range map[string]func(w *world){
		"websocket": func(w *world) {
			w.onRequest(func(carrier string, l *line) {
				if carrier == "ws" {
					l.cutAfter(6000, true)
				}
			})
		},
		"sse": func(w *world) {
			asked := 0
			w.onRequest(func(carrier string, l *line) {
				if carrier == "up" {
					if asked++; asked%3 == 0 {
						l.cutAfter(10, true)
					}
				}
			})
		},
	} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel() // it mostly waits
			w := start(t, server.Options{})
			p := open(t, "ada", w.origin)
			c := &chat{world: w, begin: w.head("room"), pages: map[string]*page{"ada": p}}
			p.connect("/realtime", map[string]any{"transports": []string{transport}})
			p.follow("room", c.begin)
			p.until(`carrier() === %q`, transport)
			lose(w)
			w.kill("ws") // the next one is among those that are cut
			p.call(nil, "speak", "room", "ada", 10)
			p.until("told.published > 200")
			w.onRequest(nil)
			c.finish()
		})
	}
}

// A call is answered over the WebSocket and over a request, and the pages see
// each other come and go.
func TestCallsAndPresence(t *testing.T) {
	t.Parallel() // it mostly waits
	for _, transport := range []string{"websocket", "sse", "poll"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel() // it mostly waits
			w := start(t, server.Options{OnCall: double})
			p := open(t, "ada", w.origin)
			other := open(t, "bob", w.origin)
			p.connect("/realtime", map[string]any{"transports": []string{transport}})
			other.connect("/realtime", nil)
			p.eval(nil, `import("/realtime/presence.js").then(({ presence }) => { window.here = presence(client, "room") })`)
			p.until(`carrier() === %q`, transport)
			var answer int
			p.eval(&answer, `import("/realtime/call.js").then(({ call }) => call(client, "double", 21))`)
			if answer != 42 {
				t.Errorf("the call was answered with %d", answer)
			}
			other.follow("room", "latest")
			p.until("here.total === 1 && here.members.length === 1")
			other.eval(nil, "client.close()") // says goodbye
			p.until("here.total === 0")
		})
	}
}
