package conformance

import (
	"encoding/json"
	"fmt"
	"sync"
)

// An Oracle knows what was published to one channel, and judges what a client
// says it received. It numbers events itself, in their payloads, and compares
// positions for equality only. Its methods may be called concurrently.
//
// It takes a gap's word that events are missing: who also knows what the log
// dropped, and when, records a [History] and has that judged.
type Oracle struct {
	mu     sync.Mutex
	given  int     // guarded by mu: the highest number
	ledger *ledger // guarded by mu
}

// NewOracle returns the oracle of a channel that begins at a position.
func NewOracle(begin string) *Oracle {
	o := &Oracle{ledger: newLedger()}
	o.ledger.trusting = true
	o.ledger.positions[begin] = spot{}
	return o
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
	at := o.ledger.add(place{n: n, position: position, there: true})
	o.ledger.now = at
	o.ledger.positions[position] = spot{place: at, event: true}
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

// Judge holds what a client received, having begun after a position, against
// what was published: between two events it has to have all that lay between
// them, once and in order, or first a gap that says so.
func (o *Oracle) Judge(begin string, received []Seen) Verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	j := &judgement{ledger: o.ledger}
	at, ok := o.ledger.positions[begin]
	if !ok {
		j.fault("it began at %q, which is no position of the channel", begin)
		return j.Verdict
	}
	c := &cursor{at: at.place, began: true}
	for i, s := range received {
		j.at(i, nil)
		if s.To != "" {
			j.gap(c, &Entry{From: s.From, To: s.To})
		} else {
			j.event(c, &Entry{N: s.N, Position: s.Position})
		}
	}
	j.Unreached = o.ledger.count(c.at, len(o.ledger.places))
	return j.Verdict
}
