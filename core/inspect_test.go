package core

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// A stalledConn takes what it is sent until it is stalled.
type stalledConn struct {
	mu      sync.Mutex
	stalled bool
	closed  chan struct{}
	once    sync.Once
}

func newStalledConn() *stalledConn { return &stalledConn{closed: make(chan struct{})} }

func (c *stalledConn) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = true
}

func (c *stalledConn) Send(_ []transport.Item, deadline time.Time) (bool, error) {
	c.mu.Lock()
	stalled := c.stalled
	c.mu.Unlock()
	if !stalled {
		return true, nil
	}
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case <-c.closed:
		return false, transport.ErrClosed
	case <-late.C:
		return false, context.DeadlineExceeded
	}
}

func (c *stalledConn) Close(transport.Reason) { c.once.Do(func() { close(c.closed) }) }

// An inspected engine is looked into, in fake time.
type inspected struct {
	*testing.T
	*Engine
	log *eventlog.Memory
}

func inspect(t *testing.T, body func(*inspected)) {
	t.Helper()
	inspectWith(t, Options{Logger: slog.New(slog.DiscardHandler)}, body)
}

func inspectWith(t *testing.T, o Options, body func(*inspected)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		mem := session.NewMemory(session.MemoryOptions{})
		o.Log, o.Store, o.Transports = log, mem, []string{"sse", "ws"}
		e := New(o)
		body(&inspected{t, e, log})
		e.Close()
		_ = log.Close()
		_ = mem.Close()
	})
}

func (i *inspected) attach(subject, token string, conn transport.Conn, channels ...string) *line {
	i.Helper()
	hello := transport.Hello{Version: 1, Line: uint64(time.Now().UnixNano()), Token: token}
	for _, name := range channels {
		hello.Channels = append(hello.Channels, transport.Subscription{Channel: name})
	}
	s, err := i.Attach(i.Context(), transport.Peer{Subject: subject, Addr: "192.0.2.7", Transport: "ws"}, hello, conn)
	if err != nil {
		i.Fatal(err)
	}
	synctest.Wait()
	return s.(*line)
}

func (i *inspected) append(channel string, n int) {
	i.Helper()
	for range n {
		if _, _, err := i.log.Append(i.Context(), eventlog.Channel{Name: channel}, eventlog.Batch{Messages: []eventlog.Message{{Type: "m", Data: []byte("1")}}}); err != nil {
			i.Fatal(err)
		}
	}
	synctest.Wait()
}

// TestInspect: a client that keeps up, one that stalls, and what becomes of it:
// kept out, on trial, well again.
func TestInspect(t *testing.T) {
	inspect(t, func(i *inspected) { // the first heartbeats come after 200 ms
		stuck := newStalledConn()
		slow := i.attach("lin", "", stuck, "room", "alone")
		time.Sleep(time.Second)
		i.attach("ada", "", deafConn{}, "room")
		stuck.stall()
		i.append("room", 3) // the first of them is what it is stalled by
		i.append("alone", 7)
		time.Sleep(2 * time.Second)
		v := i.Inspect(9, i.log)
		for range 20 { // channels come in any order
			if again := i.Inspect(9, i.log); again.GreatestLag != 7 {
				t.Errorf("the greatest lag is %d", again.GreatestLag)
			}
		}
		if v.Connections["ws"] != 2 || v.Sessions != 2 || v.GreatestLag != 7 || v.MedianLag != 0 || v.Topics != 2 || v.Evictions != 0 {
			t.Errorf("totals: %+v", v)
		}
		id := slow.client.Session
		want := []InspectedLine{
			{Session: id[:8], Connection: slow.client.Connection, Subject: "lin", Transport: "ws", For: 3 * time.Second, Written: 2800 * time.Millisecond, Channels: 2, Lag: 7, MaxLag: 1000},
			{Session: v.Lines[1].Session, Connection: v.Lines[1].Connection, Subject: "ada", Transport: "ws", For: 2 * time.Second, Written: 1800 * time.Millisecond, Channels: 1},
		}
		if !slices.Equal(v.Lines, want) {
			t.Errorf("lines: %+v\nwant %+v", v.Lines, want)
		}
		if got := fmt.Sprint(v.Channels[0], *v.Channels[0].Held); v.Channels[0].Name != "room" || v.Channels[0].Subscribers != 2 || v.Channels[0].Head != 3 || v.Channels[0].Held.Events != 3 {
			t.Errorf("channels: %s", got)
		}
		time.Sleep(8 * time.Second) // its write reaches the deadline
		synctest.Wait()
		v = i.Inspect(9, i.log)
		absent := InspectedAbsent{Session: id[:8], Connection: slow.client.Connection, Subject: "lin", After: 5 * time.Second, Times: 1, Why: "it did not take in time what it was sent (WriteTimeout)"}
		if v.Evictions != 1 || v.Away != 1 || len(v.Lines) != 1 || v.GreatestLag != 0 || len(v.Absent) != 1 || fmt.Sprint(v.Absent[0]) != fmt.Sprint(absent) {
			t.Errorf("once it was evicted: %+v", v)
		}
		time.Sleep(5 * time.Second)
		again := newStalledConn()
		again.stall()
		i.attach("lin", slow.token, again, "room")
		time.Sleep(time.Second)
		v = i.Inspect(9, i.log)
		if v.Away != 0 || v.Trials != 1 || len(v.Absent) != 0 || !v.Lines[0].Trial || v.Lines[0].Evicted != 1 ||
			v.Lines[0].Written != 0 || v.Lines[0].Why != absent.Why || v.Lines[0].Session != id[:8] {
			t.Errorf("on trial: %+v", v)
		}
		text, err := json.Marshal(v)
		if err != nil || strings.Contains(string(text), id) || strings.Contains(string(text), slow.token) {
			t.Errorf("%v: it shows what is secret: %s", err, text)
		}
	})
}

// A dripConn takes a Send each second.
type dripConn struct{ deafConn }

func (dripConn) Send([]transport.Item, time.Time) (bool, error) {
	time.Sleep(time.Second)
	return true, nil
}

// TestInspectLimits: each channel has its own, and who is over it is shown as
// such, with for how long. The total has one only where all are the same.
func TestInspectLimits(t *testing.T) {
	policy := func(ch eventlog.Channel) Policy {
		if ch.Name == "quotes" {
			return Policy{MaxLag: 10, Slow: SkipToLatest}
		}
		return Policy{MaxLag: 50, LagWindow: 20 * time.Second}
	}
	inspectWith(t, Options{Logger: slog.New(slog.DiscardHandler), Policy: policy, PageBytes: 1}, func(i *inspected) {
		if v := i.Inspect(9, nil); v.MaxLag != 1000 {
			i.Errorf("of no channel: %d", v.MaxLag)
		}
		i.attach("lin", "", dripConn{}, "room")
		time.Sleep(2 * time.Second)
		if v := i.Inspect(9, nil); v.MaxLag != 50 || v.Channels[0].MaxLag != 50 || v.Channels[0].Skips {
			i.Errorf("of one channel: %+v", v)
		}
		i.attach("ada", "", deafConn{}, "quotes")
		for range 10 { // more than it takes
			i.append("room", 20)
			time.Sleep(time.Second)
		}
		v := i.Inspect(9, nil)
		if one := v.Lines[0]; v.MaxLag != 0 || one.MaxLag != 50 || one.Over < 5*time.Second || one.Over > 9*time.Second || one.Window != 20*time.Second {
			i.Errorf("who is over the limit: %+v, of all %d", one, v.MaxLag)
		}
		if one := v.Lines[1]; one.Over != 0 || one.Window != 0 {
			i.Errorf("who keeps up: %+v", one)
		}
		if c := v.Channels; c[0].Name != "quotes" || c[0].MaxLag != 10 || !c[0].Skips || c[1].MaxLag != 50 {
			i.Errorf("channels: %+v", c)
		}
	})
}

// TestInspectPlain: of plain clients without a subject the address is shown, and
// what logs call the connection, while they are here and while they are kept out.
func TestInspectPlain(t *testing.T) {
	inspect(t, func(i *inspected) {
		var stuck []*stalledConn
		for n := range 2 {
			stuck = append(stuck, newStalledConn())
			hello := transport.Hello{Channels: []transport.Subscription{{Channel: "room"}}}
			peer := transport.Peer{Addr: "2001:db8::7", Transport: "sse", Connection: fmt.Sprint("c", n)}
			if _, err := i.Attach(i.Context(), peer, hello, stuck[n]); err != nil {
				i.Fatal(err)
			}
			synctest.Wait()
			stuck[n].stall()
		}
		names := func() (got []string) {
			v := i.Inspect(9, nil)
			for _, l := range v.Lines {
				got = append(got, "in "+l.Address+" "+l.Connection)
			}
			for _, a := range v.Absent {
				got = append(got, "out "+a.Address+" "+a.Connection)
			}
			slices.Sort(got)
			return got
		}
		if got := names(); !slices.Equal(got, []string{"in 2001:db8::/64 c0", "in 2001:db8::/64 c1"}) {
			i.Errorf("%q", got)
		}
		i.append("room", 3)
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if got := names(); !slices.Equal(got, []string{"out 2001:db8::/64 c0", "out 2001:db8::/64 c1"}) {
			i.Errorf("%q", got)
		}
	})
}

// TestTrialIsTold: a trial is passed, and the log says so, when the client is
// within its limits, and not already when it has reached where it came back.
func TestTrialIsTold(t *testing.T) {
	var said strings.Builder
	logger := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	policy := func(eventlog.Channel) Policy { return Policy{MaxLag: 50, LagWindow: time.Hour} }
	inspectWith(t, Options{Logger: logger, Policy: policy, PageBytes: 1}, func(i *inspected) {
		stuck := newStalledConn()
		slow := i.attach("lin", "", stuck, "room")
		at, err := i.log.Seek(i.Context(), eventlog.Channel{Name: "room"}, eventlog.Start{})
		if err != nil {
			t.Error(err)
		}
		stuck.stall()
		i.append("room", 9)
		time.Sleep(16 * time.Second)
		back := transport.Hello{Version: 1, Line: uint64(time.Now().UnixNano()), Token: slow.token, Channels: []transport.Subscription{{Channel: "room", After: at}}}
		if _, err := i.Attach(i.Context(), transport.Peer{Subject: "lin", Transport: "ws"}, back, dripConn{}); err != nil {
			t.Fatal(err)
		}
		for range 15 { // it has read the nine it missed when this is over
			i.append("room", 20)
			time.Sleep(time.Second)
		}
		v := i.Inspect(9, nil)
		if one := v.Lines[0]; !one.Trial || one.Over == 0 || strings.Contains(said.String(), "trial passed") {
			i.Errorf("while it is live and over its limit: %+v", one)
		}
		time.Sleep(10 * time.Minute)
		v = i.Inspect(9, nil)
		if one := v.Lines[0]; one.Trial || one.Lag > 0 || one.Over != 0 || strings.Count(said.String(), `msg="trial passed"`) != 1 {
			i.Errorf("once it keeps up: %+v", one)
		}
	})
}

// TestInspectLines: probes don't count, polls are one line, and channels are those
// that it has now.
func TestInspectLines(t *testing.T) {
	inspect(t, func(i *inspected) {
		hello := transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{{Channel: "a"}, {Channel: "b"}}}
		poll := func() transport.Session {
			s, err := i.Attach(i.Context(), transport.Peer{Transport: "poll"}, hello, deafConn{})
			if err != nil {
				i.Fatal(err)
			}
			synctest.Wait()
			return s
		}
		s := poll()
		hello.Token = s.(*line).token
		s.Detach(transport.ErrSpent)
		synctest.Wait()
		if v := i.Inspect(9, nil); len(v.Connections) != 0 || len(v.Lines) != 0 || v.Sessions != 1 {
			i.Errorf("between polls: %+v", v)
		}
		time.Sleep(5 * time.Second)
		s = poll()
		probe := transport.Hello{Version: 1, Line: 2, Probe: true, Token: hello.Token}
		if _, err := i.Attach(i.Context(), transport.Peer{Transport: "ws"}, probe, deafConn{}); err != nil {
			i.Fatal(err)
		}
		if err := s.Receive(transport.Frame{Kind: transport.FrameUnsubscribe, Names: []string{"b"}}); err != nil {
			i.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		v := i.Inspect(9, nil)
		if len(v.Connections) != 1 || len(v.Lines) != 1 || v.Lines[0].For != 5100*time.Millisecond || v.Lines[0].Channels != 1 || v.Lines[0].Transport != "poll" {
			i.Errorf("%+v", v)
		}
		if len(v.Channels) != 1 || v.Channels[0].Held != nil {
			i.Errorf("of a log that does not say what it holds: %+v", v.Channels)
		}
	})
}

// TestInspectShowsFew: of many, those that matter most, and all are counted.
func TestInspectShowsFew(t *testing.T) {
	inspect(t, func(i *inspected) {
		conns := make([]*stalledConn, 9)
		for n := range conns {
			conns[n] = newStalledConn()
			names := []string{"all", fmt.Sprint("own ", n)}
			i.attach(fmt.Sprint(n), "", conns[n], names...)
			conns[n].stall()
			time.Sleep(time.Millisecond)
		}
		for n := range conns {
			i.append(fmt.Sprint("own ", n), n%5)
		}
		v := i.Inspect(3, i.log)
		var who []string
		for _, l := range v.Lines {
			who = append(who, fmt.Sprint(l.Subject, ":", l.Lag))
		}
		if got := fmt.Sprint(who); got != "[4:4 8:3 3:3]" || v.GreatestLag != 4 || v.MedianLag != 2 || v.Connections["ws"] != 9 || v.Topics != 10 {
			t.Errorf("%s: %+v", got, v)
		}
		if len(v.Channels) != 3 || v.Channels[0].Name != "all" || v.Channels[1].Name != "own 0" || v.Channels[2].Name != "own 1" {
			t.Errorf("channels: %+v", v.Channels)
		}
		time.Sleep(12 * time.Second)
		v = i.Inspect(3, i.log)
		if v.Evictions != 9 || v.Away != 9 || len(v.Absent) != 3 {
			t.Errorf("once they were evicted: %+v", v)
		}
		if v = i.Inspect(0, i.log); len(v.Lines)+len(v.Channels)+len(v.Absent) != 0 {
			t.Errorf("none were asked for: %+v", v)
		}
	})
}

// TestGreatestAndMedian: like a sorted list of all.
func TestGreatestAndMedian(t *testing.T) {
	for range 1000 {
		all := make([]uint64, 1+rand.N(8))
		var behind []uint64
		for i := range all {
			if all[i] = rand.N[uint64](4); all[i] > 0 {
				behind = append(behind, all[i])
			}
		}
		greatest, median := greatestAndMedian(behind, len(all))
		slices.Sort(all)
		if greatest != all[len(all)-1] || median != all[(len(all)-1)/2] {
			t.Fatalf("%v: %d, %d", all, greatest, median)
		}
	}
	if g, m := greatestAndMedian(nil, 0); g+m != 0 {
		t.Errorf("of none: %d, %d", g, m)
	}
}

// TestInspectNames: they are cut where that can be read, and identities taken
// apart.
func TestInspectNames(t *testing.T) {
	long := strings.Repeat("ä", 80)
	if got := clip(long); got != strings.Repeat("ä", 50)+"…" || clip("x"+long) != "x"+strings.Repeat("ä", 49)+"…" || clip("ada") != "ada" {
		t.Errorf("%q", got)
	}
	peer := &transport.Peer{Namespace: "n", Addr: "192.0.2.7"}
	hello := &transport.Hello{Channels: []transport.Subscription{{Channel: "room"}}}
	for want, peer := range map[InspectedAbsentName]*transport.Peer{
		{Namespace: "n", Address: "192.0.2.7"}: peer,
		{Namespace: "n", Subject: "ada"}:       {Namespace: "n", Subject: "ada", Addr: "192.0.2.7"},
	} {
		identity, _ := plainIdentity(peer, hello)
		a := inspectAbsent(&breaker.Absent{Identity: identity})
		if got := (InspectedAbsentName{a.Namespace, a.Subject, a.Address}); got != want {
			t.Errorf("%q: %+v", identity, got)
		}
	}
}

type InspectedAbsentName struct{ Namespace, Subject, Address string }

// BenchmarkInspect: 10,000 connections, of which a tenth lags.
func BenchmarkInspect(b *testing.B) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	mem := session.NewMemory(session.MemoryOptions{})
	e := New(Options{Log: log, Store: mem, Logger: slog.New(slog.DiscardHandler)})
	defer func() { e.Close(); _ = log.Close(); _ = mem.Close() }()
	for n := range 10_000 {
		hello := transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{{Channel: "all"}, {Channel: fmt.Sprint(n)}}}
		s, err := e.Attach(b.Context(), transport.Peer{Transport: "ws"}, hello, deafConn{})
		if err != nil {
			b.Fatal(err)
		}
		if n%10 == 0 {
			subs := s.(*line).lead.topic.subs
			subs[len(subs)-1].sentTo.Store(0)
		}
	}
	for b.Loop() {
		_ = e.Inspect(50, log)
	}
}
