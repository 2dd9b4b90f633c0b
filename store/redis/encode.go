package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// An entry is an event, with what a tail needs to know about it.
type entry struct {
	eventlog.Event

	sum int64 // bytes ever appended to the channel up to this event
}

// encode returns a message as it is in a stream.
func encode(m *eventlog.Message) []byte {
	b := make([]byte, 0, 16+len(m.Type)+len(m.Key)+len(m.Data))
	b = append(b, byte(m.Kind))
	name := m.Type
	if name == eventlog.DefaultType {
		name = "" // most events have it
	}
	b = appendText(b, name)
	b = appendText(b, m.Key)
	b = binary.AppendUvarint(b, uint64(len(m.Tags)))
	for _, tag := range m.Tags {
		b = appendText(b, tag)
	}
	return append(b, m.Data...)
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

var errEntry = errors.New("an entry of a stream is not one of ours")

// decode reads what encode wrote. The data is a copy.
func decode(body string) (m eventlog.Message, err error) {
	f := fields{left: body}
	m.Kind = eventlog.Kind(f.byte())
	if m.Type = f.text(); m.Type == "" {
		m.Type = eventlog.DefaultType
	}
	m.Key = f.text()
	n := f.uint()
	if n > eventlog.MaxTags {
		return m, errEntry
	}
	for range n {
		m.Tags = append(m.Tags, f.text())
	}
	m.Data = []byte(f.left)
	if f.bad {
		return m, errEntry
	}
	return m, nil
}

// fields reads what is written one after the other.
type fields struct {
	left string
	bad  bool
}

func (f *fields) byte() byte {
	if f.left == "" {
		f.bad = true
		return 0
	}
	b := f.left[0]
	f.left = f.left[1:]
	return b
}

func (f *fields) uint() uint64 {
	n := min(len(f.left), binary.MaxVarintLen64)
	v, read := binary.Uvarint([]byte(f.left[:n]))
	if read <= 0 {
		f.bad = true
		return 0
	}
	f.left = f.left[read:]
	return v
}

func (f *fields) text() string {
	n := f.uint()
	if n > uint64(len(f.left)) {
		f.bad = true
		return ""
	}
	text := f.left[:n]
	f.left = f.left[n:]
	return strings.Clone(text)
}

// A reply is what a script answered: a word, and what follows it.
type reply struct {
	kind string
	left []any
	bad  bool
}

var errReply = errors.New("a script's answer is not one of ours")

func newReply(raw any) (*reply, error) {
	all, _ := raw.([]any)
	if len(all) == 0 {
		return nil, errReply
	}
	r := &reply{left: all}
	if r.kind, _ = all[0].(string); r.kind == "" {
		return nil, fmt.Errorf("%w: %.100v", errReply, raw)
	}
	r.left = all[1:]
	return r, nil
}

func (r *reply) next() any {
	if len(r.left) == 0 {
		r.bad = true
		return nil
	}
	v := r.left[0]
	r.left = r.left[1:]
	return v
}

func (r *reply) int() int64 {
	v, ok := r.next().(int64)
	r.bad = r.bad || !ok
	return v
}

func (r *reply) uint() uint64 { return uint64(r.int()) } //nolint:gosec // offsets and marks, never below zero

func (r *reply) text() string {
	v, ok := r.next().(string)
	r.bad = r.bad || !ok
	return v
}

func (r *reply) position() eventlog.Position {
	return eventlog.Position{Offset: r.uint(), Mark: r.uint()}
}

// A place is a position, with the bytes ever appended up to it.
type place struct {
	at  eventlog.Position
	sum int64
}

func (r *reply) place() place { return place{at: r.position(), sum: r.int()} }

// seen is what an answer tells of a channel.
type seen struct {
	head, base  place
	births      [2]uint64 // the marks of the place before the first event which are exact
	unborn      bool      // nobody wrote it; head and base are that place
	unconfirmed bool      // there are events that nobody may read yet
	renew       bool      // its name is to be renewed
}

func (r *reply) seen() (s seen) {
	if r.kind == "unborn" {
		s.births = [2]uint64{r.uint(), r.uint()}
		s.head = place{at: eventlog.Position{Mark: s.births[0]}}
		s.base, s.unborn = s.head, true
		return s
	}
	s.head, s.base = r.place(), r.place()
	s.births = [2]uint64{r.uint(), r.uint()}
	s.unconfirmed, s.renew = r.int() == 1, r.int() == 1
	return s
}

// born reports whether a position is the place before the first event.
func (s *seen) born(p eventlog.Position) bool {
	return p.Offset == 0 && p.Mark != 0 && (p.Mark == s.births[0] || p.Mark == s.births[1])
}

// headFrom is the head for a reader at a position that is exact. That may be beyond what
// may be read now: after a failover, what is known to be safe is known anew.
func (s *seen) headFrom(at eventlog.Position) eventlog.Position {
	if at.Offset > s.head.at.Offset {
		return at
	}
	return s.head.at
}

// entries reads the rest of an answer.
func (r *reply) entries() ([]entry, error) {
	if len(r.left)%3 != 0 {
		return nil, errReply
	}
	all := make([]entry, 0, len(r.left)/3)
	for len(r.left) > 0 {
		offset, header, body := r.uint(), r.text(), r.text()
		if r.bad {
			return nil, errReply
		}
		e, err := newEntry(offset, header, body)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// newEntry reads an entry of a stream: see parse in lua/prelude.lua.
func newEntry(offset uint64, header, body string) (e entry, err error) {
	parts := strings.Split(header, " ")
	if len(parts) != 5 {
		return e, errEntry
	}
	var numbers [5]int64
	for i, part := range parts {
		if numbers[i], err = strconv.ParseInt(part, 10, 64); err != nil {
			return e, errEntry
		}
	}
	if e.Message, err = decode(body); err != nil {
		return e, err
	}
	e.At = eventlog.Position{Offset: offset, Mark: uint64(numbers[0])} //nolint:gosec // never below zero
	e.Prev = uint64(numbers[1])                                        //nolint:gosec // never below zero
	e.Time = time.UnixMicro(numbers[2])
	e.sum = numbers[3]
	return e, nil
}
