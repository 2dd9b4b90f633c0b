package core

import (
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// TestFilterText: equal filters have one text, in whatever order their words
// stand, and others have others.
func TestFilterText(t *testing.T) {
	seen := map[string]int{}
	for i, f := range []eventlog.Filter{
		{},
		{Types: []string{"a"}},
		{Tags: []string{"a"}},
		{Keys: []string{"a"}},
		{Types: []string{"a", "b"}},
		{Types: []string{"ab"}},
		{Types: []string{"a"}, Tags: []string{"b"}},
		{Types: []string{""}},
		{Tags: []string{""}},
	} {
		text := newFilter(&f).text
		if other, is := seen[text]; is {
			t.Errorf("filters %d and %d have the text %q", other, i, text)
		}
		seen[text] = i
	}
	if newFilter(&eventlog.Filter{Tags: []string{"x", "y"}}).text != newFilter(&eventlog.Filter{Tags: []string{"y", "x"}}).text {
		t.Error("the order of words counts")
	}
	if newFilter(nil).selects() || newFilter(&eventlog.Filter{}).selects() {
		t.Error("no filter selects")
	}
}

// TestShare: of what is yet to come as much is expected to pass as of what was
// read.
func TestShare(t *testing.T) {
	var s share
	if s.of(100) != 100 {
		t.Error("nothing is known, and something was left out")
	}
	at := func(n uint64) eventlog.Position { return eventlog.Position{Offset: n} }
	s.add(at(0), &transport.Run{Next: at(90)})
	s.add(at(90), &transport.Run{Next: at(100), Events: make([]eventlog.Event, 10)})
	if got := s.of(1000); got != 125 {
		t.Errorf("of 1000 events %d are expected to pass a filter that lets one of ten through, not an eighth", got)
	}
	s = share{read: 100}
	if got := s.of(1000); got != 0 {
		t.Errorf("of 1000 events %d are expected to pass a filter that let none through", got)
	}
}

// TestBatchesOfFilters: many filters don't take more than a bound, and one of
// them not the room of the others.
func TestBatchesOfFilters(t *testing.T) {
	topic := &topic{engine: &Engine{o: Options{PageBytes: 1000}}}
	filters := make([]*filter, 30)
	for i := range filters {
		filters[i] = newFilter(&eventlog.Filter{Tags: []string{string(rune('a' + i))}})
	}
	at := func(n int) eventlog.Position { return eventlog.Position{Offset: uint64(n), Mark: 1} } //nolint:gosec // small
	first := topic.batchAfter(at(0), 250, filters[0])
	for n := range 40 * keptOfOne {
		topic.batchAfter(at(n), 250, filters[1])
	}
	if n := len(topic.batches); n != 1+4*keptOfOne {
		t.Errorf("%d batches of a quarter of a page are kept of two filters, not one and %d", n, 4*keptOfOne)
	}
	if topic.batchAfter(at(0), 250, filters[0]) != first {
		t.Error("the batch of one filter went for those of another")
	}
	for _, f := range filters {
		if topic.batchAfter(at(0), 1000, f) != topic.batchAfter(at(0), 1000, newFilter(&f.Filter)) {
			t.Error("a batch is not found again")
		}
	}
	if n := len(topic.batches); n != keptPages {
		t.Errorf("%d batches of a page are kept, not %d", n, keptPages)
	}
	topic.batches = nil
}
