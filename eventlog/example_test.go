package eventlog_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/throughline/throughline/eventlog"
)

// A reader is a position: it reads what comes after, and moves on.
func Example() {
	ctx := context.Background()
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()

	room := eventlog.Channel{Name: "room:42"}
	after, _ := log.Seek(ctx, room, eventlog.Start{}) // only what comes from now on

	say := func(texts ...string) {
		var b eventlog.Batch
		for _, t := range texts {
			b.Messages = append(b.Messages, eventlog.Message{Type: "said", Kind: eventlog.Text, Data: []byte(t)})
		}
		if _, _, err := log.Append(ctx, room, b); err != nil {
			fmt.Println(err)
		}
	}
	read := func() {
		page, err := log.Read(ctx, room, after, eventlog.Limit{})
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, e := range page.Events {
			fmt.Printf("%d %s %s\n", e.At.Offset, e.Type, e.Data)
		}
		after = page.Next
	}

	say("hello", "is anybody here?")
	read()
	say("me")
	read()
	// Output:
	// 1 said hello
	// 2 said is anybody here?
	// 3 said me
}

// A reader that was away too long is told what it lost, and where to go on.
func ExampleLost() {
	ctx := context.Background()
	log := eventlog.NewMemory(eventlog.MemoryOptions{
		Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 2} },
	})
	defer log.Close()

	prices := eventlog.Channel{Name: "prices"}
	after, _ := log.Seek(ctx, prices, eventlog.Start{})
	for i := range 5 {
		_, _, _ = log.Append(ctx, prices, eventlog.Batch{Messages: []eventlog.Message{{Data: fmt.Append(nil, i+1)}}})
	}

	page, err := log.Read(ctx, prices, after, eventlog.Limit{})
	if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
		fmt.Printf("%s: events %d to %d\n", lost.Reason, lost.From.Offset+1, lost.To.Offset)
		page, _ = log.Read(ctx, prices, lost.To, eventlog.Limit{})
	}
	for _, e := range page.Events {
		fmt.Printf("event %d: %s\n", e.At.Offset, e.Data)
	}
	// Output:
	// trimmed: events 1 to 3
	// event 4: 4
	// event 5: 5
}

// The last events, the newest first, and what came before: page by page.
func ExampleEvents() {
	ctx := context.Background()
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()

	room := eventlog.Channel{Name: "room:42"}
	for i := range 10 {
		m := eventlog.Message{Data: fmt.Append(nil, i)}
		if i%2 == 0 {
			m.Tags = []string{"even"}
		}
		_, _, _ = log.Append(ctx, room, eventlog.Batch{Messages: []eventlog.Message{m}})
	}
	even := eventlog.Filter{Tags: []string{"even"}}
	for e, err := range eventlog.Events(ctx, log, room, eventlog.Range{Backwards: true}, eventlog.Limit{Events: 3, Filter: even}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.At.Offset, string(e.Data))
	}
	// Output:
	// 9 8
	// 7 6
	// 5 4
}
