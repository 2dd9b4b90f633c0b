package eventlog_test

import (
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
)

func TestMemoryConformance(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{
			Retain:                 func(eventlog.Channel) eventlog.Retention { return s.Retention },
			MaxData:                s.MaxData,
			Generation:             s.Generation,
			RememberProducers:      s.RememberProducers,
			MaxProducersPerOwner:   s.MaxProducersPerOwner,
			MaxProducersPerChannel: s.MaxProducersPerChannel,
		})
	})
}
