package conformance_test

import (
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/testee"
)

// TestServerConformance: Throughline's own server, over a network in memory and
// in fake time, and over real sockets.
func TestServerConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) { conformance.TestServer(t, testee.Server()) })
	t.Run("tcp", func(t *testing.T) {
		s := testee.Server()
		s.TCP = true
		conformance.TestServer(t, s)
	})
}
