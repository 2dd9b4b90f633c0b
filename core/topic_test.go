package core

import (
	"testing"

	"github.com/throughline/throughline/eventlog"
)

// TestLinesMeet: lines that began at different places come to read the same pages, and lose
// nothing of any.
func TestLinesMeet(t *testing.T) {
	pos := func(n uint64) eventlog.Position { return eventlog.Position{Offset: n, Mark: 1} }
	const head = 10_000
	read := func(after uint64, most int) eventlog.Page { // so many events
		page := eventlog.Page{Next: pos(after), Head: pos(head)}
		for n := after + 1; n <= min(head, after+uint64(most)); n++ {
			page.Events = append(page.Events, eventlog.Event{At: pos(n)})
			page.Next = pos(n)
		}
		page.Behind = int64(head-page.Next.Offset) * 128
		return page
	}
	for _, most := range []int{1, 2, 3, 4, 5, 31, 32, 33, 38, 63, 64, 65, 150} {
		begins := map[uint64]bool{} // where pages begin, of all lines, when they have met
		for from := uint64(5000); from < 5000+uint64(3*most); from++ {
			for at := from; at < head; {
				page := read(at, most)
				shorten(&page, pos(at))
				if n := len(page.Events); n == 0 || page.Events[0].At.Offset != at+1 || page.Events[n-1].At != page.Next {
					t.Fatalf("of %d events after %d there are %d, up to %v", most, at, n, page.Next)
				}
				if 2*len(page.Events) <= min(most, int(head-at)) && most > 3 {
					t.Fatalf("of %d events after %d only %d are left", most, at, len(page.Events))
				}
				if left := int64(head-page.Next.Offset) * 128; page.Behind != left {
					t.Fatalf("%d bytes are said to be behind it, not %d", page.Behind, left)
				}
				if at > 8000 {
					begins[at] = true
				}
				at = page.Next.Offset
			}
		}
		if bound := 2000/most*4 + 2; most > 3 && len(begins) > bound {
			t.Errorf("with pages of %d events, they read at %d places, which are more than %d", most, len(begins), bound)
		}
	}
}
