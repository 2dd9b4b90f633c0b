// Package bolt keeps events in one file, so that they outlive the process:
//
//	events, err := bolt.Open("events.db", bolt.Options{})
//	…
//	srv, err := server.New(server.Options{Log: events})
//
// There is one type that does something, [Log]: an [eventlog.Log], with
// [eventlog.History], and a [session.Store]. A server that is given one as its
// Log uses it as its Store, too. The file is one of go.etcd.io/bbolt, and one
// process at a time has it.
//
// What Append acknowledged is on the disk, or will be within a stated time:
// Options.Interval says which. Readers never see an event that is less durable
// than that. Positions, marks, what is remembered of producers, and the secret
// that signs tokens survive a restart, so clients go on where they were.
//
// Each event in the file has a checksum, and names the one before it. What is
// damaged is an error, [ErrCorrupt], and never another event.
//
// Command eventsdb, in the folder below, checks, exports, salvages, imports
// and compacts files.
package bolt
