package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	bareName   = "bare write"
	joinedName = "bare write, joined"
)

// joinBytes is how much the joined writes hold at most, as Throughline's pages
// do by default.
const joinBytes = 64 << 10

// Bare is the floor: a loop over the connections that writes the same bytes to
// each. Nothing that makes one write for each event and client can be cheaper.
// Joined is the floor for those that make fewer, if they only could know the
// whole burst before.
func bare(name string, joined bool) contestant {
	c := contestant{
		name:      name,
		about:     "a loop over the connections, one write(2) of a ready-made frame each; no fan-out, no queue, no time-out, and one client that stalls stalls all",
		path:      "/ws",
		burstOnly: joined,
	}
	if joined {
		c.about = "the same, with the frames of the whole burst joined into writes of 64 KiB: as if the future were known"
	}
	c.start = func(_ context.Context, o settings) (*contender, error) {
		h := &bareHub{patience: o.trialLimit()}
		up := &contender{handler: h, publish: h.publish, close: h.close}
		if joined {
			up.burst = h.burst
		}
		return up, nil
	}
	return c
}

// A bareHub is nothing but connections.
type bareHub struct {
	patience time.Duration

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

// ServeHTTP makes a WebSocket of a request as far as the drain looks at it,
// which does not check Sec-WebSocket-Accept.
func (h *bareHub) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(h.patience)) // the only one: setting it each time costs
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")); err != nil {
		conn.Close()
		return
	}
	h.mu.Lock()
	h.conns = append(h.conns, conn)
	h.mu.Unlock()
}

func (h *bareHub) publish(data []byte) error {
	return h.write(appendTextFrame(nil, data))
}

func (h *bareHub) burst(data [][]byte) error {
	var joined []byte
	for _, d := range data {
		if len(joined)+len(d) > joinBytes {
			if err := h.write(joined); err != nil {
				return err
			}
			joined = joined[:0]
		}
		joined = appendTextFrame(joined, d)
	}
	return h.write(joined)
}

func (h *bareHub) write(b []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs error
	for _, c := range h.conns {
		if _, err := c.Write(b); err != nil {
			errs = errors.Join(errs, err)
		}
	}
	return errs
}

func (h *bareHub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.Close()
	}
}
