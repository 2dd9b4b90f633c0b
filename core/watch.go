package core

import (
	"context"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

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
			l.refused("presence", ask.Channel, err)
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
	if err := l.engine.Authorize(ctx, l.who(), Presence, ch); err != nil {
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

// patience is how long a line waits for who is present before it begins: so that
// a poll, which has one answer, has it in that.
const patience = 100 * time.Millisecond

// awaitPresence waits for what the watched channels' rosters have to say, but
// not for a Store that takes its time.
func (l *line) awaitPresence(ctx context.Context) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for _, w := range l.watched {
		select {
		case <-w.roster.known:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
