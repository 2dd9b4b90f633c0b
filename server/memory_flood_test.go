package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A flood is what a child process publishes.
type flood struct {
	Limit    int64 // Options.MemoryLimit
	MaxBytes int64 // of the log
	Size     int   // of a message
	Channels int
	Total    int64 // bytes of messages
	Writers  int
}

// A floodEnd is what became of it.
type floodEnd struct {
	Peak    int64 // the most memory that the process had of its own
	Held    int64 // what the log holds at the end
	Trimmed int64
	Took    time.Duration
}

const floodOrder = "THROUGHLINE_FLOOD"

// TestFloodChild is the child.
func TestFloodChild(t *testing.T) {
	order := os.Getenv(floodOrder)
	if order == "" {
		t.Skip("only for TestMemoryStaysBelowItsLimit")
	}
	var f flood
	if err := json.Unmarshal([]byte(order), &f); err != nil {
		t.Fatal(err)
	}
	end, err := f.run()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.Marshal(end)
	fmt.Printf("\nflood: %s\n", out)
}

func (f *flood) run() (*floodEnd, error) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{MaxBytes: f.MaxBytes, Retain: func(eventlog.Channel) eventlog.Retention {
		return eventlog.Retention{Events: -1, Bytes: -1}
	}})
	defer log.Close()
	m := newMemory(findMemoryLimit(f.Limit, "/"), log, slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	m.start()
	defer m.close()
	began := time.Now()
	errs := make(chan error)
	for range f.Writers {
		go func() { errs <- f.publish(m.count(log)) }()
	}
	for range f.Writers {
		if err := <-errs; err != nil {
			return nil, err
		}
	}
	end := &floodEnd{Held: log.Size().Bytes, Trimmed: m.trimmed.Load(), Took: time.Since(began)}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	// The program's own pages count, too, but not as its memory.
	end.Peak = kilobytes(string(status), "VmHWM:") - kilobytes(string(status), "RssFile:")
	return end, nil
}

func (f *flood) publish(log eventlog.Log) error {
	random := rand.New(rand.NewPCG(1, 2))
	data := []byte(strings.Repeat("x", f.Size))
	for sent := int64(0); sent < f.Total/int64(f.Writers); sent += int64(f.Size) {
		ch := eventlog.Channel{Namespace: strconv.Itoa(random.IntN(3)), Name: strconv.Itoa(random.IntN(f.Channels))}
		if _, _, err := log.Append(context.Background(), ch, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: data}}}); err != nil {
			return err
		}
	}
	return nil
}

func kilobytes(status, name string) int64 {
	_, rest, _ := strings.Cut(status, name)
	n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	return n << 10
}

// start runs a flood in a process of its own.
func (f *flood) start(t *testing.T, env ...string) (end floodEnd, said string) {
	t.Helper()
	order, _ := json.Marshal(f)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFloodChild$")
	cmd.Env = append(append(os.Environ(), floodOrder+"="+string(order)), env...)
	var lines strings.Builder
	cmd.Stderr = &lines
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, lines.String())
	}
	_, rest, _ := strings.Cut(string(out), "flood: ")
	line, _, _ := strings.Cut(rest, "\n")
	if err := json.Unmarshal([]byte(line), &end); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return end, lines.String()
}

// TestMemoryStaysBelowItsLimit: a process into whose log much more is written
// than its limit allows stays below it, and says what it does, whether or not
// the runtime knows the limit, too.
func TestMemoryStaysBelowItsLimit(t *testing.T) {
	if runtime.GOOS != "linux" || raceDetector() {
		t.Skip("needs /proc, and a process that has nothing beside its own")
	}
	const limit = 64 << 20
	// What the process has beside what the runtime counts: its variables, and the
	// stacks of its threads.
	const beside = 8 << 20
	f := flood{Limit: limit, MaxBytes: 16 * limit, Size: 1000, Channels: 100, Total: 2 * limit, Writers: 2}
	for _, env := range []string{"GOMEMLIMIT=off", fmt.Sprintf("GOMEMLIMIT=%d", limit)} {
		end, said := f.start(t, env)
		t.Logf("%s: at most %d MiB, in %v; at the end the log holds %d MiB and has given up %d", env, end.Peak>>20, end.Took, end.Held>>20, end.Trimmed>>20)
		if end.Peak > limit+beside {
			t.Errorf("%s: the process took %d MiB of %d\n%s", env, end.Peak>>20, limit>>20, said)
		}
		for _, want := range []string{`msg="memory limit" limit=67108864`, `msg="memory short" stage=trimming`} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: nothing says %s:\n%s", env, want, said)
			}
		}
		if end.Trimmed == 0 || end.Held < limit/logKeeps {
			t.Errorf("%s: the log gave up %d bytes and holds %d", env, end.Trimmed, end.Held)
		}
	}
	f.Limit = -1
	if end, said := f.start(t, "GOMEMLIMIT=off"); end.Peak < limit+2*beside || said != "" {
		t.Errorf("without a limit the process took %d MiB: this proves nothing\n%s", end.Peak>>20, said)
	}
}

// raceDetector reports whether the test was built with it: it takes memory of
// its own.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
