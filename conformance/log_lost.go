package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/throughline/throughline/eventlog"
)

func placeBeforeFirst(c *logCheck) {
	seen := make(map[uint64]eventlog.Channel)
	for range 2 { // two logs
		l := c.open(LogSetup{})
		for _, ch := range []eventlog.Channel{
			room,
			{Name: "other"},
			{Namespace: "room", Name: "room"},
			{Namespace: "ab", Name: "c"},
			{Namespace: "a", Name: "bc"},
			{Name: "abc"},
		} {
			at := c.head(l, ch)
			if at.Offset != 0 || at.Mark == 0 || at.Mark >= 1<<eventlog.MarkBits {
				c.fatalf("the place before the first event of %v is %v", ch, at)
			}
			if twin, found := seen[at.Mark]; found {
				c.fatalf("%v has the place of %v, or of another log's", ch, twin)
			}
			seen[at.Mark] = ch
			c.append(l, ch, text("a"))
			c.expect(l, ch, at, "a")
		}
	}
}

func rewrittenIsSaid(c *logCheck) {
	l := c.open(LogSetup{})
	other := eventlog.Channel{Name: "other"}
	foreign := c.head(l, other)
	unborn := c.head(l, room)
	bad := []eventlog.Position{
		{}, foreign, {Offset: 0, Mark: unborn.Mark ^ 1}, {Offset: 1, Mark: unborn.Mark}, {Offset: 1 << 63, Mark: 1},
	}
	for _, at := range bad {
		c.lost(l, room, at, eventlog.Rewritten, unborn)
	}
	var marks []eventlog.Position
	for i := range 5 {
		marks = append(marks, c.append(l, room, text(fmt.Sprint(i))))
	}
	foreign = c.append(l, other, text("x"))
	head := marks[4]
	bad = append(
		bad, foreign,
		eventlog.Position{Offset: 2, Mark: marks[0].Mark}, // another event's
		eventlog.Position{Offset: 5, Mark: head.Mark ^ 1},
		eventlog.Position{Offset: 3, Mark: 0},
		eventlog.Position{Offset: 6, Mark: head.Mark},
	)
	for _, at := range bad {
		c.lost(l, room, at, eventlog.Rewritten, head)
	}
	c.expect(l, room, head)
	c.expect(l, room, unborn, "0", "1", "2", "3", "4")
}

func trimmedIsSaid(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Events: 3}})
	place := c.head(l, room)
	at := []eventlog.Position{place}
	for i := range 10 {
		at = append(at, c.append(l, room, text(fmt.Sprint(i+1))))
	}
	base := c.seek(l, room, eventlog.Start{Earliest: true})
	if base.Offset == 0 || base.Offset > 7 || base != at[base.Offset] {
		c.fatalf("of 10 events the last 3 are to be kept, and the earliest position is %v", base)
	}
	for _, before := range at[:base.Offset] {
		c.lost(l, room, before, eventlog.Trimmed, base)
	}
	for i := base.Offset; i <= 10; i++ {
		var want []string
		for n := i + 1; n <= 10; n++ {
			want = append(want, fmt.Sprint(n))
		}
		c.expect(l, room, at[i], want...)
	}
	c.lost(l, room, eventlog.Position{Offset: 0, Mark: place.Mark ^ 1}, eventlog.Rewritten, at[10])
	c.lost(l, room, eventlog.Position{Offset: base.Offset, Mark: base.Mark ^ 1}, eventlog.Rewritten, at[10])
	c.lost(l, room, eventlog.Position{Offset: 9, Mark: at[8].Mark}, eventlog.Rewritten, at[10])
	if last := c.seek(l, room, eventlog.Start{Last: 100}); last != base {
		c.errorf("the last 100 begin at %v, not at the earliest, %v", last, base)
	}
}

func retentionBounds(c *logCheck) {
	size := int64(text("x")[0].Size())
	for _, r := range []eventlog.Retention{{Events: 5}, {Bytes: 5 * size}, {Bytes: 1}, {Events: 1}} {
		l := c.open(LogSetup{Retention: r})
		for _, n := range []int{1, 20, 2, 7} {
			last := c.append(l, room, numbered(n, 1))
			base := c.seek(l, room, eventlog.Start{Earliest: true})
			kept := c.readAll(l, room, base, eventlog.Limit{})
			if len(kept) == 0 || kept[len(kept)-1].At != last {
				c.fatalf("%+v: the last event of %d is not kept", r, n)
			}
			if len(kept) > 5 {
				c.fatalf("%+v: %d events are kept", r, len(kept))
			}
		}
	}
}

func retentionKeeps(c *logCheck) {
	message := eventlog.Message{Type: eventlog.DefaultType, Kind: eventlog.Text, Data: []byte("0.x")}
	size := int64(message.Size())
	for _, r := range []eventlog.Retention{{}, {Events: 50}, {Bytes: 50 * size}} {
		l := c.open(LogSetup{Retention: r})
		for i := range 120 {
			c.append(l, room, numbered(1, 3))
			base := c.seek(l, room, eventlog.Start{Earliest: true})
			if n := len(c.readAll(l, room, base, eventlog.Limit{})); n < min(i+1, 50) {
				c.fatalf("%+v: %d events of %d are kept", r, n, i+1)
			}
		}
	}
}

func ageTrims(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Age: time.Hour}})
	at := []eventlog.Position{c.head(l, room)}
	for i := range 6 {
		at = append(at, c.append(l, room, text(fmt.Sprint(i+1))))
		c.pass(l, 10*time.Minute-time.Second/6)
	}
	// The first is a second short of an hour.
	c.expect(l, room, at[0], "1", "2", "3", "4", "5", "6")
	for i := 1; i <= 6; i++ {
		c.pass(l, 2*time.Second) // now it is too old
		c.lost(l, room, at[i-1], eventlog.Trimmed, at[i])
		if got := len(c.readAll(l, room, at[i], eventlog.Limit{})); got != 6-i {
			c.errorf("%d events after %d got too old, not %d", got, i, 6-i)
		}
		c.pass(l, 10*time.Minute-2*time.Second)
	}
	// Two that are old at almost the same time: the second isn't returned
	// because the first was looked at a moment ago.
	before := c.head(l, room)
	first := c.append(l, room, text("7"))
	c.pass(l, 100*time.Millisecond)
	second := c.append(l, room, text("8"))
	c.pass(l, time.Hour-50*time.Millisecond)
	c.lost(l, room, before, eventlog.Trimmed, first)
	c.pass(l, 100*time.Millisecond)
	c.lost(l, room, before, eventlog.Trimmed, second)
}

func headOutlivesEvents(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Age: time.Minute}, Generation: 24 * time.Hour})
	place := c.head(l, room)
	first := c.append(l, room, text("a"))
	second := c.append(l, room, text("b"))
	c.pass(l, time.Hour)
	c.expect(l, room, second)
	for _, s := range []eventlog.Start{{}, {Earliest: true}, {Last: 1}} {
		if at := c.seek(l, room, s); at != second {
			c.errorf("in a channel whose events are gone %+v is %v, not the head %v", s, at, second)
		}
	}
	c.lost(l, room, place, eventlog.Trimmed, second)
	c.lost(l, room, first, eventlog.Trimmed, second)
	third := c.append(l, room, text("c"))
	if third.Offset != 3 {
		c.errorf("the third event has offset %d", third.Offset)
	}
	c.expect(l, room, second, "c")
	c.lost(l, room, first, eventlog.Trimmed, second)
}

func lostIsNotUnavailable(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Events: 1}})
	place := c.head(l, room)
	c.append(l, room, text("a", "b", "c"))
	for _, at := range []eventlog.Position{place, {}, {Offset: 9, Mark: 9}} {
		_, err := l.Read(c.ctx, room, at, eventlog.Limit{})
		var lost *eventlog.Lost
		if !errors.As(err, &lost) || errors.Is(err, eventlog.ErrUnavailable) {
			c.errorf("Read after %v, which is lost: %v", at, err)
		}
	}
	if err := l.Close(); err != nil {
		c.errorf("Close: %v", err)
	}
	_, err := l.Read(c.ctx, room, place, eventlog.Limit{})
	var lost *eventlog.Lost
	if errors.As(err, &lost) || !errors.Is(err, eventlog.ErrUnavailable) {
		c.errorf("Read of a closed log: %v", err)
	}
}
