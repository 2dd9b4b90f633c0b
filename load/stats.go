//go:build linux

package main

import (
	"fmt"
	"slices"
)

// A summary is what is said of figures that vary.
type summary struct{ Min, Median, Max float64 }

// summarise needs at least one value, or it is all zero.
func summarise(values []float64) summary {
	if len(values) == 0 {
		return summary{}
	}
	s := slices.Sorted(slices.Values(values))
	return summary{Min: s[0], Median: median(s), Max: s[len(s)-1]}
}

// median takes sorted values, of which there is at least one.
func median(sorted []float64) float64 {
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// String gives three digits that say something, as the figures differ by
// orders of magnitude.
func (s summary) String() string {
	return digits(s.Min) + " / " + digits(s.Median) + " / " + digits(s.Max)
}

func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
