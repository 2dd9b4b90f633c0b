package core

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// Publish appends what a client published, if it may, and the hook agrees. The
// error is a *transport.Refusal, or one of the log's. tried reports whether the
// log was asked.
func (e *Engine) Publish(ctx context.Context, peer transport.Peer, p *Publication, producer eventlog.Producer) (at eventlog.Position, duplicate, tried bool, err error) {
	if r := p.check(); r != nil {
		return at, false, false, r
	}
	if !e.enter() {
		return at, false, false, e.shutdown()
	}
	defer e.live.Done()
	ctx, cancel := context.WithTimeout(ctx, e.o.PublishTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	return e.publish(ctx, peer, p, producer)
}

// check refuses what would be refused whenever and wherever it came.
func (p *Publication) check() *transport.Refusal {
	if err := p.Channel.Check(); err != nil {
		return transport.Refuse(transport.CodeBadChannel, "%v", err)
	}
	for i := range p.Messages {
		if err := p.Messages[i].Check(0); err != nil {
			return transport.Refuse(transport.CodeInvalid, "%v", err)
		}
	}
	return nil
}

// publish is Publish of what was checked.
func (e *Engine) publish(ctx context.Context, peer transport.Peer, p *Publication, producer eventlog.Producer) (at eventlog.Position, duplicate, tried bool, err error) {
	for i := range p.Messages {
		if err := e.fits(p.Messages[i].Data); err != nil {
			return at, false, false, err
		}
	}
	if err := e.o.Admit(peer, EffortPublish, len(p.Messages)); err != nil {
		return at, false, false, err
	}
	if err := e.Authorize(ctx, peer, Publish, p.Channel); err != nil {
		return at, false, false, err
	}
	if err := e.publishing(ctx, p); err != nil {
		return at, false, false, err
	}
	if ctx.Err() != nil { // a hook that was deaf to it: nothing was done, and that is known
		return at, false, false, e.refusal(ctx.Err())
	}
	at, duplicate, err = e.Append(ctx, p.Channel, eventlog.Batch{Messages: p.Messages, Producer: producer})
	_, notAsked := errors.AsType[*breaker.NotAsked](err)
	return at, duplicate, !notAsked, err
}

// fits refuses data that is too large for a client's.
func (e *Engine) fits(data []byte) error {
	if most := e.o.MaxMessage; most > 0 && len(data) > most {
		return transport.Refuse(transport.CodeTooLarge, "the data is longer than %d bytes (Options.MaxMessage)", most)
	}
	return nil
}

// Append has the log append, whoever wants that.
func (e *Engine) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (at eventlog.Position, duplicate bool, err error) {
	began := time.Now()
	at, duplicate, err = e.o.Log.Append(ctx, ch, b)
	e.askedLog("append", ch, began, err)
	e.o.Observer.Published(ch.Namespace, err, duplicate)
	return at, duplicate, err
}

// publishing asks OnPublish. If it panics the messages are refused for good:
// they might make it panic again.
func (e *Engine) publishing(ctx context.Context, p *Publication) error {
	if e.o.OnPublish == nil {
		return nil
	}
	err := e.guard("OnPublish", p.Client, func() error { return e.o.OnPublish(ctx, p) })
	if errors.Is(err, errPanicked) {
		return transport.Refuse(transport.CodeFailed, "the publish hook of this server failed")
	}
	return e.answerOf(ctx, err, "not allowed to publish to %.100s: Options.OnPublish of this server refuses it", p.Channel.Name)
}

// publishBatch works on a producer's batch, in order, up to the first frame that
// can be neither done nor refused for good (PROTOCOL P9.4, P9.5). All of it has
// PublishTimeout, so that a repeat is done with long before its producer may be
// forgotten.
func (e *Engine) publishBatch(ctx context.Context, peer transport.Peer, who Client, batch *transport.Publish) *transport.Frame {
	answer := &transport.Frame{Kind: transport.FramePublished}
	owner := peer.Subject
	if owner == "" {
		owner = peer.Addr
	}
	ctx, cancel := context.WithTimeout(ctx, e.o.PublishTimeout)
	defer cancel()
	for i := range batch.Frames {
		f := &batch.Frames[i]
		p := &Publication{
			Client: who, Channel: eventlog.Channel{Namespace: peer.Namespace, Name: f.Channel}, Messages: f.Messages,
			Producer: batch.Producer, Number: f.Seq, Repeat: f.Repeat,
		}
		if r := p.check(); r != nil { // on a repeat, too
			e.Refused(&who, "publish", f.Channel, r)
			answer.Published = append(answer.Published, transport.Published{Seq: f.Seq, Refused: r})
			continue
		}
		// The prefix keeps these names apart from those made of an Idempotency-Key.
		at, duplicate, tried, err := e.publish(ctx, peer, p, eventlog.Producer{Owner: owner, ID: "p:" + batch.Producer, Seq: f.Seq})
		entry := transport.Published{Seq: f.Seq, At: at, Duplicate: duplicate}
		if err != nil {
			entry = e.unpublished(f, tried, err)
			e.Refused(&who, "publish", f.Channel, cmp.Or(entry.Refused, entry.Retry))
		}
		answer.Published = append(answer.Published, entry)
		if entry.Retry != nil {
			break
		}
	}
	return answer
}

// unpublished says what the error of a frame means to its producer. On a repeat
// nobody knows what became of the earlier copy.
func (e *Engine) unpublished(f *transport.PublishFrame, tried bool, err error) transport.Published {
	r, final := e.PublishRefusal(err)
	cause := r.Cause
	switch {
	case !final:
		return transport.Published{Seq: f.Seq, Retry: r, Tried: tried}
	case f.Repeat:
		r = transport.Refuse(transport.CodeUnknown, "this repeat was refused (%s), and nobody remembers what became of the first", r.Code).Because(cause)
	}
	return transport.Published{Seq: f.Seq, Refused: r}
}

// PublishRefusal turns an error of Publish into one for the client. final is
// false if the same may be tried again later.
func (e *Engine) PublishRefusal(err error) (r *transport.Refusal, final bool) {
	var invalid *eventlog.Invalid
	var notAsked *breaker.NotAsked
	switch {
	case errors.As(err, &r):
		return r, r.Class == transport.Never
	case errors.As(err, &invalid) && invalid.TooLarge:
		return transport.Refuse(transport.CodeTooLarge, "%v", invalid), true
	case errors.As(err, &invalid):
		return transport.Refuse(transport.CodeInvalid, "%v", invalid), true
	case errors.Is(err, eventlog.ErrStale):
		return transport.Refuse(transport.CodeStale, "this producer has appended a higher number in this channel"), true
	case errors.Is(err, eventlog.ErrBusy):
		return transport.RefuseFor(time.Minute, transport.CodeBusy, "too many producers are remembered"), true
	case errors.As(err, &notAsked):
		after := notAsked.After + rand.N(e.o.RetryDelay)
		return transport.RefuseFor(after, transport.CodeUnavailable, "the event log fails, and was not asked").Because(err), false
	}
	return transport.RefuseFor(e.soon(), transport.CodeUnavailable, "the event log does not answer; the message may have been appended").Because(err), false
}
