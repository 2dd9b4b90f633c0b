//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/server"
)

// A servePlan says what server to be.
type servePlan struct {
	Heartbeat  time.Duration // 0: the default
	Serial     bool          // the one that writes to all from one goroutine
	Unlimited  bool          // as often as they like
	Handshakes int           // Options.MaxHandshakes; 0: the default
	Verbose    bool
	Windows    windows

	// What the log may hold, of whatever age; 0: the defaults.
	LogBytes int64
	// Memory is Options.MemoryLimit; 0: the default.
	Memory int64
	// Redis is the address of the Redis that has the log; empty: it is in memory.
	Redis string
	// Wall is what ends a process that takes more.
	Wall wall
}

// windows are how long and how much a client may take; 0: the defaults.
type windows struct {
	WriteTimeout, LagWindow, EvictionDelay, MaxEvictionDelay time.Duration
	LaggardBytes                                             int
}

// A served is the server's process.
type served struct {
	srv       *server.Server
	listener  net.Listener
	publisher *publisher
	lines     lineCounter
	asked     asked        // of Redis
	peak      atomic.Int64 // the highest RSS since it was last told
}

func serveRole(ctx context.Context, in io.Reader, out io.Writer) error {
	s := &served{lines: lineCounter{lines: map[string]int{}}}
	defer s.close()
	return orders{
		"serve":   on(s.serve),
		"publish": on(s.publish),
		"pause":   on(s.pause),
		"facts":   on(s.facts),
		"told":    on(s.told),
		"asked":   on(s.asked.told),
		"measure": on(s.measure),
		"settle":  on(s.settle),
	}.obey(ctx, in, out)
}

// serve is the program of the README, but for where it listens and for who may
// read history: stalled clients begin with it, so that they are behind at once.
func (s *served) serve(ctx context.Context, p servePlan) (addr string, err error) {
	if p.Verbose {
		s.lines.further = slog.Default().Handler()
	}
	if err := p.Wall.enter(); err != nil {
		return "", err
	}
	o := options(p, slog.New(&s.lines))
	if p.LogBytes > 0 {
		o.Log = eventlog.NewMemory(eventlog.MemoryOptions{MaxBytes: p.LogBytes, Retain: func(eventlog.Channel) eventlog.Retention {
			return eventlog.Retention{Events: -1, Bytes: -1}
		}})
	}
	if p.Redis != "" {
		if o.Log, err = s.asked.open(ctx, p.Redis, o.Logger); err != nil {
			return "", err
		}
	}
	if p.Serial {
		o.Transports = serialTransports(ctx)
	}
	if s.srv, err = server.New(o); err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.listener = ln
	hs := &http.Server{
		Handler: s.srv, ConnContext: s.srv.ConnContext, ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // garbage is what is sent
	}
	go func() { _ = hs.Serve(ln) }() // ends with the listener
	go s.watch(ctx)
	return ln.Addr().String(), nil
}

// options are the defaults but for what a short run can't wait for, and how often
// an address may connect: here each is one client, and not an office.
func options(p servePlan, logger *slog.Logger) server.Options {
	rates := server.Rates{Hellos: server.Rate{PerSecond: 5, Burst: 20}}
	if p.Unlimited {
		rates = server.Unlimited
	}
	return server.Options{
		Heartbeat:     p.Heartbeat,
		PresenceGrace: 2 * time.Second, // so that a session that is over is forgotten while we look
		Authorize: func(_ context.Context, _ server.Identity, what server.Action, _ server.Channel) error {
			if what == server.Subscribe || what == server.History {
				return nil
			}
			return errors.New("this is for readers")
		},
		AddressRates:  rates,
		MaxHandshakes: p.Handshakes,
		Logger:        logger,
		MemoryLimit:   p.Memory,
		WriteTimeout:  p.Windows.WriteTimeout,
		LagWindow:     p.Windows.LagWindow,
		EvictionDelay: p.Windows.EvictionDelay, MaxEvictionDelay: p.Windows.MaxEvictionDelay,
		LaggardBytes: p.Windows.LaggardBytes,
	}
}

// watch keeps the highest RSS.
func (s *served) watch(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.peak.Store(max(s.peak.Load(), statm())) // a store may be lost to one of measure: the next is soon
		case <-ctx.Done():
			return
		}
	}
}

// A clean measure first gives back what can be.
type cleaning struct{ Clean bool }

func (s *served) measure(_ context.Context, c cleaning) (usage, error) {
	u := measure(c.Clean)
	u.PeakRSS = max(s.peak.Swap(0), u.RSS)
	return u, nil
}

// A settling says what a process should come back to, and how long it may take.
type settling struct {
	Goroutines, Files int
	Patience          time.Duration
}

// settle waits until no more is left than there was, and measures.
func (s *served) settle(ctx context.Context, w settling) (usage, error) {
	deadline := now() + w.Patience
	for (runtime.NumGoroutine() > w.Goroutines || files() > w.Files) && now() < deadline {
		pause(ctx, 20*time.Millisecond)
	}
	return s.measure(ctx, cleaning{true})
}

// close is for a process that ends: the clients of a server that is stuck would
// hold it up, so nobody is told goodbye.
func (s *served) close() {
	if s.publisher != nil {
		s.publisher.stop()
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
}
