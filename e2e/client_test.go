package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

// A remark is what chatting pages publish.
type remark struct {
	Author string
	N      int
}

// An event is what a page's application was handed by the client.
type event struct {
	At       int64
	Position string
	Data     remark
	Gap      *gap
}

// history reads a channel to its end, and returns an oracle of it and what
// numbers the oracle has for remarks. Each author's remarks have to be there
// once, in order: that is the half of the law that concerns publishing.
func (w *world) history(channel, begin string, wrote map[string]int) (*conformance.Oracle, map[remark]int) {
	w.Helper()
	o, numbers, last := conformance.NewOracle(begin), map[remark]int{}, map[string]int{}
	at, err := eventlog.ParsePosition(begin)
	if err != nil {
		w.Fatal(err)
	}
	for {
		page, err := w.log.Read(w.Context(), server.Channel{Name: channel}, at, eventlog.Limit{})
		if err != nil {
			w.Fatal(err)
		}
		for _, e := range page.Events {
			var r remark
			if err := json.Unmarshal(e.Data, &r); err != nil {
				w.Fatal(err)
			}
			if r.N != last[r.Author]+1 {
				w.Errorf("the log has %+v after %d of the same author", r, last[r.Author])
			}
			last[r.Author] = r.N
			numbers[r] = len(numbers) + 1
			o.Appended(numbers[r], e.At.String())
		}
		if at = page.Next; page.Next == page.Head {
			break
		}
	}
	for author, n := range wrote {
		if last[author] != n {
			w.Errorf("%s published %d, the log has %d", author, n, last[author])
		}
	}
	return o, numbers
}

// verdict holds what a page received against the log.
func (p *page) verdict(o *conformance.Oracle, numbers map[remark]int, begin string) conformance.Verdict {
	p.Helper()
	var got []event
	p.eval(&got, "seen.all")
	var seen []conformance.Seen
	for _, e := range got {
		if e.Gap != nil {
			seen = append(seen, conformance.Seen{From: e.Gap.From, To: e.Gap.To})
		}
		seen = append(seen, conformance.Seen{N: numbers[e.Data], Position: e.Position})
	}
	v := o.Judge(begin, seen)
	p.Logf("%s: %d items: %v", p.name, len(got), v)
	return v
}

// connect starts the bundled client in the page.
func (p *page) connect(base string, options map[string]any) {
	p.Helper()
	if options == nil {
		options = map[string]any{} // null would not be an options object
	}
	p.call(nil, "start", base, options)
}

// follow iterates over a channel, from a position on, into seen.all.
func (p *page) follow(channel, after string) {
	p.Helper()
	p.eval(nil, fmt.Sprintf(`void follow("all", %q, {after: %q})`, channel, after))
}

// mustPublish has the page's client publish, and hear itself in seen.all.
func (p *page) mustPublish(channel string) {
	p.Helper()
	p.eval(nil, fmt.Sprintf(`client.channel(%q).publish({mine: true}).then(({position}) => { told.position = position })`, channel))
	p.until(`seen.all.at(-1)?.position === told.position && seen.all.at(-1).data.mine`)
}

// A chat is two pages that speak to each other through the bundled client.
type chat struct {
	*world
	begin string
	pages map[string]*page
}

// pace is between two remarks of a page: two pages give 50 a second.
const pace = 40

func newChat(t *testing.T, w *world, names ...string) *chat {
	t.Helper()
	c := &chat{world: w, begin: w.head("room"), pages: map[string]*page{}}
	for _, name := range names {
		p := open(t, name, w.origin)
		c.pages[name] = p
		p.connect("/realtime", nil)
		p.follow("room", c.begin)
		p.until(`carrier() === "websocket"`)
	}
	for name, p := range c.pages {
		p.call(nil, "speak", "room", name, pace)
	}
	return c
}

// on waits until both pages are fed by a transport, and for a good number of
// events that it brings.
func (c *chat) on(transport string) {
	c.Helper()
	for _, p := range c.pages {
		p.until(`carrier() === %q`, transport)
	}
	for _, p := range c.pages {
		p.eval(nil, "void (told.from = seen.all.length)")
	}
	for _, p := range c.pages {
		p.until(`seen.all.length > told.from + 40`)
		var now string
		p.eval(&now, "carrier()")
		if now != transport {
			c.Errorf("%s went from %s to %s", p.name, transport, now)
		}
	}
}

// finish lets the pages fall silent and everything arrive, and judges.
func (c *chat) finish() {
	c.Helper()
	wrote := map[string]int{}
	for name, p := range c.pages {
		p.eval(nil, "told.stop()")
		p.until("told.published + told.refused.length === told.sent")
		var refused []string
		p.eval(&refused, "told.refused")
		if len(refused) > 0 {
			c.Errorf("%s: refused: %v", name, refused)
		}
		var n int
		p.eval(&n, "told.sent")
		wrote[name] = n
	}
	end := c.head("room")
	for _, p := range c.pages {
		p.until(`seen.all.at(-1)?.position === %q`, end)
	}
	o, numbers := c.history("room", c.begin, wrote)
	for _, p := range c.pages {
		if v := p.verdict(o, numbers, c.begin); !v.OK() || v.Missing+v.Unreached > 0 {
			c.Errorf("%s: %v", p.name, v)
		}
	}
	c.Logf("published %v", wrote)
}

// Two pages chat while transports are taken from them, one after the other, and
// given back.
func TestClientSurvivesTransports(t *testing.T) {
	t.Parallel() // it mostly waits
	c := newChat(t, start(t, server.Options{}), "ada", "bob")
	c.on("websocket")
	c.forbid("ws")
	c.on("sse")
	c.forbid("sse")
	c.on("poll")
	c.allow()
	c.on("websocket")
	c.finish()
}

// A new server takes the place of the old one, which says goodbye. What it
// knows is the log; who resumes there was never there before.
func TestClientSurvivesNewServer(t *testing.T) {
	t.Parallel() // it mostly waits
	c := newChat(t, start(t, server.Options{}), "ada", "bob")
	c.on("websocket")
	c.replace(server.Options{})
	for _, p := range c.pages {
		p.until(`states.some((s) => s.reason?.code === "shutdown")`)
	}
	c.on("websocket")
	c.finish()
}

// Connections of one transport break again and again; the client stays with it
// and loses nothing.
func TestClientSurvivesCuts(t *testing.T) {
	t.Parallel() // it mostly waits
	for transport, carrier := range map[string]string{"websocket": "ws", "sse": "sse", "poll": "poll"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()                                    // it mostly waits
			w := start(t, server.Options{BrokenLines: 100}) // it has no other
			p := open(t, "ada", w.origin)
			c := &chat{world: w, begin: w.head("room"), pages: map[string]*page{"ada": p}}
			p.connect("/realtime", map[string]any{"transports": []string{transport}})
			p.follow("room", c.begin)
			p.until(`carrier() === %q`, transport)
			p.call(nil, "speak", "room", "ada", 5)
			for i := range 12 {
				p.until(`seen.all.length > %d`, 25*i)
				w.kill(carrier)
			}
			p.until(`seen.all.length > 320`)
			c.finish()
		})
	}
}

// The oracle has to bite: a WebSocket message that a server keeps back is found
// out.
func TestLostMessageIsSeen(t *testing.T) {
	w := start(t, server.Options{})
	w.onRequest(func(carrier string, l *line) {
		writes := 0
		if carrier == "ws" {
			l.spoil(func(b []byte) []byte {
				if writes++; writes == 12 { // each write is a message, or several
					return nil
				}
				return b
			})
		}
	})
	p := open(t, "ada", w.origin)
	begin := w.head("room")
	p.connect("/realtime", map[string]any{"transports": []string{"websocket"}})
	p.follow("room", begin)
	p.until(`carrier() === "websocket"`)
	for n := range 20 {
		w.publish("room", fmt.Sprintf(`{"author":"go","n":%d}`, n+1))
		time.Sleep(20 * time.Millisecond)
	}
	p.until(`seen.all.at(-1)?.position === %q`, w.head("room"))
	o, numbers := w.history("room", begin, map[string]int{"go": 20})
	if v := p.verdict(o, numbers, begin); v.Lost == 0 {
		t.Errorf("a message was dropped, and the oracle says: %v", v)
	}
}

// The build for script tags.
func TestClientGlobal(t *testing.T) {
	w := start(t, server.Options{})
	p := open(t, "page", w.origin)
	p.call(nil, "load", "/realtime/client.global.js")
	p.eval(nil, `start("/realtime", {}, Throughline.connect)`)
	p.follow("a", w.head("a"))
	p.until(`carrier() === "websocket"`)
	p.mustPublish("a")
}
