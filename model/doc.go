// Package model searches the rules by which a log, its replica, nodes and
// clients keep the first law: no event is lost in silence, none comes twice. It
// tries everything that can happen within stated bounds, and so finds what
// random schedules don't. Rules that are a little weaker must fail, each with
// a shortest counterexample.
//
// # What is modelled
//
// One channel. Its primary log trims, forgets the name, and lets the generation
// rise. An asynchronous replica has what the primary had at some time, and may
// take over at any time, also when it missed a rise. One or two nodes keep a
// tail of the channel and read the log on after it. One or two clients wait at
// its beginning, get events and gaps one at a time, and go to the other node,
// where they resume from what they received last. A producer numbers what it
// publishes and repeats it until it hears an answer; copies may be late.
//
// In some scopes there is more. The primary may not answer for a while, and then a
// replica may take over; or it loses everything and comes back empty, after which
// an old copy may take over as well. An event may be readable only when
// somebody confirmed that the replica has it. Each node's engine may remember what
// it read; there every read is one of the primary, as a tail that was just compared
// with the primary only saves to carry the events again.
//
// Each step is possible whenever it makes sense, in any order. A node that
// can't ask the primary says "try later": the step isn't taken. A line that
// breaks has a client resume, and what was under way counts as never sent. A bell
// says nothing, so it is the same step as the check of a silent channel that
// a node may make at any time; that bells get lost, come late or come from an
// old primary needs no state, but where a weak rule makes more of them.
//
// # What must hold
//
//   - A client that receives an event received the one before it last, or was
//     told of a gap since. Events are delivered in the order in which they were
//     appended, across gaps too: none twice, none that vanished after a later.
//   - A gap is said only if something may be missing; see below.
//   - Left alone from whatever state, nodes that check and clients that are
//     served bring each client to the head.
//   - A producer's numbers are in the log once, and rising.
//   - What was confirmed, and what a client received of it, is still there
//     when the replica takes over.
//
// A gap is justified if the client's event is no longer in the log and isn't the
// last trimmed: because more was trimmed, because it vanished in a failover, or
// because the name was forgotten. The memory of names is bounded, so that is no
// fault even if nothing came after that event, but while the client's node
// checks once per generation it is one. At the place before the first event
// a gap is justified if something was trimmed since, or the name was forgotten,
// or the place is too old: older than that of the generation before, now or at
// the channel's birth, or of a generation that a promoted replica missed.
//
// # What is not
//
// Time, but for what the generation stands for: that a name is checked once per
// generation is a condition, and so is that a publish isn't repeated after its
// producer was forgotten. Filters, pages of several events, several channels,
// grants, and policies that skip. A read of the primary is one step: it begins
// after what caused it, so a read that is under way counts as remembered. After
// a failover nobody reads the old primary; the search shows what happens if
// somebody does. A node here may serve a live client from its tail at once; one
// that asks the primary at each read does less.
//
// # Bounds
//
// See [Scopes]. The log keeps three events, a tail two, an engine two batches. The
// small scopes are searched to their end; the others as deep as takes seconds, or deeper with
//
//	go test ./model -run TestRulesHold -v -timeout 1h -depth 1
//
// which takes some 700 MB, and about three times as much with each step more.
//
// States that differ in names only, of events, nodes or clients, are one.
//
// # Traces
//
// The rules of the primary alone, with a clock, are a model of a log on one
// node. [ShortTraces] and [RandomTrace] say how it answers, and [Trace.Replay]
// compares that with a log that is there. [Counterexamples] and [RandomNodeTrace]
// are for a log with a replica and several nodes, a [System], on which
// [Trace.Run] runs them.
package model
