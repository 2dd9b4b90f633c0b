package model

// Rules are what the parts go by. Each field is a weakness, so the zero value
// is the rules as they should be. The search shows which of them keep the law.
type Rules struct {
	// What a position is.

	OffsetOnly           bool // a position is an offset, without a mark
	TrimmedUnchecked     bool // the mark of the last trimmed event is not compared
	MarkOfAnyLog         bool // nor does a mark tell which log made it, before and after everything was lost
	TrimmedMarkForgotten bool // it is not known: a position there is lost

	// The place before the first event, and the names of channels.

	FixedPlace          bool // its mark is the same for ever
	NumberedGenerations bool // its mark is derived from a number, not from a fresh secret
	PlaceExactLonger    bool // it stays exact for one generation more
	PlaceExactShorter   bool // only the present one is exact
	BirthPlaceForgotten bool // a channel keeps one of the two marks valid at its birth
	PlaceNotMoved       bool // who waits there is not told that it moved
	NameDroppedSooner   bool // a name is kept one generation less
	NameKeptLonger      bool // a name is kept one generation more: harmless
	NameExpires         bool // a name goes by a key's expiry, not with a rise
	WatchedNameDropped  bool // the check of a silent channel doesn't renew its name
	ProducerNameDropped bool // also the name of a channel that remembers a producer is dropped

	// What a node does.

	TailTrustedAtResume bool // a client that comes is served from a tail that was not compared since
	GapBesideTail       bool // the read that declares a loss leaves the tail as it was
	CheckedAtResumeOnly bool // once resumed, a client is served by its offset
	TailUnchecked       bool // a tail takes what comes next by offset
	BellsCarryEvents    bool // a bell brings the event, and the tail takes it
	NoIntervalCheck     bool // a node reads when a bell rings, and only then
	LaggingSaysLost     bool // what is beyond the tail is lost
	DeposedAnswers      bool // the old primary isn't fenced: after a failover a node may still read it
	AwayServesTail      bool // while the primary can't be asked, a client that comes is served what the tail has
	WipedSecretsKept    bool // a primary that lost everything has the place of before

	// When an event is readable, if that takes the replica.

	ReadableBeforeConfirmed bool // an event is readable though the replica may not have it
	AboveReadableIsLost     bool // a position above the readable head is lost
	NobodyConfirms          bool // only who appended an event confirms it, and may die before
	ConfirmByOffset         bool // a confirmation compares no mark
	GapToReadableHead       bool // a rewritten position's gap ends at the readable head

	// What an engine remembers of what it read.

	BatchTrustedAtResume    bool // a client that comes gets what was read before it came
	BatchOutlivesFirstRead  bool // its own read doesn't take the place of what was remembered
	BatchBesideGap          bool // the read that declares a loss leaves what is remembered
	BatchesKeptButAtGapsEnd bool // it drops what is remembered after the gap's `to`, and no other: harmless

	// What a gap is, and who believes it.

	GapToOldHead  bool // `to` is the head that the node had before it read on
	GapToEarliest bool // `to` is the earliest of the new history
	GapSwallowed  bool // the position moves on, nothing is said
	GapAfterItsTo bool // `to` crosses the wire in a block before the gap's
	ServerCursor  bool // a client resumes from where the server was

	// How a publish is made once.

	ProducerCheckApart bool // the check and the append are two steps
	LowerNumberTaken   bool // only an equal number is refused
}

// A Scope is how much of each part a search has. Small scopes can be searched
// to their end, or at least deep.
type Scope struct {
	Name      string
	Nodes     int  // 0 to 2
	Clients   int  // 0 to 2
	Events    int  // most appends
	Rises     int  // most rises of the generation
	Failovers int  // most failovers
	Wipes     int  // how often the primary loses everything
	Publishes int  // most numbers of the producer; none: events come from nowhere
	Whole     bool // the log trims nothing but what is over its bound
	Away      bool // the primary may not answer for a while, and a failover comes only then
	Confirms  bool // an event is readable when it was confirmed that the replica has it
	Batches   bool // each node's engine remembers what it read
	Strict    bool // a client whose event vanished must be told though nothing came since
	Depth     int  // most steps
}

// Scopes returns the scopes that the rules must pass. The small ones are searched
// to their end, the others as deep as takes some seconds. deeper adds to those.
func Scopes(deeper int) []Scope {
	const toTheEnd = 60
	all := []Scope{
		{Name: "names", Nodes: 1, Clients: 1, Events: 3, Rises: 4, Failovers: 1, Depth: toTheEnd},
		{Name: "tails", Nodes: 2, Clients: 1, Events: 4, Failovers: 2, Depth: toTheEnd},
		{Name: "clients", Nodes: 2, Clients: 2, Events: 4, Failovers: 1, Depth: 13 + deeper},
		{Name: "names on two nodes", Nodes: 2, Clients: 1, Events: 3, Rises: 4, Failovers: 1, Depth: 12 + deeper},
		{Name: "producer", Nodes: 1, Clients: 1, Events: 4, Rises: 2, Failovers: 1, Publishes: 3, Depth: 13 + deeper},
		{Name: "away", Nodes: 2, Clients: 1, Events: 3, Failovers: 1, Away: true, Depth: toTheEnd},
		{Name: "wiped", Nodes: 1, Clients: 1, Events: 4, Failovers: 2, Wipes: 1, Depth: toTheEnd},
		{Name: "confirms", Nodes: 1, Clients: 1, Events: 3, Failovers: 1, Wipes: 1, Confirms: true, Depth: toTheEnd},
		{Name: "confirms twice", Nodes: 1, Clients: 1, Events: 2, Failovers: 2, Wipes: 1, Confirms: true, Depth: toTheEnd},
		{Name: "batches", Nodes: 2, Clients: 1, Events: 4, Failovers: 2, Batches: true, Depth: toTheEnd},
		{Name: "batches for two", Nodes: 2, Clients: 2, Events: 4, Failovers: 2, Batches: true, Depth: 11 + deeper},
		{Name: "batches and names", Nodes: 2, Clients: 1, Events: 3, Rises: 2, Failovers: 1, Wipes: 1, Batches: true, Depth: 11 + deeper},
		{Name: "all", Nodes: 2, Clients: 2, Events: 4, Rises: 3, Failovers: 2, Publishes: 2, Depth: 10 + deeper},
	}
	for i := range all {
		all[i].Strict = true
	}
	return all
}
