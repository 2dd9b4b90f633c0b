package e2e

import (
	"bytes"
	"testing"
	"time"

	"github.com/throughline/throughline/server"
)

// What boxes on the way do to WebSockets that they have let through: the
// handshake succeeds, so a browser says that the socket is open.
var afterHandshake = map[string]func(l *line){
	"killed at once": func(l *line) {
		time.AfterFunc(time.Millisecond, l.reset)
	},
	"killed after 200 ms": func(l *line) {
		time.AfterFunc(200*time.Millisecond, l.reset)
	},
	"muted": func(l *line) {
		muted := false
		l.spoil(func(b []byte) []byte {
			if muted {
				return nil
			}
			muted = bytes.Contains(b, []byte("\r\n\r\n"))
			return b
		})
	},
}

// The page settles on SSE, speaks and hears there, and loses nothing; that it
// tries WebSockets again now and then disturbs nobody.
func TestClientSettlesWhereWebSocketsDie(t *testing.T) {
	t.Parallel() // it mostly waits
	for how, spoil := range afterHandshake {
		t.Run(how, func(t *testing.T) {
			t.Parallel() // it mostly waits
			w := start(t, server.Options{})
			tries := make(chan struct{}, 1000)
			w.onRequest(func(carrier string, l *line) {
				if carrier == "ws" {
					tries <- struct{}{}
					spoil(l)
				}
			})
			p := open(t, "ada", w.origin)
			c := &chat{world: w, begin: w.head("room"), pages: map[string]*page{"ada": p}}
			p.connect("/realtime", nil)
			p.follow("room", c.begin)
			p.call(nil, "speak", "room", "ada", pace)
			p.until(`carrier() === "sse"`)
			c.on("sse")
			for range 3 { // it tries again, and stays
				<-tries
			}
			c.on("sse")
			c.finish()
		})
	}
}
