// Package transport is the contract between the engine and the adapters that
// carry events to clients, and the frames that both speak of.
//
// An adapter turns a request into a [Conn] and hands it to the [Engine], which
// answers with a [Session]. From then on the engine sends and the adapter
// carries. The engine knows no format: it sends items, and each adapter encodes
// them by a [Codec] of its own. What many clients get is encoded once: a [Run]
// of events and a shared [Frame] remember their encodings.
//
// The life of a connection:
//
//   - The adapter reads who asks for what (a [Hello]) and calls Attach.
//   - The engine may call Send before Attach has returned, and never after
//     Attach failed. Calls of Send never overlap.
//   - When the client leaves, the adapter calls Detach. When the engine ends
//     the line, its goodbye is the last frame of the last Send.
//   - Done closes after the last Send has returned. Only then may a handler
//     return that lent its http.ResponseWriter.
//
// A long-poll is a connection that is spent after one answer: its Send says so
// by returning more = false.
package transport
