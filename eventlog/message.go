package eventlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultNamespace is the namespace of those who name none.
const DefaultNamespace = ""

// Bounds that every log keeps.
const (
	MaxChannelName = 200 // bytes
	MaxNamespace   = 100 // bytes
	MaxType        = 100 // bytes
	MaxKey         = 200 // bytes
	MaxTags        = 16
	MaxTag         = 100 // bytes
)

// DefaultType is the type of a message that is published without one.
const DefaultType = "message"

// A Channel is a named sequence of events. Names in different namespaces have
// nothing to do with each other.
type Channel struct {
	Namespace string
	Name      string
}

// String returns the name, with the namespace and a slash before it where it
// isn't the default one. It is meant for people.
func (c Channel) String() string {
	if c.Namespace == DefaultNamespace {
		return c.Name
	}
	return c.Namespace + "/" + c.Name
}

// Check reports with an [*Invalid] whether c can't be a channel: its name is
// empty, or one of its parts is too long, not UTF-8, or holds control
// characters.
func (c Channel) Check() error {
	switch {
	case c.Name == "":
		return &Invalid{Field: "channel", Problem: "is empty"}
	case len(c.Name) > MaxChannelName:
		return &Invalid{Field: "channel", Problem: fmt.Sprintf("is longer than %d bytes", MaxChannelName)}
	case len(c.Namespace) > MaxNamespace:
		return &Invalid{Field: "namespace", Problem: fmt.Sprintf("is longer than %d bytes", MaxNamespace)}
	case !plainText(c.Name):
		return &Invalid{Field: "channel", Problem: "is not UTF-8 or holds control characters"}
	case !plainText(c.Namespace):
		return &Invalid{Field: "namespace", Problem: "is not UTF-8 or holds control characters"}
	}
	return nil
}

// A Kind says what a message's data is, and so how a carrier shows it.
type Kind uint8

const (
	JSON   Kind = iota // one JSON value (RFC 8259)
	Text               // UTF-8
	Binary             // anything
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case JSON:
		return "JSON"
	case Text:
		return "text"
	case Binary:
		return "binary"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Message is what a publisher hands to a log.
type Message struct {
	// Type says what kind of thing happened, for those who filter or dispatch
	// by it. Empty means "message". The types "open", "error" and those that
	// begin with "throughline." are reserved, as an EventSource could not tell
	// such an event from its own.
	Type string
	// Kind says what Data is; the zero value is JSON.
	Kind Kind
	// Data is the payload. It must not be changed after the message was
	// appended.
	Data []byte
	// Key says what the event is about: of two events with one key the later
	// one may stand for both. Optional; a [Filter] may select by it.
	Key string
	// Tags are free words, by which a [Filter] may select. Optional.
	Tags []string
}

// Size is what a message counts as, in bytes, against bounds of bytes: its own
// bytes and a fixed amount for what a log keeps beside them.
func (m *Message) Size() int {
	n := 128 + len(m.Type) + len(m.Data) + len(m.Key)
	for _, tag := range m.Tags {
		n += 16 + len(tag)
	}
	return n
}

// Check reports with an [*Invalid] whether m can't be appended to any log:
// a reserved or malformed type, data that isn't what its kind says, or a part
// over its bound. Every log calls it before it appends, and the engine before
// it first shows an event, so that no event can make a stream unparsable. maxData is
// the most bytes of data; 0 means no bound.
func (m *Message) Check(maxData int) error {
	switch {
	case len(m.Type) > MaxType:
		return &Invalid{Field: "type", Problem: fmt.Sprintf("is longer than %d bytes", MaxType)}
	case !plainText(m.Type):
		return &Invalid{Field: "type", Problem: "is not UTF-8 or holds control characters"}
	case m.Type == "open" || m.Type == "error" || strings.HasPrefix(m.Type, "throughline."):
		return &Invalid{Field: "type", Problem: fmt.Sprintf("%q is reserved", m.Type)}
	case maxData > 0 && len(m.Data) > maxData:
		return &Invalid{Field: "data", Problem: fmt.Sprintf("is longer than %d bytes", maxData), TooLarge: true}
	case len(m.Key) > MaxKey:
		return &Invalid{Field: "key", Problem: fmt.Sprintf("is longer than %d bytes", MaxKey)}
	case !plainText(m.Key):
		return &Invalid{Field: "key", Problem: "is not UTF-8 or holds control characters"}
	case len(m.Tags) > MaxTags:
		return &Invalid{Field: "tags", Problem: fmt.Sprintf("are more than %d", MaxTags)}
	}
	for _, tag := range m.Tags {
		if len(tag) > MaxTag || !plainText(tag) {
			return &Invalid{Field: "tags", Problem: fmt.Sprintf("%.20q is too long, not UTF-8, or holds control characters", tag)}
		}
	}
	return m.checkData()
}

func (m *Message) checkData() error {
	switch m.Kind {
	case JSON:
		if !json.Valid(m.Data) {
			return &Invalid{Field: "data", Problem: "is not valid JSON, and is not said to be text or binary"}
		}
		if !utf8.Valid(m.Data) {
			return &Invalid{Field: "data", Problem: "is JSON that is not UTF-8"}
		}
	case Text:
		if !utf8.Valid(m.Data) {
			return &Invalid{Field: "data", Problem: "is text that is not UTF-8"}
		}
	case Binary:
	default:
		return &Invalid{Field: "kind", Problem: fmt.Sprintf("%d is unknown", m.Kind)}
	}
	return nil
}

// Clone returns a copy that shares no memory with m, its type filled in.
func (m *Message) Clone() Message {
	c := *m
	if c.Type == "" {
		c.Type = DefaultType
	}
	c.Data = bytes.Clone(m.Data)
	c.Tags = append([]string(nil), m.Tags...)
	return c
}

// plainText reports whether s is UTF-8 without control characters
// (Unicode category Cc).
func plainText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}

// An Event is a message in its place. It is shared by all who read it: nothing
// in it may be changed.
type Event struct {
	Message
	// At is the event's position. It is a field, so that its text methods do
	// not become the event's.
	At Position
	// Prev is the mark of the event before it, or of the place before the
	// first one.
	Prev uint64
	// Time is when it was appended. Within a channel it never goes back: where
	// the wall clock was set back, it stands still until that has caught up.
	Time time.Time
}

// Before returns the position just before e.
func (e *Event) Before() Position { return Position{Offset: e.At.Offset - 1, Mark: e.Prev} }
