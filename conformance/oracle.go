package conformance

import (
	"encoding/json"
	"fmt"
	"sync"
)

// An Oracle knows what was published to one channel, and judges what a client
// says it received. It numbers events itself, in their payloads, and compares
// positions for equality only. Its methods may be called concurrently.
type Oracle struct {
	mu    sync.Mutex
	given int            // guarded by mu: the highest number
	order []int          // guarded by mu: numbers, in the order of the channel
	index map[string]int // guarded by mu: how many events a position stands for
	facts map[int]string // guarded by mu: the position of each number
}

// NewOracle returns the oracle of a channel that begins at a position.
func NewOracle(begin string) *Oracle {
	return &Oracle{index: map[string]int{begin: 0}, facts: map[int]string{}}
}

// Payload returns the payload of the next event to publish: {"n":1}, and so on.
func (o *Oracle) Payload() (n int, payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.given++
	return o.given, fmt.Appendf(nil, `{"n":%d}`, o.given)
}

// Appended notes that the event with a number is the channel's next, at
// a position.
func (o *Oracle) Appended(n int, position string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.order = append(o.order, n)
	o.index[position] = len(o.order)
	o.facts[n] = position
}

// Place notes a further position of the channel's present end: that of
// a channel that was forgotten, or that nobody wrote yet.
func (o *Oracle) Place(position string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.index[position]; !known {
		o.index[position] = len(o.order)
	}
}

// A Seen is one thing that a client's application was handed: an event, or a
// gap.
type Seen struct {
	N        int    // of an event's payload
	Position string // of an event
	From, To string // of a gap
}

// Number reads the number of a payload.
func Number(payload []byte) (int, error) {
	var p struct{ N int }
	err := json.Unmarshal(payload, &p)
	return p.N, err
}

// A Verdict is what an Oracle finds.
type Verdict struct {
	Lost      int      // events that never came, without a gap
	Repeated  int      // events that came twice or late
	Invented  int      // events that were never published, or not there
	Missing   int      // events that gaps stand for
	Unreached int      // events after the last one received
	Faults    []string // in words, the first few
}

// OK reports whether the law was kept. Unreached events and gaps are no faults.
func (v Verdict) OK() bool { return v.Lost+v.Repeated+v.Invented == 0 && len(v.Faults) == 0 }

func (v Verdict) String() string {
	return fmt.Sprintf("lost %d, repeated or reordered %d, invented %d, in gaps %d, unreached %d %v",
		v.Lost, v.Repeated, v.Invented, v.Missing, v.Unreached, v.Faults)
}

func (v *Verdict) fault(format string, args ...any) {
	if len(v.Faults) < 5 {
		v.Faults = append(v.Faults, fmt.Sprintf(format, args...))
	}
}

// Judge holds what a client received, having begun after a position, against
// what was published: between two events it has to have all that lay between
// them, once and in order, or first a gap that says so.
func (o *Oracle) Judge(begin string, received []Seen) Verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	var v Verdict
	at, ok := o.index[begin]
	if !ok {
		v.fault("it began at %q, which is no position of the channel", begin)
		return v
	}
	for i, s := range received {
		if s.To != "" {
			at = o.judgeGap(&v, i, at, s)
		} else {
			at = o.judgeEvent(&v, i, at, s)
		}
	}
	v.Unreached = len(o.order) - at
	return v
}

func (o *Oracle) judgeEvent(v *Verdict, i, at int, s Seen) int {
	position, known := o.facts[s.N]
	if !known || position != s.Position {
		v.Invented++
		v.fault("item %d: number %d at %q was published at %q", i, s.N, s.Position, position)
		return at
	}
	place := o.index[position]
	switch {
	case place <= at:
		v.Repeated++
		v.fault("item %d: number %d is event %d, after event %d", i, s.N, place, at)
		return at
	case place > at+1:
		v.Lost += place - at - 1
		v.fault("item %d: number %d is event %d, right after event %d", i, s.N, place, at)
	}
	return place
}

func (o *Oracle) judgeGap(v *Verdict, i, at int, s Seen) int {
	to, known := o.index[s.To]
	if from, ok := o.index[s.From]; !ok || from != at {
		v.fault("item %d: a gap from %q, but it was at event %d", i, s.From, at)
	}
	if !known || to < at {
		v.fault("item %d: a gap to %q, which is no later position", i, s.To)
		return at
	}
	v.Missing += to - at
	return to
}
