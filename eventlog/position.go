package eventlog

import (
	"errors"
	"strconv"
	"strings"
)

// MarkBits is how many bits of a mark are used. Logs draw marks of this many
// random bits, so that a position is short in text and can't be guessed.
const MarkBits = 48

// positionVersion is the first character of a position's text.
const positionVersion = 'a'

// MaxPositionText is the most bytes of a position's text. Those of today are
// shorter.
const MaxPositionText = 64

// ErrBadPosition is returned for a text that is not a position.
var ErrBadPosition = errors.New("eventlog: not a position")

// A Position names a place in one channel's history: an event has been
// received, and all before it. Offset counts a channel's events from 1; Mark
// is the value drawn for that event when it was appended. The place before
// a channel's first event has offset 0 and a mark of its own.
//
// The zero Position is no place at all; see [Position.IsZero].
type Position struct {
	Offset uint64
	Mark   uint64
}

// IsZero reports whether p is the zero Position, which names no place: no log
// uses the mark 0.
func (p Position) IsZero() bool { return p == Position{} }

// String returns the text form: a version character, the offset, a dot and the
// mark, both in base 36. It holds nothing outside [a-z0-9.].
func (p Position) String() string {
	return string(p.Append(make([]byte, 0, 24)))
}

// Append appends the text form of p to dst.
func (p Position) Append(dst []byte) []byte {
	dst = append(dst, positionVersion)
	dst = strconv.AppendUint(dst, p.Offset, 36)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, p.Mark, 36)
}

// MarshalText is String.
func (p Position) MarshalText() ([]byte, error) { return p.Append(nil), nil }

// UnmarshalText is [ParsePosition].
func (p *Position) UnmarshalText(text []byte) error {
	q, err := ParsePosition(string(text))
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// ParsePosition reads what [Position.String] writes, and nothing else: each
// position has exactly one text. The error is [ErrBadPosition].
func ParsePosition(text string) (Position, error) {
	if len(text) > MaxPositionText || len(text) == 0 || text[0] != positionVersion {
		return Position{}, ErrBadPosition
	}
	offset, mark, found := strings.Cut(text[1:], ".")
	if !found {
		return Position{}, ErrBadPosition
	}
	var p Position
	var err error
	if p.Offset, err = strconv.ParseUint(offset, 36, 64); err != nil {
		return Position{}, ErrBadPosition
	}
	if p.Mark, err = strconv.ParseUint(mark, 36, 64); err != nil {
		return Position{}, ErrBadPosition
	}
	if p.Mark == 0 || p.String() != text {
		return Position{}, ErrBadPosition
	}
	return p, nil
}
