package wireclient

import (
	"errors"
	"io"

	"github.com/coder/websocket"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/transport"
)

// Drain hands over all that a stream brings, and returns how it ended in the
// words of the contract: nil in good order, a *transport.Refusal if the line was
// refused.
func Drain(s Stream, err error, received func(Item)) error {
	if refused, ok := errors.AsType[*Refused](err); ok {
		return &transport.Refusal{Reason: transport.Reason{Code: refused.Code}}
	}
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		it, err := s.Next()
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case websocket.CloseStatus(err) == 4002:
			return closeRefusal(err)
		case websocket.CloseStatus(err) >= 4000:
			return nil
		case err != nil:
			return err
		}
		received(it)
	}
}

func closeRefusal(err error) error {
	var ce websocket.CloseError
	errors.As(err, &ce)
	return &transport.Refusal{Reason: transport.Reason{Code: ce.Reason, Class: transport.Never}}
}

// HelloFor asks for channels after a position.
func HelloFor(after string, channels ...string) Hello {
	h := Hello{Version: 1, Line: 1}
	for _, name := range channels {
		h.Channels = append(h.Channels, Channel{Channel: name, After: after})
	}
	return h
}

// Tell hands an item over in the words of the conformance suite.
func (it Item) Tell(received func(conformance.Received)) {
	r := conformance.Received{Channel: it.Channel, Position: it.Position, Event: it.Event, Type: it.Type, Data: it.Data}
	if it.JSON {
		r.Data, r.JSON = nil, it.Data
	}
	switch {
	case it.Gap != nil:
		r.From, r.To, r.Reason, r.Position = it.Gap.From, it.Gap.To, it.Gap.Reason, it.Gap.To
	case !it.Event && !it.Opening:
		return
	}
	received(r)
}

// Next implements [Stream]: what the answer holds, and then the positions that
// no item of it has.
func (a *Answer) Next() (Item, error) {
	if !a.listed {
		a.listed = true
		last := map[string]string{}
		for _, it := range a.Items {
			last[it.Channel] = it.Position
			if it.Gap != nil {
				last[it.Channel] = it.Gap.To
			}
		}
		for name, at := range a.Positions {
			if last[name] != at {
				a.Items = append(a.Items, Item{Channel: name, Position: at, Opening: true})
			}
		}
	}
	if len(a.Items) == 0 {
		return Item{}, io.EOF
	}
	it := a.Items[0]
	a.Items = a.Items[1:]
	return it, nil
}

// Close implements [Stream].
func (a *Answer) Close() {}
