package bolt_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

// Two lines make events last. The second would be
//
//	srv, err := server.New(server.Options{Log: events})
//
// which this package doesn't import.
func Example() {
	events, err := bolt.Open("events.db", bolt.Options{})
	if err != nil {
		log.Fatal(err) // says which file, and what to do
	}
	defer events.Close()
	// … http.Handle("/realtime/", srv)
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

// What was appended is there when the file is opened again, and whoever had
// a position goes on from there.
func ExampleOpen() {
	folder, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(folder)
	path, ctx, room := filepath.Join(folder, "events.db"), context.Background(), eventlog.Channel{Name: "room"}

	events, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		log.Fatal(err)
	}
	first, _, _ := events.Append(ctx, room, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(`"one"`)}}})
	_, _, _ = events.Append(ctx, room, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(`"two"`)}}})
	events.Close()

	if events, err = bolt.Open(path, bolt.Options{}); err != nil {
		log.Fatal(err)
	}
	defer events.Close()
	page, err := events.Read(ctx, room, first, eventlog.Limit{})
	fmt.Printf("%s %v\n", page.Events[0].Data, err)
	// Output: "two" <nil>
}

// Options say how durable an event is, and how much is kept.
func ExampleOptions() {
	o := bolt.Options{
		Interval: 100 * time.Millisecond, // a crash loses that much; 0, the default, loses nothing
		Retain: eventlog.RetainBy(map[string]eventlog.Retention{
			"orders": {Events: -1, Bytes: -1, Age: -1}, // for ever
			"room:*": {Events: -1, Bytes: -1, Age: 7 * 24 * time.Hour},
		}),
		MaxFileSize: 10 << 30,
	}
	fmt.Println(o.Retain(eventlog.Channel{Name: "room:42"}).Age)
	// Output: 168h0m0s
}
