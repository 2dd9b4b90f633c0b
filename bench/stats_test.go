package main

import "testing"

func TestSummarise(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   summary
	}{
		{nil, summary{}},
		{[]float64{3}, summary{3, 3, 3}},
		{[]float64{3, 1, 2}, summary{1, 2, 3}},
		{[]float64{4, 1, 3, 2}, summary{1, 2.5, 4}},
	} {
		if got := summarise(tt.values); got != tt.want {
			t.Errorf("%v: %v, not %v", tt.values, got, tt.want)
		}
	}
}

// TestRatioWithinRounds: a machine that is half as fast in one round changes no
// ratio, and a round without the base says nothing.
func TestRatioWithinRounds(t *testing.T) {
	got, ok := ratio(map[int]float64{0: 10, 1: 20, 2: 77}, map[int]float64{0: 5, 1: 10})
	if !ok || got != 2 {
		t.Errorf("ratio is %v, %v", got, ok)
	}
	if _, ok := ratio(map[int]float64{0: 1}, nil); ok {
		t.Error("there is a ratio to nothing")
	}
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{1234.5: "1234", 12.34: "12.3", 1.234: "1.23", 0.0456: "0.046"} {
		if got := digits(v); got != want {
			t.Errorf("%v: %s, not %s", v, got, want)
		}
	}
}
