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

// takeFrames works on what the client sent, in order.
func (l *line) takeFrames() {
	for !l.over.Load() {
		l.mu.Lock()
		frames := l.waiting
		l.waiting = nil
		l.mu.Unlock()
		if len(frames) == 0 {
			return
		}
		for i := range frames {
			l.takeFrame(&frames[i])
		}
	}
}

func (l *line) takeFrame(f *transport.Frame) {
	switch {
	case f.Kind == transport.FrameClose:
		l.sayGoodbye(f.Reason)
	case l.version == 0 || l.probe:
		l.sayGoodbye(transport.Refuse(transport.CodeBadRequest, "nothing may be sent here").Reason)
	case f.Kind == transport.FrameSubscribe:
		for _, ask := range f.Channels {
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
	ctx, cancel := context.WithTimeout(l.engine.ctx, l.engine.o.ReadTimeout)
	defer cancel()
	c, _ := l.subscribe(ctx, ask) // a refusal is told by the command
	l.push(c)
}

func (l *line) unsubscribe(name string) {
	delete(l.names, name)
	l.push(command{leave: name, frame: &transport.Frame{
		Kind: transport.FrameEnd, Channel: name,
		Reason: transport.Reason{Code: transport.CodeUnsubscribed, Class: transport.Now},
	}})
}
