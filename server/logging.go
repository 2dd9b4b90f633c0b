package server

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what one attribute of a line takes, in bytes, as it is handed to the
// program's handler: escaped. Clients choose most of them.
const (
	maxAttr  = 200
	maxError = 1000
	maxStack = 16 << 10
)

// A logHandler stands before the program's own: it bounds what a line takes, and
// how many there are. Lines for debugging are not left out: who asks for those
// wants to follow each connection.
type logHandler struct {
	slog.Handler
	sampler *sampler
}

// newLogger returns a logger for everything that the server says.
func newLogger(to *slog.Logger) (*slog.Logger, *sampler) {
	next := to.Handler()
	s := newSampler(func(m leftOut) { reportLeftOut(next, m) })
	return slog.New(&logHandler{Handler: next, sampler: s}), s
}

func reportLeftOut(to slog.Handler, m leftOut) {
	ctx := context.Background()
	if !to.Enabled(ctx, m.level) {
		return
	}
	line := slog.NewRecord(time.Now(), m.level, "lines left out", 0)
	line.AddAttrs(slog.String("event", m.event), slog.String("code", m.code), slog.Int("count", m.count))
	_ = to.Handle(ctx, line) // as slog does: nobody is left to tell
}

// Handle implements [slog.Handler].
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !h.sampler.take(kindOfLine(r), r.Level) {
		return nil
	}
	bounded := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		bounded.AddAttrs(bound(a))
		return true
	})
	return h.Handler.Handle(ctx, bounded)
}

// WithAttrs implements [slog.Handler].
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	bounded := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		bounded[i] = bound(a)
	}
	return &logHandler{Handler: h.Handler.WithAttrs(bounded), sampler: h.sampler}
}

// WithGroup implements [slog.Handler].
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{Handler: h.Handler.WithGroup(name), sampler: h.sampler}
}

// kindOfLine is what a line is counted by: its event, and what of it comes from a
// closed set.
func kindOfLine(r slog.Record) kind {
	k := kind{event: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "code":
			k.code = closed(codes, a.Value.String())
		case "operation", "function", "dependency": // of ours, all of them
			k.code = a.Value.String()
		}
		return true
	})
	return k
}

// bound makes an attribute one that no client can make long or unreadable.
func bound(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString, slog.KindAny:
		most := maxAttr
		switch a.Key {
		case "error", "panic":
			most = maxError
		case "stack":
			return slog.String(a.Key, cut(a.Value.String(), maxStack)) // the runtime's own
		}
		a.Value = slog.StringValue(cut(readable(cut(text(a.Value), most)), most))
	case slog.KindGroup:
		group := a.Value.Group()
		bounded := make([]slog.Attr, len(group))
		for i := range group {
			bounded[i] = bound(group[i])
		}
		a.Value = slog.GroupValue(bounded...)
	}
	return a
}

func text(v slog.Value) string {
	if v.Kind() == slog.KindString {
		return v.String()
	}
	return fmt.Sprint(v.Any())
}

// cut cuts a text to so many bytes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// readable returns a text as it is, or with everything in it escaped that could
// end a line, steer a terminal, or hide what follows: whatever the handler does
// with it.
func readable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
