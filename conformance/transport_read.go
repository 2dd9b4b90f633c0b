package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// ParseReceived reads what came over a line, if that is one of the JSON objects
// of PROTOCOL.md, sections 2, 6, 9 and 10. Members that it doesn't know it
// ignores. The error is a *transport.Refusal if the object is {"error": …}
// (P8.1), and else says why the text is none of them.
func ParseReceived(text []byte) (Received, error) {
	var w wireDown
	if err := json.Unmarshal(text, &w); err != nil {
		return Received{}, fmt.Errorf("conformance: what came is no frame: %w: %s", err, shorten(string(text)))
	}
	if w.Error != nil {
		return Received{}, &transport.Refusal{Reason: w.Error.reason()}
	}
	r := Received{Channel: w.Channel, Position: w.Position, Type: w.Type}
	switch {
	case w.Data != nil:
		r.Event = true
		if w.Encoding == "" {
			r.JSON = w.Data
			return r, nil
		}
		payload, err := w.payload()
		r.Data = payload.Data
		return r, err
	case w.Gap != nil:
		r.From, r.To, r.Reason, r.Position = w.Gap.From, w.Gap.To, w.Gap.Reason, w.Gap.To
		return r, nil
	case w.Position != "":
		return r, nil
	}
	f, err := w.frame()
	return Received{Channel: w.Channel, Frame: f}, err
}

// wireDown is any object that comes down.
type wireDown struct {
	Channel, Position, Type string
	wireData
	Gap        *struct{ From, To, Reason string }
	Open       *wireOpen
	End, Close *wireReason
	Error      *wireReason
	Published  []wirePublished
	Answer     *wireAnswer
	Presence   *wirePresence
	Refresh    *struct{ Left int64 }
}

type (
	wireData struct {
		Encoding string
		Data     json.RawMessage
	}
	wireReason struct {
		Code, Class, Message string
		After                int64
	}
	wireOpen struct {
		Line                         uint64
		Heartbeat, Remembered, Limit int64
		Token                        string
	}
	wirePublished struct {
		Seq              uint64
		Position         string
		Duplicate, Tried bool
		Error, Retry     *wireReason
	}
	wireAnswer struct {
		ID uint64
		wireData
		Error *wireReason
	}
	wirePresence struct {
		Version         string
		Total           int
		Members, Joined []transport.Member
		Left            []string
		End             *wireReason
	}
)

func (w *wireDown) frame() (f *transport.Frame, err error) {
	f = &transport.Frame{Channel: w.Channel}
	switch {
	case w.Open != nil:
		f.Kind, f.Open = transport.FrameOpen, w.Open.open()
	case w.End != nil:
		f.Kind, f.Reason = transport.FrameEnd, w.End.reason()
	case w.Close != nil:
		f.Kind, f.Reason = transport.FrameClose, w.Close.reason()
	case w.Published != nil:
		f.Kind = transport.FramePublished
		f.Published, err = publishedOf(w.Published)
	case w.Answer != nil:
		f.Kind = transport.FrameAnswer
		f.Answer = &transport.Answer{ID: w.Answer.ID, Refused: w.Answer.Error.refusal()}
		if w.Answer.Error == nil {
			f.Answer.Payload, err = w.Answer.payload()
		}
	case w.Presence != nil:
		p := w.Presence
		f.Kind = transport.FramePresence
		f.Presence = &transport.Presence{Version: p.Version, Total: p.Total, Members: p.Members, Joined: p.Joined, Left: p.Left, Refused: p.End.refusal()}
	case w.Refresh != nil:
		f.Kind, f.Left = transport.FrameRefresh, milliseconds(w.Refresh.Left)
	default:
		f.Kind = transport.FrameBeat
	}
	return f, err
}

func (w *wireOpen) open() *transport.Open {
	return &transport.Open{Line: w.Line, Heartbeat: milliseconds(w.Heartbeat), Remembered: milliseconds(w.Remembered), Limit: w.Limit, Token: w.Token}
}

func publishedOf(list []wirePublished) (entries []transport.Published, err error) {
	for _, w := range list {
		p := transport.Published{Seq: w.Seq, Duplicate: w.Duplicate, Tried: w.Tried, Refused: w.Error.refusal(), Retry: w.Retry.refusal()}
		if w.Position != "" {
			if p.At, err = eventlog.ParsePosition(w.Position); err != nil {
				return nil, err
			}
		}
		entries = append(entries, p)
	}
	return entries, nil
}

func (w *wireData) payload() (transport.Payload, error) {
	if w.Encoding == "" {
		return transport.Payload{Kind: eventlog.JSON, Data: w.Data}, nil
	}
	var text string
	if err := json.Unmarshal(w.Data, &text); err != nil || w.Encoding != "base64" {
		return transport.Payload{}, fmt.Errorf("conformance: the encoding %q of %s is not base64 of a string", w.Encoding, shorten(string(w.Data)))
	}
	data, err := base64.StdEncoding.DecodeString(text)
	return transport.Payload{Kind: eventlog.Binary, Data: data}, err
}

func (w *wireReason) reason() transport.Reason {
	classes := map[string]transport.Class{"now": transport.Now, "later": transport.Later}
	return transport.Reason{Code: w.Code, Class: classes[w.Class], After: milliseconds(w.After), Message: w.Message}
}

// refusal returns nil if there is none.
func (w *wireReason) refusal() *transport.Refusal {
	if w == nil {
		return nil
	}
	return &transport.Refusal{Reason: w.reason()}
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
