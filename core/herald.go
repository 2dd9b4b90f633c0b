package core

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
)

const (
	// maxTold bounds the trips that wait to be told. A node that has not heard of one
	// lets the client in, and evicts it itself.
	maxTold = 1000
	// toldAtOnce is how many go into one append.
	toldAtOnce = 100
)

// A herald tells the other nodes whom this one has evicted, by the channel of
// orders. Nobody waits for it.
type herald struct {
	engine *Engine

	worker // of proclaim

	mu    sync.Mutex
	trips []breaker.Trip // guarded by mu
}

func newHerald(e *Engine) *herald {
	h := &herald{engine: e}
	h.start(h.proclaim, e.live.Done)
	return h
}

func (h *herald) tell(t breaker.Trip) {
	h.mu.Lock()
	if len(h.trips) < maxTold {
		h.trips = append(h.trips, t)
	}
	h.mu.Unlock()
	h.ask()
}

func (h *herald) proclaim() {
	for batch := h.take(); len(batch) > 0; batch = h.take() {
		ctx, cancel := context.WithTimeout(h.engine.ctx, h.engine.o.PublishTimeout)
		began := time.Now()
		_, _, err := h.engine.o.Log.Append(ctx, Control, eventlog.Batch{Messages: batch})
		h.engine.askedLog("append", Control, began, err)
		cancel()
	}
}

func (h *herald) take() (batch []eventlog.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(len(h.trips), toldAtOnce)
	for _, t := range h.trips[:n] {
		data, err := json.Marshal(Order{Do: doKeepOut, Trip: &t})
		if err == nil {
			batch = append(batch, eventlog.Message{Type: doKeepOut, Data: data})
		}
	}
	h.trips = append(h.trips[:0], h.trips[n:]...)
	return batch
}
