package eventlog_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/throughline/throughline/eventlog"
)

func benchBatch(n int) eventlog.Batch {
	var b eventlog.Batch
	for range n {
		b.Messages = append(b.Messages, eventlog.Message{Kind: eventlog.Text, Data: bytes.Repeat([]byte("x"), 130)})
	}
	return b
}

func BenchmarkAppend(b *testing.B) {
	for _, channels := range []int{1, 1000} {
		b.Run(fmt.Sprintf("channels=%d", channels), func(b *testing.B) {
			log := eventlog.NewMemory(eventlog.MemoryOptions{})
			defer log.Close()
			names := make([]eventlog.Channel, channels)
			for i := range names {
				names[i].Name = fmt.Sprint(i)
			}
			batch, i := benchBatch(1), 0
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := log.Append(context.Background(), names[i%channels], batch); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkRead reads one event, as live delivery does, and a page.
func BenchmarkRead(b *testing.B) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	ch := eventlog.Channel{Name: "a"}
	if _, _, err := log.Append(context.Background(), ch, benchBatch(1000)); err != nil {
		b.Fatal(err)
	}
	for name, start := range map[string]eventlog.Start{"head": {}, "one": {Last: 1}, "page": {Earliest: true}} {
		after, err := log.Seek(context.Background(), ch, start)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := log.Read(context.Background(), ch, after, eventlog.Limit{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRetained tells what a million retained events cost: memory for each,
// and how long the garbage collector takes over them, once.
func BenchmarkRetained(b *testing.B) {
	const events, channels = 1_000_000, 1000
	log := eventlog.NewMemory(eventlog.MemoryOptions{
		MaxBytes: 1 << 40,
		Retain:   func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: -1, Bytes: -1} },
	})
	defer log.Close()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, batch := heap(), benchBatch(10)
	for i := range events / len(batch.Messages) {
		if _, _, err := log.Append(context.Background(), eventlog.Channel{Name: fmt.Sprint(i % channels)}, batch); err != nil {
			b.Fatal(err)
		}
	}
	each := float64(heap()-before) / events
	for b.Loop() {
		runtime.GC()
	}
	b.ReportMetric(each, "B/event")
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/GC")
}
