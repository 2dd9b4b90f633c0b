package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// by makes a batch of one message.
func by(id string, seq uint64) eventlog.Batch {
	return eventlog.Batch{
		Messages: text(fmt.Sprintf("%s %d", id, seq)),
		Producer: eventlog.Producer{Owner: "owner", ID: id, Seq: seq},
	}
}

// repeat checks that a number is a duplicate of what is at a position.
func (c *logCheck) repeat(l eventlog.Log, ch eventlog.Channel, p eventlog.Producer, first eventlog.Position) {
	before := c.head(l, ch)
	at, duplicate, err := l.Append(c.ctx, ch, eventlog.Batch{Messages: text("again"), Producer: p})
	if err != nil || !duplicate || at != first {
		c.errorf("a repeat of %q %d: position %v, duplicate %v, error %v; the first was at %v", p.ID, p.Seq, at, duplicate, err, first)
	}
	if after := c.head(l, ch); after != before {
		c.errorf("a repeat of %q %d moved the head from %v to %v", p.ID, p.Seq, before, after)
	}
}

// refused checks that a batch fails with an error and appends nothing.
func (c *logCheck) refused(l eventlog.Log, ch eventlog.Channel, b eventlog.Batch, want error) {
	before := c.head(l, ch)
	_, duplicate, err := l.Append(c.ctx, ch, b)
	if !errors.Is(err, want) || duplicate {
		c.errorf("Append by %q %d: duplicate %v, error %v, not %v", b.Producer.ID, b.Producer.Seq, duplicate, err, want)
	}
	if after := c.head(l, ch); after != before {
		c.errorf("a refused append by %q %d moved the head", b.Producer.ID, b.Producer.Seq)
	}
}

func duplicateIsFirst(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	batch := by("p", 7)
	batch.Messages = text("a", "b")
	first := c.appendBatch(l, room, batch)
	c.repeat(l, room, batch.Producer, first)
	c.append(l, room, text("c"))
	c.repeat(l, room, batch.Producer, first)
	c.repeat(l, room, eventlog.Producer{Owner: "another", ID: "p", Seq: 7}, first)
	// The head is no longer what the first attempt expected.
	batch.Expect = &start
	if at, duplicate, err := l.Append(c.ctx, room, batch); err != nil || !duplicate || at != first {
		c.errorf("a repeat whose Expect is no longer the head: %v, duplicate %v, error %v", at, duplicate, err)
	}
	c.expect(l, room, start, "a", "b", "c")
}

func lowerIsStale(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	c.appendBatch(l, room, by("p", 3))
	c.refused(l, room, by("p", 2), eventlog.ErrStale)
	last := c.appendBatch(l, room, by("p", 1<<63)) // numbers may jump
	c.refused(l, room, by("p", 3), eventlog.ErrStale)
	c.repeat(l, room, by("p", 1<<63).Producer, last)
	c.expect(l, room, start, "p 3", fmt.Sprintf("p %d", uint64(1<<63)))
}

func producerScope(c *logCheck) {
	l := c.open(LogSetup{})
	for _, ch := range []eventlog.Channel{room, {Name: "other"}, {Namespace: "n", Name: "room"}} {
		start := c.head(l, ch)
		first := c.appendBatch(l, ch, by("p", 2))
		c.appendBatch(l, ch, by("q", 1))
		c.repeat(l, ch, by("p", 2).Producer, first)
		another := by("p", 3)
		another.Producer.Owner = "another"
		last := c.appendBatch(l, ch, another)
		c.refused(l, ch, by("p", 2), eventlog.ErrStale)
		c.repeat(l, ch, by("p", 3).Producer, last)
		c.expect(l, ch, start, "p 2", "q 1", "p 3")
	}
}

func duplicateHasOneWinner(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	for seq := range uint64(10) {
		at := make(chan eventlog.Position, 100)
		c.race(func() bool {
			last, duplicate, err := l.Append(c.ctx, room, by("p", seq+1))
			if err != nil {
				c.errorf("Append: %v", err)
			}
			at <- last
			return !duplicate
		})
		for first := <-at; len(at) > 0; {
			if other := <-at; other != first {
				c.errorf("repeats of one number are told %v and %v", first, other)
			}
		}
	}
	if n := len(c.readAll(l, room, start, eventlog.Limit{})); n != 10 {
		c.errorf("%d events of 10", n)
	}
}

func refusedIsNotCounted(c *logCheck) {
	l := c.open(LogSetup{})
	start := c.head(l, room)
	for i, seq := range []uint64{1, 2} { // a new producer, and a known one
		wrong := by("p", seq)
		wrong.Expect = &eventlog.Position{Offset: 99, Mark: 1}
		if _, _, err := l.Append(c.ctx, room, wrong); err == nil {
			c.errorf("append %d that expected what isn't was taken", i)
		}
		bad := by("p", seq)
		bad.Messages[0].Type = "open"
		_, _, err := l.Append(c.ctx, room, bad)
		c.invalid(err, "Append of a bad message")
		c.appendBatch(l, room, by("p", seq))
	}
	c.expect(l, room, start, "p 1", "p 2")
}

func producersAreRemembered(c *logCheck) {
	setup := shortLived
	setup.RememberProducers = 3 * 24 * time.Hour
	l := c.open(setup)
	remembered := l.Info().ProducersRemembered
	if remembered < setup.RememberProducers {
		c.fatalf("producers are remembered for %v, not %v", remembered, setup.RememberProducers)
	}
	c.appendBatch(l, room, by("p", 1))
	c.pass(l, remembered-time.Hour)
	second := c.appendBatch(l, room, by("p", 2))
	for range 3 {
		c.pass(l, remembered/3-time.Second)
		c.repeat(l, room, by("p", 2).Producer, second)
		c.refused(l, room, by("p", 1), eventlog.ErrStale)
	}
}

func newProducersAreBusy(c *logCheck) {
	l := c.open(LogSetup{MaxProducersPerOwner: 5, MaxProducersPerChannel: 8})
	others := []eventlog.Channel{{Name: "a"}, {Name: "b"}}
	last := make(map[string]eventlog.Position)
	add := func(owner, id string) eventlog.Batch {
		b := by(id, 1)
		b.Producer.Owner = owner
		return b
	}
	for i := range 5 { // the owner's bound, over several channels
		id := fmt.Sprint("p", i)
		ch := others[i%2]
		last[id] = c.appendBatch(l, ch, add("one", id))
	}
	c.refused(l, others[0], add("one", "p5"), eventlog.ErrBusy)
	c.refused(l, room, add("one", "p6"), eventlog.ErrBusy)
	c.append(l, room, text("without a producer"))
	apart := eventlog.Channel{Namespace: "n", Name: "a"}
	c.appendBatch(l, apart, add("one", "p0"))
	for i := range 8 { // the channel's bound
		id := fmt.Sprint("q", i)
		last[id] = c.appendBatch(l, room, add(fmt.Sprint("owner", i), id))
	}
	c.refused(l, room, add("two", "q8"), eventlog.ErrBusy)
	for i := range 5 {
		id := fmt.Sprint("p", i)
		c.repeat(l, others[i%2], add("one", id).Producer, last[id])
		c.appendBatch(l, others[i%2], by(id, 2))
	}
	for i := range 8 {
		id := fmt.Sprint("q", i)
		c.repeat(l, room, add("one", id).Producer, last[id])
		c.appendBatch(l, room, by(id, 2))
	}
}

func busyEnds(c *logCheck) {
	l := c.open(LogSetup{MaxProducersPerOwner: 2, RememberProducers: time.Hour})
	c.appendBatch(l, room, by("p", 1))
	c.appendBatch(l, room, by("q", 1))
	c.refused(l, room, by("r", 1), eventlog.ErrBusy)
	c.pass(l, 2*l.Info().ProducersRemembered)
	c.appendBatch(l, room, by("r", 1))
	c.appendBatch(l, room, by("s", 1))
}
