package e2e

import (
	"strings"
	"testing"

	"github.com/throughline/throughline/server"
)

// A reply is what a page may see of a response: if it is foreign, an error.
type reply struct {
	Status      int
	Body, Error string
}

// Requests of a page, with a body that needs a preflight and one that doesn't.
var requests = map[string]struct {
	path string
	init map[string]any
}{
	"poll":    {"/poll?channel=a", map[string]any{}},
	"hello":   {"/poll", map[string]any{"method": "POST", "headers": map[string]string{"Content-Type": "application/json"}, "body": `{"hello":{"version":1,"line":1}}`}},
	"publish": {"/publish?channel=a", map[string]any{"method": "POST", "body": `{"foreign":true}`}},
	"safe publish": {"/publish?channel=a", map[string]any{
		"method": "POST", "body": `{"foreign":true}`,
		"headers": map[string]string{"Content-Type": "application/json", "Idempotency-Key": "0123456789abcdef", "Producer-Seq": "1"},
	}},
}

// A page of another origin can read nothing and do nothing, however browsers
// tell: as same-site, as cross-site, or, to a server without TLS that isn't
// local, by Origin alone.
func TestForeignPage(t *testing.T) {
	for name, host := range map[string]struct{ page, server string }{
		"same site":  {"127.0.0.1", "127.0.0.1"},
		"cross site": {"localhost", "127.0.0.1"},
		"not local":  {"127.0.0.1", "app.test"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, server.Options{})
			base := strings.Replace(w.base, "127.0.0.1", host.server, 1)
			w.publish("a", `{"secret":1}`)
			begin := w.head("a")
			p := open(t, "foreign", strings.Replace(listen(t, nil), "127.0.0.1", host.page, 1))
			for name, r := range requests {
				var got reply
				p.call(&got, "ask", base+r.path, r.init)
				if got.Error == "" {
					t.Errorf("%s: got %+v", name, got)
				}
				p.call(&got, "askBlindly", base+r.path, r.init)
			}
			p.call(nil, "hear", "sse", base+"/sse?channel=a&after=earliest")
			p.until("seen.sse.errors > 0")
			p.call(nil, "hearSocket", "ws", strings.Replace(base, "http", "ws", 1)+"/ws?channel=a&after=earliest")
			p.until("seen.ws.closes > 0")
			var opened int
			p.eval(&opened, "seen.sse.opens + seen.sse.length + seen.ws.opens + seen.ws.length")
			if opened != 0 || w.head("a") != begin {
				t.Errorf("a foreign page came in: %d; the head was %s and is %s", opened, begin, w.head("a"))
			}
		})
	}
}

// With AllowedOrigins the same page may do all that.
func TestAllowedForeignPage(t *testing.T) {
	origin := listen(t, nil)
	w := start(t, server.Options{AllowedOrigins: []string{origin}})
	p := open(t, "foreign", origin)
	for name, r := range requests {
		var got reply
		p.call(&got, "ask", w.base+r.path, r.init)
		if got.Status != 200 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	p.call(nil, "hear", "sse", w.base+"/sse?channel=a&after=earliest")
	p.call(nil, "hearSocket", "ws", strings.Replace(w.base, "http", "ws", 1)+"/ws?channel=a&after=earliest")
	p.until("seen.sse.length === 2 && seen.ws.length === 3") // a WebSocket is told of its opening
}

// The client works across origins, too, on each of its transports.
func TestAllowedForeignClient(t *testing.T) {
	origin := listen(t, nil)
	w := start(t, server.Options{AllowedOrigins: []string{origin}})
	for _, c := range []string{"websocket", "sse", "poll"} {
		t.Run(c, func(t *testing.T) {
			p := open(t, "foreign", origin)
			p.connect(w.base, map[string]any{"transports": []string{c}})
			p.follow("a", w.head("a"))
			p.until(`carrier() === %q`, c)
			p.mustPublish("a")
		})
	}
}
