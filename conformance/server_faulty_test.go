package conformance_test

import (
	"slices"
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/testee"
)

// A serverFault breaks a server in one way. The suite has to notice.
type serverFault struct {
	name  string
	fails string // the ids of the clauses that it must fail
	testee.Variant
	testee.Rewriter // what it does to what crosses the wire
}

func (f *serverFault) server() conformance.Server {
	v := f.Variant
	if f.Down != nil || f.Up != nil {
		v.Handler = f.Rewriter.Handler
	}
	return conformance.Server{Start: v.Start}
}

var serverFaults = [][]serverFault{
	deliveryFaults,
	sessionFaults,
	plainFaults,
	publishFaults,
	upstreamFaults,
	presenceFaults,
	filterFaults,
	pastFaults,
	troubleFaults,
	evictedFaults,
}

// TestSuiteCatchesBrokenServers: the clauses that a fault is about fail for it.
func TestSuiteCatchesBrokenServers(t *testing.T) {
	var parts []conformance.BrokenPart
	for _, f := range slices.Concat(serverFaults...) {
		parts = append(parts, conformance.BrokenPart{
			Name: f.name, Fails: f.fails,
			Try: func(t *testing.T, id string) ([]string, bool) {
				return conformance.TryServer(t, id, f.server())
			},
			Glance: func(t *testing.T, id string, number uint32) ([]string, bool) {
				return conformance.GlanceServer(t, id, f.server(), number)
			},
		})
	}
	conformance.Bite(t, "server", parts)
}
