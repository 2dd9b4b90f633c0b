package core

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

const (
	// maxWaiting bounds the frames of a client that wait to be worked on
	// (PROTOCOL P6.14), and maxOrders all that waits there.
	maxWaiting = 64
	maxOrders  = 16 * maxWaiting
)

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
	// eachMove: it costs nothing to tell it where it is.
	eachMove bool
	// continued: it is of a session that was there before.
	continued bool
	client    Client
	source    Source
	token     string // for the client to use from now on, if it is another
	conn      transport.Conn
	began     time.Time
	// delivery is its part of the client's breaker. nil: it has none.
	delivery *breaker.Line

	worker // of flush

	// intake works on what the client sends, in order.
	intake worker

	credentials credentials

	// publishing: a batch of the client's is in work.
	publishing atomic.Bool

	// reauthorizing: the rights are asked for again, soon.
	reauthorizing atomic.Bool

	// Static after begin.
	lead *subscription // the first, or nil: plain clients are known by it

	// Owned by open, then by intake.
	granted map[string]bool   // the channels OnConnect named
	gifts   map[string]bool   // the channels the client has without having asked
	names   map[string]bool   // the channels the client has; false: paused
	watched map[string]*watch // the channels whose presence it watches
	// refusedBy is the channel whose refusal refused the hello.
	refusedBy string

	// Owned by the worker.
	subs      []*subscription
	watches   []*watch
	first     int // the subscription to look at first, so that all get their turn
	items     []transport.Item
	timer     *time.Timer // of heartbeats; set after the first Send
	lastSent  time.Time
	proved    bool // the heartbeat that proves the carrier was sent (PROTOCOL P6.5)
	delivered int
	page      int       // the most bytes to read for one Send, when it lags
	volume    int       // bytes of events so far
	sendBegan int       // volume before the Send that is being gathered
	taken     int       // from Engine.pages, for the Send at hand
	waits     bool      // for room, in Engine.pages
	onTrial   bool      // the client was evicted, and has not shown yet that it keeps up
	evicted   bool      // it fell behind, and is told so
	liveSince time.Time // when the first live event of this Send was appended; zero: there is none

	timerFired atomic.Bool

	// For people who look: how many channels it has, and how long after it began
	// a write was done.
	channels atomic.Int32
	wrote    atomic.Int64

	mu       sync.Mutex
	attached bool              // guarded by mu: the worker may send
	finished bool              // guarded by mu: the worker won't look again
	inbox    []command         // guarded by mu
	waiting  []func()          // guarded by mu: for intake
	cut      bool              // guarded by mu: neither side closed it
	goodbye  *transport.Reason // guarded by mu: to say as the last
	ended    transport.Reason  // guarded by mu: why it is over
	heir     string            // guarded by mu: the connection that superseded it
}

// A command is what others ask of a line's worker, in order.
type command struct {
	join    *subscription
	leave   string
	watches *[]*watch // those to watch from now on
	frame   *transport.Frame
	taken   func() // called when the worker has the frame, or nobody will
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

		eachMove: hello.EachMove,
		conn:     conn,
		began:    time.Now(),
		names:    make(map[string]bool, len(hello.Channels)),
		gifts:    make(map[string]bool),
		client:   clientOf(peer, id),
		source:   Source{Namespace: peer.Namespace, Transport: peer.Transport},
		token:    token,
		page:     e.firstPage(),
	}
	l.lastSent = l.began
	l.credentials.peer = peer
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
			l.refusedBy = ask.Channel
			return err
		}
		if err != nil {
			l.refused("subscribe", ask.Channel, err)
		}
		c.frame.Given = err == nil && l.gifts[ask.Channel]
		opening = append(opening, c)
	}
	if len(hello.Presence) > 0 {
		opening = append(opening, l.watch(ctx, hello.Presence)...)
		l.awaitPresence(ctx)
	}
	if err := l.takeOver(welcome, fresh); err != nil {
		return err
	}
	l.watchExpiry()
	if begun = l.begin(opening); !begun {
		return &transport.Refusal{Reason: transport.Reason{Code: transport.CodeGoodbye, Message: "the client said goodbye"}}
	}
	l.engine.o.Observer.Opened(l.source)
	l.tellBegan(asks)
	l.ask()
	return nil
}

// begin hands what the hello asked for to the worker. It reports false if the
// line is over already: a goodbye came by another way meanwhile.
func (l *line) begin(opening []command) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finished {
		return false
	}
	l.attached = true
	l.onTrial = l.delivery != nil && l.delivery.OnTrial()
	for _, c := range opening {
		if c.join != nil && l.lead == nil {
			l.lead = c.join
		}
	}
	l.inbox = append(opening, l.inbox...)
	return true
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
				l.engine.Tell(slog.LevelError, &l.client, "too many channels given", slog.Int("most", l.engine.o.MaxChannels))
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
		old.mu.Lock()
		old.heir = l.client.Connection
		old.mu.Unlock()
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
	return errors.As(err, &r) && (version == 0 || r.Code == transport.CodeUnavailable || r.Code == transport.CodeShutdown)
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

// drop undoes commands that no worker will see.
func (l *line) drop(commands []command) {
	for _, c := range commands {
		if c.join != nil {
			l.engine.leave(c.join)
		}
		if c.taken != nil {
			c.taken()
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
	switch {
	case errors.Is(why, transport.ErrSpent):
		reason.Code = transport.CodeSpent
	case errors.Is(why, transport.ErrDead):
		reason.Code, reason.Message = transport.CodeDead, why.Error()
	case errors.Is(why, transport.ErrCut):
		l.wasCut()
		reason.Message = why.Error()
	case why != nil:
		reason.Message = why.Error()
	}
	l.stop(reason)
}

// wasCut notes that neither side closed the connection, if the engine didn't.
func (l *line) wasCut() {
	l.mu.Lock()
	l.cut = l.cut || l.ended.Code == "" && l.goodbye == nil
	l.mu.Unlock()
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
	l.stopExpiry()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.intake.end()
	<-l.intake.done
	l.release()
	l.engine.pages.leave(l)
	l.mu.Lock()
	rest, attached, why, heir := l.inbox, l.attached, l.ended, l.heir
	broken := l.hasBroken(why) && heir == ""
	l.inbox, l.finished = nil, true
	l.mu.Unlock()
	if l.delivery != nil && l.delivery.Leave(broken) {
		l.engine.Tell(slog.LevelInfo, &l.client, "transport closed to session")
	}
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
		l.engine.o.Observer.Ended(l.source, why)
		l.tellEnded(why, heir)
	}
	l.engine.unregister(l)
}
