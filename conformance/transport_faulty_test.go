package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
)

// A fault breaks a transport in one way. The suite has to notice.
type fault struct {
	name   string
	clause string // the one that has to fail
	once   bool   // of a long-poll; else of a stream

	send     func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error)
	close    func(next transport.Conn, nth int32, why transport.Reason)
	attach   func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error)
	detach   func(next transport.Session, err error)
	done     func(next transport.Session) <-chan struct{}
	response func(block []byte) []byte
}

var faults = []fault{
	{name: "hides refusals", clause: "T01_Refusal", attach: func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		s, err := next.Attach(context.Background(), peer, hello, c)
		if err != nil {
			err = errors.New("something else")
		}
		return s, err
	}},
	{name: "drops openings", clause: "T02_Opening", send: dropFrames(transport.FrameOpening)},
	{name: "rewrites line ends", clause: "T03_Payloads", send: editEvents(func(list []eventlog.Event) []eventlog.Event {
		for i := range list {
			list[i].Data = bytes.ReplaceAll(list[i].Data, []byte("\r"), nil)
		}
		return list
	})},
	{name: "drops the last of a run", clause: "T04_Order", send: editEvents(func(list []eventlog.Event) []eventlog.Event {
		return list[:max(1, len(list)-1)]
	})},
	{name: "sends everything twice", clause: "T04_Order", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		return next.Send(append(items, items...), deadline)
	}},
	{name: "drops gaps", clause: "T05_Gap", send: dropFrames(transport.FrameGap)},
	{name: "drops gaps in polls", clause: "T05_Gap", once: true, send: dropFrames(transport.FrameGap)},
	{name: "drops runs without events", clause: "T06_PositionMoves", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		var rest []transport.Item
		for _, item := range items {
			if item.Run == nil || len(item.Run.Events) > 0 {
				rest = append(rest, item)
			}
		}
		return next.Send(rest, deadline)
	}},
	{name: "is not ready before Attach returns", clause: "T07_SendBeforeAttachReturns", attach: func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		c.broken.Store(true)
		s, err := next.Attach(context.Background(), peer, hello, c)
		c.broken.Store(false)
		return s, err
	}},
	{name: "returns before Done", clause: "T08_HandlerWaitsForDone", done: func(transport.Session) <-chan struct{} {
		closed := make(chan struct{})
		close(closed)
		return closed
	}},
	{name: "does not notice that the client left", clause: "T09_DetachWhenClientLeaves", detach: func(transport.Session, error) {}},
	{name: "ignores the deadline", clause: "T10_Deadline", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		return next.Send(items, deadline.Add(time.Minute))
	}},
	{name: "ignores Close", clause: "T11_CloseFreesSend", close: func(transport.Conn, int32, transport.Reason) {}},
	{name: "blocks in a second Close", clause: "T12_CloseAnytime", close: func(next transport.Conn, nth int32, why transport.Reason) {
		next.Close(why)
		if nth > 1 {
			time.Sleep(2 * time.Second)
		}
	}},
	{name: "takes what is sent after Close", clause: "T13_SendAfterClose", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		more, err := next.Send(items, deadline)
		if errors.Is(err, transport.ErrClosed) {
			return true, nil
		}
		return more, err
	}},
	{name: "does not end after the goodbye", clause: "T14_Goodbye", done: func(s transport.Session) <-chan struct{} {
		late := make(chan struct{})
		go func() {
			<-s.Done()
			time.Sleep(10 * time.Minute)
			close(late)
		}()
		return late
	}},
	{name: "says that it is spent", clause: "T15_More", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		_, err := next.Send(items, deadline)
		return false, err
	}},
	{name: "answers with what may wait", clause: "T16_MayWait", once: true, send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		return next.Send(append(items, transport.Item{Frame: &transport.Frame{Kind: transport.FrameEnd, Channel: "other"}}), deadline)
	}},
	{name: "waits for ever", clause: "T17_WaitEnds", once: true, detach: func(s transport.Session, err error) {
		time.Sleep(30 * time.Second)
		s.Detach(err)
	}},
	{name: "shows heartbeats", clause: "T18_Heartbeat", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for i, item := range items {
			if item.Frame != nil && item.Frame.Kind == transport.FrameBeat {
				lost := eventlog.Lost{From: eventlog.Position{Mark: 1}, To: eventlog.Position{Mark: 2}}
				items[i].Frame = &transport.Frame{Kind: transport.FrameGap, Channel: "room", Lost: lost}
			}
		}
		return next.Send(items, deadline)
	}},
	{name: "changes what is shared", clause: "T19_SharedUnchanged", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for _, item := range items {
			if item.Run != nil {
				item.Run.Events[0].Data[0]++
			}
		}
		return next.Send(items, deadline)
	}},
	{name: "mixes up channels", clause: "T20_Channels", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for i, item := range items {
			if item.Run != nil {
				r := &transport.Run{Channel: eventlog.Channel{Name: "a"}, Events: item.Run.Events, Next: item.Run.Next}
				items[i].Run = r
			}
		}
		return next.Send(items, deadline)
	}},
	{name: "gives the id before the data", clause: "T21_CutAnywhere", response: func(block []byte) []byte {
		return idAfterData.ReplaceAll(block, []byte("$2\n\n$1\n\n"))
	}},
}

var idAfterData = regexp.MustCompile(`(?s)(data: [^\n]*(?:\ndata: [^\n]*)*)\n(id: [^\n]*)\n\n`)

func dropFrames(kind transport.FrameKind) func(transport.Conn, []transport.Item, time.Time) (bool, error) {
	return func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		var rest []transport.Item
		for _, item := range items {
			if item.Frame == nil || item.Frame.Kind != kind {
				rest = append(rest, item)
			}
		}
		return next.Send(rest, deadline)
	}
}

func editEvents(edit func([]eventlog.Event) []eventlog.Event) func(transport.Conn, []transport.Item, time.Time) (bool, error) {
	return func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for i, item := range items {
			if item.Run != nil {
				list := edit(append([]eventlog.Event(nil), item.Run.Events...))
				items[i].Run = &transport.Run{Channel: item.Run.Channel, Events: list, Next: item.Run.Next}
			}
		}
		return next.Send(items, deadline)
	}
}

// A faultyEngine stands between an adapter and its engine.
type faultyEngine struct {
	fault
	next transport.Engine
}

func (e *faultyEngine) Attach(ctx context.Context, peer transport.Peer, hello transport.Hello, conn transport.Conn) (transport.Session, error) {
	c := &faultyConn{fault: e.fault, next: conn}
	var s transport.Session
	var err error
	if e.attach != nil {
		s, err = e.attach(e.next, c, peer, hello)
	} else {
		s, err = e.next.Attach(ctx, peer, hello, c)
	}
	if err != nil {
		return nil, err
	}
	return &faultySession{e.fault, s}, nil
}

func (e *faultyEngine) Receive(ctx context.Context, peer transport.Peer, up transport.Upstream) (*transport.Frame, error) {
	return e.next.Receive(ctx, peer, up)
}

type faultyConn struct {
	fault
	next   transport.Conn
	broken atomic.Bool
	closes atomic.Int32
}

func (c *faultyConn) Send(items []transport.Item, deadline time.Time) (bool, error) {
	switch {
	case c.broken.Load():
		return false, errors.New("not ready")
	case c.send != nil:
		return c.send(c.next, items, deadline)
	}
	return c.next.Send(items, deadline)
}

func (c *faultyConn) Close(why transport.Reason) {
	nth := c.closes.Add(1)
	if c.close != nil {
		c.close(c.next, nth, why)
	} else {
		c.next.Close(why)
	}
}

type faultySession struct {
	fault
	next transport.Session
}

func (s *faultySession) Receive(f transport.Frame) error { return s.next.Receive(f) }

func (s *faultySession) Detach(err error) {
	if s.detach != nil {
		s.detach(s.next, err)
	} else {
		s.next.Detach(err)
	}
}

func (s *faultySession) Done() <-chan struct{} {
	if s.done != nil {
		return s.done(s.next)
	}
	return s.next.Done()
}

// A faultyWriter changes the bytes of a response.
type faultyWriter struct {
	http.ResponseWriter
	change func([]byte) []byte
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	_, err := w.ResponseWriter.Write(w.change(p))
	return len(p), err
}

func (w *faultyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

const home = "http://127.0.0.1:1/"

// transportWith returns SSE or long-poll in session form, broken by a fault.
func transportWith(f fault) conformance.Transport {
	tr := conformance.Transport{Once: f.once}
	tr.Mount = func(engine transport.Engine) http.Handler {
		broken := &faultyEngine{f, engine}
		serve := sse.New(broken, sse.Options{}).Serve
		if f.once {
			serve = longpoll.New(broken, longpoll.Options{}).Serve
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f.response != nil {
				w = &faultyWriter{w, f.response}
			}
			serve(w, r, transport.Peer{})
		})
	}
	tr.Client = func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
		tell := func(it wireclient.Item) { it.Tell(received) }
		switch {
		case f.once:
			answer, err := wireclient.SessionPoll(ctx, hc, home+"poll?wait="+ask.Wait.String(), wireclient.HelloFor(ask.After, ask.Channels...))
			return wireclient.Drain(answer, err, tell)
		case f.response != nil:
			s, err := wireclient.SSE(ctx, hc, home+"sse"+wireclient.Query("", ask.Channels...), ask.After)
			return wireclient.Drain(s, err, tell)
		}
		s, err := wireclient.SSESession(ctx, hc, home+"sse", wireclient.HelloFor(ask.After, ask.Channels...))
		return wireclient.Drain(s, err, tell)
	}
	return tr
}

// TestSuiteCatchesBrokenTransports: each clause fails for a transport that is
// broken in the way it is about.
func TestSuiteCatchesBrokenTransports(t *testing.T) {
	caught := map[string]bool{}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			failures, applies := conformance.TryTransport(t, f.clause, transportWith(f))
			if !applies || len(failures) == 0 {
				t.Errorf("%s does not notice a transport that %s", f.clause, f.name)
			}
			caught[f.clause] = true
		})
	}
	for _, id := range conformance.TransportClauses() {
		if !caught[id] {
			t.Errorf("no broken transport shows that %s can fail", id)
		}
	}
}

// TestSuitePassesWhatIsWhole: the transports that the faults are made of.
func TestSuitePassesWhatIsWhole(t *testing.T) {
	t.Run("stream", func(t *testing.T) { conformance.TestTransport(t, transportWith(fault{})) })
	t.Run("once", func(t *testing.T) { conformance.TestTransport(t, transportWith(fault{once: true})) })
}
