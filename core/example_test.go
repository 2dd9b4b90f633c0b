package core_test

import (
	"context"
	"fmt"
	"time"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// printer is a connection that prints what a client would be sent.
type printer struct{ sent chan string }

func (p printer) Send(items []transport.Item, _ time.Time) (more bool, err error) {
	for _, it := range items {
		if it.Run != nil {
			for _, e := range it.Run.Events {
				p.sent <- fmt.Sprintf("%s: %s", it.Run.Channel.Name, e.Data)
			}
		}
		if it.Frame != nil && it.Frame.Kind == transport.FrameClose {
			p.sent <- "goodbye: " + it.Frame.Reason.Code
		}
	}
	return true, nil
}

func (printer) Close(transport.Reason) {}

// An engine needs a log and no network: whoever has a Conn can attach it.
func Example() {
	ctx := context.Background()
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	store := session.NewMemory(session.MemoryOptions{})
	defer store.Close()
	engine := core.New(core.Options{Log: log, Store: store})

	conn := printer{make(chan string)}
	session, err := engine.Attach(ctx, transport.Peer{Subject: "ada", Transport: "print"}, transport.Hello{
		Version:  transport.Version,
		Channels: []transport.Subscription{{Channel: "news"}},
	}, conn)
	if err != nil {
		panic(err) // always a *transport.Refusal
	}
	_, _, _ = log.Append(ctx, eventlog.Channel{Name: "news"}, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(`"it works"`)}}})
	fmt.Println(<-conn.sent)

	go engine.Close() // says goodbye to everybody and waits for them
	fmt.Println(<-conn.sent)
	<-session.Done()
	// Output:
	// news: "it works"
	// goodbye: shutdown
}
