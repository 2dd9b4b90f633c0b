package main

import "context"

// A seat is a request's at the node that it was sent to, which the page shows. It
// belongs to one goroutine at a time.
type seat struct {
	cluster *cluster
	node    *node
}

// take takes a seat, and returns the node's address.
func (s *seat) take(n *node) string {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.node = n
	n.open++
	n.served++
	return n.address
}

func (s *seat) leave() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	if s.node != nil {
		s.node.open--
		s.node = nil
	}
}

type seatKey struct{}

func withSeat(ctx context.Context, s *seat) context.Context {
	return context.WithValue(ctx, seatKey{}, s)
}

func seatOf(ctx context.Context) *seat {
	s, _ := ctx.Value(seatKey{}).(*seat)
	return s
}
