package core

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/transport"
)

// maxWaiting bounds the frames of a client that wait to be worked on.
const maxWaiting = 64

var beat = (&transport.Frame{Kind: transport.FrameBeat}).Shared()

// A line is one attached connection.
type line struct {
	// Static after newLine.
	engine  *Engine
	ctx     context.Context // of what the line waits for; ends when it does
	cancel  context.CancelFunc
	peer    transport.Peer
	version int
	number  uint64
	probe   bool
	conn    transport.Conn
	began   time.Time

	worker // of flush

	// intake works on what the client sends, in order.
	intake worker

	// names are the channels the client has; owned by open, then by intake.
	names map[string]bool

	// Owned by the worker.
	subs      []*subscription
	first     int // the subscription to look at first, so that all get their turn
	items     []transport.Item
	timer     *time.Timer // of heartbeats; set after the first Send
	lastSent  time.Time
	proved    bool // the heartbeat that proves the carrier was sent (PROTOCOL P6.5)
	delivered int

	timerFired atomic.Bool

	mu       sync.Mutex
	attached bool              // guarded by mu: the worker may send
	inbox    []command         // guarded by mu
	waiting  []transport.Frame // guarded by mu: for intake
	goodbye  *transport.Reason // guarded by mu: to say as the last
	ended    transport.Reason  // guarded by mu: why it is over
}

// A command is what others ask of a line's worker, in order.
type command struct {
	join  *subscription
	leave string
	frame *transport.Frame
}

func newLine(e *Engine, peer transport.Peer, hello transport.Hello, conn transport.Conn) *line {
	l := &line{
		engine:  e,
		peer:    peer,
		version: hello.Version,
		number:  hello.Line,
		probe:   hello.Probe,
		conn:    conn,
		began:   time.Now(),
		names:   make(map[string]bool, len(hello.Channels)),
	}
	l.ctx, l.cancel = context.WithCancel(e.ctx)
	l.intake.start(l.takeFrames, func() {})
	l.worker.start(l.flush, l.finish)
	return l
}

// open makes the subscriptions of the hello and hands them to the worker. The
// error is a *transport.Refusal; nothing was sent then.
func (l *line) open(ctx context.Context, hello transport.Hello) error {
	if len(hello.Channels) == 0 && hello.Version == 0 {
		return transport.Refuse(transport.CodeBadRequest, "no channel was named")
	}
	if most := l.engine.o.MaxChannels; len(hello.Channels) > most {
		return transport.Refuse(transport.CodeTooManyChannels, "%d channels are more than %d (Options.MaxChannels)", len(hello.Channels), most)
	}
	var opening []command
	begun := false
	defer func() {
		if !begun {
			l.drop(opening)
		}
	}()
	if l.version > 0 {
		opening = append(opening, command{frame: &transport.Frame{
			Kind: transport.FrameOpen, Line: l.number, Heartbeat: l.engine.o.Heartbeat,
		}})
	}
	for _, ask := range hello.Channels {
		if l.names[ask.Channel] {
			return transport.Refuse(transport.CodeBadRequest, "channel %.40q is named twice", ask.Channel)
		}
		c, err := l.subscribe(ctx, ask)
		if refusesAll(err, l.version) {
			return err
		}
		opening = append(opening, c)
	}
	begun = true
	l.engine.o.Observer.Opened(l.peer.Transport)
	l.mu.Lock()
	l.attached = true
	l.inbox = opening
	l.mu.Unlock()
	l.ask()
	return nil
}

// refusesAll reports whether the refusal of one channel refuses the hello: in
// plain use, and if it is this server that is not able.
func refusesAll(err error, version int) bool {
	var r *transport.Refusal
	return errors.As(err, &r) && (version == 0 || r.Class == transport.Later)
}

// subscribe makes the command that begins a channel, or the one that tells of
// its refusal, beside the error.
func (l *line) subscribe(ctx context.Context, ask transport.Subscription) (command, error) {
	s, first, err := l.engine.begin(ctx, l, ask)
	if err != nil {
		var r *transport.Refusal
		errors.As(err, &r)
		return command{frame: &transport.Frame{Kind: transport.FrameEnd, Channel: ask.Channel, Reason: r.Reason}}, err
	}
	l.names[ask.Channel] = true
	return command{join: s, frame: first}, nil
}

// drop undoes the joins of commands that no worker will see.
func (l *line) drop(commands []command) {
	for _, c := range commands {
		if c.join != nil {
			l.engine.leave(c.join)
		}
	}
}

// abandon ends a line that was never attached.
func (l *line) abandon() { l.stop(transport.Reason{}) }

// Done implements [transport.Session].
func (l *line) Done() <-chan struct{} { return l.done }

// Detach implements [transport.Session].
func (l *line) Detach(why error) {
	message := ""
	if why != nil {
		message = why.Error()
	}
	l.stop(transport.Reason{Code: transport.CodeLeft, Message: message})
}

// stop ends the line without a goodbye. The first reason given stays, unless
// it is that the client left: that it was cut off says more.
func (l *line) stop(why transport.Reason) {
	l.mu.Lock()
	if l.ended.Code == "" || l.ended.Code == transport.CodeLeft {
		l.ended = why
	}
	l.mu.Unlock()
	l.cancel()
	l.end()
}

// sayGoodbye has the worker end the line with a frame that tells why.
func (l *line) sayGoodbye(why transport.Reason) {
	l.mu.Lock()
	if l.goodbye == nil {
		l.goodbye = &why
	}
	l.mu.Unlock()
	l.ask()
}

// push hands a command to the worker.
func (l *line) push(c command) {
	l.mu.Lock()
	l.inbox = append(l.inbox, c)
	l.mu.Unlock()
	l.ask()
}

// finish frees what the line holds, after the last Send.
func (l *line) finish() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.intake.end()
	<-l.intake.done
	l.mu.Lock()
	rest, attached, why := l.inbox, l.attached, l.ended
	l.inbox = nil
	l.mu.Unlock()
	l.drop(rest)
	for _, s := range l.subs {
		l.engine.leave(s)
	}
	if attached {
		l.engine.o.Observer.Ended(l.peer.Transport, why)
		l.log(why)
	}
	l.engine.unregister(l)
}

func (l *line) log(why transport.Reason) {
	l.engine.o.Logger.LogAttrs(context.Background(), slog.LevelDebug, "connection ended",
		slog.String("transport", l.peer.Transport),
		slog.String("subject", l.peer.Subject),
		slog.String("addr", l.peer.Addr),
		slog.String("reason", why.Code),
		slog.String("detail", why.Message),
		slog.Duration("lasted", time.Since(l.began)),
		slog.Int("delivered", l.delivered),
	)
}

// flush sends until there is nothing left to send.
func (l *line) flush() {
	for !l.over.Load() {
		items, last := l.gather()
		if len(items) == 0 {
			return
		}
		timeout := l.engine.o.WriteTimeout
		if last != nil {
			timeout = l.engine.o.GoodbyeTimeout
		}
		deadline := time.Now().Add(timeout)
		more, err := l.conn.Send(items, deadline)
		if err != nil {
			l.failed(err, deadline, last)
			return
		}
		l.count(items)
		switch {
		case last != nil:
			l.stop(*last)
		case !more:
			l.stop(transport.Reason{Code: transport.CodeSpent})
		default:
			l.sent()
		}
	}
}

// count counts the events that a Send took, and lets go of them.
func (l *line) count(items []transport.Item) {
	events := 0
	for _, item := range items {
		if item.Run != nil {
			events += len(item.Run.Events)
		}
	}
	clear(items)
	if events > 0 {
		l.delivered += events
		l.engine.o.Observer.Delivered(l.peer.Transport, events)
	}
}

// failed ends the line after a Send that failed. It was too slow if that took
// until the deadline, whatever the carrier calls it.
func (l *line) failed(err error, deadline time.Time, last *transport.Reason) {
	why := transport.Reason{Code: transport.CodeBroken, Message: err.Error()}
	switch {
	case last != nil:
		why = *last
	case errors.Is(err, transport.ErrClosed):
		l.stop(transport.Reason{Code: transport.CodeLeft})
		return
	case !time.Now().Before(deadline):
		why = l.engine.slow("a write took longer than its deadline")
		l.engine.o.Observer.Evicted(l.peer.Transport)
	}
	l.stop(why)
	l.conn.Close(why)
}

// slow is the reason of an eviction.
func (e *Engine) slow(message string) transport.Reason {
	return transport.RefuseFor(e.o.EvictionDelay, transport.CodeSlowConsumer, "%s", message).Reason
}

// sent looks after the line when a Send went well: its heartbeats, and whether
// it keeps up.
func (l *line) sent() {
	now := time.Now()
	l.lastSent = now
	if l.timer == nil {
		wait := l.engine.o.Heartbeat
		if l.version > 0 {
			wait = l.engine.o.FirstBeat
		}
		l.timer = time.AfterFunc(wait, l.tick)
	}
	o := &l.engine.o
	for _, s := range l.subs {
		if s.lag.tooLong(s.behind(), uint64(o.MaxLag), now, o.LagWindow) {
			o.Observer.Evicted(l.peer.Transport)
			l.sayGoodbye(l.engine.slow("it fell behind and did not catch up"))
			return
		}
	}
}

// tick is called by the timer.
func (l *line) tick() {
	l.timerFired.Store(true)
	l.ask()
}

// heartbeat decides, when the timer fired, whether a sign of life is due, and
// sets the timer again.
func (l *line) heartbeat(items []transport.Item) []transport.Item {
	o := &l.engine.o
	interval := o.Heartbeat - rand.N(o.Heartbeat/10+1) // so that lines that began together drift apart
	quiet := time.Since(l.lastSent)
	first := l.version > 0 && !l.proved
	switch {
	case l.probe && !first:
		l.sayGoodbye(transport.Reason{Code: transport.CodeProbeOver})
		return items
	case l.probe:
		l.timer.Reset(o.ProbeLifetime)
	case !first && quiet < interval:
		l.timer.Reset(interval - quiet)
		return items
	default:
		l.timer.Reset(interval)
	}
	l.proved = true
	return append(items, transport.Item{Frame: beat})
}
