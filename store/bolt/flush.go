package bolt

import (
	"errors"
	"time"
)

// flush writes what was staged, deletes some of what was trimmed, and shows all
// that. What fails stays staged.
func (l *Log) flush(now time.Time) error {
	if errors.Is(l.broken, ErrFailed) {
		return l.broken
	}
	swept := l.clear(litterPiece + litterShare*len(l.changes))
	changes := l.changes
	for _, c := range swept {
		for offset := c.from; offset <= c.to; offset++ {
			changes = append(changes, change{bucket: eventsBucket, key: eventKey(c.channel.id, offset)})
		}
		c.channel.floor = c.to
	}
	for _, ch := range l.dirty {
		key := channelKey(ch.id)
		changes = append(changes, change{channelsBucket, key, encodeRecord(key, ch)})
	}
	l.flushed = now
	if err := l.commit(changes); err != nil {
		for _, c := range swept {
			c.channel.floor = c.from - 1
		}
		l.failed(err)
		return err
	}
	for _, ch := range l.dirty {
		ch.staged = nil
		l.change(ch) // its tail is in the file now
		ch.dirty = false
	}
	l.changes, l.dirty, l.pending = nil, nil, 0
	l.failing, l.deleted = nil, l.deleted || len(swept) > 0
	l.show()
	return nil
}

// commit makes changes, all or none, and syncs them.
func (l *Log) commit(changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	l.options.hooks.at("commit")
	if err := l.file.update(changes); err != nil {
		return writeError(l.path, err)
	}
	l.options.hooks.at("committed")
	if l.copying != nil {
		l.copying.record(changes)
	}
	return nil
}

// failed notes that a commit failed. With an interval, what it held was
// acknowledged: it is tried again, and nothing is acknowledged before that.
func (l *Log) failed(err error) {
	if !errors.Is(err, ErrFull) {
		l.breakOff(err)
	}
	if l.failing == nil {
		l.options.Logger.Error("event log can't be written, and will try again", "file", l.path, "acknowledged_bytes", l.pending, "error", err)
	}
	l.failing = err
}

// A span is a part of a channel, in offsets, both included.
type span struct {
	channel  *channel
	from, to uint64
}

// clear returns what is to be deleted in the next commit, at most so many events
// of those that were trimmed. Their channels' records are written with it.
// Events of which some reader may not know yet that they were trimmed stay.
func (l *Log) clear(most int) (spans []span) {
	for most > 0 && len(l.litter) > 0 {
		ch := l.litter[0]
		to := min(ch.shown.base.at.Offset, ch.floor+uint64(most))
		if to > ch.floor {
			most -= int(to - ch.floor)
			spans = append(spans, span{ch, ch.floor + 1, to})
			l.change(ch)
		}
		if to < ch.next.base.at.Offset && to < ch.shown.base.at.Offset {
			break // more of it next time
		}
		ch.littered = false // or when its base is shown
		l.litter = l.litter[1:]
	}
	return spans
}
