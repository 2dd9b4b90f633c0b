package redis

import (
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/testee"
)

// TestServerConformance: nodes that share nothing but Redis are a server.
func TestServerConformance(t *testing.T) {
	conformance.TestServer(t, conformance.Server{Start: testee.Variant{Open: func(t *testing.T, s conformance.ServerSetup) func() eventlog.Log {
		o := Options{
			Prefix:                 newPrefix(),
			Retain:                 func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: s.Keep, Age: s.KeepFor} },
			Generation:             s.Forget,
			RememberProducers:      s.Remember,
			MaxProducersPerChannel: s.MaxProducers,
			Buckets:                1,
		}
		return func() eventlog.Log { return open(t, o) }
	}}.Start})
}
