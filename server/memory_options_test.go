package server_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/server"
)

// TestMemoryLimit: above it new clients are refused, whatever carries them, and
// those who were here are let in; the server goes on and says so.
func TestMemoryLimit(t *testing.T) {
	var out bytes.Buffer
	inBubble(t, server.Options{Authorize: allow, MemoryLimit: 1, Logger: slog.New(slog.NewTextHandler(&out, nil))}, func(w *world) {
		synctest.Wait() // the first look
		for i, c := range carriers {
			s, err := c.open(w, "r", "")
			if err == nil {
				if it, err := s.Next(); err == nil && it.End == nil && it.Position != "" {
					t.Errorf("%s: one who is new got %+v", c.name, it)
				}
				s.Close()
			}
			if n := w.metric("throughline_memory_refusals_total"); int(n) != i+1 {
				t.Errorf("%s: %v were refused by now, want %d", c.name, n, i+1)
			}
			s, err = c.open(w, "r", w.publish("r", "1").String())
			if err != nil {
				t.Errorf("%s: one who was here: %v", c.name, err)
				continue
			}
			at := w.publish("r", "2").String()
			for it := w.next(s); it.Position != at; it = w.next(s) {
				if it.End != nil {
					t.Errorf("%s: one who was here got %+v", c.name, it)
					break
				}
			}
			s.Close()
		}
		time.Sleep(time.Minute)
		if n := w.metric("throughline_memory_refusals_total"); int(n) != len(carriers) {
			t.Errorf("%v were refused, want %d", n, len(carriers))
		}
	})
	if !strings.Contains(out.String(), `msg="memory short" stage=evicting`) {
		t.Errorf("nothing is said of it:\n%s", out.String())
	}
	inBubble(t, server.Options{MemoryLimit: -1}, func(w *world) {
		w.must(carriers[0], "r", "")
		if n := w.metric("throughline_memory_limit_bytes"); n != 0 {
			t.Errorf("the limit is %v, though none is wanted", n)
		}
	})
}

// metric returns the value of one without labels.
func (w *world) metric(name string) float64 {
	w.Helper()
	families, err := w.registry().Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	w.Fatalf("no metric %s", name)
	return 0
}
