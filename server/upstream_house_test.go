package server_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/memnet"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// A house is two nodes over one log and one store, which die and come back, and
// the wires that lead to them.
type house struct {
	log     eventlog.Log // what all nodes share
	store   session.Store
	options func(*life) server.Options
	trace   func(format string, args ...any)
	seed    uint64
	faults  atomic.Bool // wires break by themselves

	armed atomic.Pointer[arm]
	extra sync.WaitGroup // what goes on beside: late copies, nodes that die or come back

	mu     sync.Mutex
	nodes  [2]*life        // guarded by mu; nil while one is down
	down   time.Time       // guarded by mu: none comes back before
	deaths []time.Time     // guarded by mu: when a node began to go away
	wires  []*wire         // guarded by mu
	draws  map[string]int  // guarded by mu
	asked  map[string]bool // guarded by mu: the frames of which the log was asked
}

// An arm is what happens at the next passing of a step.
type arm struct {
	step string
	how  func(*life)
	name string
}

// The steps of a frame at which a node may die.
const (
	atAuthorize = "authorize"
	inHook      = "hook"
	atAppend    = "append"
	appended    = "appended"
	inHandler   = "handler"
	handled     = "handled"
)

var steps = []string{atAuthorize, inHook, atAppend, appended, inHandler, handled}

// draw returns dice that depend on the seed, on what they are for, and on how
// often that was asked, so that a schedule is nearly the same each time,
// whichever goroutine runs first.
func (h *house) draw(format string, args ...any) *rand.Rand {
	what := fmt.Sprintf(format, args...)
	h.mu.Lock()
	h.draws[what]++
	n := h.draws[what]
	h.mu.Unlock()
	sum := fnv.New64a()
	fmt.Fprint(sum, what, n)
	return rand.New(rand.NewPCG(h.seed, sum.Sum64()))
}

// A life is one node from its start to its death.
type life struct {
	*house
	place int
	net   *memnet.Network
	srv   *server.Server
	http  *http.Server
	dead  atomic.Bool // what it still does has no effect

	served chan struct{}
}

// start begins a node's next life.
func (h *house) start(place int) {
	l := &life{house: h, place: place, net: memnet.New(), served: make(chan struct{})}
	o := h.options(l)
	o.Log, o.Store, o.Logger = stepLog{h.log, l}, h.store, slog.New(slog.DiscardHandler)
	srv, err := server.New(o)
	if err != nil {
		panic(err)
	}
	l.srv = srv
	// A request that a proxy kept for minutes is still a request.
	l.http = &http.Server{Handler: srv, ReadHeaderTimeout: time.Hour, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = l.http.Serve(l.net); close(l.served) }()
	h.mu.Lock()
	h.nodes[place] = l
	h.mu.Unlock()
}

// crash ends a life as kill -9 does: its wires break, and what it has in work
// has no effect any more.
func (l *life) crash() {
	if l.dead.Swap(true) {
		return
	}
	l.leave()
	l.cut()
	l.extra.Go(l.bury)
}

// goAway ends a life in good order.
func (l *life) goAway() {
	l.leave()
	l.extra.Go(func() {
		_ = l.srv.Close()
		if !l.dead.Swap(true) {
			l.cut()
			l.bury()
		}
	})
}

// leave takes the node off the list; another life begins after a while.
func (l *life) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes[l.place] != l {
		return
	}
	l.nodes[l.place] = nil
	l.deaths = append(l.deaths, time.Now())
	for _, w := range l.wires {
		if w.to == l {
			w.harmed.Store(true)
		}
	}
	wait := time.Duration(rand.New(rand.NewPCG(l.seed, uint64(len(l.deaths)))).IntN(8000)) * time.Millisecond
	l.extra.Go(func() {
		time.Sleep(wait)
		l.mu.Lock()
		rest := time.Until(l.down)
		l.mu.Unlock()
		time.Sleep(rest)
		l.start(l.place)
	})
}

// cut breaks all the node's wires.
func (l *life) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wires {
		if w.to == l {
			w.harmed.Store(true)
			w.Reset()
		}
	}
}

func (l *life) bury() {
	_ = l.srv.Close()
	_ = l.http.Close()
	<-l.served
}

// pass is called at each step of a frame.
func (l *life) pass(step string) {
	if a := l.armed.Load(); a != nil && a.step == step && l.armed.CompareAndSwap(a, nil) {
		l.trace("node %d: %s at the step %q", l.place, a.name, step)
		a.how(l)
	}
}

// diedSince reports whether a node went away after a time.
func (h *house) diedSince(t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.deaths {
		if !d.Before(t) {
			return true
		}
	}
	return false
}

// end ends all that is left.
func (h *house) end() {
	h.extra.Wait()
	h.mu.Lock()
	for _, w := range h.wires {
		w.Reset()
	}
	nodes := h.nodes
	h.mu.Unlock()
	for _, l := range nodes {
		l.bury()
	}
}

// A wire is a connection of a client's to a node.
type wire struct {
	*memnet.Conn
	to     *life
	dark   atomic.Bool // the client's end is closed, and the server does not hear of it
	harmed atomic.Bool // something was done to it, or to the node
}

// Close implements [net.Conn].
func (w *wire) Close() error {
	if w.dark.Load() {
		return w.SetReadDeadline(time.Unix(1, 0))
	}
	return w.Conn.Close()
}

// forsake closes the client's end without the server hearing of it.
func (w *wire) forsake() {
	w.harmed.Store(true)
	w.dark.Store(true)
	_ = w.Close()
}

func (w *wire) tear() {
	w.harmed.Store(true)
	w.Reset()
}

// transport returns what speaks to one node. made is called for each wire before
// anything is written; what names the wires to the dice.
func (h *house) transport(place int, what string, made func(*wire)) *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		h.mu.Lock()
		l := h.nodes[place]
		h.mu.Unlock()
		if l == nil {
			return nil, wireclient.ErrUnsent
		}
		conn, err := l.net.Dial(ctx, "", "")
		if err != nil {
			return nil, wireclient.ErrUnsent
		}
		w := &wire{Conn: conn.(*memnet.Conn), to: l}
		if dice := h.draw("cut %s", what); h.faults.Load() && dice.IntN(5) == 0 {
			w.harmed.Store(true)
			w.CutAfter(dice.IntN(2000))
		}
		h.mu.Lock()
		h.wires = append(h.wires, w)
		gone := h.nodes[place] != l
		h.mu.Unlock()
		if gone {
			w.tear()
		}
		made(w)
		return w, nil
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true, DisableKeepAlives: true}}
}

// A stepLog is the log as one node sees it: it fails now and then, before or
// after it has appended, and the node may die.
type stepLog struct {
	eventlog.Log
	node *life
}

// Append implements [eventlog.Log].
func (l stepLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (at eventlog.Position, duplicate bool, err error) {
	if b.Producer == (eventlog.Producer{}) {
		return l.Log.Append(ctx, ch, b)
	}
	dice := l.node.draw("append %s %d", b.Producer.ID, b.Producer.Seq)
	l.node.mu.Lock()
	l.node.asked[fmt.Sprintf("%s/%d", strings.TrimPrefix(b.Producer.ID, "p:"), b.Producer.Seq)] = true
	l.node.mu.Unlock()
	what := dice.IntN(12)
	if !l.node.faults.Load() {
		what = 99
	}
	l.node.pass(atAppend)
	if l.node.dead.Load() || what == 0 {
		return at, false, eventlog.ErrUnavailable
	}
	if what == 1 {
		<-ctx.Done()
		return at, false, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, ctx.Err())
	}
	if what == 2 {
		sleep(ctx, time.Duration(dice.IntN(4000))*time.Millisecond)
	}
	at, duplicate, err = l.Log.Append(context.WithoutCancel(ctx), ch, b)
	l.node.pass(appended)
	if l.node.dead.Load() || what == 3 {
		return eventlog.Position{}, false, eventlog.ErrUnavailable
	}
	if what == 4 {
		<-ctx.Done()
		return eventlog.Position{}, false, fmt.Errorf("%w: %w", eventlog.ErrUnavailable, ctx.Err())
	}
	if what == 5 {
		sleep(ctx, time.Duration(dice.IntN(3000))*time.Millisecond)
	}
	return at, duplicate, err
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var errDenied = errors.New("the schedule says no")
