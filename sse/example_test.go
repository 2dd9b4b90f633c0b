package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
)

// An adapter works with whatever engine it is given, and whoever mounts it says
// who asks. Package server does both, and checks origins, which this does not.
func Example() {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	store := session.NewMemory(session.MemoryOptions{})
	defer store.Close()
	engine := core.New(core.Options{Log: log, Store: store})
	streams := sse.New(engine, sse.Options{})
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streams.Serve(w, r, transport.Peer{Subject: "ada", Addr: r.RemoteAddr})
	}))
	defer hs.Close()
	defer engine.Close() // first: the server waits for its streams

	_, _, _ = log.Append(context.Background(), eventlog.Channel{Name: "news"},
		eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(`{"text":"it works"}`)}}})
	stream, err := http.Get(hs.URL + "?channel=news&after=earliest")
	if err != nil {
		panic(err)
	}
	defer stream.Body.Close()
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			fmt.Println(lines.Text())
			break
		}
	}
	// Output: data: {"text":"it works"}
}
