package bolt

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestPlanIsWhatIsDone: the writer is never up for something that it then doesn't
// do: it would spin.
func TestPlanIsWhatIsDone(t *testing.T) {
	// In real time: that of a bubble stands still while something spins.
	hangs := time.AfterFunc(30*time.Second, func() { panic("the writer spins") })
	defer hangs.Stop()
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(filepath.Join(t.TempDir(), "events.db"), Options{
			Generation: time.Hour, RememberProducers: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// A sweep for the producer comes right before the generation is over.
		time.Sleep(time.Hour - time.Second/4)
		b := text("x")
		b.Producer.ID, b.Producer.Seq = "p", 1
		if _, _, err := l.Append(ctx, room, b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
	})
}
