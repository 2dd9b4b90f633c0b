package main

import (
	"context"
	"fmt"
	"net/http"
)

const channel = "bench"

// A contestant is one way to give events to WebSocket clients.
type contestant struct {
	name  string
	about string // how it was set up, for the report

	path  string // where clients connect
	hello string // what they send first, if anything
	ready string // what they wait for after that, if anything

	// extra are variants that a quick run leaves out.
	extra bool
	// burstOnly are those that the paced load says nothing about.
	burstOnly bool

	start func(context.Context, settings) (*contender, error)
}

// A contender is a contestant that was started.
type contender struct {
	handler http.Handler
	// publish gives one message to all clients, or sees to it that they will
	// get it.
	publish func(data []byte) error
	// burst, if set, is called instead of publish with all messages of a burst.
	burst func(data [][]byte) error
	close func()
}

// contestants returns all there are, the floor first.
func contestants() []contestant {
	return []contestant{
		bare(bareName, false),
		bare(joinedName, true),
		throughline(),
		centrifugeDefault(),
		centrifugeBatching(),
		centrifugeHistory(),
	}
}

func find(name string) (contestant, error) {
	for _, c := range contestants() {
		if c.name == name {
			return c, nil
		}
	}
	return contestant{}, fmt.Errorf("there is no contestant %q", name)
}
