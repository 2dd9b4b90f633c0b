package conformance

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ScheduleOptions say which schedules are run. The zero value runs two for each
// pair of carriers.
type ScheduleOptions struct {
	// Seeds is how many schedules are run. Nine in a row have all nine pairs of
	// carriers. Default: 18.
	Seeds int
	// First is the seed of the first. With Seeds 1 it runs one again. Default: 1.
	First uint64
	// History names a file with the history of an earlier run. It is judged, and
	// nothing is run.
	History string
}

func (o ScheduleOptions) withDefaults() ScheduleOptions {
	if o.Seeds <= 0 {
		o.Seeds = 2 * len(carrierPairs)
	}
	if o.First == 0 {
		o.First = 1
	}
	return o
}

// TestSchedules does to a server what its clients' networks do, in an order drawn
// from a seed: events are published, while readers change carriers and nodes,
// their connections break, answers are lost, events are trimmed and the channel
// forgotten, nodes end, and the log loses its history. What each reader was
// handed is judged by [History.Judge]; at the end everything that is kept is read
// once more over each form, and is the same.
//
// A schedule that fails is made shorter as long as it fails. What it says then
// is the seed, the steps that are left, in words, what is wrong, and where the
// history is kept. Goroutines don't run in the same order each time, so the same
// seed need not fail again; its history does.
//
// It needs fake time: with Server.TCP it does nothing.
func TestSchedules(t *testing.T, s Server, o ScheduleOptions) {
	if o.History != "" {
		replay(t, o.History)
		return
	}
	if s.TCP {
		t.Log("n/a: it needs fake time")
		return
	}
	o = o.withDefaults()
	for i, pair := range carrierPairs {
		t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
			t.Parallel()
			told := happenings{}
			for seed := o.First; seed < o.First+uint64(o.Seeds) && !t.Failed(); seed++ {
				if seed%uint64(len(carrierPairs)) == uint64(i) {
					if f := trySchedule(t, s, seed, told); f != nil {
						f.report(t)
					}
				}
			}
			t.Log(told)
		})
	}
}

// replay judges a history that was kept.
func replay(t *testing.T, path string) {
	h, err := ReadHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if h.Schedule != nil {
		t.Logf("%v", h.Schedule)
	}
	if v := h.Judge(); !v.OK() {
		t.Error(v.words())
	}
}

// A failing is a schedule that failed, made as short as could be.
type failing struct {
	seed    uint64
	drawn   int // steps that it had
	history *History
	verdict Verdict
}

// trySchedule runs the schedule of a seed, and returns how it failed.
func trySchedule(t *testing.T, s Server, seed uint64, told happenings) *failing {
	drawn := NewSchedule(seed)
	f := &failing{seed: seed, drawn: len(drawn.Steps)}
	h, failed := f.try(t, s, drawn)
	if told.add(h); !failed {
		return nil
	}
	shrink(drawn, func(shorter *Schedule) bool {
		for range 2 { // goroutines take turns as they like
			if _, failed := f.try(t, s, shorter); failed {
				return true
			}
		}
		return false
	})
	return f
}

// try runs a schedule and keeps what happened if it failed.
func (f *failing) try(t *testing.T, s Server, schedule *Schedule) (h *History, failed bool) {
	h = schedule.run(t, s)
	v := h.Judge()
	if v.OK() {
		return h, false
	}
	f.history, f.verdict = h, v
	return h, true
}

// happenings count what happened in many histories, so that one can see that
// something did.
type happenings map[string]int

func (c happenings) add(h *History) {
	c["schedules"]++
	for i := range h.Entries {
		e := &h.Entries[i]
		what := string(e.What)
		switch e.What {
		case GapTold:
			what += " " + e.Reason
		case OnTheWay:
			if what = whatHappened(e.Reason); what == "" {
				continue
			}
		}
		c[what]++
	}
}

func (c happenings) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%s %d, ", what, c[what])
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// report says what is wrong, and keeps the history.
func (f *failing) report(t *testing.T) {
	kept := "is not kept: "
	if path, err := f.keep(t); err != nil {
		kept += err.Error()
	} else {
		kept = "is kept in " + path
	}
	t.Errorf("seed %d fails. The shortest schedule found (%d of %d steps):\n%v%s\nThe history %s",
		f.seed, len(f.history.Schedule.Steps), f.drawn, f.history.Schedule, f.verdict.words(), kept)
}

// keep saves the history where the test's artifacts are wanted, or else among
// the system's temporary files: a test's own are deleted when it ends.
func (f *failing) keep(t *testing.T) (path string, err error) {
	name := fmt.Sprintf("history-seed-%d.json", f.seed)
	dir := ""
	if wanted := flag.Lookup("test.artifacts"); wanted != nil && wanted.Value.String() == "true" {
		dir = t.ArtifactDir()
	} else if dir, err = os.MkdirTemp("", "throughline-"); err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	return path, f.history.Save(path)
}

// String puts a schedule into words, a line for each step.
func (s *Schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %d readers begin over %s, at the latest; they go to %s and back\n", readers, s.From, s.To)
	for i, step := range s.Steps {
		fmt.Fprintf(&b, "  %d. %v\n", i+1, step)
	}
	fmt.Fprintf(&b, "  then all faults end, 3 events are published, and everything is read again\n")
	return b.String()
}

// words says what is wrong, a line for each.
func (v Verdict) words() string {
	return fmt.Sprintf("lost %d, repeated or reordered %d, invented %d, behind at the end %d:\n  %s",
		v.Lost, v.Repeated, v.Invented, v.Unreached, strings.Join(v.Faults, "\n  "))
}
