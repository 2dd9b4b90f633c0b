// Package eventlog is the ground floor of Throughline: channels, the events in
// them, and the one log that holds each event once.
//
// There are few types. A [Channel] names a sequence of events. A [Message] is
// what a publisher hands over; an [Event] is a message that has its place, and
// a [Position] names that place. A [Log] appends messages and reads events
// after a position. [Memory] is the log that lives in the process.
//
// A client is nothing but a position. It reads what comes after it, in pages,
// as fast as it can, and no queue is kept for it. The log alone decides what is
// still there: a read whose position no longer has its history fails with
// [*Lost], which says where to go on, and a log that cannot be asked fails with
// [ErrUnavailable]. The two are never confused: the first is a loss that the
// client must be told of, the second is a reason to try again.
//
// Offsets alone cannot tell a history from another that took its place (after a
// failover, a restore, or when a name was forgotten and used again). So each
// event carries a mark, a random value drawn when it is appended, and an entry
// knows its own mark and that of its predecessor. A position is exact only if
// the log holds that mark at that offset.
//
// All methods of a Log may be called concurrently.
package eventlog
