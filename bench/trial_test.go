package main

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestMain lets the trials of the tests start this program in its other roles.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && (os.Args[1] == roleTrial || os.Args[1] == roleDrain) {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestAllContestantsDeliver runs each of them small.
func TestAllContestantsDeliver(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := settings{Clients: 5, Rounds: 1, Paced: 3, Pace: 100, Burst: 400, Payload: 130}
	for _, c := range contestants() {
		results, err := order{Contestant: c.name, Settings: o}.carryOut(ctx)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for _, r := range results {
			sent := o.Paced
			if r.Load == loadBurst {
				sent = o.Burst
			}
			if got := r.Tally; got.Delivered != sent*o.Clients || got.Missing+got.Disorder+len(got.Ended) > 0 || r.Error != "" {
				t.Errorf("%s, %s: %+v %s", c.name, r.Load, got, r.Error)
			}
		}
		if want := 2; !c.burstOnly && len(results) != want {
			t.Errorf("%s: %d results, not %d", c.name, len(results), want)
		}
	}
}
