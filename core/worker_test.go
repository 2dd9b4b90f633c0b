package core

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestWorkerWorksOnceMoreWhenAskedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w worker
		var runs, finishes atomic.Int32
		gate := make(chan struct{})
		w.start(func() { runs.Add(1); <-gate }, func() { finishes.Add(1) })
		w.ask()
		synctest.Wait()
		for range 5 {
			w.ask() // while it works: once more, not five times
		}
		gate <- struct{}{}
		synctest.Wait()
		if n := runs.Load(); n != 2 {
			t.Errorf("%d runs after the first ended, want 2", n)
		}
		gate <- struct{}{}
		synctest.Wait()
		w.ask()
		synctest.Wait()
		if n := runs.Load(); n != 3 {
			t.Errorf("%d runs after an ask of an idle worker, want 3", n)
		}
		w.end()
		w.end()
		w.ask()
		gate <- struct{}{}
		<-w.done
		w.ask()
		synctest.Wait()
		if runs.Load() != 3 || finishes.Load() != 1 {
			t.Errorf("after the end: %d runs, want 3; %d finishes, want 1", runs.Load(), finishes.Load())
		}
	})
}

func TestWorkerEndsWithoutEverBeingAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w worker
		w.start(func() { t.Error("it worked") }, func() {})
		w.end()
		<-w.done
	})
}
