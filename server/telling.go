package server

import (
	"errors"
	"net/http"

	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/transport"
)

// peerOf is who makes a request, before anything else is known of it, and from
// where, as that is counted.
func (s *Server) peerOf(r *http.Request) (transport.Peer, address) {
	addr, counted := s.door.of(r)
	peer := transport.Peer{Addr: addr, Connection: core.NewConnection()}
	from := peer
	peer.OnRefusal = func(err error) { s.refused(&from, "connect", err) }
	return peer, counted
}

func clientOf(peer *transport.Peer) *Client {
	return &Client{Identity: identityOf(*peer), Connection: peer.Connection, Addr: peer.Addr, Transport: peer.Transport}
}

// refused counts and logs what was refused to whoever makes a request. An error
// that is no refusal is the end of a connection.
func (s *Server) refused(peer *transport.Peer, action string, err error) {
	if r, ok := errors.AsType[*transport.Refusal](err); ok {
		s.engine.Refused(clientOf(peer), action, "", r)
	}
}
