package e2e

import (
	"bytes"
	"sync/atomic"
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

// The page settles on SSE, speaks and hears there, and loses nothing: three
// WebSockets that it was on may have to die before. That it tries them again now and
// then disturbs nobody.
func TestClientSettlesWhereWebSocketsDie(t *testing.T) {
	t.Parallel() // it mostly waits
	for how, spoil := range afterHandshake {
		t.Run(how, func(t *testing.T) {
			t.Parallel() // it mostly waits
			w := start(t, server.Options{})
			var tries atomic.Int32
			w.onRequest(func(carrier string, l *line) {
				if carrier == "ws" {
					tries.Add(1)
					spoil(l)
				}
			})
			p := open(t, "ada", w.origin)
			c := &chat{world: w, begin: w.head("room"), pages: map[string]*page{"ada": p}}
			p.connect("/realtime", nil)
			p.follow("room", c.begin)
			p.call(nil, "speak", "room", "ada", pace)
			type standing struct {
				States, Sockets int
				Carrier         string
			}
			stands := func() (now standing) {
				p.eval(&now, `({states: states.length, carrier: carrier(), sockets: states.filter((s) => s.transport === "websocket").length})`)
				return now
			}
			deadline := time.Now().Add(2 * patience)
			stays := func() bool { // while it tries again
				now, n := stands(), tries.Load()
				for tries.Load() < n+3 {
					if time.Sleep(10 * time.Millisecond); time.Now().After(deadline) {
						t.Fatalf("it does not settle, or does not try: %+v after %d tries", now, tries.Load())
					}
				}
				return now.Carrier == "sse" && stands() == now
			}
			for p.until(`carrier() === "sse"`); !stays(); {
			}
			settled := stands()
			c.on("sse")
			c.finish()
			if now := stands(); now != settled || now.Sockets > 3 {
				t.Errorf("it settled as %+v, and then was %+v", settled, now)
			}
		})
	}
}
