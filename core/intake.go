package core

import (
	"context"
	"log/slog"

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
	answers, waiting := len(l.inbox), len(l.waiting)
	l.mu.Unlock()
	switch {
	case !l.inSession():
		return transport.Refuse(transport.CodeBadRequest, "nothing may be sent here")
	case answers > 2*(l.engine.o.MaxChannels+l.engine.o.MaxCalls):
		return transport.Refuse(transport.CodeBadRequest, "%d answers wait to be read", answers)
	case max(len(f.Channels), len(f.Watches), len(f.Names)) > l.engine.o.MaxChannels:
		return transport.Refuse(transport.CodeTooManyChannels,
			"%d channels in a frame are more than %d (Options.MaxChannels)", max(len(f.Channels), len(f.Watches), len(f.Names)), l.engine.o.MaxChannels)
	}
	switch f.Kind {
	case transport.FramePublish:
		l.publish(f.Publish)
	case transport.FrameCall:
		l.call(f.Call)
	case transport.FrameHistory:
		l.past(f.History)
	case transport.FrameCredentials:
		return l.present(f.Credentials)
	case transport.FrameGoodbye:
		l.engine.sessions.goodbye(l.lease(), l.client)
	case transport.FrameSubscribe, transport.FrameUnsubscribe, transport.FramePause, transport.FrameWatch:
		if waiting >= maxWaiting { // perhaps because we are slow
			return transport.RefuseFor(l.engine.soon(), transport.CodeBusy, "more than %d frames wait to be worked on", maxWaiting)
		}
		l.order(func() { l.takeFrame(&f) })
	default:
		return transport.Refuse(transport.CodeBadRequest, "a client does not send such frames")
	}
	return nil
}

// order has something done by the intake, in order. What the program orders is
// never left out: a line that can't keep up with it ends.
func (l *line) order(what func()) {
	l.mu.Lock()
	full := len(l.waiting) >= maxOrders
	if !full {
		l.waiting = append(l.waiting, what)
	}
	l.mu.Unlock()
	if full {
		l.sayGoodbye(transport.RefuseFor(l.engine.soon(), transport.CodeBusy, "more than %d orders wait to be carried out", maxOrders).Reason)
		return
	}
	l.intake.ask()
}

// askRights has the rights of the line asked for again.
func (l *line) askRights() {
	if !l.reauthorizing.Swap(true) {
		l.order(l.reauthorize)
	}
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
		tooOften := l.engine.o.Admit(l.who(), EffortResume, len(f.Channels))
		for _, ask := range f.Channels {
			if l.over.Load() {
				return
			}
			l.subscribeLater(ask, tooOften)
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
		if err := l.engine.o.Admit(l.who(), EffortResume, len(f.Watches)); err != nil {
			for _, ask := range f.Watches {
				l.push(command{frame: watchRefused(ask.Channel, l.engine.refusal(err))})
			}
			return
		}
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

// subscribeLater begins a channel, unless it is refused already.
func (l *line) subscribeLater(ask transport.Subscription, refused error) {
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
		l.refused("subscribe", ask.Channel, r)
		l.push(command{frame: endFrame(ask.Channel, r.Reason)})
		return
	}
	if refused != nil {
		l.refused("subscribe", ask.Channel, refused)
		l.push(command{frame: endFrame(ask.Channel, l.engine.refusal(refused).Reason)})
		delete(l.names, ask.Channel)
		return
	}
	ctx, cancel := l.question()
	defer cancel()
	c, err := l.subscribe(ctx, ask) // a refusal is told by the command
	if err != nil {
		l.refused("subscribe", ask.Channel, err)
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
		l.refused("subscribe", name, err)
		return
	}
	l.gifts[name] = true
	c.frame.Given = true
	l.push(c)
	l.engine.sessions.changed(l)
}

// takeAway ends a channel because the client may not have it any more. In plain
// use that is the end of the line.
func (l *line) takeAway(name string, why *transport.Refusal) {
	if _, has := l.names[name]; !has {
		return
	}
	l.engine.Tell(slog.LevelDebug, &l.client, "channel taken away", append(why.Attrs(), slog.String("channel", name))...)
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
	l.reauthorizing.Store(false)
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
	err := l.engine.Authorize(ctx, l.who(), what, eventlog.Channel{Namespace: l.peer.Namespace, Name: name})
	if err == nil || l.over.Load() {
		return nil
	}
	return l.engine.refusal(err)
}
