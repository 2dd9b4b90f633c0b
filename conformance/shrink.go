package conformance

import (
	"slices"
	"time"
)

// Bounds of making a schedule shorter: what is found by then has to do.
const (
	shrinkRuns = 400
	shrinkTime = 20 * time.Second
	// shrinkTries is how often a schedule has to fail to be taken: goroutines run in
	// any order, and from one that fails now and then there is no way to a shorter.
	shrinkTries = 3
)

// A shrinker looks for the shortest schedule that still fails, by leaving out
// pieces that get smaller and smaller (delta debugging), and then by making
// what is left smaller.
type shrinker struct {
	// fails runs a schedule, and reports whether it failed.
	fails func(*Schedule) bool

	best  *Schedule
	runs  int
	until time.Time
}

// shrink returns the shortest schedule that was found to fail; s is one.
func shrink(s *Schedule, fails func(*Schedule) bool) *Schedule {
	k := &shrinker{fails: fails, best: s, until: time.Now().Add(shrinkTime)}
	k.shorten()
	for k.leaveOut() || k.simplify() {
	}
	return k.best
}

// shorten leaves out what comes after the failure.
func (k *shrinker) shorten() {
	for size := len(k.best.Steps) / 2; size > 0; size /= 2 {
		for len(k.best.Steps) > size && k.try(k.best.Steps[:len(k.best.Steps)-size]) {
		}
	}
}

func (k *shrinker) spent() bool { return k.runs >= shrinkRuns || time.Now().After(k.until) }

// try takes steps for the best if they fail, too.
func (k *shrinker) try(steps []Step) bool {
	if k.spent() {
		return false
	}
	s := *k.best
	s.Steps = steps
	for range shrinkTries {
		k.runs++
		if !k.fails(&s) {
			return false
		}
	}
	k.best = &s
	return true
}

// leaveOut leaves out all that it can, and reports whether that was anything.
func (k *shrinker) leaveOut() (any bool) {
	for size := (len(k.best.Steps) + 1) / 2; size > 0; size /= 2 {
		for from := len(k.best.Steps) - size; from > -size; {
			begin, end := max(0, from), from+size
			if k.try(slices.Concat(k.best.Steps[:begin], k.best.Steps[end:])) {
				any = true
			}
			from = min(from-k.stride(size), len(k.best.Steps)-size)
		}
	}
	return any
}

// fewSteps is how many steps are few enough to try every piece of them.
const fewSteps = 8

// stride is how far apart the pieces of a size begin. Of few steps each piece is
// tried: some have to go together.
func (k *shrinker) stride(size int) int {
	if len(k.best.Steps) <= fewSteps {
		return 1
	}
	return size
}

// simplify makes numbers of single steps smaller, and reports whether it could.
func (k *shrinker) simplify() (any bool) {
	for i := range k.best.Steps {
		s := k.best.Steps[i]
		for _, simpler := range s.simpler() {
			if simpler == s {
				continue
			}
			steps := slices.Clone(k.best.Steps)
			steps[i] = simpler
			if k.try(steps) {
				any = true
				break
			}
		}
	}
	return any
}

// simpler returns forms of a step that are easier to tell. What happens on the
// way keeps its numbers: a smaller one is another fault, and no simpler.
func (s Step) simpler() []Step {
	if s.Do == Meet || s.Do == Cut {
		return nil
	}
	plain := s
	plain.Trouble = Trouble{}
	if s.Do == GiveUp {
		plain.Trouble = s.Trouble
	}
	uniform := s
	uniform.Size, uniform.Kind, uniform.Node = 0, 0, 0
	smaller := s
	smaller.N, smaller.For = s.N/2, s.For/2
	if s.Do == PublishSome && smaller.N == 0 {
		return []Step{uniform}
	}
	return []Step{plain, uniform, smaller}
}
