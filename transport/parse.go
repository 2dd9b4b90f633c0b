package transport

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
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
	if t, ok := strings.CutPrefix(text, "since="); ok {
		ms, err := strconv.ParseInt(t, 10, 64)
		if err != nil || ms < 0 || ms > maxTime {
			return eventlog.Position{}, eventlog.Start{}, Refuse(CodeBadPosition, "since=T takes milliseconds since 1970")
		}
		return eventlog.Position{}, eventlog.Start{Since: time.UnixMilli(ms)}, nil
	}
	if len(text) > eventlog.MaxPositionText {
		return eventlog.Position{}, eventlog.Start{}, Refuse(CodeBadPosition, "a position has at most %d characters, not %d", eventlog.MaxPositionText, len(text))
	}
	p, err := eventlog.ParsePosition(text)
	if err != nil {
		return eventlog.Position{}, eventlog.Start{}, Refuse(CodeBadPosition,
			"%.40q is neither a position nor one of latest, earliest, last=N, since=T", text)
	}
	return p, eventlog.Start{}, nil
}

// wireSubscription is a channel as hello and subscribe name it.
type wireSubscription struct {
	Channel string       `json:"channel"`
	After   string       `json:"after"`
	Paused  bool         `json:"paused"`
	Filter  filterMember `json:"filter"`
}

// A filterMember is a filter, or none. One of another form is noted, so that it is
// refused for its channel alone.
type filterMember struct{ v *wireFilter }

// noFilter stands for one of another form.
var noFilter = new(wireFilter)

// UnmarshalJSON implements [json.Unmarshaler].
func (m *filterMember) UnmarshalJSON(text []byte) error {
	m.v = nil
	if json.Unmarshal(text, &m.v) != nil {
		m.v = noFilter
	}
	return nil
}

// parse reads a filter, or none. The error is a *Refusal.
func (m *filterMember) parse() (*eventlog.Filter, error) {
	if m.v == noFilter {
		return nil, Refuse(CodeBadRequest, `a filter is an object of lists of strings: {"types": […], "tags": […], "keys": […]}`)
	}
	return m.v.parse()
}

// wireFilter says which events are wanted (PROTOCOL P2.9).
type wireFilter struct {
	Types list[string] `json:"types"`
	Tags  list[string] `json:"tags"`
	Keys  list[string] `json:"keys"`
}

// parse reads a filter, or none. The error is a *Refusal.
func (w *wireFilter) parse() (*eventlog.Filter, error) {
	if w == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	f := &eventlog.Filter{Types: w.Types, Tags: w.Tags, Keys: w.Keys}
	if err := f.Check(); err != nil {
		return nil, Refuse(CodeBadRequest, "%v", err)
	}
	if f.IsZero() {
		return nil, nil //nolint:nilnil // the same
	}
	return f, nil
}

// wireUp is any frame of a client: exactly one member is set, and beside it the
// head, if the frame came by a request.
type wireUp struct {
	Up          json.RawMessage        `json:"up"`
	Hello       json.RawMessage        `json:"hello"`
	Subscribe   list[wireSubscription] `json:"subscribe"`
	Unsubscribe list[string]           `json:"unsubscribe"`
	Pause       list[string]           `json:"pause"`
	Presence    list[wireWatch]        `json:"presence"`
	Publish     object[wirePublish]    `json:"publish"`
	Call        object[wireCall]       `json:"call"`
	History     object[wireHistory]    `json:"history"`
	Credentials *string                `json:"credentials"`
	Close       object[wireClose]      `json:"close"`
}

type wireHello struct {
	Token    string                 `json:"token"`
	Line     uint64                 `json:"line"`
	Probe    bool                   `json:"probe"`
	Channels list[wireSubscription] `json:"channels"`
	Presence list[wireWatch]        `json:"presence"`
}

type wireWatch struct {
	Channel string `json:"channel"`
	Seen    string `json:"seen"`
}

type wireClose struct {
	Line uint64 `json:"line"`
}

// Up is one frame of a client: a hello or, on a line that has begun, another
// frame.
type Up struct {
	Hello *Hello
	Frame *Frame
}

// ParseUp reads one frame of a client on its line (PROTOCOL §§6, 9, 10). The
// error is a *Refusal.
func ParseUp(text []byte) (Up, error) {
	var w wireUp
	if err := decode(text, &w); err != nil {
		return Up{}, err
	}
	switch {
	case w.Up != nil:
		return Up{}, Refuse(CodeBadRequest, "up is for requests, not for a line")
	case w.Hello != nil && w.members() == 1:
		h, err := parseHello(w.Hello)
		return Up{Hello: h}, err
	}
	f, err := w.frame()
	return Up{Frame: f}, err
}

// ParseUpstream reads the body of a request that brings one frame up (PROTOCOL
// P9.1). The error is a *Refusal.
func ParseUpstream(text []byte) (Upstream, error) {
	var first struct {
		Up json.RawMessage `json:"up"`
	}
	if err := decode(text, &first); err != nil {
		return Upstream{}, err
	}
	if first.Up == nil {
		return Upstream{}, Refuse(CodeBadRequest, "a head is missing: %s", `"up":{"version":1,"token":"…"}`)
	}
	version, err := parseVersion(first.Up)
	if err != nil {
		return Upstream{}, err
	}
	var head struct {
		Token string `json:"token"`
	}
	if err := decode(first.Up, &head); err != nil {
		return Upstream{}, err
	}
	var w wireUp
	if err := decode(text, &w); err != nil {
		return Upstream{}, err
	}
	f, err := w.frame()
	if err != nil {
		return Upstream{}, err
	}
	switch f.Kind {
	case FramePublish, FrameCall, FrameHistory, FrameGoodbye:
	default:
		return Upstream{}, Refuse(CodeBadRequest, "a request takes one of publish, call, history, close")
	}
	return Upstream{Version: version, Token: head.Token, Frame: *f}, nil
}

// members counts what is set.
func (w *wireUp) members() (n int) {
	for _, set := range []bool{
		w.Hello != nil, w.Subscribe != nil, w.Unsubscribe != nil, w.Pause != nil,
		w.Presence != nil, w.Publish.v != nil, w.Call.v != nil, w.History.v != nil, w.Credentials != nil, w.Close.v != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// frame returns what is set, which is no hello.
func (w *wireUp) frame() (*Frame, error) {
	if w.members() != 1 || w.Hello != nil {
		return nil, Refuse(CodeBadRequest, "a frame has exactly one of hello, subscribe, unsubscribe, pause, presence, publish, call, history, credentials, close")
	}
	switch {
	case w.Subscribe != nil:
		subs, err := subscriptions(w.Subscribe)
		return &Frame{Kind: FrameSubscribe, Channels: subs}, err
	case w.Unsubscribe != nil:
		return &Frame{Kind: FrameUnsubscribe, Names: w.Unsubscribe}, nil
	case w.Pause != nil:
		return &Frame{Kind: FramePause, Names: w.Pause}, nil
	case w.Presence != nil:
		watches, err := watches(w.Presence)
		return &Frame{Kind: FrameWatch, Watches: watches}, err
	case w.Publish.v != nil:
		p, err := w.Publish.v.parse()
		return &Frame{Kind: FramePublish, Publish: p}, err
	case w.Call.v != nil:
		c, err := w.Call.v.parse()
		return &Frame{Kind: FrameCall, Call: c}, err
	case w.History.v != nil:
		q, err := w.History.v.parse()
		return &Frame{Kind: FrameHistory, History: &q}, err
	case w.Credentials != nil:
		if *w.Credentials == "" {
			return nil, Refuse(CodeBadRequest, "credentials are empty")
		}
		return &Frame{Kind: FrameCredentials, Credentials: *w.Credentials}, nil
	default:
		return &Frame{Kind: FrameGoodbye, Line: w.Close.v.Line}, nil
	}
}

// parseVersion looks at the version before anything else: in another one, all
// of it may mean something else (PROTOCOL P11.1).
func parseVersion(text json.RawMessage) (int, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := decode(text, &v); err != nil {
		return 0, err
	}
	if v.Version != Version {
		return 0, Refuse(CodeBadVersion, "version %d is not spoken here", v.Version)
	}
	return v.Version, nil
}

func parseHello(text json.RawMessage) (*Hello, error) {
	version, err := parseVersion(text)
	if err != nil {
		return nil, err
	}
	var w wireHello
	if err := decode(text, &w); err != nil {
		return nil, err
	}
	if w.Probe && len(w.Channels)+len(w.Presence) > 0 {
		return nil, Refuse(CodeBadRequest, "a probe has no channels")
	}
	channels, err := subscriptions(w.Channels)
	if err != nil {
		return nil, err
	}
	presence, err := watches(w.Presence)
	return &Hello{Version: version, Token: w.Token, Line: w.Line, Probe: w.Probe, Channels: channels, Presence: presence}, err
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
	err := json.Unmarshal(text, into)
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if err != nil {
		return Refuse(CodeBadRequest, "the frame can't be read: %.200s", err)
	}
	return nil
}

func subscriptions(wire []wireSubscription) ([]Subscription, error) {
	subs := make([]Subscription, 0, min(len(wire), usualList))
	seen := make(map[string]bool)
	for _, w := range wire {
		if seen[w.Channel] {
			return nil, Refuse(CodeBadRequest, "channel %.40q is named twice", w.Channel)
		}
		seen[w.Channel] = true
		after, start, err := ParseAfter(w.After)
		filter, wrong := w.Filter.parse()
		bad, _ := errors.AsType[*Refusal](errors.Join(err, wrong))
		subs = append(subs, Subscription{Channel: w.Channel, After: after, Start: start, Filter: filter, Paused: w.Paused, Bad: bad})
	}
	return subs, nil
}

func watches(wire []wireWatch) ([]Watch, error) {
	list := make([]Watch, 0, min(len(wire), usualList))
	seen := make(map[string]bool)
	for _, w := range wire {
		if seen[w.Channel] {
			return nil, Refuse(CodeBadRequest, "the presence of %.40q is asked for twice", w.Channel)
		}
		seen[w.Channel] = true
		list = append(list, Watch(w))
	}
	return list, nil
}
