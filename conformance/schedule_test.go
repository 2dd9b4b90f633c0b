package conformance_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/internal/testee"
)

var (
	seed    = flag.Uint64("seed", 0, "run only this random schedule")
	seeds   = flag.Int("seeds", 36, "how many random schedules are run")
	history = flag.String("history", "", "judge the history in this file, and run nothing")
)

// TestSchedules: whatever happens, nothing is lost.
func TestSchedules(t *testing.T) {
	o := conformance.ScheduleOptions{Seeds: *seeds, History: *history}
	if *seed > 0 {
		o.First, o.Seeds = *seed, 1
	}
	conformance.TestSchedules(t, testee.Server(), o)
}

// inTime are the troubles that only change when bytes go on, or in what pieces:
// that a request met one shows little. It has to be answered later than it came.
var inTime = map[string]bool{
	"freeze": true, "throttle": true, "split": true, "merge": true, "hold back": true, "delay up": true, "delay down": true,
}

// TestSchedulesMeetEachTrouble: there is none that is drawn and never happens.
func TestSchedulesMeetEachTrouble(t *testing.T) {
	const within = 200
	happened := map[string]int{}
	missing := func() (none []string) {
		for _, what := range conformance.Troubles() {
			if happened[what] == 0 {
				none = append(none, what)
			}
		}
		return none
	}
	for seed := range uint64(within) {
		if len(missing()) == 0 {
			t.Logf("after %d schedules: %v", seed, happened)
			return
		}
		countTroubles(conformance.RunSchedule(t, testee.Server(), seed), happened)
	}
	if none := missing(); len(none) > 0 {
		t.Errorf("in %d schedules these never happen: %v; the others: %v", within, none, happened)
	}
}

// countTroubles adds what happened on the way to a count.
func countTroubles(h *conformance.History, happened map[string]int) {
	for i, e := range h.Entries {
		if e.What != conformance.OnTheWay {
			continue
		}
		what := conformance.WhatHappened(e)
		if what != "" && (!inTime[what] || answeredLater(h.Entries[i:])) {
			happened[what]++
		}
	}
}

// answeredLater reports whether the request of the first entry was answered some
// time after it came: whether that is what its connection was about next.
func answeredLater(entries []conformance.Entry) bool {
	first := entries[0]
	connection, _, _ := strings.Cut(first.Reason, ",")
	for _, e := range entries[1:] {
		if e.What == conformance.OnTheWay && e.By == first.By && strings.HasPrefix(e.Reason, connection+",") {
			return strings.Contains(e.Reason, ": answered 200, ") && e.Time > first.Time
		}
	}
	return false
}
