package faultproxy

import (
	"slices"
	"time"
)

// maxQueued is how many bytes of a direction wait to go on before no more are
// read.
const maxQueued = 1 << 20

// A flow passes the bytes of one direction, when its shaper says. One goroutine
// runs it.
type flow struct {
	c        *conn
	from, to *side
	shaper   shaper
	cut      *cut // where it breaks; nil: nowhere

	queue  []timed
	queued int
	passed int64
	timer  *time.Timer
}

// A cut is how a connection ends after so many bytes of a flow.
type cut struct {
	after int64
	verdict
}

// A writeError is why the far side took no more.
type writeError struct{ error }

// message passes a head and the body that follows.
func (f *flow) message(head piece, body *framing) error {
	f.add(f.shaper.shape(head.at, head.p))
	return f.run(body, head.at, nil)
}

// run passes a body that begins at start, and returns when all of it has gone
// on. If its source ends early, it returns io.EOF or another error of the source
// once what came has gone on; errStopped when stop closes.
func (f *flow) run(body *framing, start time.Time, stop <-chan struct{}) (broke error) {
	defer f.stopTimer()
	ended := body.empty()
	if ended {
		f.add(f.shaper.end(start))
	}
	for {
		if err := f.writeDue(); err != nil {
			return err
		}
		if ended && len(f.queue) == 0 {
			return broke
		}
		var in <-chan piece
		if !ended && f.queued < maxQueued {
			in = f.from.pieces
			if p, ok := f.from.takeRest(); ok {
				ended, broke = f.take(body, p)
				continue
			}
		}
		select {
		case p, ok := <-in:
			if ok {
				ended, broke = f.take(body, p)
			} else {
				f.add(f.shaper.end(f.from.goneAt))
				ended, broke = true, body.gone(f.from.err)
			}
		case <-f.due():
		case <-stop:
			return errStopped
		case <-f.c.over:
			return errOver
		}
	}
}

// take queues what of a piece is the body's, and reports whether the body ends.
func (f *flow) take(body *framing, p piece) (ended bool, err error) {
	n, ended, err := body.take(p.p)
	f.from.giveBack(piece{p.at, p.p[n:]})
	if n > 0 {
		f.add(f.shaper.shape(p.at, p.p[:n:n]))
	}
	if ended {
		f.add(f.shaper.end(p.at))
	}
	return ended || err != nil, err
}

// add queues pieces. What is due at the same later time goes on as one.
func (f *flow) add(list []timed) {
	now := time.Now()
	for _, t := range list {
		f.queued += len(t.p)
		if k := len(f.queue); k > 0 {
			last := &f.queue[k-1]
			if t.at.Equal(last.at) && t.at.After(now) {
				last.p = slices.Concat(last.p, t.p)
				continue
			}
		}
		f.queue = append(f.queue, t)
	}
}

// writeDue writes what is due.
func (f *flow) writeDue() error {
	for len(f.queue) > 0 && !f.queue[0].at.After(time.Now()) {
		p := f.queue[0].p
		f.queue = f.queue[1:]
		f.queued -= len(p)
		if err := f.write(p); err != nil {
			return err
		}
	}
	return nil
}

func (f *flow) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if f.cut == nil || f.passed+int64(len(p)) < f.cut.after {
		n, err := f.c.write(f.to, p)
		f.passed += int64(n)
		return err
	}
	if p = p[:f.cut.after-f.passed]; len(p) > 0 {
		n, err := f.c.write(f.to, p)
		if f.passed += int64(n); err != nil {
			return err
		}
	}
	f.c.end(f.cut.verdict)
	return errOver
}

// due returns what fires when the next piece is due, after writeDue.
func (f *flow) due() <-chan time.Time {
	if len(f.queue) == 0 {
		return nil
	}
	wait := max(1, time.Until(f.queue[0].at))
	if f.timer == nil {
		f.timer = time.NewTimer(wait)
	} else {
		f.timer.Reset(wait)
	}
	return f.timer.C
}

func (f *flow) stopTimer() {
	if f.timer != nil {
		f.timer.Stop()
	}
}
