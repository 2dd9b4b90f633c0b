package limit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// mustTake fails unless n tokens are there.
func mustTake[K comparable](t *testing.T, b *Buckets[K], key K, n int) {
	t.Helper()
	if wait, ok := b.Take(key, n); !ok || wait != 0 {
		t.Fatalf("%d for %v: wait %v, %v", n, key, wait, ok)
	}
}

// mustWait fails unless n tokens are there in so long and no sooner.
func mustWait[K comparable](t *testing.T, b *Buckets[K], key K, n int, want time.Duration) {
	t.Helper()
	wait, ok := b.Take(key, n)
	if ok || wait < want || wait > want+2*time.Microsecond {
		t.Fatalf("%d for %v: wait %v, %v; want %v", n, key, wait, ok, want)
	}
}

func TestTokensComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuckets[string](Rate{PerSecond: 10, Burst: 5}, 100)
		mustTake(t, b, "a", 3)
		mustTake(t, b, "a", 2)
		mustWait(t, b, "a", 1, 100*time.Millisecond)
		mustWait(t, b, "a", 5, 500*time.Millisecond)
		mustTake(t, b, "b", 5) // has its own
		time.Sleep(99 * time.Millisecond)
		for range 1000 { // costs nothing
			mustWait(t, b, "a", 1, time.Millisecond)
		}
		time.Sleep(time.Millisecond + time.Microsecond)
		mustTake(t, b, "a", 1)
		mustWait(t, b, "a", 1, 100*time.Millisecond-2*time.Microsecond)
		time.Sleep(time.Hour) // not more than the burst
		mustTake(t, b, "a", 5)
		mustWait(t, b, "a", 1, 100*time.Millisecond)
	})
}

func TestMoreThanTheBurstIsTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuckets[string](Rate{PerSecond: 1, Burst: 5}, 100)
		mustTake(t, b, "a", math.MaxInt)
		mustWait(t, b, "a", 6, 5*time.Second)
		time.Sleep(4 * time.Second)
		mustWait(t, b, "a", 6, time.Second)
	})
}

func TestNothingIsTakenByNothing(t *testing.T) {
	b := NewBuckets[string](Rate{PerSecond: 0, Burst: 1}, 100)
	mustTake(t, b, "a", 1)
	mustTake(t, b, "a", 0)
	mustTake(t, b, "a", -1)
	mustTake(t, b, "b", 0)
	if _, ok := b.Take("a", 1); ok {
		t.Error("-1 gave a token")
	}
	if len(b.of) != 1 {
		t.Errorf("%d keys", len(b.of))
	}
}

func TestRatesAtTheEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, none := range []float64{-1, math.Inf(1), math.Inf(-1), math.NaN(), math.MaxFloat64} {
			b := NewBuckets[int](Rate{PerSecond: none, Burst: 1}, 10)
			for i := range 1000 {
				mustTake(t, b, i%20, 1000)
			}
			if len(b.of) != 0 {
				t.Errorf("%v: %d keys are remembered for nothing", none, len(b.of))
			}
		}
		once := NewBuckets[int](Rate{PerSecond: 0, Burst: 0}, 0)
		mustTake(t, once, 1, 1)
		mustWait(t, once, 1, 1, never)
		mustTake(t, once, 2, 1) // 1 is remembered, so this is of the one for all
		time.Sleep(1000 * time.Hour)
		mustWait(t, once, 1, 1, never)
		slow := NewBuckets[int](Rate{PerSecond: math.SmallestNonzeroFloat64, Burst: 1}, 1)
		mustTake(t, slow, 1, 1)
		mustWait(t, slow, 1, 1, never)
	})
}

// TestWaitIsEnough: who waits as long as he was told has the tokens, whatever
// is lost by rounding, and a little earlier has not.
func TestWaitIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 3000 {
			r := Rate{PerSecond: 1 + random.Float64(), Burst: 1 << 26} // a year
			if i >= 30 {
				r = Rate{PerSecond: math.Exp(random.Float64()*18 - 4), Burst: 1 + random.IntN(1<<random.IntN(15))}
			}
			b := NewBuckets[string](r, 1)
			mustTake(t, b, "a", 1+random.IntN(r.Burst))
			time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
			n := 1 + random.IntN(r.Burst)
			wait, ok := b.Take("a", n)
			if ok {
				continue
			}
			if early := wait - 3*time.Microsecond; early > 0 && r.PerSecond < 1e5 {
				time.Sleep(early)
				if _, ok := b.Take("a", n); ok {
					t.Fatalf("%v: %d were there 3µs before %v", r, n, wait)
				}
				wait -= early
			}
			time.Sleep(wait)
			mustTake(t, b, "a", n)
		}
	})
}

// TestFloodForgetsNobody: a flood of keys takes no memory, doesn't get anybody
// forgotten who is limited, and is limited itself.
func TestFloodForgetsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 1000
		b := NewBuckets[int](Rate{PerSecond: 1, Burst: 10}, most)
		for i := range most {
			mustTake(t, b, i, 10)
		}
		passed := 0
		for i := range 100 * most {
			if _, ok := b.Take(most+i, 1); ok {
				passed++
			}
		}
		if passed != 10 {
			t.Errorf("%d of the flood passed, a bucket holds 10", passed)
		}
		for i := range most {
			mustWait(t, b, i, 1, time.Second)
		}
		if len(b.of) != most || len(b.due) != most {
			t.Errorf("%d keys, %d buckets", len(b.of), len(b.due))
		}
		time.Sleep(9 * time.Second)
		mustTake(t, b, -1, 9) // of the one for all
		mustWait(t, b, -2, 1, time.Second)
		time.Sleep(time.Second + time.Microsecond) // all are full
		mustTake(t, b, -1, 10)
		mustTake(t, b, -2, 10)
	})
}

// TestFullOnesMakeRoom, however many of those that are remembered are not.
func TestFullOnesMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuckets[string](Rate{PerSecond: 1, Burst: 10}, 3)
		mustTake(t, b, "a", 10)
		mustTake(t, b, "b", 1)
		mustTake(t, b, "c", 10)
		mustTake(t, b, "x", 10) // of the one for all
		mustWait(t, b, "y", 1, time.Second)
		time.Sleep(time.Second + time.Microsecond)
		mustTake(t, b, "y", 10) // in the place of b
		mustWait(t, b, "a", 2, time.Second-time.Microsecond)
		mustWait(t, b, "c", 2, time.Second-time.Microsecond)
		mustWait(t, b, "z", 2, time.Second-time.Microsecond)
	})
}

// TestUsedOnesStay: one that was about to be full, and was taken from again, is
// not forgotten at the time at which it would have been full.
func TestUsedOnesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuckets[int](Rate{PerSecond: 1, Burst: 10}, 100)
		mustTake(t, b, 0, 1)
		for i := range 9 {
			time.Sleep(500 * time.Millisecond)
			mustTake(t, b, 0, 1)
			mustTake(t, b, 100+i, 1)
		}
		mustTake(t, b, 0, 4)
		mustWait(t, b, 0, 5, 4500*time.Millisecond)
	})
}

// TestFloodIsForgotten: when all is full again, as many others as came clear
// away all that is left of them.
func TestFloodIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuckets[int](Rate{PerSecond: 1, Burst: 10}, 1000)
		for i := range 1000 {
			mustTake(t, b, i, 1+i%10)
		}
		time.Sleep(time.Minute)
		for i := range 1000 {
			mustTake(t, b, 1000+i, 10)
			if i+1 == 500 && len(b.of) != 500 {
				t.Errorf("%d keys after 500 came", len(b.of))
			}
		}
		for i := range 1000 {
			if b.of[i] != nil {
				t.Fatalf("%d is still remembered", i)
			}
		}
		if len(b.of) != 1000 || len(b.due) != 1000 {
			t.Errorf("%d keys, %d buckets", len(b.of), len(b.due))
		}
	})
}

// TestOneCallIsShort: many that are in use and were long not looked at are not
// all looked at by whoever comes next.
func TestOneCallIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 10 * lookAtOnce
		b := NewBuckets[int](Rate{PerSecond: 1, Burst: 10}, most)
		for i := range most {
			mustTake(t, b, i, 1)
		}
		time.Sleep(time.Millisecond)
		for i := range most {
			mustTake(t, b, i, 5)
		}
		time.Sleep(2 * time.Second) // they were due after one
		looked := func() (n int) {
			for _, x := range b.due {
				if x.due > time.Since(b.began) {
					n++
				}
			}
			return n
		}
		for call := range 10 {
			if want := call * lookAtOnce; looked() != want {
				t.Errorf("%d were looked at by %d calls, not %d", looked(), call, want)
			}
			b.Take(most+call, 1)
		}
	})
}

// TestTogether: however many take at once, there is not a token more.
func TestTogether(t *testing.T) {
	b := NewBuckets[int](Rate{PerSecond: 0, Burst: 1000}, 5)
	var taken [10]atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 10_000 {
				if _, ok := b.Take(i%10, 1); ok {
					taken[i%10].Add(1)
				}
			}
		})
	}
	wg.Wait()
	own, shared := 0, int64(0)
	for key := range taken {
		switch n := taken[key].Load(); {
		case b.of[key] == nil:
			shared += n
		case n == 1000:
			own++
		default:
			t.Errorf("%d has %d", key, n)
		}
	}
	if own != 5 || shared != 1000 {
		t.Errorf("%d have their own, the others have %d", own, shared)
	}
}

// TestNeverFasterThanTheRate: not even if those who take at once come to the
// bucket in another order than that in which they looked at the clock.
func TestNeverFasterThanTheRate(t *testing.T) {
	const perSecond, burst = 1e6, 200_000
	b := NewBuckets[string](Rate{PerSecond: perSecond, Burst: burst}, 1)
	var taken atomic.Int64
	began := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for time.Since(began) < 150*time.Millisecond {
				if _, ok := b.Take("a", 1); ok {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n, most := taken.Load(), burst+int64(time.Since(began).Seconds()*perSecond); n > most {
		t.Errorf("%d were taken, %d were there", n, most)
	}
}

func TestTakingAllocatesNothing(t *testing.T) {
	b := NewBuckets[netip.Prefix](Rate{PerSecond: 0, Burst: 100}, 1)
	for i, name := range []string{"one that is known", "one that there is no room for"} {
		key := nth(i)
		b.Take(key, 1)
		if n := testing.AllocsPerRun(1000, func() { b.Take(key, 1) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestBytesPerKey(t *testing.T) {
	if n := bytesPerKey(); n > 300 {
		t.Errorf("%.0f bytes per key", n)
	}
}

// FuzzBuckets holds a series of takes against a plain model.
func FuzzBuckets(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		series := make([]byte, 3*random.IntN(300))
		for i := range series {
			series[i] = byte(random.Uint32())
		}
		f.Add(uint8(random.Uint32()), uint8(random.Uint32()), uint8(random.Uint32()), series)
	}
	f.Fuzz(func(t *testing.T, perSecond, burst, most uint8, series []byte) {
		synctest.Test(t, func(t *testing.T) {
			r := Rate{PerSecond: float64(perSecond) / 7, Burst: int(burst % 32)}
			m := newModel(r, int(most%6))
			series = series[:min(len(series), 1000)]
			for ; len(series) >= 3; series = series[3:] {
				if err := m.take(int(series[0]%8), int(series[1]%40)-1); err != nil {
					t.Fatalf("%+v, at most %d: %v", m.b.rate, m.b.most, err)
				}
				time.Sleep(time.Duration(1) << (series[2] % 36)) // up to half a minute
			}
		})
	})
}

// A model is what Buckets have to be like: a bucket for each key that is never
// forgotten, and one more for those there was no room for. It looks into them
// only for which of the two a key has.
type model struct {
	b        *Buckets[int]
	own      map[int]*modelBucket
	overflow *modelBucket
}

func newModel(r Rate, most int) *model {
	b := NewBuckets[int](r, most)
	return &model{b: b, own: make(map[int]*modelBucket), overflow: newModelBucket(b.rate)}
}

func (m *model) take(key, n int) error {
	wait, ok := m.b.Take(key, n)
	if n <= 0 {
		if wait != 0 || !ok {
			return fmt.Errorf("nothing is refused: %v", wait)
		}
		return nil
	}
	if m.own[key] == nil {
		m.own[key] = newModelBucket(m.b.rate)
	}
	x := m.own[key]
	if m.b.of[key] == nil {
		if full := m.full(); full > 0 {
			return fmt.Errorf("there was no room for %d, but %d are full", key, full)
		}
		x = m.overflow
	}
	if err := x.take(n, wait, ok); err != nil {
		return fmt.Errorf("%d for %d: %w", n, key, err)
	}
	return m.remembered()
}

// full is how many of those that are remembered are full, and not only since
// now.
func (m *model) full() (n int) {
	for key := range m.b.of {
		if x := m.own[key]; x.missing(3*time.Microsecond) == 0 {
			n++
		}
	}
	return n
}

// remembered checks that as many are as may be, and all whose bucket is not
// full.
func (m *model) remembered() error {
	if n := len(m.b.of); n > m.b.most || len(m.b.due) != n {
		return fmt.Errorf("%d are remembered, in %d buckets", n, len(m.b.due))
	}
	for key, x := range m.own {
		if missing := x.missing(0); missing > tolerance && m.b.of[key] == nil {
			return fmt.Errorf("%d is forgotten, whose bucket lacks %v", key, missing)
		}
	}
	return nil
}

// tolerance is how many tokens may be lost by rounding.
const tolerance = 1e-6

// A modelBucket knows what was taken and when, and nothing else.
type modelBucket struct {
	r     Rate
	taken []taken
}

type taken struct {
	at time.Time
	n  int
}

func newModelBucket(r Rate) *modelBucket { return &modelBucket{r: r} }

// missing is how many tokens are not there that would be in a full bucket, as of
// so long ago: the most that any stretch of time until then has taken beyond
// what came back in it.
func (x *modelBucket) missing(ago time.Duration) float64 {
	until := time.Now().Add(-ago)
	most, sum := 0.0, 0.0
	for _, took := range slices.Backward(x.taken) {
		sum += float64(took.n)
		most = max(most, sum-until.Sub(took.at).Seconds()*x.r.PerSecond)
	}
	return most
}

func (x *modelBucket) take(n int, wait time.Duration, ok bool) error {
	n = min(n, x.r.Burst)
	lack := float64(n) + x.missing(0) - float64(x.r.Burst)
	switch {
	case ok && lack > tolerance:
		return fmt.Errorf("it was given, though %v are missing", lack)
	case !ok && lack < -tolerance:
		return fmt.Errorf("it was refused, though %v are left", -lack)
	case ok && wait != 0:
		return fmt.Errorf("it was given, and yet is to wait %v", wait)
	case ok:
		x.taken = append(x.taken, taken{time.Now(), n})
		return nil
	}
	want := min(lack/x.r.PerSecond, never.Seconds())
	if off := wait.Seconds() - want; math.Abs(off) > 2e-6+2*tolerance/x.r.PerSecond && wait != never {
		return fmt.Errorf("is to wait %v, not %v s", wait, want)
	}
	return nil
}
