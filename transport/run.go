package transport

import (
	"sync"
	"sync/atomic"

	"github.com/throughline/throughline/eventlog"
)

// A Run is a piece of a channel's history, as many clients get it. A run
// without events moves the position on. Nothing in it may be changed.
type Run struct {
	Channel eventlog.Channel
	Events  []eventlog.Event
	// Next is the position after the run. It is the last event's, unless
	// events after that were filtered out.
	Next eventlog.Position
	// Secret: the channel holds secrets, so that nothing of it is compressed: the
	// length would tell of them to who can have something of his own put beside
	// them (BREACH).
	Secret bool

	memo memo
}

// A Codec is one form that a run or a frame can have. It is a small comparable
// value, and a key: two equal codecs write the same bytes.
type Codec interface {
	// AppendEvent appends one event of a channel to dst.
	AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte
	// AppendFrame appends a frame, or nothing if this form has none for it.
	AppendFrame(dst []byte, f *Frame) []byte
}

// Encoded is a run in the form of a codec.
type Encoded struct {
	Bytes []byte
	Ends  []int // where each event ends in Bytes
}

// As returns the run in the form of a codec, made once for everybody. A run
// that ends with something filtered out ends with an opening frame that gives
// its position; it is not in Ends.
func (r *Run) As(c Codec) *Encoded {
	return r.memo.get(c, func() Encoded { return r.encode(c) })
}

func (r *Run) encode(c Codec) Encoded {
	size := 0
	for i := range r.Events {
		size += r.Events[i].Size() // about what it is with its names around it
	}
	e := Encoded{Bytes: make([]byte, 0, size), Ends: make([]int, 0, len(r.Events))}
	at := eventlog.Position{}
	for i := range r.Events {
		e.Bytes = c.AppendEvent(e.Bytes, r.Channel.Name, &r.Events[i])
		e.Ends = append(e.Ends, len(e.Bytes))
		at = r.Events[i].At
	}
	if at != r.Next {
		e.Bytes = c.AppendFrame(e.Bytes, &Frame{Kind: FrameOpening, Channel: r.Channel.Name, At: r.Next})
	}
	return e
}

// A memo remembers encodings by codec. There are few codecs, so it is a list.
type memo struct {
	known atomic.Pointer[[]remembered]
	mu    sync.Mutex // serialises those who add to known
}

type remembered struct {
	codec   Codec
	encoded *Encoded
}

func (m *memo) get(c Codec, encode func() Encoded) *Encoded {
	if e := m.find(c); e != nil {
		return e
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.find(c); e != nil {
		return e
	}
	made := encode()
	var list []remembered
	if old := m.known.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, remembered{c, &made})
	m.known.Store(&list)
	return &made
}

func (m *memo) find(c Codec) *Encoded {
	list := m.known.Load()
	if list == nil {
		return nil
	}
	for i := range *list {
		if (*list)[i].codec == c {
			return (*list)[i].encoded
		}
	}
	return nil
}
