package eventlog

// Measured is a [Log] that says how much it holds.
type Measured interface {
	// Size is asked whenever metrics are collected, and answers at once.
	Size() Size
}

// A Size is how much a log holds.
type Size struct {
	Channels int   // those that hold something, or whose name is remembered
	Bytes    int64 // as they count towards the log's bounds
}

var _ Measured = (*Memory)(nil)

// Size implements [Measured].
func (m *Memory) Size() Size {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Size{Channels: len(m.channels), Bytes: m.shares.total}
}
