//go:build linux

package main

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// What a server says of itself: by its log, and by its metrics.

// A lineCounter is a log of which only is kept how often which line came, by its
// message and stage. What is further is nil, or is told all of it.
type lineCounter struct {
	further slog.Handler

	mu    sync.Mutex
	lines map[string]int // guarded by mu
}

// Enabled implements [slog.Handler], as do the other methods.
func (c *lineCounter) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (c *lineCounter) Handle(ctx context.Context, r slog.Record) error {
	what := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stage" {
			what += ": " + a.Value.String()
		}
		return true
	})
	c.mu.Lock()
	c.lines[what]++
	c.mu.Unlock()
	if c.further == nil {
		return nil
	}
	return c.further.Handle(ctx, r)
}

func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *lineCounter) WithGroup(string) slog.Handler { return c }

// A telling is what the server has said so far.
type telling struct {
	Lines   map[string]int     // of the log
	Metrics map[string]float64 // their sums over all labels, by their names without prefix
}

// told asks the server.
func (s *served) told(context.Context, none) (telling, error) {
	t := telling{Lines: map[string]int{}, Metrics: map[string]float64{}}
	s.lines.mu.Lock()
	maps.Copy(t.Lines, s.lines.lines)
	s.lines.mu.Unlock()
	r := prometheus.NewRegistry()
	if err := r.Register(s.srv); err != nil {
		return t, err
	}
	families, err := r.Gather()
	for _, f := range families {
		name := strings.TrimPrefix(f.GetName(), "throughline_")
		for _, m := range f.GetMetric() {
			t.Metrics[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return t, err
}
