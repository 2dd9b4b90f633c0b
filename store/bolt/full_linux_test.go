package bolt_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

// smallDisk mounts a disk of some bytes.
func smallDisk(t *testing.T, bytes string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+bytes); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("missing: leave to mount a small disk, run it as root: %v", err)
		}
		t.Skipf("no leave to mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(folder, syscall.MNT_DETACH) })
	return folder
}

// TestDiskIsFull, a real one: appends say so, nothing that was acknowledged is lost,
// and with room appends go on, without opening the file again.
func TestDiskIsFull(t *testing.T) {
	for name, interval := range map[string]time.Duration{"synced": 0, "at an interval": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			folder := smallDisk(t, "6m")
			path, filler := filepath.Join(folder, "events.db"), filepath.Join(folder, "filler")
			if err := os.WriteFile(filler, make([]byte, 3<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			l := mustOpen(t, path, bolt.Options{Interval: interval})
			ctx, room := t.Context(), eventlog.Channel{Name: "room"}
			begin, err := l.Seek(ctx, room, eventlog.Start{})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; err == nil && n < 1_000_000; n += 100 {
				_, _, err = l.Append(ctx, room, eventlog.Batch{Messages: many(100)})
			}
			n -= 100
			if !errors.Is(err, bolt.ErrFull) || !errors.Is(err, eventlog.ErrUnavailable) {
				t.Fatalf("after %d events: %v", n, err)
			}
			if got := count(t, l, room, begin); got != n {
				t.Errorf("%d events can be read of %d that were acknowledged", got, n)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool {
				_, _, err = l.Append(ctx, room, eventlog.Batch{Messages: many(100)})
				return err == nil
			})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, path, bolt.Options{})
			defer l.Close()
			if got := count(t, l, room, begin); got != n+100 {
				t.Errorf("after it was opened again it has %d events of %d", got, n+100)
			}
		})
	}
}

// TestImportOnAFullDisk leaves no file, at whatever moment the disk is full.
func TestImportOnAFullDisk(t *testing.T) {
	source := filepath.Join(t.TempDir(), "events.db")
	l := mustOpen(t, source, bolt.Options{})
	for range 20 {
		if _, _, err := l.Append(t.Context(), eventlog.Channel{Name: "room"}, eventlog.Batch{Messages: many(1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	if err := bolt.Export(source, &lines); err != nil {
		t.Fatal(err)
	}
	for _, size := range []string{"4k", "8k", "16k", "64k", "1m"} {
		folder := smallDisk(t, size)
		if err := bolt.Import(filepath.Join(folder, "imp.db"), bytes.NewReader(lines.Bytes())); err == nil {
			t.Errorf("%s are enough", size)
		}
		if left, _ := filepath.Glob(filepath.Join(folder, "*")); len(left) > 0 {
			t.Errorf("with %s %q is left", size, left)
		}
	}
}

// TestFirstStartOnAFullDisk leaves no file that the next one would take for one
// that was cut short.
func TestFirstStartOnAFullDisk(t *testing.T) {
	for _, size := range []string{"4k", "8k"} {
		folder := smallDisk(t, size)
		if _, err := bolt.Open(filepath.Join(folder, "events.db"), bolt.Options{}); !errors.Is(err, bolt.ErrFull) {
			t.Errorf("with %s: %v", size, err)
		}
		if left, _ := filepath.Glob(filepath.Join(folder, "*")); len(left) > 0 {
			t.Errorf("with %s %q is left", size, left)
		}
	}
}

// count counts the events after a position.
func count(t *testing.T, l *bolt.Log, ch eventlog.Channel, at eventlog.Position) (n int) {
	t.Helper()
	for {
		page, err := l.Read(t.Context(), ch, at, eventlog.Limit{})
		if err != nil {
			t.Fatal(err)
		}
		n, at = n+len(page.Events), page.Next
		if !page.More() {
			return n
		}
	}
}
