package ws

import (
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A codec writes each event and frame as one text frame.
type codec struct{}

func (codec) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	return appendText(dst, func(b []byte) []byte { return transport.AppendEventJSON(b, channel, e) })
}

func (codec) AppendFrame(dst []byte, f *transport.Frame) []byte {
	return appendText(dst, func(b []byte) []byte { return transport.AppendFrameJSON(b, f) })
}

// appendText appends a text frame whose payload is written by a function. Its
// header depends on the length, so room for the usual one is left before it.
func appendText(dst []byte, payload func([]byte) []byte) []byte {
	const usual = 4 // for 126 to 65,535 bytes
	start := len(dst)
	dst = append(dst, make([]byte, usual)...)
	dst = payload(dst)
	n := len(dst) - start - usual

	var header [10]byte
	h := appendHeader(header[:0], opText, n)
	if len(h) != usual {
		if len(h) > usual {
			dst = append(dst, make([]byte, len(h)-usual)...)
		}
		copy(dst[start+len(h):], dst[start+usual:start+usual+n])
		dst = dst[:start+len(h)+n]
	}
	copy(dst[start:], h)
	return dst
}
