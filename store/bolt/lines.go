package bolt

import (
	"encoding/base64"
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// exportVersion is the version of the lines.
const exportVersion = 1

// A line is one line of an export: first what it is, then each channel with its
// events behind it, oldest first, and last how many there were.
type line struct {
	Export  int             `json:"throughline_export,omitempty"` // the version
	Channel *exportedName   `json:"channel,omitempty"`
	Event   *exportedEvent  `json:"event,omitempty"`
	End     *exportedCounts `json:"end,omitempty"`
}

type exportedName struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Births are the places before the first event that are good.
	Births [2]eventlog.Position `json:"births"`
	// After is the place before the first event that follows, and Bytes how many
	// bytes were ever appended up to there.
	After eventlog.Position `json:"after"`
	Bytes int64             `json:"bytes,omitempty"`
	// Newest is when the newest event came, which may be gone.
	Newest time.Time `json:"newest"`
}

type exportedEvent struct {
	At   eventlog.Position `json:"at"`
	Time time.Time         `json:"time"`
	Type string            `json:"type,omitempty"`
	Kind string            `json:"kind,omitempty"` // "text" or "binary"; without, JSON
	Data string            `json:"data"`           // as it was published; binary in base64
	Key  string            `json:"key,omitempty"`
	Tags []string          `json:"tags,omitempty"`
}

type exportedCounts struct {
	Channels int `json:"channels"`
	Events   int `json:"events"`
}

const (
	textKind   = "text"
	binaryKind = "binary"
)

func exportName(ch *channel, after place) *exportedName {
	return &exportedName{
		Namespace: ch.name.Namespace,
		Name:      ch.name.Name,
		Births:    [2]eventlog.Position{{Mark: ch.births[0]}, {Mark: ch.births[1]}},
		After:     after.at,
		Bytes:     after.sum,
		Newest:    ch.next.newest,
	}
}

// channel returns a channel that has no event yet.
func (n *exportedName) channel(id uint64) (*channel, error) {
	name := eventlog.Channel{Namespace: n.Namespace, Name: n.Name}
	if err := name.Check(); err != nil {
		return nil, err
	}
	ch := newChannel(id, name, eventlog.Retention{}, [2]uint64{n.Births[0].Mark, n.Births[1].Mark})
	before := place{at: n.After, sum: n.Bytes}
	ch.next = state{base: before, head: before, oldest: n.Newest, newest: n.Newest}
	ch.floor = n.After.Offset
	return ch, nil
}

func exportEvent(e *entry) *exportedEvent {
	out := &exportedEvent{At: e.At, Time: e.Time, Data: string(e.Data), Key: e.Key, Tags: e.Tags}
	if e.Type != eventlog.DefaultType {
		out.Type = e.Type
	}
	switch e.Kind {
	case eventlog.JSON:
	case eventlog.Text:
		out.Kind = textKind
	case eventlog.Binary:
		out.Kind, out.Data = binaryKind, base64.StdEncoding.EncodeToString(e.Data)
	}
	return out
}

// message returns what was published.
func (e *exportedEvent) message() (m eventlog.Message, err error) {
	m = eventlog.Message{Type: e.Type, Data: []byte(e.Data), Key: e.Key, Tags: e.Tags}
	switch e.Kind {
	case "":
	case textKind:
		m.Kind = eventlog.Text
	case binaryKind:
		m.Kind = eventlog.Binary
		m.Data, err = base64.StdEncoding.DecodeString(e.Data)
	default:
		err = fmt.Errorf("the kind %q is unknown", e.Kind)
	}
	if m.Type == "" {
		m.Type = eventlog.DefaultType
	}
	if err == nil {
		err = m.Check(0)
	}
	return m, err
}
