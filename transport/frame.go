package transport

import (
	"time"

	"github.com/throughline/throughline/eventlog"
)

// Version is the version of the session protocol that this package speaks.
const Version = 1

// A FrameKind says what a frame is, and which of its fields count.
type FrameKind uint8

// The frames that the engine sends, and below them those of a client.
const (
	FrameOpen    FrameKind = iota + 1 // answer to a hello: Line, Heartbeat (PROTOCOL P6.3)
	FrameOpening                      // where a channel begins: Channel, At (P2.3)
	FrameGap                          // events are missing: Channel, Lost (P2.4)
	FrameEnd                          // a channel was refused or is over: Channel, Reason (P6.9)
	FrameBeat                         // a sign of life (P6.5)
	FrameClose                        // goodbye, the last of a line: Reason (P6.13)

	FrameSubscribe   // Channels (P6.10)
	FrameUnsubscribe // Names (P6.10)
)

// A Frame is anything but events. One that many clients get is one value, whose
// encodings are made once; it must not be copied or changed once it was sent.
type Frame struct {
	Kind      FrameKind
	Channel   string
	At        eventlog.Position
	Lost      eventlog.Lost
	Reason    Reason
	Line      uint64
	Heartbeat time.Duration
	Channels  []Subscription
	Names     []string

	memo *memo
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
// news has to hear at once.
func (f *Frame) MayWait() bool {
	return f.Kind == FrameOpen || f.Kind == FrameOpening || f.Kind == FrameBeat
}
