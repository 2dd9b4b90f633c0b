package model

// A Weak is rules that break the law, and where that shows.
type Weak struct {
	Name  string
	Rules Rules
	Scope Scope
	Why   string // what happens
}

// Where weak rules show soonest, or most tellingly.
var (
	inNames      = Scope{Name: "names", Nodes: 1, Clients: 1, Events: 3, Rises: 4, Failovers: 1, Depth: 12}
	inTails      = Scope{Name: "tails", Nodes: 2, Clients: 1, Events: 4, Failovers: 1, Depth: 12}
	inWhole      = Scope{Name: "whole", Nodes: 2, Clients: 1, Events: 3, Failovers: 2, Whole: true, Depth: 12}
	inProducer   = Scope{Name: "producer", Events: 4, Rises: 2, Failovers: 1, Publishes: 2, Depth: 12}
	inAway       = Scope{Name: "away", Nodes: 2, Clients: 1, Events: 3, Failovers: 2, Whole: true, Away: true, Depth: 12}
	inWiped      = Scope{Name: "wiped", Nodes: 1, Clients: 1, Events: 3, Failovers: 1, Wipes: 1, Depth: 12}
	inConfirms   = Scope{Name: "confirms", Nodes: 1, Clients: 1, Events: 3, Failovers: 1, Wipes: 1, Confirms: true, Depth: 12}
	inPromoted   = Scope{Name: "promoted", Nodes: 1, Clients: 1, Events: 2, Failovers: 1, Confirms: true, Whole: true, Depth: 12}
	inOldCopy    = Scope{Name: "old copy", Nodes: 1, Clients: 1, Events: 1, Failovers: 2, Wipes: 1, Confirms: true, Whole: true, Depth: 16}
	inOldTrimmed = Scope{Name: "old copy", Nodes: 1, Clients: 1, Events: 4, Failovers: 1, Wipes: 1, Batches: true, Depth: 16}
	inBatches    = Scope{Name: "batches", Nodes: 2, Clients: 1, Events: 3, Failovers: 1, Batches: true, Depth: 12}
	inLongRun    = Scope{Name: "long run", Nodes: 1, Clients: 1, Events: 2, Rises: 3, Failovers: 1, Depth: 16}
)

// WeakRules returns the rules that the search must refute.
func WeakRules() []Weak {
	return []Weak{
		{"OffsetOnly", Rules{OffsetOnly: true}, inTails, "Another event took the offset after a failover: the client takes it for the one it has."},
		{"TrimmedUnchecked", Rules{TrimmedUnchecked: true}, inTails, "A vanished event's offset is now that of the last trimmed: the client hears nothing of it."},
		{"MarkOfAnyLog", Rules{MarkOfAnyLog: true}, inOldTrimmed, "After everything was lost, an old copy takes over that trimmed more than the client's offset: its position is said to be trimmed, and events from before come again."},
		{"TrimmedMarkForgotten", Rules{TrimmedMarkForgotten: true}, inTails, "A client that has all hears a gap whenever the last event goes, again and again."},
		{"FixedPlace", Rules{FixedPlace: true}, inNames, "Who waits at the beginning of a forgotten and reborn channel misses its first life in silence."},
		{"NumberedGenerations", Rules{NumberedGenerations: true}, inNames, "The promoted replica missed a rise and repeats its number: a place of then is exact in a channel that was forgotten since."},
		{"PlaceExactLonger", Rules{PlaceExactLonger: true}, inNames, "A place from before the channel's birth is still exact when its name is forgotten: its life is lost in silence."},
		{"PlaceExactShorter", Rules{PlaceExactShorter: true}, inNames, "Each rise tells who waits in an unborn channel of a loss that is none."},
		{"BirthPlaceForgotten", Rules{BirthPlaceForgotten: true}, inNames, "The first event comes soon after a rise, and who waited for it hears a gap instead."},
		{"PlaceNotMoved", Rules{PlaceNotMoved: true}, inNames, "Who waits keeps a place that runs out."},
		{"NameDroppedSooner", Rules{NameDroppedSooner: true}, inNames, "The name is forgotten while the place before its birth is exact: its life is lost in silence."},
		{"NameExpires", Rules{NameExpires: true}, inNames, "The name goes between two rises, while the place before its birth is exact: its life is lost in silence."},
		{"WatchedNameDropped", Rules{WatchedNameDropped: true}, inNames, "A silent channel is forgotten under a client that has all, and it hears a gap."},
		{"ProducerNameDropped", Rules{ProducerNameDropped: true}, inProducer, "What is remembered of the producer goes with the name, and a late copy is appended again."},
		{"TailTrustedAtResume", Rules{TailTrustedAtResume: true}, inTails, "One node missed a failover, the other told of it: back on the first, the client gets the vanished event again."},
		{"GapBesideTail", Rules{GapBesideTail: true}, inLongRun, "The place where a gap ends is in a tail that missed a failover, too: what follows there vanished long ago."},
		{"CheckedAtResumeOnly", Rules{CheckedAtResumeOnly: true}, inTails, "After a failover a live client is ahead of the new history and never gets its first events."},
		{"TailUnchecked", Rules{TailUnchecked: true}, inTails, "After a failover the new history's second event follows the old one's first: an event is lost in silence."},
		{"BellsCarryEvents", Rules{BellsCarryEvents: true}, inTails, "A late bell of the old primary brings an event that vanished, to a client that had it."},
		{"NoIntervalCheck", Rules{NoIntervalCheck: true}, inTails, "The bell is lost, and the client stays behind."},
		{"LaggingSaysLost", Rules{LaggingSaysLost: true}, inTails, "After a failover the client is ahead of its node's tail, and hears a gap for what it has."},
		{"DeposedAnswers", Rules{DeposedAnswers: true}, inAway, "The client comes from the new primary to a node that still asks the old one, which declares its position lost."},
		{"AwayServesTail", Rules{AwayServesTail: true}, inAway, "While the primary can't be asked, a client that was told elsewhere of a failover gets the vanished event again, from a tail."},
		{"WipedSecretsKept", Rules{WipedSecretsKept: true}, inWiped, "The log came back empty, and who waits at its beginning gets its first event and hears of no loss."},
		{"ReadableBeforeConfirmed", Rules{ReadableBeforeConfirmed: true}, inConfirms, "A client gets an event that the replica doesn't have, and a failover takes it back."},
		{"AboveReadableIsLost", Rules{AboveReadableIsLost: true}, inPromoted, "The promoted replica has the event, but not that it was confirmed: who got it hears a gap."},
		{"NobodyConfirms", Rules{NobodyConfirms: true}, inConfirms, "Who appended the event dies before it confirms it, and the readers stay behind."},
		{"ConfirmByOffset", Rules{ConfirmByOffset: true}, inConfirms, "All is lost, another event takes the offset, and a late confirmation is taken for that: a failover loses what was acknowledged."},
		{"GapToReadableHead", Rules{GapToReadableHead: true}, inOldCopy, "After everything was lost, an old copy takes over in which an event the client had isn't confirmed yet: it follows the gap, and comes twice."},
		{"BatchTrustedAtResume", Rules{BatchTrustedAtResume: true}, inBatches, "One node's engine remembers what vanished, the other told of it: back on the first, the client gets it again."},
		{"BatchOutlivesFirstRead", Rules{BatchOutlivesFirstRead: true}, inBatches, "The same, one read later: the first found nothing, and what was remembered is still there."},
		{"BatchBesideGap", Rules{BatchBesideGap: true}, inBatches, "After the gap the client gets what was remembered of before the failover, and had it."},
		{"GapToOldHead", Rules{GapToOldHead: true}, inTails, "The gap ends where the client was before, and so does the next."},
		{"GapToEarliest", Rules{GapToEarliest: true}, inTails, "After the gap come events of before the failover that the client has."},
		{"GapSwallowed", Rules{GapSwallowed: true}, inTails, "The position moves over trimmed events, and the next comes without a gap."},
		{"GapAfterItsTo", Rules{GapAfterItsTo: true}, inTails, "The line is cut between the block with `to` and the gap's: the client resumes behind the gap."},
		{"ServerCursor", Rules{ServerCursor: true}, inTails, "An event that was sent but never arrived counts as received."},
		{"ProducerCheckApart", Rules{ProducerCheckApart: true}, inProducer, "Two copies pass the check before either is appended."},
		{"LowerNumberTaken", Rules{LowerNumberTaken: true}, inProducer, "A late copy arrives after the next number and is appended again."},
	}
}
