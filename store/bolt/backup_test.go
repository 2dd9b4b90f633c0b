package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/store/bolt"
)

func mustOpen(t *testing.T, path string, o bolt.Options) *bolt.Log {
	t.Helper()
	l, err := bolt.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestBackup: what was acknowledged when a backup was asked for is in it, while others
// go on appending; what is in it is of one moment, and whoever had a position goes on
// from it.
func TestBackup(t *testing.T) {
	for name, interval := range map[string]time.Duration{"synced": 0, "at an interval": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			l := mustOpen(t, filepath.Join(folder, "events.db"), bolt.Options{Interval: interval})
			defer l.Close()
			ctx, room := t.Context(), eventlog.Channel{Name: "room"}
			begin, err := l.Seek(ctx, room, eventlog.Start{})
			if err != nil {
				t.Fatal(err)
			}
			var before eventlog.Position
			for range 20 {
				if before, _, err = l.Append(ctx, room, eventlog.Batch{Messages: many(1000)}); err != nil {
					t.Fatal(err)
				}
			}
			appending, stop := context.WithCancel(ctx)
			var all sync.WaitGroup
			all.Go(func() {
				for appending.Err() == nil {
					_, _, _ = l.Append(appending, room, eventlog.Batch{Messages: many(10)})
				}
			})
			path := filepath.Join(folder, "backup.db")
			err = l.Backup(ctx, path)
			stop()
			all.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Backup(ctx, path); !errors.Is(err, fs.ErrExist) {
				t.Errorf("over a file that is there: %v", err)
			}
			checkBackup(t, l, path, begin, before)
		})
	}
}

// checkBackup: the backup has what the log has, from a position until after another.
func checkBackup(t *testing.T, l *bolt.Log, path string, begin, before eventlog.Position) {
	t.Helper()
	ctx, room := t.Context(), eventlog.Channel{Name: "room"}
	b := mustOpen(t, path, bolt.Options{})
	defer b.Close()
	head, err := b.Seek(ctx, room, eventlog.Start{})
	if err != nil || head.Offset < before.Offset {
		t.Fatalf("the backup ends at %v, error %v, before %v", head, err, before)
	}
	for at, n := begin, uint64(0); at != head; {
		page, err := b.Read(ctx, room, at, eventlog.Limit{})
		if err != nil {
			t.Fatal(err)
		}
		same, err := l.Read(ctx, room, at, eventlog.Limit{})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range page.Events {
			if n++; e.At.Offset != n || fmt.Sprint(e) != fmt.Sprint(same.Events[i]) {
				t.Fatalf("event %d of the backup is %v, and %v in the log", n, e, same.Events[i])
			}
		}
		at = page.Next
	}
	mine, err := l.Secret(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err := b.Secret(ctx); err != nil || string(theirs) != string(mine) {
		t.Errorf("the backup has another secret, error %v", err)
	}
}

// TestBackupThatFails leaves nothing behind, and the log goes on.
func TestBackupThatFails(t *testing.T) {
	folder := t.TempDir()
	l := mustOpen(t, filepath.Join(folder, "events.db"), bolt.Options{})
	room := eventlog.Channel{Name: "room"}
	for range 20 {
		if _, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: many(1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Backup(t.Context(), filepath.Join(folder, "nowhere", "backup.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a folder that isn't there: %v", err)
	}
	path := filepath.Join(folder, "backup.db")
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
		if err := l.Backup(ctx, path); err == nil {
			_ = os.Remove(path) // it was quicker
		}
	}
	if _, _, err := l.Append(t.Context(), room, eventlog.Batch{Messages: many(1)}); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Backup(t.Context(), path); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("of a log that is closed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "backup*")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}
