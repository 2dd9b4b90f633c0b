package conformance_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
	"github.com/throughline/throughline/server"
)

// A control is a good server with a habit that PROTOCOL.md and the contract of
// logs allow: no clause may fail for it.
type control struct {
	name string
	testee.Variant
	// setup is what the server makes of what it is asked for.
	setup func(*conformance.ServerSetup)
}

var controls = []control{
	{
		name:    "has a restless log that is away for a moment now and then",
		Variant: testee.Variant{Log: func(l eventlog.Log) eventlog.Log { return &restlessLog{Log: l} }},
	},
	{
		name:    "says everything in small pieces, and beats more often",
		Variant: testee.Variant{Handler: inPieces},
		setup: func(s *conformance.ServerSetup) {
			if s.Heartbeat == 0 {
				s.Heartbeat = 6 * time.Second
			}
		},
	},
	{
		name: "keeps more than it has to, and waits for less",
		Variant: testee.Variant{
			Log:     func(l eventlog.Log) eventlog.Log { return &slicedLog{l} },
			Options: func(o *server.Options) { o.DrainTime = 20 * time.Second },
		},
		setup: func(s *conformance.ServerSetup) {
			if s.Keep > 0 {
				s.Keep += s.Keep / 2
			}
			if s.MaxWait == 0 {
				s.MaxWait = 7 * time.Second
			}
		},
	},
}

// TestControlServers: what a server may do fails no clause.
func TestControlServers(t *testing.T) {
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			conformance.TestServer(t, conformance.Server{Start: func(t *testing.T, s conformance.ServerSetup) *conformance.Testee {
				if c.setup != nil {
					c.setup(&s)
				}
				return c.Variant.Start(t, s)
			}})
		})
	}
}

// A restlessLog wakes who watches at once, twice, and for nothing. Now and then it
// is away for one read: where the nodes tell each other things, which clients don't
// notice, and in the busy room, to which the readers of the suite come back. (One
// event that is awaited comes at once.)
type restlessLog struct {
	eventlog.Log
	reads atomic.Int64
}

func (l *restlessLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	if (ch == core.Control || ch.Name == busyRoom && len(page.Events) > 1) && l.reads.Add(1)%11 == 0 {
		return eventlog.Page{}, eventlog.ErrUnavailable
	}
	return page, err
}

func (l *restlessLog) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	end := l.Log.Watch(ch, func() { wake(); wake() })
	var mu sync.Mutex
	mu.Lock()
	defer mu.Unlock()
	over, pause := false, time.Second
	var again *time.Timer
	again = time.AfterFunc(time.Nanosecond, func() {
		wake()
		mu.Lock()
		defer mu.Unlock()
		if pause *= 2; !over {
			again.Reset(pause)
		}
	})
	return func() {
		end()
		mu.Lock()
		defer mu.Unlock()
		over = true
		again.Stop()
	}
}

// A slicedLog has few events on a page, and moves readers on between two by a page
// without any.
type slicedLog struct{ eventlog.Log }

func (l *slicedLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	if n := len(page.Events); err == nil && n > 3 {
		page.Events = page.Events[:3:3]
		page.Next = page.Events[2].At
	}
	return page, err
}

// inPieces has what is written go out in pieces: bytes, and where there are many,
// what is behind them as a whole.
func inPieces(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/ws") {
			w = &lending{ResponseWriter: w, conn: func(c net.Conn) net.Conn { return &pieces{c} }}
		} else {
			w = &piecewise{w}
		}
		next.ServeHTTP(w, r)
	})
}

// cutUp hands a text to write in pieces.
func cutUp(p []byte, write func(p []byte) (int, error)) (n int, err error) {
	for n < len(p) && err == nil {
		size := 1
		if n >= 40 {
			size = len(p) - n
		}
		var m int
		m, err = write(p[n : n+size])
		n += m
	}
	return n, err
}

type pieces struct{ net.Conn }

func (c *pieces) Write(p []byte) (int, error) { return cutUp(p, c.Conn.Write) }

type piecewise struct{ http.ResponseWriter }

func (w *piecewise) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *piecewise) Write(p []byte) (int, error) {
	return cutUp(p, func(p []byte) (int, error) {
		n, err := w.ResponseWriter.Write(p)
		if err == nil {
			err = http.NewResponseController(w.ResponseWriter).Flush()
		}
		return n, err
	})
}
