//go:build linux

package main

import (
	"context"
	"testing"
	"time"
)

// heard returns a fleet of one client of a channel with three events, which
// heard some of them, each 1 ms after its publish.
func heard(t *testing.T, numbers ...int) *fleet {
	t.Helper()
	f := newFleet()
	h := history{Begin: "p0"}
	for n, position := range []string{"p1", "p2", "p3"} {
		h.Facts = append(h.Facts, fact{N: n + 1, Position: position, At: time.Duration(n+1) * time.Second})
	}
	if _, err := f.learn(t.Context(), map[string]history{"c": h}); err != nil {
		t.Fatal(err)
	}
	c := &client{fleet: f, channel: "c"}
	c.take(item{Kind: isOpening, Position: []byte("p0")})
	for _, n := range numbers {
		c.take(item{Kind: isEvent, N: n, At: h.Facts[n-1].At, Position: []byte(h.Facts[n-1].Position)})
		c.heard[len(c.heard)-1].received = h.Facts[n-1].At + time.Millisecond
	}
	f.clients = append(f.clients, c)
	return f
}

func TestTheVerdictFindsFaults(t *testing.T) {
	for name, c := range map[string]struct {
		heard []int
		bad   int
	}{
		"all":       {[]int{1, 2, 3}, 0},
		"lost":      {[]int{1, 3}, 1},
		"twice":     {[]int{1, 2, 2, 3}, 1},
		"reordered": {[]int{2, 1, 3}, 1},
		"unreached": {[]int{1, 2}, 1},
	} {
		v, err := heard(t, c.heard...).verdict(context.Background(), none{})
		if err != nil || v.Bad != c.bad {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

// TestWhatDidNotComeIsLate keeps a server that gives nothing at all from having
// the best figures.
func TestWhatDidNotComeIsLate(t *testing.T) {
	all := span{0, 10 * time.Second}
	d, err := heard(t, 1, 2, 3).slice(t.Context(), all)
	if err != nil || d.Events != 3 || d.Missing != 0 || d.Most != 1 {
		t.Errorf("all: %+v, %v", d, err)
	}
	d, err = heard(t, 1).slice(t.Context(), all)
	if err != nil || d.Events != 3 || d.Missing != 2 || d.Most < 1000 {
		t.Errorf("two are missing: %+v, %v", d, err)
	}
	d, err = heard(t, 1, 2, 3).slice(t.Context(), span{2 * time.Second, 3 * time.Second})
	if err != nil || d.Events != 1 {
		t.Errorf("one is in the span: %+v, %v", d, err)
	}
}
