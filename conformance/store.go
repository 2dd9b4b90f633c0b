package conformance

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// TestStore runs every clause of the contract of [session.Store]. open returns
// a new, empty store, which the suite closes.
//
// Clauses about time run in a bubble and sleep. A store that doesn't take the
// time from this process may have the method Elapse(time.Duration), which is
// called wherever a clause lets time pass.
func TestStore(t *testing.T, open func(t *testing.T) session.Store) {
	for _, c := range storeClauses {
		t.Run(c.id, func(t *testing.T) {
			if failures := c.try(t, open); len(failures) > 0 {
				t.Errorf("%s\n  %s", c.text, strings.Join(failures, "\n  "))
			}
		})
	}
}

// storeClauses is the whole suite, in the order in which it is best read.
var storeClauses = []storeClause{
	{"S01_Secret", "basics", "MUST: Secret is one for all callers, of at least MinSecret bytes, that nobody can change and no other store has.", false, secretIsOne},
	{"S02_Claim", "basics", "MUST: a claimed session is present in the channels of its lease, with its subject and info, and in no others.", false, claimIsPresent},
	{"S03_InvalidIsRefused", "basics", "MUST: what Held.Check, Lease.Check or Channel.Check refuses fails with *eventlog.Invalid and changes nothing; what they take is taken.", false, badLeasesAreRefused},
	{"S04_EndedContext", "basics", "MUST: a call whose context has ended fails with ErrUnavailable.", false, endedContextIsUnavailable},
	{"S05_Close", "basics", "MUST: what is called after Close, which may be called again, fails with ErrUnavailable.", false, closedStoreIsUnavailable},
	{"S06_NamespacesApart", "basics", "MUST: sessions and channels of different namespaces have nothing to do with each other, nor have sessions of different ids.", false, namespacesApart},
	{"S07_Copies", "basics", "MUST: nothing changes what is held, or was returned, by changing its own slice.", false, slicesAreCopied},

	{"S10_LowerClaim", "claims", "MUST: a claim by a line that is lower than the stored changes nothing, and is no error.", true, lowerClaimIsNothing},
	{"S11_HigherClaim", "claims", "MUST: a claim by the stored line, or by a higher one, takes the lease's place, and the line's.", false, higherClaimReplaces},
	{"S12_RunsOut", "claims", "MUST: a lease is present for as long as it was claimed for, and not for longer.", true, leaseRunsOut},
	{"S13_ClaimRenews", "claims", "MUST: a claim by the stored line, or by a higher one, renews the lease, also one that ran out.", true, claimRenews},

	{"S20_Touch", "touches", "MUST: a touch by the stored line renews the lease for as long as it was claimed for.", true, touchRenews},
	{"S21_TouchOfOthers", "touches", "MUST: a touch renews no lease whose line is another; if that is higher, the touched is not missing, and if it is lower, it is.", true, touchOfOthers},
	{"S22_Missing", "touches", "MUST: missing are exactly those touched that were never claimed, or were released.", false, touchTellsMissing},
	{"S23_TouchRevives", "touches", "MUST: a touch renews a lease that ran out and is still known: it is present again.", true, touchRevives},

	{"S30_Release", "releases", "MUST: Release ends a session: it is true, the session is present nowhere, and whoever releases it again gets false.", false, releaseEnds},
	{"S31_ReleaseOfHigher", "releases", "MUST: Release is false, and changes nothing, where a higher line holds the lease; a lower one's it ends.", false, releaseKeepsHigher},
	{"S32_Idle", "releases", "MUST: Release is false, and changes nothing, if a claim or a touch renewed the lease within idle, and true if none did.", true, releaseWaitsForIdle},
	{"S33_ReleaseHasOneWinner", "releases", "MUST: of concurrent releases of one session one is true.", false, releaseHasOneWinner},
	{"S34_Remembered", "releases", "MUST: a lease that ran out is known to Release, with its line, for Remembered longer.", true, ranOutIsRemembered},
	{"S35_Forgotten", "releases", "SHOULD: a lease that ran out long ago is forgotten: it is missing, and its release false.", true, ranOutIsForgotten},
	{"S36_ClaimAfterRelease", "releases", "MUST: a claim after a release begins anew, by whatever line, and has a release of its own.", false, claimAfterRelease},

	{"S40_Present", "presence", "MUST: Present returns at most max members, the first in order of the bytes of their ids, and how many there are.", false, presentInOrder},
	{"S41_Concurrent", "presence", "MUST: whatever is called concurrently, each session ends once for each time that it began, and none stays.", false, concurrentStore},

	{"S90_Model", "model", "MUST: whatever happens, the store is as the contract says.", true, storeModelHolds},
}

// A storeClause is one sentence of the contract and how to test it.
type storeClause struct {
	id, group, text string
	bubble          bool // run with fake time
	run             func(*storeCheck)
}

// try runs a clause and returns how it failed.
func (c *storeClause) try(t *testing.T, open func(*testing.T) session.Store) (failures []string) {
	hangs := time.AfterFunc(time.Minute, func() { // in real time, also for a bubble
		debug.SetTraceback("all")
		panic("conformance: " + c.id + " hangs")
	})
	defer hangs.Stop()
	if !c.bubble {
		return c.attempt(t, open, 30*time.Second)
	}
	synctest.Test(t, func(t *testing.T) {
		failures = c.attempt(t, open, 365*24*time.Hour)
	})
	return failures
}

func (c *storeClause) attempt(t *testing.T, open func(*testing.T) session.Store, deadline time.Duration) (failures []string) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	check := &storeCheck{t: t, opener: open, ctx: ctx}
	defer func() {
		if r := recover(); r != nil && r != any(endOfCheck) {
			panic(r)
		}
		for _, s := range check.opened {
			_ = s.Close() // some clauses did already
		}
		failures = check.failures
	}()
	c.run(check)
	return nil
}

// A storeCheck is one run of a clause.
type storeCheck struct {
	findings
	t      *testing.T
	opener func(*testing.T) session.Store
	ctx    context.Context // ends at the clause's deadline
	opened []session.Store
}

func (c *storeCheck) open() session.Store {
	s := c.opener(c.t)
	c.opened = append(c.opened, s)
	return s
}

// pass lets time pass. Only in a bubble.
func (c *storeCheck) pass(s session.Store, d time.Duration) {
	if e, ok := s.(interface{ Elapse(d time.Duration) }); ok {
		e.Elapse(d)
	}
	time.Sleep(d)
	synctest.Wait()
}

// held is a line of a session in the default namespace.
func held(id string, line uint64) session.Held { return session.Held{ID: id, Line: line} }

// inRoom is a lease in the channel room, for a minute.
var inRoom = session.Lease{Channels: []string{room.Name}, For: time.Minute}

// leaseIn is inRoom in other channels.
func leaseIn(channels ...string) session.Lease {
	return session.Lease{Channels: channels, For: time.Minute}
}

func (c *storeCheck) claim(s session.Store, h session.Held, l session.Lease) {
	if err := s.Claim(c.ctx, h, l); err != nil {
		c.fatalf("Claim of %v: %v", h, err)
	}
}

// touch checks which of those touched are missing.
func (c *storeCheck) touch(s session.Store, touched []session.Held, want ...session.Held) {
	missing, err := s.Touch(c.ctx, touched)
	if err != nil {
		c.fatalf("Touch of %v: %v", touched, err)
	}
	if fmt.Sprint(sorted(missing)) != fmt.Sprint(sorted(want)) {
		c.fatalf("Touch of %v: missing are %v, not %v", touched, missing, want)
	}
}

func (c *storeCheck) release(s session.Store, h session.Held, idle time.Duration, want bool) {
	ended, err := s.Release(c.ctx, h, idle)
	if err != nil || ended != want {
		c.fatalf("Release of %v, idle for %v: %v, %v, not %v", h, idle, ended, err, want)
	}
}

// present checks who is in a channel of the default namespace.
func (c *storeCheck) present(s session.Store, channel string, want ...string) {
	c.presentIn(s, eventlog.Channel{Name: channel}, want...)
}

func (c *storeCheck) presentIn(s session.Store, ch eventlog.Channel, want ...string) {
	members, total, err := s.Present(c.ctx, ch, 1000)
	if err != nil {
		c.fatalf("Present in %v: %v", ch, err)
	}
	var ids []string
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	if total != len(want) || fmt.Sprint(ids) != fmt.Sprint(want) {
		c.fatalf("present in %v are %q, counted as %d, not %q", ch, ids, total, want)
	}
}

func (c *storeCheck) unavailable(err error, call string) {
	if !errors.Is(err, session.ErrUnavailable) {
		c.errorf("%s: error %v, not ErrUnavailable", call, err)
	}
}

// calls makes each call once, and returns their errors by their names.
func (c *storeCheck) calls(ctx context.Context, s session.Store) map[string]error {
	errs := make(map[string]error)
	_, errs["Secret"] = s.Secret(ctx)
	errs["Claim"] = s.Claim(ctx, held("ann", 2), inRoom)
	_, errs["Touch"] = s.Touch(ctx, []session.Held{held("ann", 1)})
	_, errs["Touch of nothing"] = s.Touch(ctx, nil)
	_, errs["Release"] = s.Release(ctx, held("ann", 9), 0)
	_, _, errs["Present"] = s.Present(ctx, room, 10)
	return errs
}
