package bolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/store/bolt"
)

// open opens a new log, which the test closes.
func open(t *testing.T, o bolt.Options) *bolt.Log {
	t.Helper()
	l, err := bolt.Open(filepath.Join(t.TempDir(), "events.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// options are what a clause needs of a log.
func options(s conformance.LogSetup) bolt.Options {
	return bolt.Options{
		Retain:                 func(eventlog.Channel) eventlog.Retention { return s.Retention },
		MaxData:                s.MaxData,
		Generation:             s.Generation,
		RememberProducers:      s.RememberProducers,
		MaxProducersPerOwner:   s.MaxProducersPerOwner,
		MaxProducersPerChannel: s.MaxProducersPerChannel,
	}
}

func TestSyncedLogConformance(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		return open(t, options(s))
	})
}

func TestIntervalLogConformance(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		o := options(s)
		o.Interval = 100 * time.Millisecond
		return open(t, o)
	})
}

func TestStoreConformance(t *testing.T) {
	conformance.TestStore(t, func(t *testing.T) session.Store { return open(t, bolt.Options{}) })
}
