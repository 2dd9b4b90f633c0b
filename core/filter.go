package core

import (
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A filter is what a subscription wants of its channel.
type filter struct {
	eventlog.Filter
	text string // the same for equal ones
}

// everything is the filter of those who name none.
var everything = &filter{}

func newFilter(f *eventlog.Filter) *filter {
	if f == nil || f.IsZero() {
		return everything
	}
	return &filter{Filter: *f, text: filterText(f)}
}

// filterText is a filter as a key. The order of its words says nothing, and they
// hold no control characters.
func filterText(f *eventlog.Filter) string {
	var text strings.Builder
	for _, words := range [][]string{f.Types, f.Tags, f.Keys} {
		for _, word := range slices.Sorted(slices.Values(words)) {
			text.WriteString(word)
			text.WriteByte(0)
		}
		text.WriteByte(1)
	}
	return text.String()
}

// selects reports whether f leaves something out.
func (f *filter) selects() bool { return f.text != "" }

// A share is how much of what was read passed a filter: of what is yet to come
// nothing else is known.
type share struct{ read, passed uint64 }

func (s *share) add(after eventlog.Position, run *transport.Run) {
	s.read += run.Next.Offset - after.Offset
	s.passed += uint64(len(run.Events))
}

// of returns the part of n that is likely to pass, or up to twice that: shares are
// a half, a quarter and so on, as one that changed with each event would make
// a reader seem to come closer who stays where it is.
func (s *share) of(n uint64) uint64 {
	switch {
	case s.read == 0:
		return n
	case s.passed == 0:
		return 0
	}
	return n >> (bits.Len64(s.read/s.passed) - 1)
}

// tellMoves appends the positions that moved without an event: where the client
// does best to go on if it has to come back. Nothing is missed by one who comes
// back to an earlier one, but what was left out is looked through again. So not
// each move is worth a write: a channel's first is told with its opening, later
// ones with a heartbeat, or with something else if a heartbeat's time has passed
// meanwhile.
func (l *line) tellMoves(items []transport.Item, beats bool) []transport.Item {
	for _, s := range l.subs {
		if s.moved == nil {
			if s.told.IsZero() {
				s.told = l.lastSent // it is told where it is
			}
			continue
		}
		if l.eachMove && s.filter.selects() {
			items = append(items, transport.Item{Frame: &transport.Frame{Kind: transport.FrameOpening, Channel: s.name, At: s.moved.Next}})
			s.moved = nil
			continue
		}
		now := s.told.IsZero() || beats || !s.filter.selects()
		if now || len(items) > 0 && l.lastSent.Sub(s.told) >= l.engine.o.Heartbeat {
			items = append(items, transport.Item{Run: s.moved})
			s.moved, s.told = nil, l.lastSent
		} else if len(items) == 0 {
			s.sentTo.Store(s.cursor.Offset)
		}
	}
	return items
}

// hasBegun reports whether the Send at hand has something of the subscription
// already. A move that was not told is told then, as a gap begins where the
// client is.
func (s *subscription) hasBegun(begun bool) bool {
	if s.moved != nil {
		s.told = time.Time{}
	}
	return begun || s.moved != nil
}
