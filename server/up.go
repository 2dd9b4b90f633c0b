package server

import (
	"net/http"

	"github.com/throughline/throughline/transport"
)

// serveUp works on one frame of a client whose carrier only comes down
// (PROTOCOL P9.1).
func (s *Server) serveUp(w http.ResponseWriter, r *http.Request, peer transport.Peer) {
	answer, err := s.up(w, r, peer)
	if err != nil {
		transport.WriteRefusal(w, err)
		return
	}
	transport.WriteJSON(w, http.StatusOK, append(transport.AppendFrameJSON(nil, answer), '\n'))
}

func (s *Server) up(w http.ResponseWriter, r *http.Request, peer transport.Peer) (*transport.Frame, error) {
	// One message of the log's bound, of which JSON may escape each byte by six,
	// and what stands around it.
	limit := int64(s.maxData())*6 + s.o.MaxFrame
	body, err := transport.ReadBody(w, r, limit, s.o.HelloTimeout)
	if err != nil {
		return nil, err
	}
	up, err := transport.ParseUpstream(body)
	if err != nil {
		return nil, err
	}
	return s.engine.Receive(r.Context(), peer, up)
}
