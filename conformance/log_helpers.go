package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/throughline/throughline/eventlog"
)

// room is the channel of clauses that need but one.
var room = eventlog.Channel{Name: "room"}

// text makes messages of text.
func text(data ...string) []eventlog.Message {
	messages := make([]eventlog.Message, len(data))
	for i, d := range data {
		messages[i] = eventlog.Message{Kind: eventlog.Text, Data: []byte(d)}
	}
	return messages
}

// numbered makes n messages of text with the given number of bytes.
func numbered(n, bytes int) []eventlog.Message {
	data := make([]string, n)
	for i := range data {
		data[i] = fmt.Sprintf("%d.%s", i, strings.Repeat("x", max(0, bytes-len(fmt.Sprint(i))-1)))
	}
	return text(data...)
}

// append appends what must be taken, and returns the last position.
func (c *logCheck) append(l eventlog.Log, ch eventlog.Channel, messages []eventlog.Message) eventlog.Position {
	return c.appendBatch(l, ch, eventlog.Batch{Messages: messages})
}

func (c *logCheck) appendBatch(l eventlog.Log, ch eventlog.Channel, b eventlog.Batch) eventlog.Position {
	last, duplicate, err := l.Append(c.ctx, ch, b)
	if err != nil || duplicate {
		c.fatalf("Append to %v: duplicate %v, error %v", ch, duplicate, err)
	}
	return last
}

func (c *logCheck) seek(l eventlog.Log, ch eventlog.Channel, s eventlog.Start) eventlog.Position {
	at, err := l.Seek(c.ctx, ch, s)
	if err != nil {
		c.fatalf("Seek in %v to %+v: %v", ch, s, err)
	}
	return at
}

// head is the channel's last position.
func (c *logCheck) head(l eventlog.Log, ch eventlog.Channel) eventlog.Position {
	return c.seek(l, ch, eventlog.Start{})
}

func (c *logCheck) read(l eventlog.Log, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) eventlog.Page {
	page, err := l.Read(c.ctx, ch, after, limit)
	if err != nil {
		c.fatalf("Read of %v after %v: %v", ch, after, err)
	}
	return page
}

// readAll reads page after page to the head.
func (c *logCheck) readAll(l eventlog.Log, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) []eventlog.Event {
	var all []eventlog.Event
	for {
		page := c.read(l, ch, after, limit)
		all = append(all, page.Events...)
		if !page.More() {
			return all
		}
		if page.Next == after {
			c.fatalf("Read of %v after %v: there is more, but Next doesn't move on", ch, after)
		}
		after = page.Next
	}
}

// lost checks that a read is lost, and returns where it may go on.
func (c *logCheck) lost(l eventlog.Log, ch eventlog.Channel, after eventlog.Position, why eventlog.Reason, to eventlog.Position) {
	page, err := l.Read(c.ctx, ch, after, eventlog.Limit{})
	want := eventlog.Lost{From: after, To: to, Reason: why}
	var lost *eventlog.Lost
	switch {
	case !errors.As(err, &lost):
		c.fatalf("Read of %v after %v: %d events and error %v, not %v", ch, after, len(page.Events), err, &want)
	case *lost != want:
		c.fatalf("Read of %v after %v: %v, not %v", ch, after, lost, &want)
	}
}

// expect checks that what a channel has after a position is this.
func (c *logCheck) expect(l eventlog.Log, ch eventlog.Channel, after eventlog.Position, want ...string) {
	if got := data(c.readAll(l, ch, after, eventlog.Limit{})); !slices.Equal(got, want) {
		c.fatalf("%v after %v holds %s, not %s", ch, after, brief(got), brief(want))
	}
}

// data returns the data of events.
func data(events []eventlog.Event) []string {
	var all []string
	for i := range events {
		all = append(all, string(events[i].Data))
	}
	return all
}

// messageData is data of messages.
func messageData(messages []eventlog.Message) []string {
	var all []string
	for i := range messages {
		all = append(all, string(messages[i].Data))
	}
	return all
}

// brief shows data in a failure.
func brief(all []string) string { return fmt.Sprintf("%.300s", fmt.Sprintf("%.12q", all)) }
