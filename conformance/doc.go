// Package conformance tests implementations of Throughline's public contracts.
// It is for the authors of logs, stores, transports and servers.
//
// [TestLog] runs every clause of the contract of a log as a subtest with
// a stable name, so that -run and -skip work:
//
//	func TestConformance(t *testing.T) {
//		conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
//			return mylog.New(mylog.Options{ … from s … })
//		})
//	}
//
// [TestStore] does the same for a session.Store, [TestTransport] for
// a transport (examples/ndjson in this module is a whole one, and
// docs/writing-a-transport.md walks through it), and [TestServer] for whatever
// speaks PROTOCOL.md. [TestSchedules] runs random schedules of faults against
// a server, judges what its readers were handed by what was published, and makes
// a schedule that fails as short as it can.
//
// A clause that fails prints its sentence, which begins with MUST or SHOULD,
// and what was seen instead. What a testee lacks it declares, and its clauses are
// logged as n/a, with the reason; a log that leaves out a SHOULD skips it by name
// and says so in its documentation. The program in folder report makes a matrix
// of all that, for terminals, programs and browsers.
//
// Clauses about time run in a bubble of testing/synctest, where an hour takes
// nothing. So what open starts there must run in the process, end with the log's
// Close, and not wait for a real network.
//
// The suite is itself tested with logs, stores, transports and servers that are
// broken in one way each.
package conformance
