package server

import (
	"net/http"
	"time"

	"github.com/throughline/throughline/transport"
)

// answer has a request worked on, and writes the answer. The http.Server's own
// timeouts don't end the work, which has those of the options; the answer has
// its own, so that who does not read it holds up nothing.
func (s *Server) answer(w http.ResponseWriter, peer *transport.Peer, action string, work func() ([]byte, error)) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{})
	body, err := work()
	_ = rc.SetWriteDeadline(time.Now().Add(s.o.WriteTimeout))
	if err != nil {
		s.refused(peer, action, err)
		transport.WriteRefusal(w, err)
	} else {
		transport.WriteJSON(w, http.StatusOK, body)
	}
	_ = rc.Flush() // under that deadline: what is left in buffers would be written without one
	_ = rc.SetWriteDeadline(time.Time{})
}
