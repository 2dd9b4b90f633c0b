package core

import (
	"testing"
	"time"
)

func TestLagCountsWhatDoesNotShrink(t *testing.T) {
	const limit, window = 10, 10 * time.Second
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		behind []uint64 // once a second
		want   int      // after how many of them it has been too long; -1: never
	}{
		"keeps up":                 {[]uint64{0, 5, 10, 3, 10, 10, 10, 10, 10, 10, 10, 10, 10}, -1},
		"stands still":             {[]uint64{20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20}, 10},
		"falls behind":             {[]uint64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}, 10},
		"comes closer":             {[]uint64{90, 89, 88, 87, 86, 85, 84, 83, 82, 81, 80, 79, 78}, -1},
		"comes closer, then not":   {[]uint64{90, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80}, 11},
		"a moment below the limit": {[]uint64{20, 20, 20, 20, 20, 10, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20}, 16},
	} {
		var l lag
		got := -1
		for i, behind := range c.behind {
			if l.tooLong(behind, limit, began.Add(time.Duration(i)*time.Second), window) {
				got = i
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: too long after %d s, want %d", name, got, c.want)
		}
	}
}
