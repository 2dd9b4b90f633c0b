package breaker_test

import (
	"testing"
	"time"

	"github.com/throughline/throughline/breaker"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestPaceSince: since when it is over a limit and has not come closer is told.
func TestPaceSince(t *testing.T) {
	limits := breaker.Limits{Events: 10, Bytes: 1000, Window: 10 * time.Second}
	var p breaker.Pace
	for i, c := range []struct {
		breaker.Distance
		want int // seconds after it began; -1: it is within the limits
	}{
		{breaker.Distance{Events: 10}, -1},
		{breaker.Distance{Events: 11}, 1},
		{breaker.Distance{Events: 30, Bytes: 1001}, 1},
		{breaker.Distance{Events: 10, Bytes: 1001}, 2},
		{breaker.Distance{Events: 10, Bytes: 1000}, -1},
		{breaker.Distance{Events: 90}, 5},
		{breaker.Distance{Events: 80}, 6},
	} {
		p.TooSlow(c.Distance, limits, began.Add(time.Duration(i)*time.Second))
		want := time.Time{}
		if c.want >= 0 {
			want = began.Add(time.Duration(c.want) * time.Second)
		}
		if got := p.Since(); !got.Equal(want) {
			t.Errorf("after %d s: %v, want %v", i, got, want)
		}
	}
}

// TestPace: traces of a distance, one a second.
func TestPace(t *testing.T) {
	limits := breaker.Limits{Events: 10, Bytes: 1000, Age: 30 * time.Second, Window: 10 * time.Second}
	events := func(n ...uint64) (trace []breaker.Distance) {
		for _, v := range n {
			trace = append(trace, breaker.Distance{Events: v})
		}
		return trace
	}
	same := func(d breaker.Distance, seconds int) (trace []breaker.Distance) {
		for range seconds {
			trace = append(trace, d)
		}
		return trace
	}
	for name, c := range map[string]struct {
		trace []breaker.Distance
		want  int // after how many seconds it is too slow; -1: never
	}{
		"keeps up":                 {events(0, 5, 10, 3, 10, 10, 10, 10, 10, 10, 10, 10, 10), -1},
		"stands still":             {events(20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20), 10},
		"falls behind":             {events(11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22), 10},
		"comes closer":             {events(90, 89, 88, 87, 86, 85, 84, 83, 82, 81, 80, 79, 78), -1},
		"comes closer, then not":   {events(90, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80), 11},
		"a moment below the limit": {events(20, 20, 20, 20, 20, 10, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20), 16},
		"in bytes":                 {same(breaker.Distance{Events: 1, Bytes: 1001}, 20), 10},
		"by age":                   {same(breaker.Distance{Events: 1, Age: 31 * time.Second}, 20), 10},
		"at each limit":            {same(breaker.Distance{Events: 10, Bytes: 1000, Age: 30 * time.Second}, 30), -1},
		"closer in events, farther in bytes": {func() (trace []breaker.Distance) {
			for i := range 20 {
				trace = append(trace, breaker.Distance{Events: uint64(90 - i), Bytes: int64(2000 + i)})
			}
			return trace
		}(), 10},
	} {
		var p breaker.Pace
		got := -1
		for i, d := range c.trace {
			if p.TooSlow(d, limits, began.Add(time.Duration(i)*time.Second)) {
				got = i
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: too slow after %d s, want %d", name, got, c.want)
		}
	}
}

// TestPaceExcuses: what was not the reader's fault does not count, and what was
// still does; and without limits nobody is too slow.
func TestPaceExcuses(t *testing.T) {
	limits := breaker.Limits{Events: 10, Window: 10 * time.Second}
	for name, c := range map[string]struct {
		excused func(second int) bool // all of that second
		events  func(second int) uint64
		want    int
	}{
		"never":                     {func(int) bool { return false }, func(int) uint64 { return 100 }, 10},
		"for one second":            {func(s int) bool { return s == 5 }, func(int) uint64 { return 100 }, 11},
		"every other second":        {func(s int) bool { return s%2 == 1 }, func(int) uint64 { return 100 }, 20},
		"always":                    {func(s int) bool { return s > 0 }, func(int) uint64 { return 100 }, -1},
		"and falls behind":          {func(s int) bool { return s == 5 }, func(s int) uint64 { return uint64(100 + s) }, 11},
		"the head went on, it, too": {func(s int) bool { return s > 0 && s%9 == 0 }, func(s int) uint64 { return uint64(100 + s/9*50 - s%9) }, -1},
	} {
		var p breaker.Pace
		got := -1
		for i := range 100 {
			if c.excused(i) {
				p.Excuse(time.Second)
			}
			if p.TooSlow(breaker.Distance{Events: c.events(i), Bytes: 1 << 40, Age: time.Hour}, limits, began.Add(time.Duration(i)*time.Second)) {
				got = i
				break
			}
		}
		if got != c.want {
			t.Errorf("excused %s: too slow after %d s, want %d", name, got, c.want)
		}
	}
	var p breaker.Pace
	for i := range 100 {
		if p.TooSlow(breaker.Distance{Events: 100, Bytes: 1 << 40, Age: time.Hour}, breaker.Limits{Window: time.Second}, began.Add(time.Duration(i)*time.Second)) {
			t.Fatal("too slow for no limits")
		}
	}
}
