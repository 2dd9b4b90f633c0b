package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/throughline/throughline/eventlog"
)

// check looks for what must hold of a Memory between any two calls.
func (m *Memory) check(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var bytes int64
	places := 0
	for key, l := range m.leases {
		bytes += l.size()
		if key != l.key() || m.due[l.place] != l {
			t.Fatalf("%v is not in its place", key)
		}
		if l.present {
			names := slices.Clone(l.channels)
			slices.Sort(names)
			places += len(slices.Compact(names))
		}
	}
	if len(m.due) != len(m.leases) || bytes != m.bytes {
		t.Fatalf("%d leases of %d bytes are held, %d are due, %d bytes counted", len(m.leases), bytes, len(m.due), m.bytes)
	}
	for _, l := range m.due[len(m.due):cap(m.due)] {
		if l != nil {
			t.Fatal("the heap keeps what went alive")
		}
	}
	for ch, there := range m.channels {
		last, total := "", 0
		for _, chunk := range there.chunks {
			if len(chunk) == 0 || len(chunk) > chunkSize {
				t.Fatalf("%v: a chunk of %d", ch, len(chunk))
			}
			for _, l := range chunk {
				if l.id <= last || !l.present || m.leases[l.key()] != l || !slices.Contains(l.channels, ch.Name) || l.namespace != ch.Namespace {
					t.Fatalf("%v: %q after %q is out of order, or does not belong there", ch, l.id, last)
				}
				last = l.id
				total++
			}
		}
		if total == 0 || total != there.total {
			t.Fatalf("%v holds %d and counts %d", ch, total, there.total)
		}
		places -= total
	}
	if places != 0 {
		t.Fatalf("%d places in channels are missing", places)
	}
}

func mustClaim(t testing.TB, m *Memory, h Held, l Lease) {
	t.Helper()
	if err := m.Claim(context.Background(), h, l); err != nil {
		t.Fatal(err)
	}
}

func count(t testing.TB, m *Memory, ch string) int {
	t.Helper()
	_, total, err := m.Present(context.Background(), eventlog.Channel{Name: ch}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return total
}

// TestMemoryIsWhole does this and that, and looks inside after each step.
func TestMemoryIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		defer m.Close()
		random := rand.New(rand.NewPCG(1, 2))
		for range 5000 {
			h := Held{Namespace: fmt.Sprint(random.IntN(2)), ID: fmt.Sprint(random.IntN(50)), Line: random.Uint64N(4)}
			switch random.IntN(5) {
			case 0, 1:
				l := Lease{For: time.Duration(1+random.IntN(40)) * time.Second, Subject: strings.Repeat("s", random.IntN(9))}
				for range random.IntN(5) {
					l.Channels = append(l.Channels, fmt.Sprint(random.IntN(4))) // some twice
				}
				mustClaim(t, m, h, l)
			case 2:
				_, _ = m.Touch(context.Background(), []Held{h})
			case 3:
				_, _ = m.Release(context.Background(), h, time.Duration(random.IntN(2))*time.Second)
			case 4:
				time.Sleep(time.Duration(random.IntN(5)) * time.Second)
				if random.IntN(100) == 0 {
					time.Sleep(Remembered)
				}
			}
			m.check(t)
		}
	})
}

func TestNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{})
		defer m.Close()
		const sessions = 3*sweepLeases + 10 // more than are looked at at once
		for i := range sessions {
			mustClaim(t, m, Held{ID: fmt.Sprint(i)}, Lease{Channels: []string{"a", fmt.Sprint("a", i)}, For: time.Minute})
		}
		if n := count(t, m, "a"); n != sessions {
			t.Errorf("%d are present of %d", n, sessions)
		}
		time.Sleep(time.Minute)
		if n := count(t, m, "a"); n != 0 || len(m.channels) != 0 || len(m.leases) != sessions {
			t.Errorf("%d are present, in %d channels, %d are known of %d", n, len(m.channels), len(m.leases), sessions)
		}
		m.check(t)
		time.Sleep(Remembered)
		if n := count(t, m, "a"); n != 0 || len(m.leases) != 0 || len(m.due) != 0 || m.bytes != 0 {
			t.Errorf("%d leases are left, %d due, %d bytes", len(m.leases), len(m.due), m.bytes)
		}
	})
}

func TestMaxLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryOptions{MaxLeases: 3})
		defer m.Close()
		l := Lease{Channels: []string{"a"}, For: time.Minute}
		for i := range 3 {
			mustClaim(t, m, Held{ID: fmt.Sprint(i), Line: 5}, l)
		}
		one := Held{ID: "one more"}
		if err := m.Claim(t.Context(), one, l); !errors.Is(err, ErrBusy) || errors.Is(err, ErrUnavailable) {
			t.Errorf("one more: %v", err)
		}
		mustClaim(t, m, Held{ID: "0", Line: 5}, l) // those that are held go on
		mustClaim(t, m, Held{ID: "0", Line: 4}, l)
		if n := count(t, m, "a"); n != 3 {
			t.Errorf("%d are present of 3", n)
		}
		if ended, err := m.Release(t.Context(), Held{ID: "1", Line: 5}, 0); !ended || err != nil {
			t.Error(ended, err)
		}
		mustClaim(t, m, one, l)
		time.Sleep(time.Minute) // known still
		if err := m.Claim(t.Context(), Held{ID: "two more"}, l); !errors.Is(err, ErrBusy) {
			t.Errorf("two more: %v", err)
		}
		time.Sleep(Remembered)
		mustClaim(t, m, Held{ID: "two more"}, l)
		m.check(t)
	})
}

func TestMaxBytes(t *testing.T) {
	m := NewMemory(MemoryOptions{MaxBytes: 10_000})
	defer m.Close()
	large := Lease{Channels: slices.Repeat([]string{strings.Repeat("x", 100)}, 50), For: time.Minute}
	small := Lease{Channels: []string{"a"}, For: time.Minute}
	mustClaim(t, m, Held{ID: "0"}, large)
	if err := m.Claim(t.Context(), Held{ID: "1"}, large); !errors.Is(err, ErrBusy) {
		t.Errorf("a second large one: %v", err)
	}
	mustClaim(t, m, Held{ID: "1"}, small)
	if err := m.Claim(t.Context(), Held{ID: "1"}, large); !errors.Is(err, ErrBusy) {
		t.Errorf("a small one that grows: %v", err)
	}
	if n := count(t, m, "a"); n != 1 {
		t.Errorf("a claim that was refused changed what it should replace: %d are present", n)
	}
	mustClaim(t, m, Held{ID: "0"}, small)
	mustClaim(t, m, Held{ID: "1"}, large)
	m.check(t)
}

// TestLeasesAreFreed: nothing keeps a lease alive that went.
func TestLeasesAreFreed(t *testing.T) {
	m := NewMemory(MemoryOptions{})
	defer m.Close()
	l := Lease{Channels: []string{"a", "b"}, For: time.Minute}
	for i := range 5 {
		mustClaim(t, m, Held{ID: fmt.Sprint(i)}, l)
	}
	var gone []weak.Pointer[lease]
	for _, id := range []string{"4", "0", "2"} {
		gone = append(gone, weak.Make(m.leases[leaseKey{"", id}]))
		if ended, err := m.Release(t.Context(), Held{ID: id}, 0); !ended || err != nil {
			t.Fatal(ended, err)
		}
	}
	runtime.GC()
	for i, p := range gone {
		if p.Value() != nil {
			t.Errorf("released lease %d is still in memory", i)
		}
	}
}

func TestMembersStandInChunks(t *testing.T) {
	var m members
	leases := make([]*lease, 4*chunkSize)
	for i := range leases {
		leases[i] = &lease{id: fmt.Sprintf("%06d", i)}
	}
	random := rand.New(rand.NewPCG(1, 2))
	shuffle := func() {
		random.Shuffle(len(leases), func(i, j int) { leases[i], leases[j] = leases[j], leases[i] })
	}
	shuffle()
	for i, l := range leases {
		m.add(l)
		m.add(l)
		if m.total != i+1 || len(m.first(1<<40)) != i+1 {
			t.Fatalf("%d members of %d", m.total, i+1)
		}
	}
	for _, chunk := range m.chunks {
		for _, l := range chunk[len(chunk):cap(chunk)] {
			if l != nil {
				t.Fatalf("the chunk of %s keeps %s alive", chunk[0].id, l.id)
			}
		}
	}
	if n := len(m.chunks); n < 4 || n > 12 {
		t.Errorf("%d members stand in %d chunks", m.total, n)
	}
	shuffle()
	for i, l := range leases {
		m.remove(l)
		m.remove(l)
		left := m.first(1 << 40)
		if m.total != len(leases)-i-1 || len(left) != m.total || !slices.IsSortedFunc(left, func(a, b Member) int { return strings.Compare(a.ID, b.ID) }) {
			t.Fatalf("%d members of %d, or out of order", m.total, len(leases)-i-1)
		}
	}
	if len(m.chunks) != 0 {
		t.Errorf("%d chunks are left", len(m.chunks))
	}
}
