package core

import (
	"context"

	"github.com/throughline/throughline/transport"
)

// Receive implements [transport.Session].
func (l *line) Receive(f transport.Frame) error {
	l.mu.Lock()
	full := len(l.waiting) >= maxWaiting
	if !full {
		l.waiting = append(l.waiting, f)
	}
	l.mu.Unlock()
	if full {
		r := transport.Refuse(transport.CodeBadRequest, "more than %d frames wait to be worked on", maxWaiting)
		l.sayGoodbye(r.Reason)
		return r
	}
	l.intake.ask()
	return nil
}

// takeFrames works on what the client sent, in order, as long as the worker
// keeps up with the answers.
func (l *line) takeFrames() {
	for !l.over.Load() {
		f, ok := l.nextFrame()
		if !ok {
			return
		}
		l.takeFrame(&f)
	}
}

// nextFrame takes the next frame, unless too many answers wait to be sent: then
// the worker asks again when it has taken them.
func (l *line) nextFrame() (f transport.Frame, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 || len(l.inbox) > l.engine.o.MaxChannels {
		return f, false
	}
	f = l.waiting[0]
	l.waiting = l.waiting[1:]
	return f, true
}

func (l *line) takeFrame(f *transport.Frame) {
	switch {
	case f.Kind == transport.FrameClose:
		l.sayGoodbye(f.Reason)
	case l.version == 0 || l.probe:
		l.sayGoodbye(transport.Refuse(transport.CodeBadRequest, "nothing may be sent here").Reason)
	case len(f.Channels) > l.engine.o.MaxChannels:
		l.sayGoodbye(transport.Refuse(transport.CodeTooManyChannels,
			"%d channels in a frame are more than %d (Options.MaxChannels)", len(f.Channels), l.engine.o.MaxChannels).Reason)
	case f.Kind == transport.FrameSubscribe:
		for _, ask := range f.Channels {
			if l.over.Load() {
				return
			}
			l.subscribeLater(ask)
		}
	case f.Kind == transport.FrameUnsubscribe:
		for _, name := range f.Names {
			l.unsubscribe(name)
		}
	default:
		l.sayGoodbye(transport.Refuse(transport.CodeBadRequest, "a client does not send such frames").Reason)
	}
}

func (l *line) subscribeLater(ask transport.Subscription) {
	if l.names[ask.Channel] {
		l.sayGoodbye(transport.Refuse(transport.CodeBadRequest, "channel %.40q is subscribed already", ask.Channel).Reason)
		return
	}
	if most := l.engine.o.MaxChannels; len(l.names) >= most {
		r := transport.Refuse(transport.CodeTooManyChannels, "more than %d channels (Options.MaxChannels)", most)
		l.push(command{frame: &transport.Frame{Kind: transport.FrameEnd, Channel: ask.Channel, Reason: r.Reason}})
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.engine.o.AttachTimeout)
	defer cancel()
	c, _ := l.subscribe(ctx, ask) // a refusal is told by the command
	l.push(c)
}

// unsubscribe ends a channel that the client has. One that it has not, because
// the server has ended it meanwhile, was acknowledged by that end.
func (l *line) unsubscribe(name string) {
	if !l.names[name] {
		return
	}
	delete(l.names, name)
	l.push(command{leave: name, frame: &transport.Frame{
		Kind: transport.FrameEnd, Channel: name,
		Reason: transport.Reason{Code: transport.CodeUnsubscribed, Class: transport.Now},
	}})
}
