package redis

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
)

// TestSizes measures what docs/deploying.md says of memory and commands, and notices if
// either grows. With -v it says what it found.
func TestSizes(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	client := s.Client(t)
	quiet := Options{MaxProducersPerOwner: 10_000, CheckInterval: time.Hour, tests: tests{sweep: time.Hour}}
	n := openOn(t, s, quiet)
	t.Cleanup(func() { _ = n.Close() })
	stat := func(section, name string) int {
		t.Helper()
		for line := range strings.Lines(client.Info(t.Context(), section).Val()) {
			if value, ok := strings.CutPrefix(line, name); ok {
				digits, _, _ := strings.Cut(strings.TrimLeft(value, ":=cals"), ",")
				number, err := strconv.Atoi(strings.TrimSpace(digits))
				if err != nil {
					t.Fatal(err)
				}
				return number
			}
		}
		return 0
	}
	add := func(channel string, events, bytesEach int, producer string) {
		t.Helper()
		const batch = 100
		for done := 0; done < events; done += batch {
			b := eventlog.Batch{Messages: make([]eventlog.Message, min(batch, events-done))}
			for i := range b.Messages {
				b.Messages[i].Kind, b.Messages[i].Data = eventlog.Binary, bytes.Repeat([]byte("x"), bytesEach)
			}
			if producer != "" {
				b.Producer = eventlog.Producer{ID: producer, Seq: 1}
			}
			if _, _, err := n.Append(t.Context(), eventlog.Channel{Name: channel}, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	grown := func(what string, things, most int, do func()) {
		t.Helper()
		before := stat("memory", "used_memory:")
		do()
		each := (stat("memory", "used_memory:") - before) / things
		t.Logf("%s: %d bytes each", what, each)
		if each > most {
			t.Errorf("%s: %d bytes each, and docs/deploying.md says no more than %d", what, each, most)
		}
	}
	add("warm", 1000, 100, "")
	grown("events of 100 bytes", 10_000, 210, func() { add("a", 10_000, 100, "") })
	grown("events of 1 kB", 10_000, 1300, func() { add("b", 10_000, 1000, "") })
	channels := func(name string) func() {
		return func() {
			for i := range 5_000 {
				add(fmt.Sprint(name, i), 1, 100, "")
			}
		}
	}
	grown("channels with an event of 100 bytes", 5_000, 5000, channels("channel:"))
	if err := client.ConfigSet(t.Context(), "stream-node-max-bytes", "1024").Err(); err != nil {
		t.Fatal(err)
	}
	grown("channels with an event of 100 bytes, with stream-node-max-bytes 1024", 5_000, 2000, channels("other:"))
	grown("producers that are remembered", 5_000, 550, func() {
		for i := range 5_000 {
			add("c", 1, 100, fmt.Sprintf("0123456789abcdef%08d", i))
		}
	})

	// What crosses the network, of one publish that two nodes serve.
	other := openOn(t, s, quiet)
	t.Cleanup(func() { _ = other.Close() })
	var woken sync.WaitGroup
	for _, node := range []*node{n, other} {
		ch := eventlog.Channel{Name: "a"}
		at, err := node.Seek(t.Context(), ch, eventlog.Start{})
		if err != nil {
			t.Fatal(err)
		}
		bell := make(chan struct{}, 100)
		t.Cleanup(node.Watch(ch, func() { bell <- struct{}{} }))
		time.Sleep(300 * time.Millisecond) // its subscription rings once
		for len(bell) > 0 {
			<-bell
		}
		woken.Go(func() {
			for range 20 {
				<-bell
				page, err := node.Read(t.Context(), ch, at, eventlog.Limit{})
				if err != nil {
					t.Error(err)
				}
				at = page.Next
			}
		})
	}
	scripts, commands := stat("commandstats", "cmdstat_evalsha:"), stat("stats", "total_commands_processed:")
	for range 20 {
		add("a", 1, 100, "")
		time.Sleep(50 * time.Millisecond)
	}
	woken.Wait()
	scripts = stat("commandstats", "cmdstat_evalsha:") - scripts
	commands = stat("stats", "total_commands_processed:") - commands
	t.Logf("20 publishes that 2 nodes read: %d scripts, %d commands with those within them", scripts, commands)
	if scripts > 62 { // one that Redis doesn't know yet is sent twice
		t.Errorf("20 publishes that 2 nodes read took %d scripts", scripts)
	}
}

// BenchmarkPublish is how many events a node gets into Redis, by 64 publishers.
func BenchmarkPublish(b *testing.B) {
	s := redistest.Start(b, redistest.Options{})
	n := openOn(b, s, Options{})
	b.Cleanup(func() { _ = n.Close() })
	data := bytes.Repeat([]byte("x"), 100)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			ch := eventlog.Channel{Name: fmt.Sprint("channel:", i%100)}
			if _, _, err := n.Append(b.Context(), ch, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Binary, Data: data}}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
