package eventlog

// Itemized is a [Log] that says how much it holds of a channel, for people who
// look into a server.
type Itemized interface {
	// Holding answers at once, from memory, and may be called concurrently with
	// everything else. The zero Holding stands for a channel of which nothing is
	// known.
	Holding(ch Channel) Holding
}

// A Holding is how much a log holds of a channel.
type Holding struct {
	Head   uint64 // the offset of the newest event ever
	Events int    // that are retained
	Bytes  int64  // of those, as they count towards the log's bounds
}

var _ Itemized = (*Memory)(nil)

// Holding implements [Itemized]. What is too old counts until it is freed, which
// may be a second later.
func (m *Memory) Holding(ch Channel) Holding {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h := m.channels[ch]
	if h == nil {
		return Holding{}
	}
	return Holding{Head: h.head.Offset, Events: h.len(), Bytes: h.bytes()}
}
