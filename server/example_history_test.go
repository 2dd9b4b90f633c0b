package server_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	"github.com/throughline/throughline/server"
)

// The program reads what a channel holds, with nobody's rights.
func ExampleServer_History() {
	srv, err := server.New(server.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	ctx := context.Background()
	room := server.Channel{Name: "room:42"}
	for _, text := range []string{"hello", "is anybody here?", "me"} {
		if _, err := srv.PublishTo(ctx, room, server.Message{Type: "said", Kind: server.Text, Data: []byte(text)}); err != nil {
			log.Fatal(err)
		}
	}
	for event, err := range srv.History(ctx, room, server.Range{Backwards: true}, server.Limit{Events: 2}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", event.Type, event.Data)
	}
	// Output:
	// said: me
	// said: is anybody here?
}
