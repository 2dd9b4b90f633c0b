package main

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// A watcher reads what the server logs, and passes it on. A client that does not
// read can't know that it was evicted, and none knows when it has passed its trial:
// the server's log (docs/logs.md) does.
type watcher struct {
	next   slog.Handler
	tell   func(subject string, out time.Duration)
	passed func(subject string)
	attrs  []slog.Attr // of a logger that has some
}

// Enabled implements [slog.Handler]. Trials that are passed, and ends of connections, are
// told for debugging.
func (w *watcher) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (w *watcher) Handle(ctx context.Context, r slog.Record) error {
	said := map[string]slog.Value{}
	note := func(a slog.Attr) bool {
		said[a.Key] = a.Value
		return true
	}
	for _, a := range w.attrs {
		note(a)
	}
	r.Attrs(note)
	switch {
	case r.Message == "evicted" && said["for"].Kind() == slog.KindDuration:
		w.tell(said["subject"].String(), said["for"].Duration())
	case r.Message == "connection ended" && said["code"].String() == "slow_consumer": // of "evicted" there are only ten lines a minute
		w.tell(said["subject"].String(), 0)
	case r.Message == "trial passed":
		w.passed(said["subject"].String())
	}
	if !w.next.Enabled(ctx, r.Level) {
		return nil
	}
	return w.next.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (w *watcher) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &watcher{w.next.WithAttrs(attrs), w.tell, w.passed, slices.Concat(w.attrs, attrs)}
}

// WithGroup implements [slog.Handler]. The server has no groups.
func (w *watcher) WithGroup(name string) slog.Handler {
	return &watcher{w.next.WithGroup(name), w.tell, w.passed, w.attrs}
}
