package conformance

import (
	"testing"

	"github.com/throughline/throughline/conformance/faultproxy"
)

// TrySchedules runs the schedules of seeds until one fails, and returns its
// shortest form and what is wrong with it; nil if none fails.
func TrySchedules(t *testing.T, s Server, seeds int) (shortest *Schedule, h *History, v Verdict) {
	for seed := range uint64(seeds) {
		if f := trySchedule(t, s, seed, happenings{}); f != nil {
			return f.history.Schedule, f.history, f.verdict
		}
	}
	return nil, nil, Verdict{}
}

// RunSchedule runs the schedule of a seed.
func RunSchedule(t *testing.T, s Server, seed uint64) *History { return NewSchedule(seed).run(t, s) }

// WhatHappened is what an entry OnTheWay is about, and Troubles all that it may
// be.
func WhatHappened(e Entry) string { return whatHappened(e.Reason) }

func Troubles() (all []string) {
	for i := range troubleKinds {
		all = append(all, string(troubleKinds[i].kind))
	}
	for _, how := range []faultproxy.Ending{faultproxy.Reset, faultproxy.Orderly, faultproxy.HalfOpen} {
		all = append(all, cutNow(how))
	}
	return all
}
