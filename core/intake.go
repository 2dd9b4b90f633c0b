package core

import (
	"context"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// Receive implements [transport.Session]. What changes the line is worked on in
// order by its intake; publishes and calls wait for none of that.
func (l *line) Receive(f transport.Frame) error {
	if f.Kind == transport.FrameClose {
		l.sayGoodbye(f.Reason)
		return nil
	}
	r := l.receive(f)
	if r == nil {
		return nil
	}
	l.sayGoodbye(r.Reason)
	return r
}

func (l *line) receive(f transport.Frame) *transport.Refusal {
	l.mu.Lock()
	answers := len(l.inbox)
	l.mu.Unlock()
	switch {
	case !l.inSession():
		return transport.Refuse(transport.CodeBadRequest, "nothing may be sent here")
	case answers > 2*(l.engine.o.MaxChannels+l.engine.o.MaxCalls):
		return transport.Refuse(transport.CodeBadRequest, "%d answers wait to be read", answers)
	case len(f.Channels) > l.engine.o.MaxChannels || len(f.Watches) > l.engine.o.MaxChannels:
		return transport.Refuse(transport.CodeTooManyChannels,
			"%d channels in a frame are more than %d (Options.MaxChannels)", max(len(f.Channels), len(f.Watches)), l.engine.o.MaxChannels)
	}
	switch f.Kind {
	case transport.FramePublish:
		l.publish(f.Publish)
	case transport.FrameCall:
		l.call(f.Call)
	case transport.FrameGoodbye:
		l.engine.sessions.goodbye(l.lease(), l.client)
	case transport.FrameSubscribe, transport.FrameUnsubscribe, transport.FramePause, transport.FrameWatch:
		if !l.order(func() { l.takeFrame(&f) }) {
			return transport.Refuse(transport.CodeBadRequest, "more than %d frames wait to be worked on", maxWaiting)
		}
	default:
		return transport.Refuse(transport.CodeBadRequest, "a client does not send such frames")
	}
	return nil
}

// order has something done by the intake, in order. It reports false if too much
// waits there already.
func (l *line) order(what func()) bool {
	l.mu.Lock()
	full := len(l.waiting) >= maxWaiting
	if !full {
		l.waiting = append(l.waiting, what)
	}
	l.mu.Unlock()
	l.intake.ask()
	return !full
}

// takeOrders does what waits, in order, as long as the worker keeps up with the
// answers.
func (l *line) takeOrders() {
	for !l.over.Load() {
		what := l.nextOrder()
		if what == nil {
			return
		}
		what()
	}
}

// nextOrder takes the next one, unless too many answers wait to be sent: then
// the worker asks again when it has taken them. None is taken before the line
// has begun.
func (l *line) nextOrder() func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.attached || len(l.waiting) == 0 || len(l.inbox) > l.engine.o.MaxChannels {
		return nil
	}
	what := l.waiting[0]
	l.waiting = l.waiting[1:]
	return what
}

func (l *line) takeFrame(f *transport.Frame) {
	switch f.Kind {
	case transport.FrameSubscribe:
		for _, ask := range f.Channels {
			if l.over.Load() {
				return
			}
			l.subscribeLater(ask)
		}
	case transport.FrameUnsubscribe:
		for _, name := range f.Names {
			l.unsubscribe(name)
		}
	case transport.FramePause:
		for _, name := range f.Names {
			l.pause(name)
		}
	case transport.FrameWatch:
		ctx, cancel := l.question()
		defer cancel()
		for _, c := range l.watch(ctx, f.Watches) {
			l.push(c)
		}
		return
	}
	l.engine.sessions.changed(l)
}

func (l *line) question() (context.Context, context.CancelFunc) {
	return context.WithTimeout(l.ctx, l.engine.o.AttachTimeout)
}

func (l *line) subscribeLater(ask transport.Subscription) {
	reading, has := l.names[ask.Channel]
	if reading && l.gifts[ask.Channel] { // the gift and the question met on the way: the client's place counts
		l.push(command{leave: ask.Channel})
		reading = false
	}
	delete(l.gifts, ask.Channel)
	if reading {
		l.sayGoodbye(transport.Refuse(transport.CodeBadRequest, "channel %.40q is subscribed already", ask.Channel).Reason)
		return
	}
	if most := l.engine.o.MaxChannels; !has && len(l.names) >= most {
		r := transport.Refuse(transport.CodeTooManyChannels, "more than %d channels (Options.MaxChannels)", most)
		l.push(command{frame: endFrame(ask.Channel, r.Reason)})
		return
	}
	ctx, cancel := l.question()
	defer cancel()
	c, err := l.subscribe(ctx, ask) // a refusal is told by the command
	if err != nil {
		delete(l.names, ask.Channel)
	}
	l.push(c)
}

// unsubscribe ends a channel that the client has. One that it has not, because
// the server has ended it meanwhile, was acknowledged by that end.
func (l *line) unsubscribe(name string) {
	if _, has := l.names[name]; has {
		l.drain(name, leftAsAsked)
		delete(l.names, name)
		delete(l.gifts, name)
	}
}

// pause stops a channel's events (PROTOCOL P6.18).
func (l *line) pause(name string) {
	if l.names[name] {
		l.drain(name, pausedAsAsked)
		l.names[name] = false
	}
}

// drain has the worker leave a channel, if it reads it, and tell why.
func (l *line) drain(name string, why transport.Reason) {
	c := command{frame: endFrame(name, why)}
	if l.names[name] {
		c.leave = name
	}
	l.push(c)
}

// give begins a channel because the program says so. It gives no right.
func (l *line) give(name string) {
	if _, has := l.names[name]; has || len(l.names) >= l.engine.o.MaxChannels {
		return
	}
	ctx, cancel := l.question()
	defer cancel()
	c, err := l.subscribe(ctx, transport.Subscription{Channel: name})
	if err != nil {
		l.engine.o.Logger.Info("a channel could not be given to a client", "channel", name, "subject", l.peer.Subject, "error", err)
		return
	}
	l.gifts[name] = true
	l.push(c)
	l.engine.sessions.changed(l)
}

// takeAway ends a channel because the client may not have it any more. In plain
// use that is the end of the line.
func (l *line) takeAway(name string, why *transport.Refusal) {
	if _, has := l.names[name]; !has {
		return
	}
	if l.version == 0 {
		l.sayGoodbye(why.Reason)
		return
	}
	l.drain(name, why.Reason)
	delete(l.names, name)
	delete(l.granted, name)
	delete(l.gifts, name)
	l.engine.sessions.changed(l)
}

// reauthorize asks Authorize again for all that the line has. What OnConnect
// gave stays until the next line.
func (l *line) reauthorize() {
	for name := range l.names {
		if l.granted[name] {
			continue
		}
		if r := l.mayStill(Subscribe, name); r != nil {
			l.takeAway(name, r)
		}
	}
	lost := false
	for name, w := range l.watched {
		if r := l.mayStill(Presence, name); r != nil {
			l.engine.unwatch(w)
			delete(l.watched, name)
			l.push(command{frame: watchRefused(name, r)})
			lost = true
		}
	}
	if lost {
		l.push(l.watching())
	}
}

func (l *line) mayStill(what Action, name string) *transport.Refusal {
	ctx, cancel := l.question()
	defer cancel()
	err := l.engine.Authorize(ctx, l.peer, what, eventlog.Channel{Namespace: l.peer.Namespace, Name: name})
	if err == nil || l.over.Load() {
		return nil
	}
	return l.engine.refusal(err)
}

// watch brings the channels whose presence is watched to those asked for, and
// returns what the worker is to be told.
func (l *line) watch(ctx context.Context, asks []transport.Watch) (commands []command) {
	old := l.watched
	l.watched = make(map[string]*watch, len(asks))
	for _, ask := range asks {
		if w := old[ask.Channel]; w != nil {
			l.watched[ask.Channel] = w
			delete(old, ask.Channel)
			continue
		}
		w, err := l.beginWatch(ctx, ask)
		if err != nil {
			commands = append(commands, command{frame: watchRefused(ask.Channel, l.engine.refusal(err))})
			continue
		}
		l.watched[ask.Channel] = w
	}
	for _, w := range old {
		l.engine.unwatch(w)
	}
	return append(commands, l.watching())
}

func (l *line) beginWatch(ctx context.Context, ask transport.Watch) (*watch, error) {
	ch := eventlog.Channel{Namespace: l.peer.Namespace, Name: ask.Channel}
	if err := ch.Check(); err != nil {
		return nil, transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	if err := l.engine.Authorize(ctx, l.peer, Presence, ch); err != nil {
		return nil, err
	}
	return l.engine.watching(l, ask, ch)
}

// watching is the command that tells the worker what to watch.
func (l *line) watching() command {
	list := make([]*watch, 0, len(l.watched))
	for _, w := range l.watched {
		list = append(list, w)
	}
	return command{watches: &list}
}

func watchRefused(name string, r *transport.Refusal) *transport.Frame {
	return &transport.Frame{Kind: transport.FramePresence, Channel: name, Presence: &transport.Presence{Refused: r}}
}
