package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/throughline/throughline/server"
)

const oursName = "throughline"

// Throughline is what any program gets that sets no options.
func throughline() contestant {
	return contestant{
		name:  oursName,
		about: "`server.New(server.Options{})`, plain WebSocket, `srv.Publish`; nothing set but the logger (warnings only). Always keeps the last 10,000 events of a channel, and each client can resume",
		path:  "/realtime/ws?channel=" + channel,
		ready: `"position"`,
		start: func(ctx context.Context, _ settings) (*contender, error) {
			warnings := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			srv, err := server.New(server.Options{Logger: warnings})
			if err != nil {
				return nil, err
			}
			return &contender{
				handler: srv,
				publish: func(data []byte) error {
					_, err := srv.Publish(ctx, channel, server.Message{Data: data})
					return err
				},
				close: func() { srv.Close() },
			}, nil
		},
	}
}
