package main

// What the processes say to each other: lines of JSON over pipes. The drain is
// told what to do one thing at a time.

// An order is what the first process asks of a trial.
type order struct {
	Contestant string
	Settings   settings
	Round      int
}

// A plan tells the drain what clients to be.
type plan struct {
	Addr    string
	Path    string
	Hello   string
	Ready   string
	Clients int
}

// A watch tells the drain what will come: the messages from First on.
type watch struct {
	First, Count int
	LimitMillis  int64
}

// An answer is what the drain says.
type answer struct {
	Error string // it can't go on
	Armed bool   // it reads now
	Tally *tally // all is there, or never will be
}

// A tally is what arrived of a load.
type tally struct {
	Delivered int
	Missing   int // skipped, or not there when the wait was over
	Disorder  int // came twice, or after later ones
	Bytes     int64
	// Whole holds for each message when the last client had it, in ns of the
	// monotonic clock, or 0 if one never had.
	Whole []int64
	// Over is when nothing more was waited for.
	Over int64
	// Ended counts the clients whose connections ended, by why.
	Ended map[string]int
	// CPU is what the drain used, in ns.
	CPU int64
}
