package conformance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// sorted returns lines in order.
func sorted(list []session.Held) []session.Held {
	return slices.SortedFunc(slices.Values(list), func(a, b session.Held) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Line, b.Line))
	})
}

func secretIsOne(c *storeCheck) {
	s := c.open()
	secrets := make([][]byte, 20)
	var all sync.WaitGroup
	for i := range secrets {
		all.Go(func() {
			var err error
			if secrets[i], err = s.Secret(c.ctx); err != nil {
				c.errorf("Secret: %v", err)
			}
		})
	}
	all.Wait()
	first := bytes.Clone(secrets[0])
	if len(first) < session.MinSecret {
		c.fatalf("the secret has %d bytes", len(first))
	}
	clear(secrets[0])
	again, err := s.Secret(c.ctx)
	secrets = append(secrets[1:], again)
	for i, other := range secrets {
		if !bytes.Equal(other, first) {
			c.fatalf("of callers at once, or later (error %v), number %d got another secret", err, i+2)
		}
	}
	if other, err := c.open().Secret(c.ctx); err != nil || bytes.Equal(other, first) {
		c.errorf("two stores have the same secret, or: %v", err)
	}
}

func claimIsPresent(c *storeCheck) {
	s := c.open()
	c.claim(s, held("1", 1), session.Lease{Subject: "ann", Info: []byte(`{"colour":"red"}`), Channels: []string{"a", "b", "a"}, For: time.Minute})
	c.claim(s, held("2", 1), session.Lease{Channels: []string{"b"}, For: time.Minute})
	c.claim(s, held("3", 1), session.Lease{Subject: "nowhere", For: time.Minute})
	c.present(s, "a", "1")
	c.present(s, "b", "1", "2")
	c.present(s, "c")
	members, _, _ := s.Present(c.ctx, eventlog.Channel{Name: "b"}, 10)
	want := []session.Member{{ID: "1", Subject: "ann", Info: []byte(`{"colour":"red"}`)}, {ID: "2"}}
	same := func(a, b session.Member) bool {
		return a.ID == b.ID && a.Subject == b.Subject && bytes.Equal(a.Info, b.Info) && (a.Info == nil) == (b.Info == nil)
	}
	if !slices.EqualFunc(members, want, same) {
		c.errorf("the members are %q, not %q", members, want)
	}
	c.release(s, held("3", 1), 0, true)
}

func badLeasesAreRefused(c *storeCheck) {
	s := c.open()
	long := func(n int) string { return strings.Repeat("x", n) }
	names := make([]string, session.MaxLeaseChannels+1)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	c.claim(s, held("ann", 1), inRoom)
	for _, h := range []session.Held{{}, {ID: long(session.MaxID + 1)}, {ID: "a\n"}, {ID: "\xff"}, {ID: "ann", Namespace: "$x"}, {ID: "ann", Namespace: long(eventlog.MaxNamespace + 1)}} {
		c.invalid(s.Claim(c.ctx, h, inRoom), "Claim of %+.100v", h)
		_, err := s.Touch(c.ctx, []session.Held{held("ann", 1), h})
		c.invalid(err, "Touch of %+.100v", h)
		_, err = s.Release(c.ctx, h, 0)
		c.invalid(err, "Release of %+.100v", h)
	}
	for _, l := range []session.Lease{
		{Channels: []string{"other"}},
		{For: -1},
		{For: session.MaxLease + 1},
		{For: 1, Subject: long(session.MaxSubject + 1)},
		{For: 1, Subject: "\x00"},
		{For: 1, Info: []byte(`"` + long(session.MaxInfo-1) + `"`)},
		{For: 1, Info: []byte(`{`)},
		{For: 1, Info: []byte{}},
		{For: 1, Info: []byte("\"\xff\"")},
		{For: 1, Channels: []string{"other", ""}},
		{For: 1, Channels: []string{"a\n"}},
		{For: 1, Channels: names},
	} {
		c.invalid(s.Claim(c.ctx, held("ann", 2), l), "Claim of %+.100v", l)
	}
	for _, ch := range []eventlog.Channel{{}, {Name: "\n"}, {Name: long(eventlog.MaxChannelName + 1)}} {
		_, _, err := s.Present(c.ctx, ch, 10)
		c.invalid(err, "Present in %.100q", ch)
	}
	c.present(s, room.Name, "ann")
	c.present(s, "other")
	c.claim(s, session.Held{Namespace: long(eventlog.MaxNamespace), ID: long(session.MaxID), Line: 1<<64 - 1}, session.Lease{
		Subject: long(session.MaxSubject), Info: []byte(`"` + long(session.MaxInfo-2) + `"`), Channels: names[1:], For: session.MaxLease,
	})
	c.presentIn(s, eventlog.Channel{Namespace: long(eventlog.MaxNamespace), Name: names[1000]}, long(session.MaxID))
}

func (c *storeCheck) invalid(err error, format string, args ...any) {
	if _, ok := errors.AsType[*eventlog.Invalid](err); !ok {
		c.errorf("%s: error %v, not *eventlog.Invalid", fmt.Sprintf(format, args...), err)
	}
}

func endedContextIsUnavailable(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 1), inRoom)
	ended, cancel := context.WithCancel(c.ctx)
	cancel()
	for call, err := range c.calls(ended, s) {
		c.unavailable(err, call+" with a context that has ended")
	}
}

func closedStoreIsUnavailable(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 1), inRoom)
	for range 2 {
		if err := s.Close(); err != nil {
			c.errorf("Close: %v", err)
		}
		for call, err := range c.calls(c.ctx, s) {
			c.unavailable(err, call+" after Close")
		}
	}
}

func namespacesApart(c *storeCheck) {
	s := c.open()
	at := func(namespace, id string) session.Held {
		return session.Held{Namespace: namespace, ID: id, Line: 5}
	}
	// Joined, each of them reads alike.
	all := []session.Held{at("", "abc"), at("a", "bc"), at("ab", "c"), at("a:", "bc"), at("a", ":bc")}
	for _, h := range all {
		c.claim(s, h, inRoom)
	}
	for _, h := range all {
		var want []string
		for _, other := range all {
			if other.Namespace == h.Namespace {
				want = append(want, other.ID)
			}
		}
		slices.Sort(want)
		c.presentIn(s, eventlog.Channel{Namespace: h.Namespace, Name: room.Name}, want...)
	}
	c.release(s, all[1], 0, true)
	c.touch(s, all, all[1])
	c.presentIn(s, eventlog.Channel{Namespace: "a", Name: room.Name}, ":bc")
	c.presentIn(s, eventlog.Channel{Namespace: "ab", Name: room.Name}, "c")
}

func slicesAreCopied(c *storeCheck) {
	s := c.open()
	l := session.Lease{Info: []byte(`"red"`), Channels: []string{"a", "b"}, For: time.Minute}
	c.claim(s, held("1", 1), l)
	copy(l.Info, `"sad"`)
	copy(l.Channels, []string{"x", "y"})
	c.claim(s, held("2", 1), leaseIn("a"))
	check := func(members []session.Member) {
		if len(members) != 2 || members[0].ID != "1" || string(members[0].Info) != `"red"` {
			c.fatalf("the members are %q", members)
		}
	}
	first, _, _ := s.Present(c.ctx, eventlog.Channel{Name: "a"}, 10)
	second, _, _ := s.Present(c.ctx, eventlog.Channel{Name: "a"}, 10)
	check(first)
	clear(second)
	check(first)
	c.present(s, "x")
	c.release(s, held("1", 1), 0, true)
	c.claim(s, held("0", 1), leaseIn("a", "b"))
	check(first)
	c.present(s, "a", "0", "2")
	c.present(s, "b", "0")
}

func lowerClaimIsNothing(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 5), leaseIn("a"))
	c.pass(s, 50*time.Second)
	c.claim(s, held("ann", 4), session.Lease{Channels: []string{"b"}, For: time.Hour})
	c.present(s, "a", "ann")
	c.present(s, "b")
	c.touch(s, []session.Held{held("ann", 4)}) // 5 is still the line: it isn't renewed
	c.pass(s, 15*time.Second)
	c.present(s, "a")
	c.claim(s, held("ann", 4), leaseIn("b")) // it ran out and is known
	c.present(s, "b")
	c.release(s, held("ann", 5), time.Minute, true) // nothing renewed it
}

func higherClaimReplaces(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 1), session.Lease{Subject: "ann", Info: []byte("1"), Channels: []string{"a", "b"}, For: time.Minute})
	c.claim(s, held("ann", 1), session.Lease{Subject: "ann", Info: []byte("2"), Channels: []string{"b", "c"}, For: time.Minute})
	c.present(s, "a")
	c.present(s, "b", "ann")
	c.present(s, "c", "ann")
	if members, _, _ := s.Present(c.ctx, eventlog.Channel{Name: "b"}, 1); string(members[0].Info) != "2" || members[0].Subject != "ann" {
		c.errorf("after a second claim the member is %q", members)
	}
	c.claim(s, held("ann", 7), session.Lease{Channels: []string{"d"}, For: time.Minute})
	c.present(s, "b")
	c.present(s, "d", "ann")
	if members, _, _ := s.Present(c.ctx, eventlog.Channel{Name: "d"}, 1); members[0].Info != nil || members[0].Subject != "" {
		c.errorf("of an earlier claim is left: %q", members)
	}
	c.release(s, held("ann", 6), 0, false)
	c.release(s, held("ann", 7), 0, true)
}

func leaseRunsOut(c *storeCheck) {
	s := c.open()
	c.claim(s, held("short", 1), session.Lease{Channels: []string{room.Name}, For: 10 * time.Second})
	c.claim(s, held("usual", 1), inRoom)
	c.pass(s, 9*time.Second)
	c.present(s, room.Name, "short", "usual")
	c.pass(s, 2*time.Second)
	c.present(s, room.Name, "usual")
	c.pass(s, 48*time.Second)
	c.present(s, room.Name, "usual")
	c.pass(s, 2*time.Second)
	c.present(s, room.Name)
}

func claimRenews(c *storeCheck) {
	s := c.open()
	for _, line := range []uint64{3, 3, 8} {
		c.claim(s, held("ann", line), inRoom)
		c.pass(s, 50*time.Second)
		c.present(s, room.Name, "ann")
	}
	c.claim(s, held("ann", 8), session.Lease{Channels: []string{room.Name}, For: 5 * time.Second}) // a shorter one
	c.pass(s, 6*time.Second)
	c.present(s, room.Name)
	for _, line := range []uint64{8, 9} {
		c.claim(s, held("ann", line), inRoom)
		c.present(s, room.Name, "ann")
		c.pass(s, 61*time.Second)
		c.present(s, room.Name)
	}
}

func touchRenews(c *storeCheck) {
	s := c.open()
	c.claim(s, held("long", 4), session.Lease{Channels: []string{room.Name}, For: time.Hour})
	c.claim(s, held("usual", 2), inRoom)
	all := []session.Held{held("long", 4), held("usual", 2)}
	for range 5 {
		c.pass(s, 50*time.Second)
		c.touch(s, all)
		c.present(s, room.Name, "long", "usual")
	}
	c.pass(s, 61*time.Second)
	c.present(s, room.Name, "long")
	c.pass(s, 58*time.Minute)
	c.present(s, room.Name, "long")
	c.pass(s, 2*time.Minute)
	c.present(s, room.Name)
}

func touchOfOthers(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 5), inRoom)
	c.claim(s, held("bob", 5), inRoom)
	c.pass(s, 50*time.Second)
	c.touch(s, []session.Held{held("ann", 4), held("bob", 6)}, held("bob", 6))
	c.pass(s, 11*time.Second)
	c.present(s, room.Name)
}

func touchTellsMissing(c *storeCheck) {
	s := c.open()
	var all, missing []session.Held
	for i := range 50 {
		h := held(fmt.Sprint(i), uint64(i))
		all = append(all, h)
		switch i % 3 {
		case 0:
			missing = append(missing, h)
		case 1:
			c.claim(s, h, inRoom)
		case 2:
			c.claim(s, h, inRoom)
			c.release(s, h, 0, true)
			missing = append(missing, h)
		}
	}
	c.touch(s, all, missing...)
	c.touch(s, nil)
}

func touchRevives(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 3), inRoom)
	for range 2 {
		c.pass(s, 5*time.Minute)
		c.present(s, room.Name)
		c.touch(s, []session.Held{held("ann", 3)})
		c.present(s, room.Name, "ann")
	}
	c.pass(s, 59*time.Second)
	c.present(s, room.Name, "ann")
}

func releaseEnds(c *storeCheck) {
	s := c.open()
	c.release(s, held("ann", 1), 0, false)
	c.claim(s, held("ann", 1), leaseIn("a", "b"))
	c.claim(s, held("bob", 1), leaseIn("a"))
	c.release(s, held("ann", 1), 0, true)
	c.present(s, "a", "bob")
	c.present(s, "b")
	c.release(s, held("ann", 1), 0, false)
	c.release(s, held("ann", 2), 0, false)
}

func releaseKeepsHigher(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 5), inRoom)
	c.release(s, held("ann", 4), 0, false)
	c.present(s, room.Name, "ann")
	c.touch(s, []session.Held{held("ann", 5)})
	c.release(s, held("ann", 6), 0, true) // no claim of line 6 came here
	c.present(s, room.Name)
}

func releaseWaitsForIdle(c *storeCheck) {
	s := c.open()
	c.claim(s, held("claimed", 2), inRoom)
	c.claim(s, held("touched", 2), inRoom)
	c.claim(s, held("silent", 2), inRoom)
	c.pass(s, 30*time.Second)
	c.claim(s, held("claimed", 2), inRoom)
	c.touch(s, []session.Held{held("touched", 2), held("silent", 1)})
	c.pass(s, 9*time.Second)
	c.release(s, held("claimed", 2), 10*time.Second, false)
	c.release(s, held("touched", 3), 10*time.Second, false)
	c.release(s, held("silent", 2), 40*time.Second, false)
	c.present(s, room.Name, "claimed", "silent", "touched")
	c.release(s, held("silent", 2), 38*time.Second, true)
	c.pass(s, 2*time.Second)
	c.release(s, held("claimed", 2), 10*time.Second, true)
	c.release(s, held("touched", 2), 10*time.Second, true)
	c.present(s, room.Name)
}

func releaseHasOneWinner(c *storeCheck) {
	s := c.open()
	for round := range 20 {
		h := held(fmt.Sprint(round), 1)
		c.claim(s, h, inRoom)
		var won atomic.Int32
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				ended, err := s.Release(c.ctx, session.Held{ID: h.ID, Line: 1 + uint64(i%2)}, 0)
				if err != nil {
					c.errorf("Release: %v", err)
				}
				if ended {
					won.Add(1)
				}
			})
		}
		all.Wait()
		if n := won.Load(); n != 1 {
			c.fatalf("%d releases of one session were true", n)
		}
	}
}

func ranOutIsRemembered(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 5), inRoom)
	c.claim(s, held("bob", 5), inRoom)
	c.pass(s, 40*time.Second)
	c.touch(s, []session.Held{held("bob", 5)})
	c.pass(s, time.Minute+session.Remembered-41*time.Second)
	c.release(s, held("ann", 4), 0, false)
	c.release(s, held("ann", 5), 20*time.Second, true)
	c.release(s, held("ann", 5), 20*time.Second, false)
	c.pass(s, 40*time.Second)
	c.present(s, room.Name)
	c.release(s, held("bob", 5), 20*time.Second, true)
}

func ranOutIsForgotten(c *storeCheck) {
	s := c.open()
	c.claim(s, held("ann", 5), inRoom)
	c.claim(s, held("bob", 5), inRoom)
	c.pass(s, 24*time.Hour)
	c.touch(s, []session.Held{held("ann", 4), held("ann", 5)}, held("ann", 4), held("ann", 5))
	c.release(s, held("bob", 5), 0, false)
	c.claim(s, held("bob", 1), inRoom)
	c.present(s, room.Name, "bob")
}

func claimAfterRelease(c *storeCheck) {
	s := c.open()
	for _, line := range []uint64{5, 5, 6, 2} {
		c.claim(s, held("ann", line), inRoom)
		c.present(s, room.Name, "ann")
		c.release(s, held("ann", line), 0, true)
		c.present(s, room.Name)
		c.release(s, held("ann", line), 0, false)
	}
}

func presentInOrder(c *storeCheck) {
	s := c.open()
	const n = 1300
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint(i*7919%n)) // all of them, mixed
	}
	ids = append(ids, "Z", "z", "é", "_", "-")
	for _, id := range ids {
		c.claim(s, held(id, 1), inRoom)
	}
	slices.Sort(ids)
	check := func(most int) {
		members, total, err := s.Present(c.ctx, room, most)
		if err != nil || total != len(ids) || len(members) != min(most, len(ids)) {
			c.fatalf("%d members of %d, at most %d asked for, are %d, counted as %d, %v", len(members), len(ids), most, len(members), total, err)
		}
		for i, m := range members {
			if m.ID != ids[i] {
				c.fatalf("of at most %d members number %d is %q, not %q", most, i+1, m.ID, ids[i])
			}
		}
	}
	for _, most := range []int{0, 1, 10, len(ids) - 1, len(ids), len(ids) + 1, 1 << 40} {
		check(most)
	}
	for len(ids) > 0 {
		gone := (len(ids) + 1) / 3
		for _, id := range ids[gone : gone+(len(ids)+1)/2] {
			c.release(s, held(id, 1), 0, true)
		}
		ids = slices.Delete(ids, gone, gone+(len(ids)+1)/2)
		check(1 << 40)
	}
}

func concurrentStore(c *storeCheck) {
	s := c.open()
	const nodes, sessions = 4, 50
	var ended atomic.Int64
	release := func(node, i int, idle time.Duration) {
		over, err := s.Release(c.ctx, held(fmt.Sprint(node, ".", i), 1), idle)
		switch {
		case err != nil:
			c.errorf("Release: %v", err)
		case over && idle > 0:
			c.errorf("a session that was claimed just now is over, having been idle for %v", idle)
		case over:
			ended.Add(1)
		}
	}
	var all sync.WaitGroup
	for node := range nodes {
		all.Go(func() {
			for i := range sessions { // the node's own
				mine := held(fmt.Sprint(node, ".", i), 1)
				err := s.Claim(c.ctx, mine, leaseIn(room.Name, "other"))
				if err == nil {
					_, err = s.Touch(c.ctx, []session.Held{mine, held("nobody", 1)})
				}
				members, total, e := s.Present(c.ctx, room, 3)
				if err = errors.Join(err, e); err != nil || total > nodes*sessions || len(members) > 3 {
					c.errorf("%d members of %d, %v", len(members), total, err)
				}
				release(node, i, time.Hour)
				release(i%nodes, i/2, 0) // mostly another's, and all nodes the same
			}
		})
	}
	all.Wait()
	for node := range nodes {
		for i := range sessions {
			release(node, i, 0)
		}
	}
	if n := ended.Load(); n != nodes*sessions {
		c.errorf("%d sessions began, and %d ended", nodes*sessions, n)
	}
	c.present(s, room.Name)
	c.present(s, "other")
}
