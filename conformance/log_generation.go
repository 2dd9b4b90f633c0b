package conformance

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// shortLived is a log in which names don't last.
var shortLived = LogSetup{
	Retention:         eventlog.Retention{Age: time.Hour},
	Generation:        24 * time.Hour,
	RememberProducers: time.Minute,
}

// risen returns the place of an unborn channel after the next rise.
func (c *logCheck) risen(l eventlog.Log, ch eventlog.Channel) eventlog.Position {
	before := c.head(l, ch)
	for range 48 {
		c.pass(l, time.Hour)
		if now := c.head(l, ch); now != before {
			return now
		}
	}
	c.fatalf("the place of %v is still %v after two generations", ch, before)
	return before
}

func placeMoves(c *logCheck) {
	l := c.open(shortLived)
	first := c.head(l, room)
	second := c.risen(l, room)
	page := c.read(l, room, first, eventlog.Limit{})
	if len(page.Events) > 0 || page.Next != second || page.Head != second || second.Offset != 0 {
		c.errorf("after the place before, %v: %d events, Next %v, Head %v, where the place is %v", first, len(page.Events), page.Next, page.Head, second)
	}
	if at := c.seek(l, room, eventlog.Start{Earliest: true}); at != second {
		c.errorf("the earliest is %v, not %v", at, second)
	}
	third := c.risen(l, room)
	c.lost(l, room, first, eventlog.Rewritten, third)
	c.expect(l, room, second)
	// Whoever had the place before may still expect nothing to have come.
	last := c.appendBatch(l, room, eventlog.Batch{Messages: text("a"), Expect: &second})
	c.lost(l, room, first, eventlog.Rewritten, last)
	c.expect(l, room, second, "a")
	c.expect(l, room, third, "a")
}

func placesKeptAtBirth(c *logCheck) {
	l := c.open(LogSetup{Retention: eventlog.Retention{Age: -1}, Generation: 24 * time.Hour})
	other := eventlog.Channel{Name: "unborn"}
	var places []eventlog.Position
	for range 3 {
		places = append(places, c.head(l, room))
		c.risen(l, other)
	}
	places = append(places, c.head(l, room))
	last := c.append(l, room, text("a"))
	for range 4 {
		for i, at := range places {
			if i < 2 {
				c.lost(l, room, at, eventlog.Rewritten, last)
			} else {
				c.expect(l, room, at, "a")
			}
		}
		c.risen(l, other)
	}
}

func riseWakes(c *logCheck) {
	l := c.open(shortLived)
	woken := make(chan struct{}, 1)
	defer l.Watch(room, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	at := c.head(l, room)
	for range 5 {
		// A reader that reads when woken, and only then, never hears of a loss.
		if !within(48*time.Hour, woken) {
			c.fatalf("no wake in two generations")
		}
		at = c.read(l, room, at, eventlog.Limit{}).Next
	}
}

func readingCreatesNothing(c *logCheck) {
	l := c.open(shortLived)
	defer l.Watch(room, func() {})() // a watched name would stay if it was there
	at := c.head(l, room)
	c.seek(l, room, eventlog.Start{Last: 3})
	c.seek(l, room, eventlog.Start{Earliest: true})
	c.read(l, room, at, eventlog.Limit{})
	next := c.risen(l, room)
	if next.Offset != 0 {
		c.errorf("the place of a channel that was only read is %v", next)
	}
	c.expect(l, room, at)
}

// emptied has a channel written and lets its events get too old.
func (c *logCheck) emptied(l eventlog.Log, ch eventlog.Channel) (at []eventlog.Position) {
	at = append(at, c.head(l, ch))
	for range 3 {
		at = append(at, c.append(l, ch, text("old")))
	}
	c.pass(l, 2*time.Hour)
	return at
}

func namesAreDropped(c *logCheck) {
	l := c.open(shortLived)
	c.emptied(l, room)
	c.pass(l, 7*24*time.Hour)
	if at := c.head(l, room); at.Offset != 0 {
		c.errorf("the name is still there after 7 generations: the head is %v", at)
	}
}

func droppedIsNotConfused(c *logCheck) {
	l := c.open(shortLived)
	old := c.emptied(l, room)
	c.pass(l, 7*24*time.Hour)
	head := c.head(l, room)
	check := func() {
		for _, at := range old {
			page, err := l.Read(c.ctx, room, at, eventlog.Limit{})
			var lost *eventlog.Lost
			if errors.As(err, &lost) && lost.From == at && lost.To == c.head(l, room) {
				continue
			}
			// A log that keeps names has the head, and trimmed what was before.
			if head.Offset == 3 && (at.Offset == 3 && err == nil || errors.As(err, &lost) && lost.Reason == eventlog.Trimmed) {
				continue
			}
			c.errorf("after a position of before, %v, where the head is %v: %d events, error %v", at, c.head(l, room), len(page.Events), err)
		}
	}
	check()
	for range 6 { // below, at, and above the offsets there were
		c.append(l, room, text("new"))
		check()
	}
	c.expect(l, room, head, "new", "new", "new", "new", "new", "new")
}

func watchedNameStays(c *logCheck) {
	l := c.open(shortLived)
	var wakes atomic.Int64
	stop := l.Watch(room, func() { wakes.Add(1) })
	old := c.emptied(l, room)
	head := old[len(old)-1]
	c.pass(l, 7*24*time.Hour)
	c.expect(l, room, head)
	c.append(l, room, text("new"))
	c.expect(l, room, head, "new")
	stop()
}

func producersKeepTheName(c *logCheck) {
	setup := shortLived
	setup.RememberProducers = 10 * 24 * time.Hour
	l := c.open(setup)
	by := eventlog.Producer{ID: "p", Seq: 1}
	last := c.appendBatch(l, room, eventlog.Batch{Messages: text("a"), Producer: by})
	c.pass(l, 9*24*time.Hour)
	c.repeat(l, room, by, last)
	c.expect(l, room, last)
}
