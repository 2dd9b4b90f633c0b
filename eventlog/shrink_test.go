package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestShrinkTakesFromTheHeaviest: a share of all, from whoever holds the most,
// and readers are told.
func TestShrinkTakesFromTheHeaviest(t *testing.T) {
	m := NewMemory(MemoryOptions{MaxBytes: 1_000_000})
	defer m.Close()
	modest, greedy := Channel{Namespace: "modest", Name: "a"}, Channel{Namespace: "greedy", Name: "a"}
	starts := make(map[Channel]Position)
	for ch, events := range map[Channel]int{modest: 200, greedy: 500} {
		starts[ch], _ = m.Seek(context.Background(), ch, Start{})
		for range events {
			mustAppend(t, m, ch, text(strings.Repeat("x", 865))) // 1000 bytes each, with the type
		}
	}
	for _, c := range []struct{ bytes, freed int64 }{
		{0, 0},
		{-5, 0},
		{1, 1000},
		{299_000, 299_000}, // as heavy as the other now
		{100_000, 100_000}, // of both
		{174_500, 175_000}, // a little more
	} {
		if freed := m.Shrink(c.bytes); freed != c.freed {
			t.Errorf("Shrink(%d) freed %d, want %d", c.bytes, freed, c.freed)
		}
		m.check(t)
		if got := m.channels[modest].len(); c.freed == 299_000 && got != 200 {
			t.Errorf("one namespace was trimmed below another's share: %d of 200 events are left", got)
		}
	}
	if size := m.Size().Bytes; size != 125_000 {
		t.Errorf("%d bytes are left of 700,000", size)
	}
	for ch, start := range starts {
		var lost *Lost
		if _, err := m.Read(context.Background(), ch, start, Limit{}); !errors.As(err, &lost) || lost.Reason != Trimmed {
			t.Fatalf("%v: a reader from the beginning gets %v", ch, err)
		}
		page, err := m.Read(context.Background(), ch, lost.To, Limit{})
		if err != nil || len(page.Events) < 50 {
			t.Errorf("%v: after the gap %d events, %v", ch, len(page.Events), err)
		}
	}
	if freed := m.Shrink(1 << 40); freed != 125_000 || m.Size().Bytes != 0 {
		t.Errorf("of all that was left %d were freed", freed)
	}
	m.check(t)
	_ = m.Close()
	if freed := m.Shrink(1 << 40); freed != 0 {
		t.Errorf("a closed log freed %d", freed)
	}
}

// TestShrinkGivesMemoryBack: of small events, whose room counts more than their
// data, and whoever else is using the log meanwhile.
func TestShrinkGivesMemoryBack(t *testing.T) {
	const events = 100_000
	m := NewMemory(MemoryOptions{Retain: func(Channel) Retention { return Retention{Events: -1, Bytes: -1} }})
	defer m.Close()
	before := liveHeap()
	for range events {
		mustAppend(t, m, Channel{Name: "a"}, text("x"))
	}
	full := liveHeap() - before
	m.Shrink(m.Size().Bytes / 10 * 9)
	m.check(t)
	if left := liveHeap() - before; left > full/4 {
		t.Errorf("%d bytes are still in memory of %d, though a tenth of the events are left", left, full)
	}
}

func liveHeap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// TestShrinkBesideOthers: appends and reads go on, and what is counted stays right.
func TestShrinkBesideOthers(t *testing.T) {
	m := NewMemory(MemoryOptions{MaxBytes: 1 << 20})
	defer m.Close()
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2000 {
				ch := Channel{Namespace: fmt.Sprint(i), Name: fmt.Sprint(random.IntN(20))}
				mustAppend(t, m, ch, text(strings.Repeat("x", random.IntN(1000))))
				_, _ = m.Read(context.Background(), ch, Position{}, Limit{})
			}
		})
	}
	all.Go(func() {
		for range 200 {
			m.Shrink(50_000)
		}
	})
	all.Wait()
	m.check(t)
}
