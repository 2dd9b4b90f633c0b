package ws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

// Any WebSocket client can follow a channel: each message is an event with its
// position, after which the client goes on when it comes back.
func Example() {
	ctx := context.Background()
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	store := session.NewMemory(session.MemoryOptions{})
	defer store.Close()
	engine := core.New(core.Options{Log: log, Store: store})
	defer engine.Close()
	sockets := ws.New(engine, ws.Options{})
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sockets.Serve(w, r, transport.Peer{Subject: "ada", Addr: r.RemoteAddr})
	}))
	defer hs.Close()

	c, _, err := websocket.Dial(ctx, hs.URL+"?channel=news", nil)
	if err != nil {
		panic(err)
	}
	defer c.CloseNow()
	var m struct{ Channel, Position, Data string }
	if err := wsjson.Read(ctx, c, &m); err != nil { // where the stream begins
		panic(err)
	}
	fmt.Println(m.Channel, m.Position != "")

	_, _, _ = log.Append(ctx, eventlog.Channel{Name: "news"}, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte(`"it works"`)}}})
	if err := wsjson.Read(ctx, c, &m); err != nil {
		panic(err)
	}
	fmt.Println(m.Channel, m.Data)
	// Output:
	// news true
	// news it works
}
