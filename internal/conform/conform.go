// Package conform has the plain clients of internal/wireclient speak the words of
// the conformance suite for transports.
package conform

import (
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/transport"
)

// Drain hands over all that a stream brings, and returns how it ended in the
// words of the contract: nil in good order, a *transport.Refusal if the line was
// refused.
func Drain(s wireclient.Stream, err error, received func(conformance.Received)) error {
	if refused, ok := errors.AsType[*wireclient.Refused](err); ok {
		return &transport.Refusal{Reason: reason(&refused.Reason)}
	}
	if err != nil {
		return err
	}
	defer s.Close()
	next := s.Next
	if a, ok := s.(*wireclient.Answer); ok {
		next = whole(a)
	}
	for first := true; ; first = false {
		it, err := next()
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case websocket.CloseStatus(err) == 4002 && first:
			return closeRefusal(err)
		case websocket.CloseStatus(err) >= 4000:
			return nil
		case err != nil:
			return err
		case it.Close != nil && first:
			return &transport.Refusal{Reason: reason(it.Close)}
		}
		tell(it, received)
	}
}

// Say says what comes through a channel, until that closes.
func Say(s *wireclient.WSStream, up <-chan []byte) {
	for frame := range up {
		if s.Send(frame) != nil {
			return
		}
	}
}

// whole returns all of an answer item by item: an answer keeps its open and its
// goodbye apart.
func whole(a *wireclient.Answer) func() (wireclient.Item, error) {
	open := a.Open
	return func() (wireclient.Item, error) {
		if open != nil {
			it := wireclient.Item{Open: open}
			open = nil
			return it, nil
		}
		it, err := a.Next()
		if err != nil && a.Goodbye != nil {
			it = wireclient.Item{Close: a.Goodbye}
			a.Goodbye, err = nil, nil
		}
		return it, err
	}
}

func closeRefusal(err error) error {
	var ce websocket.CloseError
	errors.As(err, &ce)
	return &transport.Refusal{Reason: transport.Reason{Code: ce.Reason, Class: transport.Never}}
}

// tell hands an item over.
func tell(it wireclient.Item, received func(conformance.Received)) {
	r := conformance.Received{Channel: it.Channel, Position: it.Position, Event: it.Event, Type: it.Type, Data: it.Data}
	if it.JSON {
		r.Data, r.JSON = nil, it.Data
	}
	if it.Gap != nil {
		r.From, r.To, r.Reason, r.Position = it.Gap.From, it.Gap.To, it.Gap.Reason, it.Gap.To
	} else if !it.Event && !it.Opening {
		r.Frame = frame(it)
	}
	received(r)
}

func frame(it wireclient.Item) *transport.Frame {
	f := &transport.Frame{Channel: it.Channel}
	switch {
	case it.Open != nil:
		o := it.Open
		f.Kind = transport.FrameOpen
		f.Open = &transport.Open{Line: o.Line, Heartbeat: milliseconds(o.Heartbeat), Remembered: milliseconds(o.Remembered), Limit: o.Limit, Token: o.Token}
	case it.End != nil:
		f.Kind, f.Reason = transport.FrameEnd, reason(it.End)
	case it.Close != nil:
		f.Kind, f.Reason = transport.FrameClose, reason(it.Close)
	case it.Published != nil:
		f.Kind = transport.FramePublished
		for _, o := range it.Published {
			at, _ := eventlog.ParsePosition(o.Position) // one that can't be read differs from any
			f.Published = append(f.Published, transport.Published{Seq: o.Seq, At: at, Duplicate: o.Duplicate, Tried: o.Tried, Refused: refusal(o.Error), Retry: refusal(o.Retry)})
		}
	case it.Reply != nil:
		f.Kind = transport.FrameAnswer
		f.Answer = &transport.Answer{ID: it.Reply.ID, Payload: payload(it.Reply), Refused: refusal(it.Reply.Error)}
	case it.Presence != nil:
		p := it.Presence
		f.Kind = transport.FramePresence
		f.Presence = &transport.Presence{Version: p.Version, Total: p.Total, Members: members(p.Members), Joined: members(p.Joined), Left: p.Left, Refused: refusal(p.End)}
	case it.Refresh != nil:
		f.Kind, f.Left = transport.FrameRefresh, milliseconds(it.Refresh.Left)
	default:
		f.Kind = transport.FrameBeat
	}
	return f
}

func payload(r *wireclient.Reply) transport.Payload {
	if r.Encoding != "base64" {
		return transport.Payload{Data: r.Data}
	}
	var data []byte
	_ = json.Unmarshal(r.Data, &data) // what can't be read differs from any
	return transport.Payload{Kind: eventlog.Binary, Data: data}
}

func members(list []wireclient.Member) (same []transport.Member) {
	if list != nil {
		same = []transport.Member{}
	}
	for _, m := range list {
		same = append(same, transport.Member(m))
	}
	return same
}

func reason(r *wireclient.Reason) transport.Reason {
	classes := map[string]transport.Class{"now": transport.Now, "later": transport.Later}
	return transport.Reason{Code: r.Code, Class: classes[r.Class], After: milliseconds(r.After), Message: r.Message}
}

func refusal(r *wireclient.Reason) *transport.Refusal {
	if r == nil {
		return nil
	}
	return &transport.Refusal{Reason: reason(r)}
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
