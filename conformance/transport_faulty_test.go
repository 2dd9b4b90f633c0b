package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/conform"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

// A fault breaks a transport in one way. The suite has to notice.
type fault struct {
	name  string
	fails string // the ids of the clauses that must fail
	once  bool   // of a long-poll; else of a stream
	up    bool   // of a WebSocket, for what a client says

	prove func(next transport.Prover, deadline time.Time) error // of a WebSocket

	send     func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error)
	close    func(next transport.Conn, nth int32, why transport.Reason)
	attach   func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error)
	late     func(http.ResponseWriter) // what a Close after the handler has returned does
	served   func(http.ResponseWriter) // what is done when the handler returns
	receive  func(s *faultySession, f transport.Frame) error
	maxFrame int64
	detach   func(next transport.Session, err error)
	done     func(next transport.Session) <-chan struct{}
	response func(block []byte) []byte
}

var faults = []fault{
	{name: "hides refusals", fails: "T01", attach: func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		s, err := next.Attach(context.Background(), peer, hello, c)
		if err != nil {
			err = errors.New("something else")
		}
		return s, err
	}},
	{name: "drops openings", fails: "T02 T08 T22 T23 T36", send: dropFrames(transport.FrameOpening)},
	{name: "rewrites line ends", fails: "T03", send: editEvents(func(list []eventlog.Event) []eventlog.Event {
		for i := range list {
			list[i].Data = bytes.ReplaceAll(list[i].Data, []byte("\r"), nil)
		}
		return list
	})},
	{name: "drops the last of a run", fails: "T04 T03 T20 T21 T35", send: editEvents(func(list []eventlog.Event) []eventlog.Event {
		return list[:max(min(1, len(list)), len(list)-1)]
	})},
	{name: "sends everything twice", fails: "T04 T21 T23 T24 T25", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		return next.Send(append(items, items...), deadline)
	}},
	{name: "drops gaps", fails: "T05", send: dropFrames(transport.FrameGap)},
	{name: "drops gaps in polls", fails: "T05", once: true, send: dropFrames(transport.FrameGap)},
	{name: "drops runs without events", fails: "T06", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		var rest []transport.Item
		for _, item := range items {
			if item.Run == nil || len(item.Run.Events) > 0 {
				rest = append(rest, item)
			}
		}
		return next.Send(rest, deadline)
	}},
	{name: "is not ready before Attach returns", fails: "T07 T21", attach: func(next transport.Engine, c *faultyConn, peer transport.Peer, hello transport.Hello) (transport.Session, error) {
		c.broken.Store(true)
		s, err := next.Attach(context.Background(), peer, hello, c)
		c.broken.Store(false)
		return s, err
	}},
	{name: "returns before Done", fails: "T08 T02 T03 T04 T05 T10 T12 T15 T18 T22 T35", done: func(transport.Session) <-chan struct{} {
		closed := make(chan struct{})
		close(closed)
		return closed
	}, send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		time.Sleep(time.Millisecond) // by then the handler has returned
		return next.Send(items, deadline)
	}},
	{name: "does not notice that the client left", fails: "T09", detach: func(transport.Session, error) {}},
	{name: "ignores the deadline", fails: "T10", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		return next.Send(items, deadline.Add(time.Minute))
	}},
	{name: "ignores Close", fails: "T11 T13", close: func(transport.Conn, int32, transport.Reason) {}},
	{name: "blocks in a second Close", fails: "T12", close: func(next transport.Conn, nth int32, why transport.Reason) {
		next.Close(why)
		if nth > 1 {
			time.Sleep(2 * time.Second)
		}
	}},
	{name: "takes what is sent after Close", fails: "T13", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		more, err := next.Send(items, deadline)
		if errors.Is(err, transport.ErrClosed) {
			return true, nil
		}
		return more, err
	}},
	{name: "does not end after the goodbye", fails: "T14 T08 T21 T35", done: func(s transport.Session) <-chan struct{} {
		late := make(chan struct{})
		go func() {
			<-s.Done()
			time.Sleep(10 * time.Minute)
			close(late)
		}()
		return late
	}},
	{name: "says that it is spent", fails: "T15 T04 T06 T08 T10 T14 T18 T24", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		_, err := next.Send(items, deadline)
		return false, err
	}},
	{name: "answers with what may wait", fails: "T16 T18 T25", once: true, send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		return next.Send(append(items, transport.Item{Frame: &transport.Frame{Kind: transport.FrameAnswer}}), deadline) // which a poll doesn't show
	}},
	{name: "waits for ever", fails: "T17 T09", once: true, detach: func(s transport.Session, err error) {
		time.Sleep(30 * time.Second)
		s.Detach(err)
	}},
	{name: "shows heartbeats", fails: "T18", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for i, item := range items {
			if item.Frame != nil && item.Frame.Kind == transport.FrameBeat {
				lost := eventlog.Lost{From: eventlog.Position{Mark: 1}, To: eventlog.Position{Mark: 2}}
				items[i].Frame = &transport.Frame{Kind: transport.FrameGap, Channel: "room", Lost: lost}
			}
		}
		return next.Send(items, deadline)
	}},
	{name: "changes what is shared", fails: "T19", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for _, item := range items {
			if item.Run != nil && len(item.Run.Events) > 0 && len(item.Run.Events[0].Data) > 0 {
				item.Run.Events[0].Data[0]++
			}
		}
		return next.Send(items, deadline)
	}},
	{name: "mixes up channels", fails: "T20", send: func(next transport.Conn, items []transport.Item, deadline time.Time) (bool, error) {
		for i, item := range items {
			if item.Run != nil && item.Run.Channel.Name == "b" {
				r := &transport.Run{Channel: eventlog.Channel{Name: "a"}, Events: item.Run.Events, Next: item.Run.Next}
				items[i].Run = r
			}
		}
		return next.Send(items, deadline)
	}},
	{name: "gives the id before the data", fails: "T21 T05", response: func(block []byte) []byte {
		return idAfterData.ReplaceAll(block, []byte("$2\n\n$1\n\n"))
	}},
}

// proofFaults are of what finds out whether a client reads.
var proofFaults = []fault{
	{name: "takes what was sent for read", fails: "T39 T40", up: true, prove: func(transport.Prover, time.Time) error { return nil }},
	{name: "believes nobody", fails: "T38", up: true, prove: func(_ transport.Prover, deadline time.Time) error {
		time.Sleep(time.Until(deadline))
		return errors.New("late")
	}},
	{name: "gives up at once", fails: "T38 T39", up: true, prove: func(transport.Prover, time.Time) error { return errors.New("who knows") }},
	{name: "waits for an answer however long", fails: "T39", up: true, prove: func(next transport.Prover, deadline time.Time) error {
		return next.Prove(deadline.Add(time.Minute))
	}},
	{
		name: "asks on when it is closed", fails: "T40", up: true,
		prove: func(next transport.Prover, deadline time.Time) error {
			err := next.Prove(deadline)
			if errors.Is(err, transport.ErrClosed) {
				time.Sleep(time.Until(deadline))
			}
			return err
		},
	},
}

var idAfterData = regexp.MustCompile(`(?s)((?:event: [^\n]*\n)?data: [^\n]*(?:\ndata: [^\n]*)*)\n(id: [^\n]*)\n\n`)

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
	c := &faultyConn{fault: e.fault, next: conn, busy: make(chan struct{}, 1)}
	c.request, _ = ctx.Value(requestKey{}).(*request)
	var s transport.Session
	var err error
	switch {
	case e.attach != nil:
		s, err = e.attach(e.next, c, peer, hello)
	case e.prove != nil:
		s, err = e.next.Attach(ctx, peer, hello, provingConn{c})
	default:
		s, err = e.next.Attach(ctx, peer, hello, c)
	}
	if err != nil {
		return nil, err
	}
	return &faultySession{fault: e.fault, next: s, conn: c, began: time.Now()}, nil
}

// A request is one that a handler serves, for faults that outlive it.
type request struct {
	w    http.ResponseWriter
	over atomic.Bool
}

type requestKey struct{}

func (e *faultyEngine) Receive(ctx context.Context, peer transport.Peer, up transport.Upstream) (*transport.Frame, error) {
	return e.next.Receive(ctx, peer, up)
}

// A provingConn is one whose client can be asked to prove that it reads.
type provingConn struct{ *faultyConn }

func (c provingConn) Prove(deadline time.Time) error {
	return c.prove(c.next.(transport.Prover), deadline)
}

type faultyConn struct {
	fault
	next    transport.Conn
	request *request
	busy    chan struct{} // full during a Send
	broken  atomic.Bool
	spent   atomic.Bool
	closes  atomic.Int32
}

func (c *faultyConn) Send(items []transport.Item, deadline time.Time) (bool, error) {
	switch {
	case c.broken.Load():
		return false, errors.New("not ready")
	case c.spent.Load(): // the handler may have returned
		return false, transport.ErrClosed
	}
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	send := transport.Conn.Send
	if c.send != nil {
		send = c.send
	}
	more, err := send(c.next, items, deadline)
	c.spent.Store(!more)
	return more, err
}

func (c *faultyConn) Close(why transport.Reason) {
	nth := c.closes.Add(1)
	if c.late != nil && c.request.over.Load() {
		c.late(c.request.w)
	}
	if c.close != nil {
		c.close(c.next, nth, why)
	} else {
		c.next.Close(why)
	}
}

type faultySession struct {
	fault
	next  transport.Session
	conn  *faultyConn
	began time.Time
	count atomic.Int32
	kept  atomic.Pointer[transport.Frame]
}

func (s *faultySession) Receive(f transport.Frame) error {
	if s.receive != nil {
		return s.receive(s, f)
	}
	return s.next.Receive(f)
}

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

// transportWith returns SSE, long-poll or WebSocket in session form, broken by
// a fault.
func transportWith(f fault) conformance.Transport {
	return conformance.Transport{
		Once: f.once, Up: f.up, Plain: f.response != nil, Proves: f.prove != nil,
		OneChannel: f.response != nil, // several plain channels have a vector for an id
		Mount:      func(engine transport.Engine) http.Handler { return f.mount(&faultyEngine{f, engine}) },
		Client: func(ctx context.Context, hc *http.Client, ask conformance.Ask, received func(conformance.Received)) error {
			hello := wireclient.HelloFor(ask.After, ask.Channels...)
			switch {
			case f.once:
				answer, err := wireclient.SessionPoll(ctx, hc, home+"poll?wait="+ask.Wait.String(), hello)
				return conform.Drain(answer, err, received)
			case f.up:
				s, err := wireclient.WS(ctx, hc, home+"ws", &hello)
				if err == nil && ask.Up != nil {
					go conform.Say(s, ask.Up)
				}
				return conform.Drain(s, err, received)
			case f.response != nil:
				s, err := wireclient.SSE(ctx, hc, home+"sse"+wireclient.Query("", ask.Channels...)+"&events=named", ask.After)
				return conform.Drain(s, err, received)
			}
			s, err := wireclient.SSESession(ctx, hc, home+"sse", hello)
			return conform.Drain(s, err, received)
		},
	}
}

func (f fault) mount(broken *faultyEngine) http.Handler {
	serve := sse.New(broken, sse.Options{}).Serve
	switch {
	case f.once:
		serve = longpoll.New(broken, longpoll.Options{}).Serve
	case f.up:
		serve = ws.New(broken, ws.Options{MaxFrame: f.maxFrame}).Serve
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.response != nil {
			w = &faultyWriter{w, f.response}
		}
		req := &request{w: w}
		serve(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, req)), transport.Peer{})
		req.over.Store(true)
		if f.served != nil {
			f.served(w)
		}
	})
}

// TestSuiteCatchesBrokenTransports: each clause fails for a transport that is
// broken in the way it is about.
func TestSuiteCatchesBrokenTransports(t *testing.T) {
	var parts []conformance.BrokenPart
	for _, f := range slices.Concat(faults, frameFaults, upFaults, lateFaults, proofFaults) {
		parts = append(parts, conformance.BrokenPart{Name: f.name, Fails: f.fails, Try: func(t *testing.T, id string) ([]string, bool) {
			return conformance.TryTransport(t, id, transportWith(f))
		}, Glance: func(t *testing.T, id string, number uint32) ([]string, bool) {
			return conformance.GlanceTransport(t, id, transportWith(f), number)
		}})
	}
	conformance.Bite(t, "transport", parts)
}

// TestSuitePassesWholeTransports: those that the faults are made of.
func TestSuitePassesWholeTransports(t *testing.T) {
	t.Run("stream", func(t *testing.T) { conformance.TestTransport(t, transportWith(fault{})) })
	t.Run("up", func(t *testing.T) { conformance.TestTransport(t, transportWith(fault{up: true})) })
	t.Run("proves", func(t *testing.T) {
		conformance.TestTransport(t, transportWith(fault{up: true, prove: transport.Prover.Prove}))
	})
	t.Run("once", func(t *testing.T) { conformance.TestTransport(t, transportWith(fault{once: true})) })
}
