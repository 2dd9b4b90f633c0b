package transport

import (
	"encoding/json"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// Version is the version of the session protocol that this package speaks.
const Version = 1

// A FrameKind says what a frame is, and which of its fields count.
type FrameKind uint8

// The frames that the engine sends, and below them those of a client.
const (
	FrameOpen      FrameKind = iota + 1 // answer to a hello: Open (PROTOCOL P6.3)
	FrameOpening                        // where a channel begins: Channel, At, Given (P2.3, P6.19)
	FrameGap                            // events are missing: Channel, Lost (P2.4)
	FrameEnd                            // a channel was refused or is over: Channel, Reason (P6.9)
	FrameBeat                           // a sign of life (P6.5)
	FrameClose                          // goodbye, the last of a line: Reason (P6.13)
	FramePublished                      // answer to a publish: Published (P9.4)
	FrameAnswer                         // answer to a call, or to a question for history: Answer (P9.9, P12.10)
	FramePresence                       // who is in a channel: Channel, Presence (P10.2)
	FrameRefresh                        // fresh credentials are wanted: Left (P6.22)

	FrameSubscribe   // Channels (P6.10)
	FrameUnsubscribe // Names (P6.10)
	FramePause       // Names (P6.18)
	FrameWatch       // Watches (P10.1)
	FramePublish     // Publish (P9.2)
	FrameCall        // Call (P9.9)
	FrameCredentials // Credentials (P6.21)
	FrameHistory     // History (P12.10)
	FrameGoodbye     // the session will not come back: Line, if it came by a request (P6.20)
)

// A Frame is anything but events. One that many clients get is one value, whose
// encodings are made once; it must not be copied or changed once it was sent.
type Frame struct {
	Kind    FrameKind
	Channel string

	// Of the engine.
	Open      *Open
	At        eventlog.Position
	Given     bool // the client did not ask for the channel
	Lost      eventlog.Lost
	Reason    Reason
	Published []Published
	Answer    *Answer
	Presence  *Presence
	Left      time.Duration // until the credentials end

	// Of a client.
	Channels []Subscription
	Names    []string
	Watches  []Watch
	Publish  *Publish
	Call     *Call
	History  *HistoryQuery
	Line     uint64

	Credentials string

	memo *memo
}

// Open answers a hello.
type Open struct {
	Line      uint64
	Heartbeat time.Duration

	// A probe is not told these.
	Remembered time.Duration // how long producers are remembered at least; 0: not told
	Limit      int64         // the most bytes of a client's frame; 0: not told
	Token      string        // to use from now on; empty: the one presented stays
}

// A Publish is one batch of a producer (PROTOCOL P9.2).
type Publish struct {
	Producer string
	Frames   []PublishFrame
}

// A PublishFrame is one or more messages for one channel, all or nothing.
type PublishFrame struct {
	Seq      uint64
	Channel  string
	Messages []eventlog.Message
	Repeat   bool // it may have been tried before
}

// Published says what became of one frame of a batch (PROTOCOL P9.4). Refused
// and Retry are nil if it was appended.
type Published struct {
	Seq       uint64
	At        eventlog.Position // of its last message
	Duplicate bool
	Refused   *Refusal // for good
	Retry     *Refusal // neither done nor refused: the last entry
	Tried     bool     // with Retry: it may have been appended
}

// A Payload is data of one kind.
type Payload struct {
	Kind eventlog.Kind
	Data []byte
}

// A Call asks the program for an answer (PROTOCOL P9.9).
type Call struct {
	ID   uint64
	Name string
	Key  string // of a call that may be repeated
	Payload
}

// An Answer is what became of a call, or of a question for history: a payload,
// a page, or a refusal.
type Answer struct {
	ID uint64
	Payload
	History *HistoryPage
	Refused *Refusal
}

// Presence says who is in a channel (PROTOCOL P10.2): all Members, or who
// Joined and who Left, or, if none of the three is set, only how many.
type Presence struct {
	Version string
	Total   int
	Members []Member
	Joined  []Member
	Left    []string
	// Seen: the client has this version already.
	Seen bool
	// Refused, if not nil, is all there is.
	Refused *Refusal
}

// A Member is one session that is in a channel.
type Member struct {
	ID      string          `json:"id"`
	Subject string          `json:"subject,omitempty"`
	Info    json.RawMessage `json:"info,omitempty"`
}

// Shared marks f as one that many clients get, so that As makes each encoding
// once. It returns f.
func (f *Frame) Shared() *Frame {
	f.memo = new(memo)
	return f
}

// As returns f in the form of a codec.
func (f *Frame) As(c Codec) []byte {
	encode := func() Encoded { return Encoded{Bytes: c.AppendFrame(nil, f)} }
	if f.memo == nil {
		return encode().Bytes
	}
	return f.memo.get(c, encode).Bytes
}

// MayWait reports whether f is nothing that a client which asked to wait for
// news has to hear at once. A channel that is paused as asked is none.
func (f *Frame) MayWait() bool {
	switch f.Kind {
	case FrameOpen, FrameOpening, FrameBeat:
		return true
	case FrameEnd:
		return f.Reason.Code == CodePaused
	case FramePresence:
		return f.Presence.Seen
	}
	return false
}
