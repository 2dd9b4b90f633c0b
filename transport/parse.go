package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/throughline/throughline/eventlog"
)

// maxLast bounds "last=N" (PROTOCOL P1.3).
const maxLast = 10_000

// ParseAfter reads what PROTOCOL P1.3 allows wherever a request says where to
// begin. The error is a *Refusal with bad_position.
func ParseAfter(text string) (eventlog.Position, eventlog.Start, error) {
	switch text {
	case "", "latest":
		return eventlog.Position{}, eventlog.Start{}, nil
	case "earliest":
		return eventlog.Position{}, eventlog.Start{Earliest: true}, nil
	}
	if n, ok := strings.CutPrefix(text, "last="); ok {
		last, err := strconv.Atoi(n)
		if err != nil || last < 1 || last > maxLast {
			return eventlog.Position{}, eventlog.Start{}, Refuse(CodeBadPosition, "last=N takes a number from 1 to %d", maxLast)
		}
		return eventlog.Position{}, eventlog.Start{Last: last}, nil
	}
	p, err := eventlog.ParsePosition(text)
	if err != nil {
		return eventlog.Position{}, eventlog.Start{}, Refuse(CodeBadPosition,
			"%.40q is neither a position nor one of latest, earliest, last=N", text)
	}
	return p, eventlog.Start{}, nil
}

// wireSubscription is a channel as hello and subscribe name it.
type wireSubscription struct {
	Channel string `json:"channel"`
	After   string `json:"after"`
}

// wireUp is any frame of a client: exactly one member is set.
type wireUp struct {
	Hello       json.RawMessage    `json:"hello"`
	Subscribe   []wireSubscription `json:"subscribe"`
	Unsubscribe []string           `json:"unsubscribe"`
}

type wireHello struct {
	Token    string             `json:"token"`
	Line     uint64             `json:"line"`
	Probe    bool               `json:"probe"`
	Channels []wireSubscription `json:"channels"`
}

// Up is one frame of a client: a hello or, on a line that has begun, another
// frame.
type Up struct {
	Hello *Hello
	Frame *Frame
}

// ParseUp reads one frame of a client (PROTOCOL P6.1, P6.10). The error is a
// *Refusal.
func ParseUp(text []byte) (Up, error) {
	var w wireUp
	if err := decode(text, &w); err != nil {
		return Up{}, err
	}
	switch {
	case w.Hello != nil && w.Subscribe == nil && w.Unsubscribe == nil:
		h, err := parseHello(w.Hello)
		return Up{Hello: h}, err
	case w.Subscribe != nil && w.Hello == nil && w.Unsubscribe == nil:
		subs, err := subscriptions(w.Subscribe)
		return Up{Frame: &Frame{Kind: FrameSubscribe, Channels: subs}}, err
	case w.Unsubscribe != nil && w.Hello == nil && w.Subscribe == nil:
		return Up{Frame: &Frame{Kind: FrameUnsubscribe, Names: w.Unsubscribe}}, nil
	}
	return Up{}, Refuse(CodeBadRequest, "a frame has exactly one of hello, subscribe, unsubscribe")
}

// parseHello looks at the version first: in another one, everything else may
// mean something else.
func parseHello(text json.RawMessage) (*Hello, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := decode(text, &v); err != nil {
		return nil, err
	}
	if v.Version != Version {
		return nil, Refuse(CodeBadVersion, "version %d is not spoken here", v.Version)
	}
	var w wireHello
	if err := decode(text, &w); err != nil {
		return nil, err
	}
	if w.Probe && len(w.Channels) > 0 {
		return nil, Refuse(CodeBadRequest, "a probe has no channels")
	}
	channels, err := subscriptions(w.Channels)
	return &Hello{Version: v.Version, Token: w.Token, Line: w.Line, Probe: w.Probe, Channels: channels}, err
}

// ParseHello reads a frame that must be a hello.
func ParseHello(text []byte) (Hello, error) {
	up, err := ParseUp(text)
	if err != nil {
		return Hello{}, err
	}
	if up.Hello == nil {
		return Hello{}, Refuse(CodeBadRequest, "the first frame of a line is a hello")
	}
	return *up.Hello, nil
}

func decode(text []byte, into any) error {
	if !utf8.Valid(text) {
		return Refuse(CodeBadRequest, "the frame is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(into); err != nil {
		return Refuse(CodeBadRequest, "the frame can't be read: %.200s", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Refuse(CodeBadRequest, "something follows the frame")
	}
	return nil
}

func subscriptions(wire []wireSubscription) ([]Subscription, error) {
	subs := make([]Subscription, 0, len(wire))
	seen := make(map[string]bool, len(wire))
	for _, w := range wire {
		if seen[w.Channel] {
			return nil, Refuse(CodeBadRequest, "channel %.40q is named twice", w.Channel)
		}
		seen[w.Channel] = true
		after, start, err := ParseAfter(w.After)
		bad, _ := errors.AsType[*Refusal](err)
		subs = append(subs, Subscription{Channel: w.Channel, After: after, Start: start, Bad: bad})
	}
	return subs, nil
}
