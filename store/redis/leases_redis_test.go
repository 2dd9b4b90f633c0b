package redis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/session"
)

// room is where the sessions of these tests are.
var room = eventlog.Channel{Name: "room"}

func testLeases(t testing.TB, s *redistest.Server, change func(*leaseOptions)) *leases {
	o := testLeaseOptions()
	if change != nil {
		change(&o)
	}
	return newLeases(s.Client(t), o)
}

// sessions are some, each with its first line.
func sessions(n int) []session.Held {
	list := make([]session.Held, n)
	for i := range list {
		list[i] = session.Held{ID: fmt.Sprintf("%06d", i), Line: 1}
	}
	return list
}

func claimAll(t testing.TB, l *leases, list []session.Held, lease session.Lease) {
	t.Helper()
	for _, h := range list {
		if err := l.Claim(t.Context(), h, lease); err != nil {
			t.Fatal(err)
		}
	}
}

func wantPresent(t *testing.T, l *leases, want int) {
	t.Helper()
	members, total, err := l.Present(t.Context(), room, math.MaxInt)
	if err != nil || total != want || len(members) != want {
		t.Fatalf("%d are present, counted as %d, %v, not %d", len(members), total, err, want)
	}
}

// countCommands returns how many commands clients sent since the last time.
func countCommands(t *testing.T, l *leases) map[string]string {
	t.Helper()
	text, err := l.client.Info(t.Context(), "commandstats").Result()
	if err == nil {
		err = l.client.ConfigResetStat(t.Context()).Err()
	}
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls="); ok {
			counts[name], _, _ = strings.Cut(rest, ",")
		}
	}
	return counts
}

func TestTouchIsAHandfulOfCommands(t *testing.T) {
	l := testLeases(t, redistest.Start(t, redistest.Options{}), nil)
	list := sessions(1000)
	claimAll(t, l, list, session.Lease{Channels: []string{"room"}, For: time.Minute})
	for range 2 { // the first time Redis does not know the script
		countCommands(t, l)
		if missing, err := l.Touch(t.Context(), list); err != nil || len(missing) > 0 {
			t.Fatal(missing, err)
		}
	}
	if counts := countCommands(t, l); counts["evalsha"] != "2" || counts["eval"] != "" {
		t.Errorf("a touch of 1,000 sessions is these commands: %v", counts)
	}
}

// TestScriptsAreShort: what takes many steps is several scripts, between which
// others have their turn.
func TestScriptsAreShort(t *testing.T) {
	now := time.Now().UnixMicro()
	l := testLeases(t, redistest.Start(t, redistest.Options{}), func(o *leaseOptions) { o.now = func() int64 { return now } })
	lease := session.Lease{For: time.Minute}
	for i := range session.MaxLeaseChannels {
		lease.Channels = append(lease.Channels, fmt.Sprint("room", i))
	}
	list := sessions(20)
	claimAll(t, l, list, lease)
	atLeast := func(what string, want int) {
		t.Helper()
		if got, _ := strconv.Atoi(countCommands(t, l)["evalsha"]); got < want {
			t.Errorf("%s of %d leases in %d channels each is %d scripts, not %d or more", what, len(list), len(lease.Channels), got, want)
		}
	}
	now += 2 * time.Minute.Microseconds()
	countCommands(t, l)
	wantPresent(t, l, 0)
	atLeast("clearing away", len(list)*session.MaxLeaseChannels/scriptSteps)
	if missing, err := l.Touch(t.Context(), list); err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	atLeast("a touch", len(list)*session.MaxLeaseChannels/scriptSteps)
}

// TestScriptsAreForgotten: a Redis that was started again knows no script.
func TestScriptsAreForgotten(t *testing.T) {
	l := testLeases(t, redistest.Start(t, redistest.Options{}), nil)
	list := sessions(3 * touchLeases)
	for range 2 {
		claimAll(t, l, list[:1], session.Lease{Channels: []string{"room"}, For: time.Minute})
		if err := l.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		missing, err := l.Touch(t.Context(), list)
		slices.SortFunc(missing, func(a, b session.Held) int { return strings.Compare(a.ID, b.ID) })
		if err != nil || !slices.Equal(missing, list[1:]) {
			t.Errorf("missing are %d, %v", len(missing), err)
		}
	}
}

// TestMuchRunsOutAtOnce: more than one script clears away is gone all the same,
// whoever asks, and with it every key.
func TestMuchRunsOutAtOnce(t *testing.T) {
	const all = 1500
	s := redistest.Start(t, redistest.Options{})
	synctest.Test(t, func(t *testing.T) {
		client := redistest.NewBubble().Client(s)
		defer client.Close()
		o := testLeaseOptions()
		o.now = func() int64 { return time.Now().UnixMicro() }
		l := newLeases(client, o)
		for round := range 2 {
			claimAll(t, l, sessions(all), session.Lease{Channels: []string{"room", "a", "b", "c"}, For: time.Minute})
			wantPresent(t, l, all)
			time.Sleep(time.Minute)
			wantPresent(t, l, 0)
			if round == 0 { // all at once, again
				if missing, err := l.Touch(t.Context(), sessions(all)); err != nil || len(missing) > 0 {
					t.Fatalf("%d are missing, %v", len(missing), err)
				}
				wantPresent(t, l, all)
			}
			time.Sleep(time.Minute + session.Remembered)
			if missing, err := l.Touch(t.Context(), sessions(all)); err != nil || len(missing) != all {
				t.Fatalf("long after, %d are missing, %v", len(missing), err)
			}
		}
		if keys, err := client.Keys(t.Context(), "*").Result(); err != nil || len(keys) > 0 {
			t.Errorf("left are %q, %v", keys, err)
		}
	})
}

// TestLeaseKeys: all that is known of a namespace has one hash tag, and nothing
// goes by itself.
func TestLeaseKeys(t *testing.T) {
	l := testLeases(t, redistest.Start(t, redistest.Options{}), func(o *leaseOptions) { o.prefix = "app" })
	h := session.Held{Namespace: "acme", ID: "ann", Line: 1}
	if _, err := l.Secret(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second stays
		claimAll(t, l, []session.Held{h, {Namespace: "acme", ID: "bob"}}, session.Lease{Channels: []string{"a", "é b"}, For: time.Minute})
		if ended, err := l.Release(t.Context(), h, 0); err != nil || !ended {
			t.Fatal(ended, err)
		}
	}
	keys, err := l.client.Keys(t.Context(), "*").Result()
	slices.Sort(keys)
	tag := fmt.Sprintf("app:{p%d}:", l.bucket("acme"))
	want := []string{tag + "c:4:acme:a", tag + "c:4:acme:é b", tag + "due", tag + "gone", tag + "s:4:acme:bob", "app:{secret}"}
	if err != nil || !slices.Equal(keys, want) {
		t.Errorf("the keys are %q, %v, not %q", keys, err, want)
	}
	for _, key := range keys {
		if ttl := l.client.TTL(t.Context(), key).Val(); ttl != -1 {
			t.Errorf("%s goes by itself in %v", key, ttl)
		}
	}
}

// TestLinesAreNumbersOf64Bits: those that differ in the last bit only are told
// apart, and 9 is less than 10.
func TestLinesAreNumbersOf64Bits(t *testing.T) {
	l := testLeases(t, redistest.Start(t, redistest.Options{}), nil)
	high := session.Held{ID: "ann", Line: math.MaxUint64}
	lower := session.Held{ID: "ann", Line: math.MaxUint64 - 1}
	claimAll(t, l, []session.Held{lower}, session.Lease{For: time.Minute})
	if missing, err := l.Touch(t.Context(), []session.Held{high}); err != nil || len(missing) != 1 {
		t.Error("a line that is higher by one isn't missing", err)
	}
	claimAll(t, l, []session.Held{high, lower}, session.Lease{For: time.Minute})
	if ended, err := l.Release(t.Context(), lower, 0); err != nil || ended {
		t.Error("a line that is lower by one ends the session", err)
	}
	if ended, err := l.Release(t.Context(), high, 0); err != nil || !ended {
		t.Error("the line doesn't end its session", err)
	}
	claimAll(t, l, []session.Held{{ID: "ann", Line: 10}}, session.Lease{For: time.Minute})
	if ended, err := l.Release(t.Context(), session.Held{ID: "ann", Line: 9}, 0); err != nil || ended {
		t.Error("line 9 ends the session of line 10", err)
	}
}

func TestTooManyLeases(t *testing.T) {
	l := testLeases(t, redistest.Start(t, redistest.Options{}), func(o *leaseOptions) { o.maxLeases = 3 })
	list, lease := sessions(4), session.Lease{Channels: []string{"room"}, For: time.Minute}
	claimAll(t, l, list[:3], lease)
	claimAll(t, l, list[:3], lease) // they have their place
	if err := l.Claim(t.Context(), list[3], lease); !errors.Is(err, session.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	wantPresent(t, l, 3)
	if ended, err := l.Release(t.Context(), list[0], 0); err != nil || !ended {
		t.Fatal(ended, err)
	}
	claimAll(t, l, list[3:], lease)
}

// TestRedisIsFull: a Redis that is at the bound of its memory takes no claim, and
// whatever gives memory back, or takes none.
func TestRedisIsFull(t *testing.T) {
	l := testLeases(t, redistest.Start(t, redistest.Options{}), nil)
	list, lease := sessions(2), session.Lease{Channels: []string{"room"}, For: time.Minute}
	claimAll(t, l, list, lease)
	if err := l.client.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := l.Claim(t.Context(), list[0], lease); !errors.Is(err, session.ErrBusy) || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("a claim: %v", err)
	}
	if missing, err := l.Touch(t.Context(), list); err != nil || len(missing) > 0 {
		t.Errorf("a touch: %v, %v", missing, err)
	}
	wantPresent(t, l, 2)
	if ended, err := l.Release(t.Context(), list[0], 0); err != nil || !ended {
		t.Errorf("a release: %v, %v", ended, err)
	}
	wantPresent(t, l, 1)
}

// TestOnlyThePrimaryAnswers: neither a replica nor a primary that misses its
// replica is asked, not even who is present.
func TestOnlyThePrimaryAnswers(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	replica := redistest.Start(t, redistest.Options{ReplicaOf: primary.Addr()})
	l := testLeases(t, primary, nil)
	claimAll(t, l, sessions(1), session.Lease{Channels: []string{"room"}, For: time.Minute})
	behind := newLeases(replica.Client(t), l.options)
	for call, err := range callAll(t.Context(), behind) {
		if !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
			t.Errorf("%s at a replica: %v", call, err)
		}
	}
	if err := l.client.ConfigSet(t.Context(), "min-replicas-to-write", "2").Err(); err != nil {
		t.Fatal(err)
	}
	for call, err := range callAll(t.Context(), l) {
		if !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "NOREPLICAS") {
			t.Errorf("%s at a primary without replicas: %v", call, err)
		}
	}
}

// callAll makes each call once.
func callAll(ctx context.Context, l *leases) map[string]error {
	errs := make(map[string]error)
	one := sessions(1)
	_, errs["Secret"] = l.Secret(ctx)
	errs["Claim"] = l.Claim(ctx, one[0], session.Lease{Channels: []string{"room"}, For: time.Minute})
	_, errs["Touch"] = l.Touch(ctx, one)
	_, errs["Release"] = l.Release(ctx, one[0], time.Hour)
	_, _, errs["Present"] = l.Present(ctx, room, 10)
	return errs
}

// TestRedisIsAway: whatever is wrong with it, calls fail with ErrUnavailable in
// time, and when it is back nothing is wrong any more.
func TestRedisIsAway(t *testing.T) {
	s := redistest.Start(t, redistest.Options{AppendOnly: true})
	link := redistest.StartLink(t, s.Addr())
	o := s.Options()
	o.Addr = link.Addr()
	client := goredis.NewClient(o)
	defer client.Close()
	options := testLeaseOptions()
	options.timeout = 100 * time.Millisecond
	l := newLeases(client, options)
	check := func(when string, want error) {
		t.Helper()
		began := time.Now()
		for call, err := range callAll(t.Context(), l) {
			if !errors.Is(err, want) {
				t.Errorf("%s when %s: %v", call, when, err)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("when %s calls take %v", when, took)
		}
	}
	check("all is well", nil)
	link.Hang()
	check("nothing passes", session.ErrUnavailable)
	link.Restore()
	check("all passes again", nil)
	link.Cut()
	check("the link is cut", session.ErrUnavailable)
	link.Restore()
	check("the link is whole again", nil)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	check("Redis was killed", session.ErrUnavailable)
	if err := s.Restart(true); err != nil {
		t.Fatal(err)
	}
	check("Redis is back", nil)
	wantPresent(t, l, 1)
}

// TestReleaseIsRepeated: a release that is sent again, as go-redis does when the
// answer was lost, has the same answer; another has not.
func TestReleaseIsRepeated(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	client := s.Client(t)
	repeat := &repeater{}
	client.AddHook(repeat)
	l := newLeases(client, testLeaseOptions())
	h := sessions(1)[0]
	for range 3 {
		claimAll(t, l, sessions(1), session.Lease{For: time.Minute})
		if ended, err := l.Release(t.Context(), h, 0); err != nil || !ended {
			t.Errorf("a release that was sent %d times: %v, %v", repeat.sent, ended, err)
		}
		if ended, err := l.Release(t.Context(), h, 0); err != nil || ended {
			t.Errorf("another release: %v, %v", ended, err)
		}
		repeat.sent = 0
	}
}

// A repeater sends each command twice, and gives the second answer.
type repeater struct{ sent int }

func (*repeater) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (r *repeater) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		r.sent += 2
		_ = next(ctx, cmd)
		cmd.SetErr(nil)
		return next(ctx, cmd)
	}
}

func (*repeater) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

// TestPresentInPages: while others come and go, those that stay are in every
// answer once, in order.
func TestPresentInPages(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	l := testLeases(t, s, nil)
	other := newLeases(s.Client(t), l.options)
	lease := session.Lease{Channels: []string{"room"}, For: time.Minute}
	stay := sessions(3*presentPage + 7)
	claimAll(t, l, stay, lease)
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			h := session.Held{ID: fmt.Sprintf("%06d.", i*37%len(stay)), Line: 1}
			_ = other.Claim(ctx, h, lease)
			_, _ = other.Release(ctx, h, 0)
		}
	})
	defer others.Wait()
	defer stop()
	for range 50 {
		members, total, err := l.Present(t.Context(), room, 1<<40)
		ids := make([]string, 0, len(members))
		for _, m := range members {
			if !strings.HasSuffix(m.ID, ".") {
				ids = append(ids, m.ID)
			}
		}
		if err != nil || total < len(stay) || len(ids) != len(stay) || !slices.IsSorted(ids) {
			t.Fatalf("%d of %d that stay are present, of %d, %v", len(ids), len(stay), total, err)
		}
	}
}

func BenchmarkLeases(b *testing.B) {
	s := redistest.Start(b, redistest.Options{})
	lease := session.Lease{Subject: "ann", Info: []byte(`{"colour":"red"}`), Channels: []string{"a", "b", "c"}, For: time.Hour}
	b.Run("claim", func(b *testing.B) {
		l, list := testLeases(b, s, nil), sessions(10_000)
		for i := 0; b.Loop(); i++ {
			claimAll(b, l, list[i%len(list):][:1], lease)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
	})
	b.Run("claim/parallel", func(b *testing.B) {
		l, list := testLeases(b, s, nil), sessions(10_000)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				_ = l.Claim(context.Background(), list[i%len(list)], lease)
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
	})
	b.Run("touch of 1000", func(b *testing.B) {
		l, list := testLeases(b, s, nil), sessions(1000)
		claimAll(b, l, list, lease)
		for b.Loop() {
			if missing, err := l.Touch(b.Context(), list); err != nil || len(missing) > 0 {
				b.Fatal(missing, err)
			}
		}
		b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "touches/s")
	})
	b.Run("present, 100 of 1000", func(b *testing.B) {
		l := testLeases(b, s, nil)
		claimAll(b, l, sessions(1000), session.Lease{Channels: []string{"room"}, For: time.Hour})
		for b.Loop() {
			if members, total, err := l.Present(b.Context(), room, 100); err != nil || len(members) != 100 || total != 1000 {
				b.Fatal(len(members), total, err)
			}
		}
	})
}
