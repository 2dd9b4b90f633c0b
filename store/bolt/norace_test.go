//go:build !race

package bolt

// The race detector also looks after pointers, and ends a program in which bbolt
// follows one that a damaged page holds. So these run without it.

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/throughline/throughline/eventlog"
)

// TestDamage: whatever bytes of a file are changed, no event is read but those
// that were appended, at their places.
func TestDamage(t *testing.T) {
	path := written(t, 2000)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content = bytes.TrimRight(content, "\x00")
	random := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	const rounds = 150
	for round := range rounds {
		damaged := bytes.Clone(content)
		for range 1 + random.IntN(200) {
			damaged[random.IntN(len(damaged))] ^= byte(1 + random.IntN(255))
		}
		if random.IntN(3) == 0 { // a page is another's
			copy(damaged[4096*(2+random.IntN(len(damaged)/4096-3)):][:4096], damaged[4096*(2+random.IntN(len(damaged)/4096-3)):])
		}
		bad := filepath.Join(t.TempDir(), "events.db")
		if err := os.WriteFile(bad, append(damaged, make([]byte, 64<<10)...), 0o600); err != nil {
			t.Fatal(err)
		}
		if reads(t, bad) {
			noticed++
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	if noticed < rounds/2 {
		t.Errorf("of %d damaged files %d were noticed", rounds, noticed)
	}
}

// reads reads all events of a damaged file, and reports whether it was told of
// the damage.
func reads(t *testing.T, path string) (noticed bool) {
	l, err := Open(path, Options{Logger: quiet})
	if err != nil {
		if !errors.Is(err, eventlog.ErrUnavailable) {
			t.Errorf("open: %v", err)
		}
		return true
	}
	defer l.Close()
	at, err := l.Seek(ctx, room, eventlog.Start{Earliest: true})
	for err == nil {
		var page eventlog.Page
		if page, err = l.Read(ctx, room, at, eventlog.Limit{}); err != nil || len(page.Events) == 0 {
			break
		}
		for _, e := range page.Events {
			if want := fmt.Sprintf("%0100d", e.At.Offset-1); string(e.Data) != want || e.Before() != at {
				t.Errorf("event %d is %q", e.At.Offset, e.Data)
			}
			at = e.At
		}
		if !page.More() {
			return false
		}
	}
	var lost *eventlog.Lost
	if err != nil && (!errors.Is(err, eventlog.ErrUnavailable) || errors.As(err, &lost)) {
		t.Errorf("after %v: %v", at, err)
	}
	return err != nil
}

// TestPowerFailsWithoutSync: the test notices a log that does not sync.
func TestPowerFailsWithoutSync(t *testing.T) {
	for round := range 50 {
		if wrong := powerFails(t, round, 0, true); len(wrong) > 0 {
			t.Logf("round %d: %d faults, the first: %s", round, len(wrong), wrong[0])
			return
		}
	}
	t.Error("a log that never syncs passes")
}
