// Package core is the engine: it attaches clients to the log and sends each of
// them what comes after its position, as fast as it takes it.
//
// There are five kinds of thing. An [Engine] owns the others. A line is one
// attached connection; it implements [transport.Session]. A subscription is a
// cursor: one line in one channel. A topic is a channel that has
// subscriptions; it watches the log and keeps the last few batches read from
// it, so that many lines at the same position cost one read and one encoding.
// A worker is how lines and topics run: an on-demand goroutine, at most one,
// none while there is nothing to do.
//
// The way of an event: the log wakes the topic, whose worker asks the workers
// of its lines; a line's worker reads from its cursors until it has a page's
// worth, sends that in one call, moves the cursors, and goes on until nothing
// is left. Catching up, replay and live delivery are this one loop. No queue
// is kept for a client, and a client that does not read holds up nobody but
// its own worker.
//
// Lock order: keyring.mu before Engine.mu, Engine.mu before topic.mu and
// roster.mu; the others alone. Code of the program (Options.Authorize, the hooks)
// and of adapters is never called with a lock held; an Observer may be.
package core
