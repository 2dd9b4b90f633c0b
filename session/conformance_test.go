package session_test

import (
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/session"
)

func TestMemoryConformance(t *testing.T) {
	conformance.TestStore(t, func(*testing.T) session.Store {
		return session.NewMemory(session.MemoryOptions{})
	})
}
