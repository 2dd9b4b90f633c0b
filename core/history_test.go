package core

import (
	"context"
	"fmt"
	"testing"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A spoiltLog has events that can't be shown.
type spoiltLog struct {
	eventlog.Log
	bad map[uint64]bool
}

func (l *spoiltLog) Range(ctx context.Context, ch eventlog.Channel, r eventlog.Range, limit eventlog.Limit) (eventlog.RangePage, error) {
	page, err := l.Log.(eventlog.History).Range(ctx, ch, r, limit)
	for i := range page.Events {
		if l.bad[page.Events[i].At.Offset] {
			page.Events[i].Data = []byte("{")
		}
	}
	return page, err
}

// TestHistoryThatCantBeShown: what can't be is a gap of one, wherever it lies, and
// everything else comes, in both orders.
func TestHistoryThatCantBeShown(t *testing.T) {
	for bad, want := range map[string][2]string{
		"none":  {"1 2 3 4 5 6 7 8", "8 7 6 5 4 3 2 1"},
		"one":   {"1 2 3 (3 4] 5 6 7 8", "8 7 6 5 (3 4] 3 2 1"},
		"ends":  {"(0 1] 2 3 4 5 6 7 (7 8]", "(7 8] 7 6 5 4 3 2 (0 1]"},
		"a row": {"1 2 (2 3] (3 4] 5 6 7 8", "8 7 6 5 (3 4] (2 3] 2 1"},
	} {
		spoilt := func(l eventlog.Log) eventlog.Log {
			return &spoiltLog{l, map[string]map[uint64]bool{"one": {4: true}, "ends": {1: true, 8: true}, "a row": {3: true, 4: true}}[bad]}
		}
		inEngine(t, spoilt, eventlog.Retention{}, Options{}, func(e *Engine, log eventlog.Log) {
			appendTo(t, log, "x", "x", "x", "x", "x", "x", "x", "x")
			for order, backwards := range []bool{false, true} {
				for _, events := range []int{0, 1, 3} {
					got := ""
					q := &transport.HistoryQuery{Channel: news.Name, Range: eventlog.Range{Backwards: backwards}, Events: events}
					for done := false; !done; {
						page, err := e.History(context.Background(), transport.Peer{}, q, nil)
						if err != nil {
							t.Fatal(err)
						}
						if page.Lost != nil {
							got += fmt.Sprintf("(%d %d] ", page.Lost.From.Offset, page.Lost.To.Offset)
						}
						for _, event := range page.Run.Events {
							got += fmt.Sprint(event.At.Offset, " ")
						}
						done = page.Done
						q.Range = q.Range.Rest(&eventlog.RangePage{Next: page.Next})
					}
					if got != want[order]+" " {
						t.Errorf("%s, %d a page: %s, not %s", bad, events, got, want[order])
					}
				}
			}
		})
	}
}
