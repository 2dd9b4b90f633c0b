package model

// Rules are what the parts go by. Each field is a weakness, so the zero value
// is the rules as they should be. The search shows which of them keep the law.
type Rules struct {
	// What a position is.

	OffsetOnly           bool // a position is an offset, without a mark
	TrimmedUnchecked     bool // the mark of the last trimmed event is not compared
	TrimmedMarkForgotten bool // nor known: a position there is lost

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
	DeposedAnswers      bool // after a failover a node may still read the old primary

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
	Publishes int  // most numbers of the producer; none: events come from nowhere
	Whole     bool // the log trims nothing but what is over its bound
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
		{Name: "all", Nodes: 2, Clients: 2, Events: 4, Rises: 3, Failovers: 2, Publishes: 2, Depth: 10 + deeper},
	}
	for i := range all {
		all[i].Strict = true
	}
	return all
}
