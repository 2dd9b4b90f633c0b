package eventlog

// shares knows how many bytes each channel and each namespace holds, and which
// of them holds the most. Only channels that hold something are in it.
type shares struct {
	total      int64
	namespaces map[string]*namespace
	heaviest   ordered[*namespace]
}

type namespace struct {
	name     string
	bytes    int64
	heaviest ordered[*history]
	place    int // in shares.heaviest
}

func newShares() *shares {
	return &shares{
		namespaces: make(map[string]*namespace),
		heaviest: ordered[*namespace]{
			before: func(a, b *namespace) bool { return a.bytes > b.bytes },
			place:  func(n *namespace) *int { return &n.place },
		},
	}
}

func newNamespace(name string) *namespace {
	return &namespace{
		name: name,
		heaviest: ordered[*history]{
			before: func(a, b *history) bool { return a.bytes() > b.bytes() },
			place:  func(h *history) *int { return &h.sharePlace },
		},
	}
}

// update notes that h changed by so many bytes.
func (s *shares) update(h *history, change int64) {
	n := s.namespaces[h.channel.Namespace]
	if n == nil {
		n = newNamespace(h.channel.Namespace)
		s.namespaces[n.name] = n
	}
	s.total += change
	n.bytes += change
	if h.len() == 0 {
		n.heaviest.remove(h)
	} else {
		n.heaviest.update(h)
	}
	if n.heaviest.Len() == 0 {
		s.heaviest.remove(n)
		delete(s.namespaces, n.name)
	} else {
		s.heaviest.update(n)
	}
}

// victim returns the channel whose oldest event goes next: the heaviest in the
// heaviest namespace, but not keep while that has only one event. It is nil if
// there is no other.
func (s *shares) victim(keep *history) *history {
	if s.heaviest.Len() == 0 {
		return nil
	}
	n := s.heaviest.items[0]
	h := n.heaviest.items[0]
	if h != keep || h.len() > 1 {
		return h
	}
	if h, found := n.heaviest.second(); found {
		return h
	}
	if n, found := s.heaviest.second(); found {
		return n.heaviest.items[0]
	}
	return nil
}
