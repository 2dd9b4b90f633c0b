package server

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSampler: the first ten of a kind in a minute, then how many more there were.
func TestSampler(t *testing.T) {
	type step struct {
		after time.Duration
		kind  kind
		count int
		taken int
	}
	a, b := kind{"refused", "forbidden"}, kind{"refused", "busy"}
	for name, c := range map[string]struct {
		steps  []step
		within time.Duration // after the last step
		told   []string
	}{
		"few":                {[]step{{0, a, 10, 10}}, time.Hour, nil},
		"one more":           {[]step{{0, a, 11, 10}}, time.Minute, []string{"1 forbidden at 1m0s"}},
		"a flood":            {[]step{{0, a, 100_000, 10}}, time.Minute, []string{"99990 forbidden at 1m0s"}},
		"kinds are apart":    {[]step{{0, a, 50, 10}, {0, b, 5, 5}}, time.Hour, []string{"40 forbidden at 1m0s"}},
		"each minute":        {[]step{{0, a, 20, 10}, {time.Minute, a, 20, 10}}, time.Hour, []string{"10 forbidden at 1m0s", "10 forbidden at 2m0s"}},
		"not yet":            {[]step{{0, a, 20, 10}}, 59 * time.Second, nil},
		"trickling":          {[]step{{0, a, 10, 10}, {61 * time.Second, a, 10, 10}}, time.Hour, nil},
		"late in the window": {[]step{{0, a, 10, 10}, {59 * time.Second, a, 3, 0}}, 2 * time.Second, []string{"3 forbidden at 1m0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var told []string // guarded by mu
				began := time.Now()
				s := newSampler(func(m leftOut) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, fmt.Sprintf("%d %s at %v", m.count, m.code, time.Since(began)))
				})
				for i, step := range c.steps {
					time.Sleep(step.after)
					taken := 0
					for range step.count {
						if s.take(step.kind, slog.LevelInfo) {
							taken++
						}
					}
					if taken != step.taken {
						t.Errorf("step %d: %d of %d were taken, not %d", i, taken, step.count, step.taken)
					}
				}
				time.Sleep(c.within)
				synctest.Wait()
				if !slices.Equal(told, c.told) {
					t.Errorf("told %q, not %q", told, c.told)
				}
				s.close()
			})
		})
	}
}

// TestSamplerCloses: what was left out is told, and no timer is left.
func TestSamplerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []leftOut
		s := newSampler(func(m leftOut) { told = append(told, m) })
		for i := range 12 {
			s.take(kind{"log failed", "read"}, slog.Level(4*(i%2))) // Info and Warn in turn
		}
		s.close()
		if len(told) != 1 || told[0].count != 2 || told[0].level != slog.LevelWarn {
			t.Errorf("told %+v", told)
		}
		for range 100 {
			s.take(kind{"refused", "busy"}, slog.LevelInfo)
		} // a timer would outlive the bubble
	})
}

// TestSamplerIsBounded: whatever there is to count.
func TestSamplerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSampler(func(leftOut) {})
		taken := 0
		for i := range 100_000 {
			if s.take(kind{strconv.Itoa(i), ""}, slog.LevelInfo) {
				taken++
			}
		}
		if len(s.counts) > maxKinds+1 || taken > maxKinds+sampled {
			t.Errorf("%d kinds are counted, %d lines were taken", len(s.counts), taken)
		}
		s.close()
	})
}
