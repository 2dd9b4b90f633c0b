package sse

import (
	"bytes"
	"encoding/base64"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A plainCodec writes blocks for EventSource (PROTOCOL §3).
type plainCodec struct {
	// vector: the conn puts the id and the end of each block in, as they
	// depend on all the channels of a stream.
	vector bool
	// named: blocks have the event's type (events=named).
	named bool
	// object: data is the JSON object of an event (as=event).
	object bool
}

func (c plainCodec) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	if c.named && e.Type != eventlog.DefaultType {
		dst = append(dst, "event: "...)
		dst = append(dst, e.Type...)
		dst = append(dst, '\n')
	}
	if c.object {
		dst = append(dst, "data: "...)
		dst = transport.AppendEventJSON(dst, channel, e)
		dst = append(dst, '\n')
	} else {
		dst = appendData(dst, e)
	}
	return c.endBlock(dst, e.At)
}

// endBlock appends the id and the end of a block, unless the conn will.
func (c plainCodec) endBlock(dst []byte, at eventlog.Position) []byte {
	if c.vector {
		return dst
	}
	dst = append(dst, "id: "...)
	dst = at.Append(dst)
	return append(dst, "\n\n"...)
}

// AppendFrame writes the frames that are the same for all: what depends on the
// connection (retry, goodbye) the conn writes itself.
func (c plainCodec) AppendFrame(dst []byte, f *transport.Frame) []byte {
	switch f.Kind {
	case transport.FrameOpening:
		return c.endBlock(dst, f.At)
	case transport.FrameGap:
		dst = append(dst, "event: throughline.gap\ndata: "...)
		dst = transport.AppendFrameJSON(dst, f)
		dst = append(dst, '\n')
		return c.endBlock(dst, f.Lost.To)
	case transport.FrameBeat:
		return append(dst, ":\n\n"...)
	}
	return dst
}

const dataURL = "data:;base64,"

// appendData writes a payload as it was published, or as a data URL if that
// can't be (PROTOCOL P3.4, P3.5).
func appendData(dst []byte, e *eventlog.Event) []byte {
	data := e.Data
	if e.Kind == eventlog.Binary || bytes.IndexByte(data, '\r') >= 0 || bytes.HasPrefix(data, []byte(dataURL)) {
		dst = append(dst, "data: "+dataURL...)
		dst = base64.StdEncoding.AppendEncode(dst, data)
		return append(dst, '\n')
	}
	for {
		line, rest, more := bytes.Cut(data, []byte{'\n'})
		dst = append(dst, "data: "...)
		dst = append(dst, line...)
		dst = append(dst, '\n')
		if !more {
			return dst
		}
		data = rest
	}
}

// A sessionCodec writes each frame as one block of data (PROTOCOL P6.4).
type sessionCodec struct{}

func (sessionCodec) AppendEvent(dst []byte, channel string, e *eventlog.Event) []byte {
	dst = append(dst, "data: "...)
	dst = transport.AppendEventJSON(dst, channel, e)
	return append(dst, "\n\n"...)
}

func (sessionCodec) AppendFrame(dst []byte, f *transport.Frame) []byte {
	dst = append(dst, "data: "...)
	dst = transport.AppendFrameJSON(dst, f)
	return append(dst, "\n\n"...)
}
