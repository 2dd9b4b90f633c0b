package conformance_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// frameFaults are of what is sent beside events, and of the handshake.
var frameFaults = []fault{
	{name: "drops the answer to a hello", fails: "T22", send: dropFrames(transport.FrameOpen)},
	{name: "drops the answer to a poll's hello", fails: "T22", once: true, send: dropFrames(transport.FrameOpen)},
	{name: "forgets the token", fails: "T22", send: editFrames(transport.FrameOpen, func(f *transport.Frame) {
		open := *f.Open
		open.Token = ""
		f.Open = &open
	})},
	{name: "gives the answer to a hello last", fails: "T22", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		late := slices.Clone(items)
		slices.SortStableFunc(late, func(a, b transport.Item) int { return isKind(a, transport.FrameOpen) - isKind(b, transport.FrameOpen) })
		return next.Send(late, deadline)
	}},
	{name: "drops heartbeats", fails: "T23", send: dropFrames(transport.FrameBeat)},
	{name: "drops heartbeats of a WebSocket", fails: "T23", up: true, send: dropFrames(transport.FrameBeat)},
	{name: "drops ends", fails: "T24", send: dropFrames(transport.FrameEnd)},
	{name: "drops ends in polls", fails: "T24", once: true, send: dropFrames(transport.FrameEnd)},
	{name: "forgets the delay of an end", fails: "T24", send: editFrames(transport.FrameEnd, func(f *transport.Frame) { f.Reason.After = 0 })},
	{name: "takes each end for one for ever", fails: "T24", once: true, send: editFrames(transport.FrameEnd, func(f *transport.Frame) { f.Reason.Class = transport.Never })},
	{name: "says goodbye without words", fails: "T25", send: dropFrames(transport.FrameClose)},
	{name: "drops the goodbye of polls", fails: "T25", once: true, send: dropFrames(transport.FrameClose)},
	{name: "forgets the message of a goodbye", fails: "T25", send: editFrames(transport.FrameClose, func(f *transport.Frame) { f.Reason.Message = "" })},
	{name: "rounds the delay of a goodbye", fails: "T25", up: true, send: editFrames(transport.FrameClose, func(f *transport.Frame) { f.Reason.After = f.Reason.After.Truncate(time.Second) })},
	{name: "says goodbye before the last events", fails: "T25 T14 T21 T35", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		early := slices.Clone(items)
		slices.SortStableFunc(early, func(a, b transport.Item) int {
			return isKind(b, transport.FrameClose) - isKind(a, transport.FrameClose)
		})
		return next.Send(early, deadline)
	}},
	{name: "drops presence", fails: "T27", send: dropFrames(transport.FramePresence)},
	{name: "drops presence in polls", fails: "T27", once: true, send: dropFrames(transport.FramePresence)},
	{name: "never asks for fresh credentials", fails: "T27", once: true, send: dropFrames(transport.FrameRefresh)},
	{name: "forgets who left", fails: "T27", send: editFrames(transport.FramePresence, func(f *transport.Frame) {
		p := *f.Presence
		p.Left = nil
		f.Presence = &p
	})},
	{name: "forgets the version of a hello", fails: "T28", attach: editHello(func(_ *transport.Peer, h *transport.Hello) { h.Version = 0 })},
	{name: "sorts the channels of a hello", fails: "T28", attach: editHello(func(_ *transport.Peer, h *transport.Hello) {
		slices.SortFunc(h.Channels, func(a, b transport.Subscription) int { return strings.Compare(a.Channel, b.Channel) })
	})},
	{name: "has all that is not presented begin with the earliest", fails: "T28", once: true, attach: editHello(func(_ *transport.Peer, h *transport.Hello) {
		for i := range h.Channels {
			h.Channels[i].Start.Earliest = h.Channels[i].After.IsZero()
		}
	})},
	{name: "has no name", fails: "T29", attach: editHello(func(p *transport.Peer, _ *transport.Hello) { p.Transport = "" })},
}

// upFaults are of what a client says on its line, and what answers that.
var upFaults = []fault{
	{name: "drops answers to publishes", fails: "T26", up: true, send: dropFrames(transport.FramePublished)},
	{name: "drops answers to calls", fails: "T26", up: true, send: dropFrames(transport.FrameAnswer)},
	{name: "gives answers before events", fails: "T26", up: true, send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		early := slices.Clone(items)
		slices.SortStableFunc(early, func(a, b transport.Item) int {
			return isKind(b, transport.FrameAnswer) - isKind(a, transport.FrameAnswer)
		})
		return next.Send(early, deadline)
	}},
	{name: "takes refused publishes for appended", fails: "T26", up: true, send: editFrames(transport.FramePublished, func(f *transport.Frame) {
		f.Published = slices.Clone(f.Published)
		for i := range f.Published {
			f.Published[i].Refused = nil
		}
	})},
	{name: "loses what follows the hello at once", fails: "T30 T32 T34", up: true, receive: func(s *faultySession, f transport.Frame) error {
		if time.Since(s.began) < time.Millisecond {
			return nil
		}
		return s.next.Receive(f)
	}},
	{name: "swaps a publish and the frame after it", fails: "T30 T31", up: true, receive: func(s *faultySession, f transport.Frame) error {
		if f.Kind == transport.FramePublish {
			s.kept.Store(&f)
			return nil
		}
		err := s.next.Receive(f)
		if kept := s.kept.Swap(nil); kept != nil {
			err = s.next.Receive(*kept)
		}
		return err
	}},
	{name: "forgets the keys of calls", fails: "T30 T31", up: true, receive: func(s *faultySession, f transport.Frame) error {
		if f.Call != nil {
			f.Call.Key = ""
		}
		return s.next.Receive(f)
	}},
	{name: "gives the fifth frame twice", fails: "T30 T31", up: true, receive: func(s *faultySession, f transport.Frame) error {
		if s.count.Add(1) == 5 {
			_ = s.next.Receive(f)
		}
		return s.next.Receive(f)
	}},
	{name: "reads only between Sends", fails: "T31", up: true, receive: func(s *faultySession, f transport.Frame) error {
		s.conn.busy <- struct{}{}
		defer func() { <-s.conn.busy }()
		return s.next.Receive(f)
	}},
	{name: "takes frames of any size", fails: "T32", up: true, maxFrame: 1 << 30},
	{name: "takes frames one byte too long", fails: "T32", up: true, maxFrame: 64<<10 + 1},
	{name: "takes no frame of the largest size", fails: "T32", up: true, maxFrame: 64<<10 - 1},
	{name: "passes over what it can't read", fails: "T32 T33", up: true, receive: func(s *faultySession, f transport.Frame) error {
		if f.Kind == transport.FrameClose {
			return nil
		}
		return s.next.Receive(f)
	}},
	{name: "leaves when it can't read a frame", fails: "T32 T33", up: true, receive: func(s *faultySession, f transport.Frame) error {
		err := s.next.Receive(f)
		if f.Kind == transport.FrameClose {
			s.next.Detach(errors.New("bad frame"))
		}
		return err
	}},
	{name: "breaks off when it can't read a frame", fails: "T32 T33", up: true, receive: func(s *faultySession, f transport.Frame) error {
		err := s.next.Receive(f)
		if f.Kind == transport.FrameClose {
			s.conn.next.Close(f.Reason)
		}
		return err
	}},
	{name: "calls all that it refuses busy", fails: "T32 T33", up: true, receive: func(s *faultySession, f transport.Frame) error {
		if f.Kind == transport.FrameClose {
			f.Reason.Code = transport.CodeBusy
		}
		return s.next.Receive(f)
	}},
	{name: "breaks off when Receive fails", fails: "T34", up: true, receive: func(s *faultySession, f transport.Frame) error {
		err := s.next.Receive(f)
		if err != nil {
			s.conn.next.Close(transport.Reason{Code: transport.CodeBroken})
		}
		return err
	}},
	{name: "goes on after Receive has failed", fails: "T34", up: true, receive: func(s *faultySession, f transport.Frame) error {
		_ = s.next.Receive(f)
		return nil
	}},
}

// lateFaults are of what outlives a line or a Send.
var lateFaults = []fault{
	{name: "sets the reader's deadline after its handler returned", fails: "T35", once: true, late: func(w http.ResponseWriter) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}},
	{name: "sets the writer's deadline after its handler returned", fails: "T35", once: true, late: func(w http.ResponseWriter) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
	}},
	{name: "hijacks after its handler returned", fails: "T35 T12 T19", once: true, late: func(w http.ResponseWriter) {
		if raw, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = raw.Close()
		}
	}},
	{name: "leaves its Send's deadline to pass", fails: "T36", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		if wait := time.Until(deadline); wait > 0 {
			time.AfterFunc(wait, func() { next.Close(transport.Reason{Code: transport.CodeSlowConsumer}) })
		}
		return next.Send(items, deadline)
	}},
	{name: "leaves a reader's deadline to a request that waits", fails: "T09 T17", once: true, attach: func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		_ = http.NewResponseController(c.request.w).SetReadDeadline(time.Now().Add(10 * time.Second))
		return next.Attach(context.Background(), peer, hello, c)
	}},
	{name: "leaves a timer that breaks the connection", fails: "T37", once: true, served: func(w http.ResponseWriter) {
		time.AfterFunc(10*time.Second, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })
	}},
}

// isKind is 1 for a frame of a kind, to sort by.
func isKind(item transport.Item, kind transport.FrameKind) int {
	if item.Frame != nil && item.Frame.Kind == kind {
		return 1
	}
	return 0
}

// editFrames changes copies of frames of a kind.
func editFrames(kind transport.FrameKind, edit func(*transport.Frame)) func(transport.Conn, []transport.Item, time.Time) (bool, error) {
	return func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		items = slices.Clone(items)
		for i, item := range items {
			if isKind(item, kind) == 1 {
				f := item.Frame
				items[i].Frame = &transport.Frame{
					Kind: f.Kind, Channel: f.Channel, Open: f.Open, Reason: f.Reason,
					Published: f.Published, Presence: f.Presence,
				}
				edit(items[i].Frame)
			}
		}
		return next.Send(items, deadline)
	}
}

func editHello(edit func(*transport.Peer, *transport.Hello)) func(transport.Engine, *faultyConn, transport.Peer, transport.Hello) (transport.Session, error) {
	return func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		edit(&peer, &hello)
		return next.Attach(context.Background(), peer, hello, c)
	}
}

// TestLeftBehind: a goroutine that never ends is a failure with its stack, and
// not the end of all tests.
func TestLeftBehind(t *testing.T) {
	failures, _ := conformance.TryTransport(t, "T02_Opening", transportWith(fault{attach: func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		go func() { <-make(chan struct{}) }()
		return next.Attach(context.Background(), peer, hello, c)
	}}))
	if text := strings.Join(failures, "\n"); !strings.Contains(text, "left behind") || !strings.Contains(text, "TestLeftBehind.func1") {
		t.Errorf("a goroutine was left, and the suite said %q", text)
	}
}

// TestFailuresNameWhatDiffers: what was sent, what came instead, and what may be
// the cause.
func TestFailuresNameWhatDiffers(t *testing.T) {
	changed := editEvents(func(list []eventlog.Event) []eventlog.Event {
		for i := range list {
			list[i].Data = []byte(strings.Replace(string(list[i].Data), "xx", "x", 1))
			list[i].Data = []byte(strings.Replace(string(list[i].Data), "b1", "b2", 1))
		}
		return list
	})
	for _, c := range []struct {
		id   string
		f    fault
		says []string
	}{
		{"T03_Payloads", fault{send: changed}, []string{"another payload", "type.13", "70000 bytes", `xxx`, "came"}},
		{"T20_Channels", fault{send: changed}, []string{"another payload", `of "b"`, `"b1"`, `"b2"`}},
		{"T19_SharedUnchanged", faultNamed(t, "changes what is shared"), []string{"line 1 of 3", `"one"`, "pne"}},
		{"T02_Opening", fault{send: func(transport.Conn, []transport.Item, time.Time) (bool, error) { return true, nil }}, []string{"1m0s (fake time)", "sent was", "awaited is", "flush", `"channel":"room"`}},
		{"T02_Opening", fault{attach: func(transport.Engine, *faultyConn, transport.Peer, transport.Hello) (transport.Session, error) {
			return nil, transport.Refuse("my_code", "my words")
		}}, []string{"no Attach", "my words"}},
		{"T21_CutAnywhere", faultNamed(t, "drops the last of a run"), []string{"already without a cut", "of 4 events"}},
	} {
		failures, _ := conformance.TryTransport(t, c.id, transportWith(c.f))
		text := strings.Join(failures, "\n")
		for _, want := range c.says {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q doesn't say %q", c.id, text, want)
			}
		}
		if len(text) > 2000 {
			t.Errorf("%s: a failure of %d bytes", c.id, len(text))
		}
	}
}

func faultNamed(t *testing.T, name string) fault {
	i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
	if i < 0 {
		t.Fatalf("no fault is named %q", name)
	}
	return faults[i]
}
