package bolt

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/throughline/throughline/eventlog"
)

var benchEvents = flag.Int("events", 1_000_000, "how many events a file has that is read and opened")

// data is what is published: a chat message, say.
var data = fmt.Appendf(nil, "{%q:%q}", "text", fmt.Sprintf("%0100d", 0))

var keepAll = func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: -1, Bytes: -1, Age: -1} }

// BenchmarkAppend compares the log with what else one may do with bbolt, for
// some publishers at once: each appends, waits, and appends again.
//
//	batch    db.Batch, bbolt's own group commit: the least one can do
//	mercure  one transaction for each update, as Mercure's bolt transport has it
func BenchmarkAppend(b *testing.B) {
	for _, publishers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("synced/publishers=%d", publishers), func(b *testing.B) { benchLog(b, publishers, 0) })
		b.Run(fmt.Sprintf("batch/publishers=%d", publishers), func(b *testing.B) { benchBare(b, publishers, (*bbolt.DB).Batch) })
		b.Run(fmt.Sprintf("mercure/publishers=%d", publishers), func(b *testing.B) { benchBare(b, publishers, (*bbolt.DB).Update) })
		b.Run(fmt.Sprintf("interval=100ms/publishers=%d", publishers), func(b *testing.B) { benchLog(b, publishers, 100*time.Millisecond) })
	}
}

func benchLog(b *testing.B, publishers int, interval time.Duration) {
	l := benchOpen(b, filepath.Join(b.TempDir(), "events.db"), Options{Interval: interval, Retain: keepAll})
	publish(b, publishers, func(n int) error {
		ch := eventlog.Channel{Name: fmt.Sprint("room:", n%100)}
		_, _, err := l.Append(ctx, ch, eventlog.Batch{Messages: []eventlog.Message{{Data: data}}})
		return err
	})
}

func benchOpen(b *testing.B, path string, o Options) *Log {
	b.Helper()
	l, err := Open(path, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

// benchBare puts updates in one bucket, by their number.
func benchBare(b *testing.B, publishers int, commit func(*bbolt.DB, func(*bbolt.Tx) error) error) {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "updates.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	publish(b, publishers, func(n int) error {
		value, err := json.Marshal(map[string]any{"topics": []string{fmt.Sprint("room:", n%100)}, "data": string(data), "id": fmt.Sprint("urn:uuid:", n)})
		if err != nil {
			return err
		}
		return commit(db, func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("updates"))
			if err != nil {
				return err
			}
			seq, err := bucket.NextSequence()
			if err != nil {
				return err
			}
			bucket.FillPercent = 1
			return bucket.Put(fmt.Append(binary.BigEndian.AppendUint64(nil, seq), n), value)
		})
	})
}

// publish calls a function b.N times, by so many goroutines.
func publish(b *testing.B, publishers int, one func(n int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range publishers {
		all.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := one(int(n)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAppendBeside tells how long one append takes, synced, while the log
// has something else to do.
func BenchmarkAppendBeside(b *testing.B) {
	for _, what := range []string{"nothing", "trim", "compaction"} {
		b.Run(what, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "events.db")
			fill(b, path, 300_000, 1)
			o := Options{Retain: keepAll, MaxFree: -1}
			if what == "trim" { // all that is there is over the bound when it is opened
				o.Retain = func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 1} }
			}
			l := benchOpen(b, path, o)
			stop := make(chan struct{})
			var others sync.WaitGroup
			if what == "compaction" {
				others.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							_ = l.Compact(ctx)
						}
					}
				})
			}
			times := make([]time.Duration, 0, b.N)
			b.ResetTimer()
			for range b.N {
				began := time.Now()
				if _, _, err := l.Append(ctx, eventlog.Channel{Name: "other"}, eventlog.Batch{Messages: []eventlog.Message{{Data: data}}}); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(began))
			}
			b.StopTimer()
			close(stop)
			others.Wait()
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "µs-p99")
			b.ReportMetric(float64(times[len(times)-1].Microseconds()), "µs-max")
		})
	}
}

// fill appends events to some channels of a file, in large batches.
func fill(b *testing.B, path string, n, channels int) {
	b.Helper()
	l, err := Open(path, Options{Interval: time.Second, Retain: keepAll})
	if err != nil {
		b.Fatal(err)
	}
	batch := eventlog.Batch{Messages: make([]eventlog.Message, 1000)}
	for i := range batch.Messages {
		batch.Messages[i].Data = data
	}
	for i := range n / len(batch.Messages) {
		if _, _, err := l.Append(ctx, eventlog.Channel{Name: fmt.Sprint("room:", i%channels)}, batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFile opens a file with many events and reads all of them back.
func BenchmarkFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "events.db")
	const channels = 100
	fill(b, path, *benchEvents, channels)
	o := Options{Retain: keepAll}
	b.Run("open", func(b *testing.B) {
		for range b.N {
			l, err := Open(path, o)
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("read", func(b *testing.B) {
		l := benchOpen(b, path, o)
		read := 0
		for range b.N {
			read = 0
			for n := range channels {
				ch := eventlog.Channel{Name: fmt.Sprint("room:", n)}
				at, err := l.Seek(ctx, ch, eventlog.Start{Earliest: true})
				for more := true; more && err == nil; {
					var page eventlog.Page
					page, err = l.Read(ctx, ch, at, eventlog.Limit{})
					read, at, more = read+len(page.Events), page.Next, page.More()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(read)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

// BenchmarkChannels opens a file with many channels, and tells how much memory
// each takes.
func BenchmarkChannels(b *testing.B) {
	path := filepath.Join(b.TempDir(), "events.db")
	const channels = 100_000
	l, err := Open(path, Options{Interval: time.Second, Retain: keepAll})
	if err != nil {
		b.Fatal(err)
	}
	for n := range channels {
		if _, _, err := l.Append(ctx, eventlog.Channel{Name: fmt.Sprint("room:", n)}, eventlog.Batch{Messages: []eventlog.Message{{Data: data}}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	each := 0.0
	for b.Loop() {
		before := heap()
		l, err := Open(path, Options{Retain: keepAll})
		if err != nil {
			b.Fatal(err)
		}
		each = float64(heap()-before) / channels
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(each, "B/channel")
}
