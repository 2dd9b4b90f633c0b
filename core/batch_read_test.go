package core

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
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

// A spoilt log shows events of the type bad as JSON that is none.
type spoilt struct{ eventlog.Log }

func (l spoilt) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Log.Read(ctx, ch, after, limit)
	page.Events = slices.Clone(page.Events)
	for i := range page.Events {
		if page.Events[i].Type == "bad" {
			page.Events[i].Data = []byte("{")
		}
	}
	return page, err
}

// TestUnfitStaysUnfit: what was read before, by others and with filters, hides no event that
// can't be shown.
func TestUnfitStaysUnfit(t *testing.T) {
	inEngine(t, func(l eventlog.Log) eventlog.Log { return spoilt{l} }, eventlog.Retention{}, Options{}, func(e *Engine, log eventlog.Log) {
		start, _ := log.Seek(context.Background(), news, eventlog.Start{})
		appendTo(t, log, "a", "bad")
		bad, _ := log.Seek(context.Background(), news, eventlog.Start{})
		appendTo(t, log, "a", "a")
		come := func(after eventlog.Position, f *eventlog.Filter) string {
			conn := &notingConn{}
			if _, err := e.Attach(context.Background(), transport.Peer{Transport: "noting"}, transport.Hello{
				Channels: []transport.Subscription{{Channel: news.Name, After: after, Filter: f}},
			}, conn); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * batchAge) // what is remembered of this line is what was fit
			return conn.said()
		}
		for _, c := range []struct {
			after  eventlog.Position
			filter *eventlog.Filter
			want   string
		}{
			{start, &eventlog.Filter{Types: []string{"a"}}, "opening at 0, 3 events to 4"},
			{bad, nil, "opening at 2, 2 events to 4"},
			{start, nil, "opening at 0, 1 events to 1 | gap from 1 to 2, 2 events to 4"},
			{start, nil, "opening at 0, 1 events to 1 | gap from 1 to 2, 2 events to 4"},
			{start, &eventlog.Filter{Types: []string{"bad"}}, "opening at 0, gap from 0 to 2, 0 events to 4"},
		} {
			if got := come(c.after, c.filter); got != c.want {
				t.Errorf("after %d with %v: %s\nnot %s", c.after.Offset, c.filter, got, c.want)
			}
		}
	})
}

// TestSpans: they hold what was added, in whatever order, and nothing else.
func TestSpans(t *testing.T) {
	for _, c := range []struct{ add, want []span }{
		{[]span{{5, 9}}, []span{{5, 9}}},
		{[]span{{5, 9}, {9, 12}}, []span{{5, 12}}},
		{[]span{{5, 9}, {2, 5}}, []span{{2, 9}}},
		{[]span{{5, 9}, {3, 7}}, []span{{3, 9}}},
		{[]span{{5, 9}, {6, 7}}, []span{{5, 9}}},
		{[]span{{5, 9}, {1, 20}}, []span{{1, 20}}},
		{[]span{{5, 9}, {0, 2}, {12, 14}, {2, 12}}, []span{{0, 14}}},
		{[]span{{5, 9}, {10, 12}}, []span{{5, 9}, {10, 12}}}, // 10 lies between
		{[]span{{5, 9}, {2, 4}}, []span{{2, 4}, {5, 9}}},     // 5 lies between
		{
			[]span{{1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10}, {11, 12}, {13, 14}, {15, 16}, {17, 18}, {0, 1}},
			[]span{{3, 4}, {5, 6}, {7, 8}, {9, 10}, {11, 12}, {13, 14}, {15, 16}, {17, 18}},
		},
	} {
		var all spans
		for _, s := range c.add {
			all.add(s)
		}
		for offset := range uint64(25) {
			held := slices.ContainsFunc(c.want, func(s span) bool { return s.after < offset && offset <= s.to })
			if all.hold(offset) != held {
				t.Errorf("%v: that they hold %d is %v", c.add, offset, !held)
			}
		}
	}
}
