package core

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/session"
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
	client  Client
	token   string // for the client to use from now on, if it is another
	conn    transport.Conn
	began   time.Time

	worker // of flush

	// intake works on what the client sends, in order.
	intake worker

	// publishing: a batch of the client's is in work.
	publishing atomic.Bool

	// Owned by open, then by intake.
	granted map[string]bool   // the channels OnConnect named
	gifts   map[string]bool   // the channels the client has without having asked
	names   map[string]bool   // the channels the client has; false: paused
	watched map[string]*watch // the channels whose presence it watches

	// Owned by the worker.
	subs      []*subscription
	watches   []*watch
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
	waiting  []func()          // guarded by mu: for intake
	goodbye  *transport.Reason // guarded by mu: to say as the last
	ended    transport.Reason  // guarded by mu: why it is over
}

// A command is what others ask of a line's worker, in order.
type command struct {
	join    *subscription
	leave   string
	watches *[]*watch // those to watch from now on
	frame   *transport.Frame
}

// newLine returns a line that nobody sees yet: its session, if it is of one, is
// found out before, so that orders find it.
func newLine(e *Engine, peer transport.Peer, hello transport.Hello, conn transport.Conn, id, token string) *line {
	l := &line{
		engine:  e,
		peer:    peer,
		version: hello.Version,
		number:  hello.Line,
		probe:   hello.Probe,
		conn:    conn,
		began:   time.Now(),
		names:   make(map[string]bool, len(hello.Channels)),
		gifts:   make(map[string]bool),
		client:  clientOf(peer, id),
		token:   token,
	}
	l.ctx, l.cancel = context.WithCancel(e.ctx)
	l.intake.start(l.takeOrders, func() {})
	l.worker.start(l.flush, l.finish)
	return l
}

// open makes the subscriptions of the hello and hands them to the worker. The
// error is a *transport.Refusal; nothing was sent then.
func (l *line) open(ctx context.Context, hello transport.Hello) error {
	if err := l.check(hello); err != nil {
		return err
	}
	answer := &transport.Open{Line: l.number, Heartbeat: l.engine.o.Heartbeat}
	asks := hello.Channels
	var welcome Welcome
	fresh := false // OnConnect was asked
	if l.inSession() {
		var err error
		if welcome, fresh, err = l.connect(ctx, answer); err != nil {
			return err
		}
		asks = l.grant(asks, welcome.Channels)
	}
	var opening []command
	begun := false
	defer func() {
		if !begun {
			l.drop(opening)
		}
	}()
	if l.version > 0 {
		opening = append(opening, command{frame: &transport.Frame{Kind: transport.FrameOpen, Open: answer}})
	}
	for _, ask := range asks {
		c, err := l.subscribe(ctx, ask)
		if refusesAll(err, l.version) {
			return err
		}
		opening = append(opening, c)
	}
	if len(hello.Presence) > 0 {
		opening = append(opening, l.watch(ctx, hello.Presence)...)
	}
	if err := l.takeOver(welcome, fresh); err != nil {
		return err
	}
	begun = true
	l.engine.o.Observer.Opened(l.peer.Transport)
	l.mu.Lock()
	l.attached = true
	l.inbox = append(opening, l.inbox...)
	l.mu.Unlock()
	l.ask()
	return nil
}

// check refuses a hello that asks for what no line can have.
func (l *line) check(hello transport.Hello) error {
	if len(hello.Channels) == 0 && hello.Version == 0 {
		return transport.Refuse(transport.CodeBadRequest, "no channel was named")
	}
	if most, asked := l.engine.o.MaxChannels, max(len(hello.Channels), len(hello.Presence)); asked > most {
		return transport.Refuse(transport.CodeTooManyChannels, "%d channels are more than %d (Options.MaxChannels)", asked, most)
	}
	named := make(map[string]bool, len(hello.Channels))
	for _, ask := range hello.Channels {
		if named[ask.Channel] {
			return transport.Refuse(transport.CodeBadRequest, "channel %.40q is named twice", ask.Channel)
		}
		named[ask.Channel] = true
	}
	return nil
}

// inSession reports whether the line is one of a session: neither plain use nor
// a probe.
func (l *line) inSession() bool { return l.version > 0 && !l.probe }

// connect asks the program to welcome the client, if it has not done so lately.
// The error is a *transport.Refusal.
func (l *line) connect(ctx context.Context, answer *transport.Open) (w Welcome, fresh bool, err error) {
	e := l.engine
	answer.Remembered, answer.Limit, answer.Token = e.o.Log.Info().ProducersRemembered, e.o.FrameLimit, l.token
	if err := e.sessions.admit(l.client.Session, l.number); err != nil {
		return w, false, err
	}
	if w, ok := e.sessions.welcomeOf(l); ok {
		return w, false, nil
	}
	w, err = e.connect(ctx, l.client)
	return w, true, err
}

// grant adds the channels that the program named to those the client asked for.
func (l *line) grant(asks []transport.Subscription, names []string) []transport.Subscription {
	l.granted = make(map[string]bool, len(names))
	asked := make(map[string]bool, len(asks))
	for _, ask := range asks {
		asked[ask.Channel] = true
	}
	asks = slices.Clip(asks)
	for _, name := range names {
		if !l.granted[name] && !asked[name] {
			if len(asks) >= l.engine.o.MaxChannels {
				l.engine.o.Logger.Error("OnConnect named more channels than a client may have", "most", l.engine.o.MaxChannels)
				break
			}
			asks = append(asks, transport.Subscription{Channel: name})
			l.gifts[name] = true
		}
		l.granted[name] = true
	}
	return asks
}

// takeOver makes the line the one of its session, and ends the one before.
func (l *line) takeOver(w Welcome, fresh bool) error {
	if !l.inSession() {
		return nil
	}
	old, err := l.engine.sessions.take(l, w, fresh)
	if old != nil {
		old.sayGoodbye(superseded(l.number).Reason)
	}
	return err
}

// lease names the line as the holder of its session's lease.
func (l *line) lease() session.Held {
	return session.Held{Namespace: l.peer.Namespace, ID: l.client.Session, Line: l.number}
}

// held are the channels that the client has, in order, or as many as a lease
// may have. It is called where names is owned.
func (l *line) held() []string {
	names := slices.Sorted(maps.Keys(l.names))
	return names[:min(len(names), session.MaxLeaseChannels)]
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
	err := l.engine.allow(ctx, l, ask)
	if err == nil && ask.Paused {
		l.names[ask.Channel] = false
		return command{frame: endFrame(ask.Channel, pausedAsAsked)}, nil
	}
	var s *subscription
	var first *transport.Frame
	if err == nil {
		s, first, err = l.engine.begin(ctx, l, ask)
	}
	if err != nil {
		var r *transport.Refusal
		errors.As(err, &r)
		return command{frame: endFrame(ask.Channel, r.Reason)}, err
	}
	l.names[ask.Channel] = true
	return command{join: s, frame: first}, nil
}

var (
	pausedAsAsked = transport.Reason{Code: transport.CodePaused, Class: transport.Now}
	leftAsAsked   = transport.Reason{Code: transport.CodeUnsubscribed, Class: transport.Now}
)

func endFrame(channel string, why transport.Reason) *transport.Frame {
	return &transport.Frame{Kind: transport.FrameEnd, Channel: channel, Reason: why}
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
	reason := transport.Reason{Code: transport.CodeLeft}
	if errors.Is(why, transport.ErrSpent) {
		reason.Code = transport.CodeSpent
	} else if why != nil {
		reason.Message = why.Error()
	}
	l.stop(reason)
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
	for _, w := range l.watched {
		l.engine.unwatch(w)
	}
	if l.inSession() {
		l.engine.sessions.leave(l, why.Code == transport.CodeSpent)
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
		slog.String("session", l.client.Session),
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
		if p := &s.topic.policy; s.lag.tooLong(s.behind(), uint64(p.MaxLag), now, p.LagWindow) {
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
