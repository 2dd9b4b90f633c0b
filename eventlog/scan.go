package eventlog

// A Scan decides, message by message, how far a page of a [Limit] goes. Logs use
// it so that they all draw the line in the same place.
type Scan struct {
	// Matched is true if the message taken last is one of the page's.
	Matched bool

	limit         Limit
	looked, held  int
	seen, matches int
}

// NewScan begins a page.
func NewScan(limit Limit) Scan { return Scan{limit: limit.WithDefaults()} }

// Takes reports whether the page goes on over m, whose Type is filled in. If not,
// the page ends before it.
func (s *Scan) Takes(m *Message) bool {
	size := m.Size()
	if s.seen > 0 && s.looked+size > s.limit.Scan {
		return false
	}
	s.Matched = s.limit.Filter.Match(m)
	if s.Matched {
		full := s.held+size > s.limit.Bytes || s.limit.Events > 0 && s.matches == s.limit.Events
		if s.matches > 0 && full {
			return false
		}
		s.held += size
		s.matches++
	}
	s.seen++
	s.looked += size
	return true
}
