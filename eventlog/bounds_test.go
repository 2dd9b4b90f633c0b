package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

func text(data string) Batch {
	return Batch{Messages: []Message{{Kind: Text, Data: []byte(data)}}}
}

func mustAppend(t testing.TB, m *Memory, ch Channel, b Batch) Position {
	t.Helper()
	last, _, err := m.Append(context.Background(), ch, b)
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// check looks for what must hold of a Memory between any two calls.
func (m *Memory) check(t *testing.T) {
	t.Helper()
	m.mu.RLock()
	defer m.mu.RUnlock()
	var total int64
	spaces := make(map[string]int64)
	for ch, h := range m.channels {
		var bytes int64
		for i := range h.live() {
			bytes += int64(h.live()[i].event.Size())
		}
		if bytes != h.bytes() || ch != h.channel {
			t.Fatalf("%v holds %d bytes and counts %d", ch, bytes, h.bytes())
		}
		if _, empty := m.empty[h]; empty != (h.len() == 0) || (h.sharePlace > 0) == empty || (h.duePlace > 0) == empty {
			t.Fatalf("%v: %d events, among the empty %v, places %d and %d", ch, h.len(), empty, h.sharePlace, h.duePlace)
		}
		for i := range h.entries[:h.first] {
			if h.entries[i].event.Data != nil {
				t.Fatalf("%v keeps a trimmed entry alive", ch)
			}
		}
		total += bytes
		spaces[ch.Namespace] += bytes
	}
	if !cleared(&m.aging) || !cleared(&m.shares.heaviest) {
		t.Fatal("a heap keeps what went alive")
	}
	if total != m.shares.total {
		t.Fatalf("%d bytes are held and %d counted", total, m.shares.total)
	}
	for name, bytes := range spaces {
		if n := m.shares.namespaces[name]; n == nil && bytes > 0 || n != nil && n.bytes != bytes {
			t.Fatalf("namespace %q holds %d bytes, and counts otherwise", name, bytes)
		}
	}
}

// cleared reports whether a heap's array keeps nothing alive that went.
func cleared[T any](o *ordered[*T]) bool {
	for _, item := range o.items[len(o.items):cap(o.items)] {
		if item != nil {
			return false
		}
	}
	return true
}

// counts is how much of each kind a Memory holds.
type counts struct {
	bytes                                    int64
	names, rises, producers, owners, watched int
}

func (m *Memory) counts() counts {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return counts{
		bytes: m.shares.total, names: len(m.channels), rises: int(m.generation.number),
		producers: m.producers.byAge.Len(), owners: len(m.producers.owners), watched: len(m.watchers),
	}
}

func TestMaxBytesHoldsOverAllChannels(t *testing.T) {
	const bound = 20_000
	m := NewMemory(MemoryOptions{MaxBytes: bound})
	defer m.Close()
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		ch := Channel{Namespace: fmt.Sprint(random.IntN(3)), Name: fmt.Sprint(random.IntN(20))}
		last := mustAppend(t, m, ch, text(strings.Repeat("x", random.IntN(2000))))
		m.check(t)
		if m.shares.total > bound {
			t.Fatalf("%d bytes are held of %d", m.shares.total, bound)
		}
		if page, err := m.Read(context.Background(), ch, m.channels[ch].before(m.channels[ch].len()-1), Limit{}); err != nil || page.Next != last {
			t.Fatalf("the event just appended is gone: %v", err)
		}
	}
	// One that is too large alone still stays, and all others go.
	ch := Channel{Name: "large"}
	mustAppend(t, m, ch, text(strings.Repeat("x", 2*bound)))
	m.check(t)
	if h := m.channels[ch]; h.len() != 1 || h.bytes() != m.shares.total {
		t.Errorf("%d large events of 1, %d bytes of %d", h.len(), h.bytes(), m.shares.total)
	}
	mustAppend(t, m, Channel{Name: "next"}, text("x"))
	if m.check(t); m.shares.total > bound {
		t.Errorf("%d bytes are held of %d", m.shares.total, bound)
	}
}

func TestMaxBytesTakesFromTheHeaviest(t *testing.T) {
	m := NewMemory(MemoryOptions{MaxBytes: 100_000})
	defer m.Close()
	modest := Channel{Namespace: "modest", Name: "a"}
	start, _ := m.Seek(context.Background(), modest, Start{})
	for range 100 {
		mustAppend(t, m, modest, text("0123456789"))
	}
	for i := range 1000 { // many channels of another tenant, each lighter
		mustAppend(t, m, Channel{Namespace: "greedy", Name: fmt.Sprint(i)}, text(strings.Repeat("x", 1000)))
	}
	page, err := m.Read(context.Background(), modest, start, Limit{})
	if err != nil || len(page.Events) != 100 {
		t.Errorf("one namespace trimmed another below its share: %d events, %v", len(page.Events), err)
	}
}

func TestSilentChannelsAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{Retain: func(ch Channel) Retention {
			return Retention{Age: time.Duration(len(ch.Name)) * time.Hour}
		}})
		defer m.Close()
		const channels = 2*sweepChannels + 10 // more than are trimmed at once
		for i := range channels {
			mustAppend(t, m, Channel{Namespace: fmt.Sprint(i), Name: "a"}, text("x"))
			mustAppend(t, m, Channel{Namespace: fmt.Sprint(i), Name: "aa"}, text("x"))
		}
		for hour, want := range []int{2 * channels, channels, 0} {
			if got := m.counts().bytes / 136; int(got) != want {
				t.Errorf("after %d hours %d events are held of %d", hour, got, want)
			}
			m.check(t)
			time.Sleep(time.Hour + 2*sweepGap)
			synctest.Wait()
		}
	})
}

func TestTrimmedDataIsFreed(t *testing.T) {
	m := NewMemory(MemoryOptions{Retain: func(Channel) Retention { return Retention{Events: 10} }})
	defer m.Close()
	ch := Channel{Name: "a"}
	start, _ := m.Seek(context.Background(), ch, Start{})
	mustAppend(t, m, ch, text(strings.Repeat("x", 1000))) // not shared with smaller ones
	page, _ := m.Read(context.Background(), ch, start, Limit{})
	data := weak.Make(&page.Events[0].Data[0])
	page = Page{}
	for range 10 {
		mustAppend(t, m, ch, text("x"))
	}
	runtime.GC()
	if data.Value() != nil {
		t.Error("the data of a trimmed event is still in memory")
	}
	for range 100_000 {
		mustAppend(t, m, ch, text("x"))
	}
	if room := cap(m.channels[ch].entries); room > 100 {
		t.Errorf("10 events have room for %d", room)
	}
}

func TestManyEmptyNamesRaiseTheGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{
			MaxNames:          100,
			RememberProducers: time.Second,
			Retain:            func(Channel) Retention { return Retention{Age: time.Second} },
		})
		defer m.Close()
		for i := range 150 {
			ch := Channel{Name: fmt.Sprint(i)}
			mustAppend(t, m, ch, text("x"))
			if i < 40 {
				defer m.Watch(ch, func() {})()
			}
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if n := m.counts(); n.rises != 0 || n.names != 150 {
			t.Errorf("within a minute: %+v", n)
		}
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if n := m.counts(); n.rises != 2 || n.names != 40 {
			t.Errorf("not 2 rises and the 40 names that are watched: %+v", n)
		}
		// Names that something keeps are no reason to rise.
		for i := range 150 {
			defer m.Watch(Channel{Name: fmt.Sprint(i)}, func() {})()
			mustAppend(t, m, Channel{Name: fmt.Sprint(i)}, text("x"))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := m.counts(); n.rises != 2 {
			t.Errorf("%d rises that drop nothing", n.rises-2)
		}
	})
}

func TestForgottenProducersLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		defer m.Close()
		for i := range 100 {
			b := text("x")
			b.Producer = Producer{Owner: fmt.Sprint(i % 7), ID: fmt.Sprint(i), Seq: 1}
			mustAppend(t, m, Channel{Name: fmt.Sprint(i % 3)}, b)
		}
		if n := m.counts(); n.producers != 100 || n.owners != 7 {
			t.Errorf("not 100 producers of 7 owners: %+v", n)
		}
		time.Sleep(10*time.Minute + 2*sweepGap)
		synctest.Wait()
		if n := m.counts(); n.producers != 0 || n.owners != 0 {
			t.Errorf("producers are still remembered: %+v", n)
		}
		m.mu.RLock()
		for ch, h := range m.channels {
			if len(h.producers) != 0 {
				t.Errorf("%v still remembers producers", ch)
			}
		}
		m.mu.RUnlock()
	})
}

// TestProducersAreForgottenByTheirLastAppend: one that goes on doesn't keep
// those that fell silent.
func TestProducersAreForgottenByTheirLastAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		defer m.Close()
		by := func(id string, seq uint64) {
			b := text("x")
			b.Producer = Producer{ID: id, Seq: seq}
			mustAppend(t, m, Channel{Name: "a"}, b)
		}
		by("silent", 1)
		for i := range 12 {
			if n := m.counts().producers; i > 0 && n != 2 && i < 10 || i > 10 && n != 1 {
				t.Errorf("after %d minutes %d producers are remembered", i, n)
			}
			by("goes on", uint64(i+1))
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		by("first", 1)
		by("second", 1)
		time.Sleep(5 * time.Minute)
		by("first", 2)
		time.Sleep(5*time.Minute + 2*sweepGap)
		synctest.Wait()
		if n := m.counts().producers; n != 1 {
			t.Errorf("%d producers are remembered of the one that went on", n)
		}
	})
}

func TestTimeStandsStillWhenTheClockIsSetBack(t *testing.T) {
	h := newHistory(Channel{Name: "a"}, Retention{}.withDefaults(), [2]uint64{1, 2})
	noon := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, wall := range []time.Time{noon, noon.Add(-time.Hour), noon.Add(time.Second)} {
		h.push(Message{}, 3, wall, 0)
	}
	for i, want := range []time.Duration{0, 0, time.Second} {
		if got := h.live()[i].event.Time.Sub(noon); got != want {
			t.Errorf("event %d is of %v after noon, not %v", i, got, want)
		}
	}
}

func TestAppendCopiesItsMessages(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	defer m.Close()
	ch := Channel{Name: "a"}
	start, _ := m.Seek(context.Background(), ch, Start{})
	b := text("mine")
	b.Messages[0].Tags = []string{"tag"}
	mustAppend(t, m, ch, b)
	copy(b.Messages[0].Data, "XXXX")
	b.Messages[0].Tags[0] = "X"
	page, err := m.Read(context.Background(), ch, start, Limit{})
	if err != nil || string(page.Events[0].Data) != "mine" || page.Events[0].Tags[0] != "tag" {
		t.Errorf("the event follows its message: %v, %v", page.Events, err)
	}
}

func TestWatchLeavesNothing(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	ch := Channel{Name: "a"}
	var stops []func()
	for range 10 {
		stops = append(stops, m.Watch(ch, func() {}))
	}
	if len(m.channels) != 0 {
		t.Error("watching created a channel")
	}
	for _, stop := range stops {
		stop()
		stop()
	}
	if len(m.watchers) != 0 {
		t.Errorf("%d channels are still watched", len(m.watchers))
	}
	m.Watch(Channel{}, func() {})()
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
}

// TestRetainMayCallTheLog: it is called with no lock held, once per channel.
func TestRetainMayCallTheLog(t *testing.T) {
	var m *Memory
	calls := 0
	m = NewMemory(MemoryOptions{Retain: func(ch Channel) Retention {
		calls++
		m.Seek(context.Background(), ch, Start{})
		m.Watch(ch, func() {})()
		return Retention{Events: 2}
	}})
	defer m.Close()
	for range 5 {
		mustAppend(t, m, Channel{Name: "a"}, text("x"))
	}
	if n := m.channels[Channel{Name: "a"}].len(); calls != 1 || n != 2 {
		t.Errorf("Retain was called %d times, %d events are kept of 2", calls, n)
	}
}
