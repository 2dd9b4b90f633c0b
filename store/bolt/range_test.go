package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

// TestRangesAreThoseOfMemory: whatever part of a history is asked for, it is what
// the log in memory has, page by page.
func TestRangesAreThoseOfMemory(t *testing.T) {
	for name, interval := range map[string]time.Duration{"in the file": 0, "half in memory": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRanges(t, interval) })
		})
	}
}

func testRanges(t *testing.T, interval time.Duration) {
	retain := func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 60} }
	memory := eventlog.NewMemory(eventlog.MemoryOptions{Retain: retain})
	defer memory.Close()
	file := open(t, bolt.Options{Retain: retain, Interval: interval})
	defer file.Close()
	logs := []eventlog.Log{memory, file}
	ctx, room := context.Background(), eventlog.Channel{Name: "room"}
	random := rand.New(rand.NewPCG(1, 2))
	places := make([][]eventlog.Position, len(logs)) // by offset
	for i, l := range logs {
		at, _ := l.Seek(ctx, room, eventlog.Start{})
		places[i] = append(places[i], at)
	}
	began := time.Now()
	for n := range 100 {
		m := message(fmt.Sprint(n))
		m.Type, m.Key = []string{"a", "b"}[random.IntN(2)], fmt.Sprint(random.IntN(3))
		for i, l := range logs {
			at, _, err := l.Append(ctx, room, eventlog.Batch{Messages: []eventlog.Message{m}})
			if err != nil {
				t.Fatal(err)
			}
			places[i] = append(places[i], at)
		}
		time.Sleep(time.Second)
		if n == 70 {
			time.Sleep(2 * time.Hour) // what there is, is in the file
		}
	}
	for range 500 {
		after, until := random.IntN(101), random.IntN(101)
		r := eventlog.Range{Backwards: random.IntN(2) == 0}
		if random.IntN(3) == 0 {
			r.Since = began.Add(time.Duration(random.IntN(100)) * time.Second)
		}
		if random.IntN(3) == 0 {
			r.Before = began.Add(2*time.Hour + time.Duration(random.IntN(100))*time.Second)
		}
		limit := eventlog.Limit{Bytes: 1 + random.IntN(2000), Events: random.IntN(10), Scan: random.IntN(3000)}
		if random.IntN(2) == 0 {
			limit.Filter = eventlog.Filter{Types: []string{"a"}, Keys: []string{"1", "2"}}
		}
		with := [2]bool{random.IntN(2) == 0, random.IntN(2) == 0}
		var answers []string
		for i, l := range logs {
			if with[0] {
				r.After = places[i][min(after, until)]
			}
			if with[1] {
				r.Until = places[i][max(after, until)]
			}
			answers = append(answers, pages(t, l.(eventlog.History), r, limit))
		}
		if answers[0] != answers[1] {
			t.Fatalf("%+v, %+v:\n%s in memory,\n%s in the file", r, limit, answers[0], answers[1])
		}
	}
}

// pages reads all of a range, and tells what it got, but for the marks.
func pages(t *testing.T, l eventlog.History, r eventlog.Range, limit eventlog.Limit) (got string) {
	for {
		page, err := l.Range(context.Background(), eventlog.Channel{Name: "room"}, r, limit)
		if lost, ok := errors.AsType[*eventlog.Lost](err); ok {
			return fmt.Sprint(got, lost.Reason, lost.From.Offset, lost.To.Offset)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			got += fmt.Sprintf("%s@%d ", e.Data, e.At.Offset)
		}
		got += fmt.Sprintf("to %d of %d..%d, %v\n", page.Next.Offset, page.First.Offset, page.Head.Offset, page.Done)
		if page.Done {
			return got
		}
		r = r.Rest(&page)
	}
}
