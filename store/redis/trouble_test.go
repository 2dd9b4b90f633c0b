package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
)

// told is what a test reads of a log: data, and what is lost.
func told(t *testing.T, l eventlog.Log, after eventlog.Position) (what string, next eventlog.Position) {
	t.Helper()
	page, err := l.Read(t.Context(), room, after, eventlog.Limit{})
	lost, isLost := errors.AsType[*eventlog.Lost](err)
	switch {
	case isLost:
		return string(lost.Reason), lost.To
	case errors.Is(err, eventlog.ErrUnavailable):
		return "try later", after
	case err != nil:
		t.Fatal(err)
	}
	for _, e := range page.Events {
		what += string(e.Data)
	}
	return what, page.Next
}

func send(t *testing.T, l eventlog.Log, data string) eventlog.Position {
	t.Helper()
	at, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte(data)}}})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// openBy opens a log whose way to Redis is a link.
func openBy(t *testing.T, link *redistest.Link, o Options) *node {
	t.Helper()
	co := shared.Options()
	co.Addr, co.PoolSize = link.Addr(), 1000 // which is also how many dials may fail before it pauses
	co.ReadTimeout, co.WriteTimeout, co.DialTimeout = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	n := &node{client: goredis.NewClient(co)}
	o.Logger = slog.New(slog.DiscardHandler)
	def(&o.Timeout, 300*time.Millisecond)
	var err error
	if n.Log, err = Open(t.Context(), n.client, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// watch serves the room, and returns what is told of each wake.
func watch(t *testing.T, l eventlog.Log) <-chan struct{} {
	woken := make(chan struct{}, 1)
	t.Cleanup(l.Watch(room, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}))
	return woken
}

func eventually(t *testing.T, within time.Duration, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// TestAwayAndBack: while Redis can't be reached, whoever has the last event that the node
// knows of stays, all others are to try later, and publishes fail at once; then all goes
// on where it was, and whoever waits is woken.
func TestAwayAndBack(t *testing.T) {
	o := Options{Prefix: newPrefix(), CheckInterval: 400 * time.Millisecond}
	other := open(t, o)
	defer other.Close()
	link := redistest.StartLink(t, shared.Addr())
	l := openBy(t, link, o)
	woken := watch(t, l)
	first := send(t, l, "a")
	last := send(t, l, "b")
	if what, _ := told(t, l, first); what != "b" {
		t.Fatal(what)
	}
	for name, trouble := range map[string]func(){"cut": link.Cut, "deaf": link.Hang} {
		t.Run(name, func(t *testing.T) {
			trouble()
			if what, next := told(t, l, last); what != "" || next != last {
				t.Errorf("at the head of the tail: %q", what)
			}
			if what, _ := told(t, l, first); what != "try later" {
				t.Errorf("behind it: %q", what)
			}
			began := time.Now()
			_, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}})
			if took := time.Since(began); !errors.Is(err, eventlog.ErrUnavailable) || took > 2*time.Second {
				t.Errorf("an append: %v, after %v", err, took)
			}
			sent := send(t, other, "c")
			for len(woken) > 0 {
				<-woken
			}
			link.Restore()
			select {
			case <-woken:
			case <-time.After(5 * time.Second):
				t.Error("nobody was woken")
			}
			eventually(t, 5*time.Second, "reads go on", func() bool {
				what, next := told(t, l, last)
				return strings.Contains(what, "c") && next.Offset >= sent.Offset
			})
			last, _ = l.Seek(t.Context(), room, eventlog.Start{})
			first = last
			last = send(t, l, "d")
			told(t, l, first)
		})
	}
}

// TestAppendWaits: with Options.AppendWait, an append waits for a Redis that comes back;
// one with a producer also where it may have been done, and it is done once.
func TestAppendWaits(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendOnly: true})
	link := redistest.StartLink(t, server.Addr())
	o := Options{AppendWait: 10 * time.Second}
	direct, l := openOn(t, server, o), openBy(t, link, o)
	defer direct.Close()
	start, _ := l.Seek(t.Context(), room, eventlog.Start{})
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { _ = server.Restart(true) })
	send(t, direct, "a")
	link.Hang()
	time.AfterFunc(900*time.Millisecond, link.Restore)
	b := eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte("b")}}, Producer: eventlog.Producer{ID: "p", Seq: 1}}
	if _, _, err := l.Append(t.Context(), room, b); err != nil {
		t.Error(err)
	}
	if what, _ := told(t, l, start); what != "ab" {
		t.Errorf("the channel holds %q", what)
	}
	link.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, _, err := l.Append(ctx, room, b); !errors.Is(err, eventlog.ErrUnavailable) || time.Since(began) > 2*time.Second {
		t.Errorf("with a context of 200 ms: %v, after %v", err, time.Since(began))
	}
}

// TestDeafBellsAreNoticed: a pub/sub connection that died in silence is replaced, long
// before a check would be made.
func TestDeafBellsAreNoticed(t *testing.T) {
	link := redistest.StartLink(t, shared.Addr())
	l := openBy(t, link, Options{Prefix: newPrefix(), CheckInterval: time.Hour, tests: tests{ping: 200 * time.Millisecond}})
	woken := watch(t, l)
	hears := func() []string {
		subscribed, _ := shared.Client(t).PubSubNumSub(t.Context(), l.bellKey(room)).Result()
		if subscribed[l.bellKey(room)] == 0 {
			return nil
		}
		list, _ := shared.Client(t).ClientList(t.Context()).Result()
		var ids []string
		for line := range strings.Lines(list) {
			if strings.Contains(line, " sub=1 ") {
				ids = append(ids, strings.Fields(line)[0])
			}
		}
		return ids
	}
	eventually(t, 5*time.Second, "the bell is heard", func() bool { return len(hears()) == 1 })
	before := hears()
	link.Hang()
	time.Sleep(time.Second)
	link.Restore()
	eventually(t, 10*time.Second, "another connection hears it", func() bool {
		now := hears()
		return len(now) == 1 && now[0] != before[0]
	})
	time.Sleep(bellsBack)
	for len(woken) > 0 {
		<-woken
	}
	send(t, l, "a")
	select {
	case <-woken:
	case <-time.After(5 * time.Second):
		t.Error("the bell is not heard")
	}
}

// TestLostHistoryIsTold: whoever waits in silence hears within the interval of checks that
// Redis lost everything, and nobody is served what is gone.
func TestLostHistoryIsTold(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	l := openOn(t, server, Options{CheckInterval: 400 * time.Millisecond})
	defer l.Close()
	woken := watch(t, l)
	unborn, _ := l.Seek(t.Context(), room, eventlog.Start{})
	send(t, l, "a")
	last := send(t, l, "b")
	told(t, l, last)
	for len(woken) > 0 {
		<-woken
	}
	if err := server.Client(t).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-woken:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody was woken")
	}
	for _, at := range []eventlog.Position{unborn, last} {
		what, next := told(t, l, at)
		if what != "rewritten" || next.Offset != 0 {
			t.Errorf("after %v: %q, to %v", at, what, next)
		}
		if what, _ := told(t, l, next); what != "" {
			t.Errorf("after the gap: %q", what)
		}
	}
}

// TestHolesAreTold: what somebody took out of a stream is a loss.
func TestHolesAreTold(t *testing.T) {
	l := open(t, Options{Prefix: newPrefix()})
	defer l.Close()
	for _, serving := range []bool{false, true} {
		if serving {
			watch(t, l)
		}
		first := send(t, l, "a")
		gone, kept := send(t, l, "b"), send(t, l, "c")
		stream := l.bucketKey(l.bucketOf(room)) + ":events:" + chanText(room)
		if n, err := l.client.XDel(t.Context(), stream, fmt.Sprint(gone.Offset, "-0")).Result(); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		what, next := told(t, l, first)
		if serving && what == "try later" { // the tail has to begin anew
			what, next = told(t, l, first)
		}
		if what != "trimmed" || next != gone {
			t.Errorf("serving %v: after the first: %q, to %v, not %v", serving, what, next, gone)
		}
		if what, next = told(t, l, next); what != "c" || next != kept {
			t.Errorf("serving %v: after the gap: %q, to %v", serving, what, next)
		}
	}
}

// TestConfirmNeedsTheMark: what is confirmed is an event, and not whatever is in its
// place by then.
func TestConfirmNeedsTheMark(t *testing.T) {
	l := open(t, Options{Prefix: newPrefix()})
	defer l.Close()
	start, _ := l.Seek(t.Context(), room, eventlog.Start{})
	b := eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte("a")}}}
	r, err := l.pipe.ask(t.Context(), l.appending(room, &b, true))
	if err != nil {
		t.Fatal(err)
	}
	at := r.position()
	for mark, want := range []string{"", "a"} {
		if err := l.confirm(t.Context(), room, eventlog.Position{Offset: at.Offset, Mark: at.Mark - 1 + uint64(mark)}); err != nil {
			t.Fatal(err)
		}
		if what, _ := told(t, l, start); what != want {
			t.Errorf("with a mark that is off by %d: %q", 1-mark, what)
		}
	}
}

// TestReplicasHaveIt: an event is readable when a replica has it, and an append whose
// replica is gone fails; what it appended is read when that is back, by a check.
func TestReplicasHaveIt(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	link := redistest.StartLink(t, primary.Addr())
	redistest.Start(t, redistest.Options{ReplicaOf: link.Addr()})
	l := openOn(t, primary, Options{
		Timeout: 500 * time.Millisecond, CheckInterval: 400 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Durability: eventlog.ByPattern(map[string]Durability{room.Name: {Replicas: 1}}),
	})
	defer l.Close()
	watch(t, l)
	eventually(t, 10*time.Second, "the replica is there", func() bool {
		info, _ := primary.Client(t).Info(t.Context(), "replication").Result()
		return strings.Contains(info, "state=online")
	})
	first := send(t, l, "a")
	link.Cut()
	_, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: []byte("b")}}})
	if !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, eventlog.ErrNotDurable) || !strings.Contains(err.Error(), "0 replicas") {
		t.Errorf("without its replica: %v", err)
	}
	if what, _ := told(t, l, first); what != "" {
		t.Errorf("what no replica has is read: %q", what)
	}
	if last, _ := l.Seek(t.Context(), room, eventlog.Start{}); last != first {
		t.Errorf("the head is %v", last)
	}
	link.Restore()
	eventually(t, 20*time.Second, "the check confirms it", func() bool {
		what, _ := told(t, l, first)
		return what == "b"
	})
}

// TestDiskIsAsked: where events are to be on disk, Redis has to be set up so.
func TestDiskIsAsked(t *testing.T) {
	o := Options{Prefix: newPrefix(), Durability: func(eventlog.Channel) Durability { return Durability{Disk: true} }}
	l := open(t, o)
	defer l.Close()
	_, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: []eventlog.Message{{Data: []byte("1")}}})
	if !errors.Is(err, eventlog.ErrUnavailable) || !strings.Contains(err.Error(), "appendfsync") {
		t.Errorf("%v", err)
	}
	server := redistest.Start(t, redistest.Options{AppendOnly: true, AppendFsync: "always"})
	durable := openOn(t, server, o)
	defer durable.Close()
	send(t, durable, "a")
	if err := errors.Join(server.Kill(), server.Restart(true)); err != nil {
		t.Fatal(err)
	}
	var all []string
	eventually(t, 5*time.Second, "it is there after a kill", func() bool {
		start, err := durable.Seek(t.Context(), room, eventlog.Start{Earliest: true})
		if err != nil {
			return false
		}
		what, _ := told(t, durable, start)
		all = append(all, what)
		return what == "a"
	})
	if slices.Contains(all, "rewritten") {
		t.Errorf("%q", all)
	}
}

// TestTailsAreBounded: all tails together hold what they may, a tail its part of it, and
// one that nobody serves goes.
func TestTailsAreBounded(t *testing.T) {
	o := Options{Prefix: newPrefix(), TailBytes: 64 << 10, Linger: 50 * time.Millisecond}
	l := open(t, o)
	defer l.Close()
	var stops []func()
	for i := range 40 {
		ch := eventlog.Channel{Name: strings.Repeat("x", i+1)}
		stops = append(stops, l.Watch(ch, func() {}))
		at, _ := l.Seek(t.Context(), ch, eventlog.Start{})
		for range 3 {
			if _, _, err := l.Append(t.Context(), ch, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: make([]byte, 1000)}}}); err != nil {
				t.Fatal(err)
			}
			page, err := l.Read(t.Context(), ch, at, eventlog.Limit{})
			if err != nil || len(page.Events) != 1 {
				t.Fatal(page, err)
			}
			at = page.Next
		}
		l.mu.Lock()
		held := int64(0)
		for _, tail := range l.tails {
			tail.mu.Lock()
			held += tail.bytes
			if tail.bytes > o.TailBytes/tailParts {
				t.Errorf("a tail holds %d bytes", tail.bytes)
			}
			tail.mu.Unlock()
		}
		if held > o.TailBytes || l.tailed != held {
			t.Errorf("all hold %d bytes, counted as %d", held, l.tailed)
		}
		l.mu.Unlock()
	}
	for _, stop := range stops {
		stop()
	}
	eventually(t, 5*time.Second, "they are gone", func() bool {
		subscribed, _ := shared.Client(t).PubSubChannels(t.Context(), o.Prefix+":*").Result()
		return len(l.served()) == 0 && len(subscribed) == 0
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tailed != 0 || l.recent.Len() != 0 {
		t.Errorf("%d bytes of %d tails are counted still", l.tailed, l.recent.Len())
	}
}
