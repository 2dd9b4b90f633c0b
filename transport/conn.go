package transport

import (
	"context"
	"errors"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A Conn carries items to one client. Adapters implement it.
type Conn interface {
	// Send hands items to the network, in order, and returns when they are
	// taken, at the latest at the deadline. more is false if the connection
	// is spent: no further Send will be called. After an error the stream may
	// be broken off anywhere, and no further Send will be called either.
	//
	// Send is never called concurrently. The items are the Conn's until it
	// returns; what a Run or Frame refers to is shared and never changed.
	//
	// In one Send the gaps of a channel come before its runs. The first Send
	// holds an opening, a gap or an end for each channel of the hello.
	Send(items []Item, deadline time.Time) (more bool, err error)

	// Close aborts the connection: a Send in progress returns. It is
	// idempotent, may be called by any goroutine at any time, also after Done
	// and when the handler has returned, and never blocks. The reason is for the adapter's log; the client, if it could be
	// told, was told by a frame.
	Close(Reason)
}

// A Prover is a Conn that can find out whether its client reads. What a Conn has handed to
// the network may lie in buffers on the way, so a client that was evicted and comes back is
// asked, page by page, until it has taken some. A carrier on which nothing comes back can't tell,
// and has no such method.
type Prover interface {
	Conn
	// Prove returns nil when the client has read all that was sent before. If it has not at
	// the deadline, Prove fails then; Close ends it, too. It is called as Send is, and
	// never concurrently with it.
	Prove(deadline time.Time) error
}

// An Item is one thing to send: exactly one of its fields is set.
type Item struct {
	Run   *Run
	Frame *Frame
}

// An Engine is what adapters call.
type Engine interface {
	// Attach begins a line. ctx bounds Attach alone. The error is always a
	// *Refusal.
	Attach(ctx context.Context, peer Peer, hello Hello, conn Conn) (Session, error)

	// Receive works on a frame that came by a request of its own: a publish, a
	// call, a question for history or a goodbye, at any node (PROTOCOL P9.1). It waits for what the
	// frame asks, within ctx, and returns the frame that answers. The error is
	// always a *Refusal, and says that nothing was done.
	Receive(ctx context.Context, peer Peer, up Upstream) (*Frame, error)
}

// A Session is the engine's end of one line.
type Session interface {
	// Receive takes a frame from the client. It does not wait for what the
	// frame asks; the answer comes through Send, in order with the events. A
	// close frame is the adapter's own: what the
	// client sent breaks the protocol, and the line ends with that reason. An
	// error says that the line is over.
	Receive(f Frame) error

	// Detach says that the client is gone, and why if it is known. The engine
	// sends nothing more, but for a Send that is in progress: wait for Done, and
	// Close the Conn if that must be soon. It is idempotent.
	Detach(why error)

	// Done closes after the last Send has returned.
	Done() <-chan struct{}
}

// A Peer is who is asking. Whoever mounts an adapter fills it in; the adapter
// adds its own name and passes it on.
type Peer struct {
	Namespace string // of all the channels it speaks of
	Subject   string // who it is; empty: not known
	Claims    any    // what else authentication found, for those who authorise
	Addr      string // where it comes from, for people
	Transport string // the adapter's name: "sse", "ws", "poll"

	// Connection is what logs call it: each request is one. Empty: the engine
	// makes a name up.
	Connection string
	// OnRefusal, if not nil, is told what an adapter refuses by itself, for logs
	// and metrics.
	OnRefusal func(error)

	// Expires is when the credentials end that showed this. Zero: they don't.
	Expires time.Time
	// Identify finds out who it is: the engine asks when a line begins, and again
	// when its client brings fresh credentials. credentials are those that came in
	// a frame, for clients that can't put them in a header (PROTOCOL P6.21), or
	// empty: then the request itself has to show it. nil: it is known already, and
	// credentials are not looked at. The error is told as the engine tells those
	// of Authorize.
	Identify func(ctx context.Context, credentials string) (Peer, error)
}

// Refused tells whoever mounted an adapter what that refuses by itself. What the
// engine refuses the engine knows.
func (p *Peer) Refused(err error) {
	if p.OnRefusal != nil {
		p.OnRefusal(err)
	}
}

// A Hello is what a client asks for when it begins a line.
type Hello struct {
	// Version of the session protocol, or 0 for plain use: then one refused
	// channel refuses the hello, and no frames of the session protocol are
	// sent.
	Version int
	// Credentials show who it is, if the request could not.
	Credentials string
	// Token continues a session, if it verifies (PROTOCOL P6.16).
	Token string
	// Line is the client's number for this line.
	Line uint64
	// Probe asks for nothing but a sign of life.
	Probe bool
	// Channels to read.
	Channels []Subscription
	// Presence to be told of.
	Presence []Watch
	// EachMove asks to be told by an opening, and at once, of each position that
	// moves because events are filtered out. It is for adapters to whom that costs
	// nothing; others are told now and then, by a Run without events.
	EachMove bool
}

// An Upstream is a frame of a client that came by a request of its own, with
// the head beside it.
type Upstream struct {
	Version int
	Token   string // says which session speaks, if it verifies
	Frame   Frame  // a FramePublish, FrameCall, FrameHistory or FrameGoodbye
}

// A Subscription asks for a channel's events after a position, or from a start
// if the position is zero.
type Subscription struct {
	Channel string
	After   eventlog.Position
	Start   eventlog.Start
	// Filter says which events are wanted (PROTOCOL P2.9). nil: all.
	Filter *eventlog.Filter
	// Paused: the channel is the client's, but its events are not to be sent
	// (PROTOCOL P6.18).
	Paused bool
	// Bad, if not nil, is why the rest can't be read: the channel is refused.
	Bad *Refusal
}

// A Watch asks who is in a channel (PROTOCOL P10.1).
type Watch struct {
	Channel string
	Seen    string // the version the client has, if any
}

// ErrSpent is what an adapter gives to Detach when it has answered a connection
// that is spent by that, and the client will come again.
var ErrSpent = errors.New("transport: the connection was answered")

// ErrDead is what an adapter gives to Detach, wrapped, when the client did not
// leave but no longer answers.
var ErrDead = errors.New("transport: the client is dead")

// ErrCut is what an adapter gives to Detach, or returns from Send, wrapped, when
// the connection ended without a word of the client's, on a carrier on which
// clients say it when they leave. Many of them in a row show that the carrier
// doesn't work for that client.
var ErrCut = errors.New("transport: the connection was cut")

// ErrClosed is returned by a Conn that was closed or is spent.
var ErrClosed = errors.New("transport: connection is closed")
