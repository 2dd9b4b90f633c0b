package longpoll_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// Each poll presents the position that the one before returned, so that an
// answer which is lost loses nothing.
func Example() {
	ctx := context.Background()
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	store := session.NewMemory(session.MemoryOptions{})
	defer store.Close()
	engine := core.New(core.Options{Log: log, Store: store})
	defer engine.Close()
	polls := longpoll.New(engine, longpoll.Options{})

	var answer struct {
		Events    []struct{ Data string }
		Positions map[string]string
	}
	poll := func(query string) {
		w := httptest.NewRecorder()
		polls.Serve(w, httptest.NewRequest("GET", "/poll?channel=news"+query, nil), transport.Peer{})
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			fmt.Println(w.Code, err)
		}
		fmt.Println(len(answer.Events), "events")
	}
	say := func(text string) {
		_, _, _ = log.Append(ctx, eventlog.Channel{Name: "news"}, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(text)}}})
	}

	poll("") // where the channel is now
	say(`"one"`)
	say(`"two"`)
	after := "&after=" + answer.Positions["news"]
	poll(after + "&wait=20s")
	poll(after + "&wait=20s") // as if that answer had been lost
	poll("&after=" + answer.Positions["news"])
	// Output:
	// 0 events
	// 2 events
	// 2 events
	// 0 events
}
