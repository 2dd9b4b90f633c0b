// Package server is what programs mount: one [http.Handler] that gives clients
// the events of channels over WebSocket, SSE and long-poll, takes what they
// publish, and serves the JavaScript client.
//
//	srv, err := server.New(server.Options{})
//	mux.Handle("/realtime/", srv)
//	srv.Publish(ctx, "room:42", server.Message{Type: "said", Data: body})
//
// With nothing set, events live in memory, pages of the same origin may
// subscribe to channels whose names hold no "$", and only the program
// publishes. [Options.Authorize] says otherwise.
//
// A [Server] is a prometheus.Collector, too: register it where the program's
// other metrics are. docs/metrics.md says what they mean, docs/logs.md what the
// log says. [Server.Healthz] and [Server.Readyz] are for whoever runs it.
package server
