// Package conformance tests implementations of Throughline's public contracts.
// It is for the authors of logs, stores and transports, and imports nothing but the standard
// library and the contracts.
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
// [TestStore] does the same for a session.Store, and [TestTransport] for
// a transport. example_ndjson_test.go in this
// folder holds a whole one of a hundred lines, and its client half.
//
// A clause that fails prints its sentence, which begins with MUST or SHOULD,
// and what was seen instead. A log that leaves out a SHOULD skips it by name
// and says so in its documentation.
//
// Clauses about time run in a bubble of testing/synctest, where an hour takes
// nothing. So what open starts there must run in the process, end with the log's
// Close, and not wait for a real network.
//
// The suite is itself tested with logs, stores and transports that are broken in
// one way each.
package conformance
