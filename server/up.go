package server

import (
	"net/http"

	"github.com/throughline/throughline/transport"
)

// serveUp works on one frame of a client whose carrier only comes down
// (PROTOCOL P9.1).
func (s *Server) serveUp(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	s.answer(w, &peer, "up", func() ([]byte, error) {
		answer, err := s.up(w, r, peer)
		if err != nil {
			return nil, err
		}
		return append(transport.AppendFrameJSON(nil, answer), '\n'), nil
	})
}

func (s *Server) up(w http.ResponseWriter, r *http.Request, peer transport.Peer) (*transport.Frame, error) {
	// One message of the largest size, of which JSON may escape each byte by six,
	// and what stands around it.
	limit := int64(s.o.MaxMessage)*6 + s.o.MaxFrame
	body, err := transport.ReadBody(w, r, limit, "MaxMessage", s.o.HelloTimeout)
	if err != nil {
		return nil, err
	}
	up, err := transport.ParseUpstream(body)
	if err != nil {
		return nil, err
	}
	return s.engine.Receive(r.Context(), peer, up)
}
