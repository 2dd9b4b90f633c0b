//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/throughline/throughline/conformance"
)

// A judge knows what was published, as the server's process tells it.
type judge struct {
	oracles map[string]*conformance.Oracle // by channel
	facts   map[string][]fact
	begins  map[string]string
}

func newJudge() *judge {
	return &judge{oracles: map[string]*conformance.Oracle{}, facts: map[string][]fact{}, begins: map[string]string{}}
}

// learn takes what was published since it was last told.
func (f *fleet) learn(_ context.Context, told map[string]history) (none, error) {
	j := f.judge
	for name, h := range told {
		if j.oracles[name] == nil {
			j.oracles[name] = conformance.NewOracle(h.Begin)
			j.begins[name] = h.Begin
		}
		for _, fact := range h.Facts {
			j.oracles[name].Appended(fact.N, fact.Position)
		}
		j.facts[name] = append(j.facts[name], h.Facts...)
	}
	return none{}, nil
}

// A span is a piece of time, of the clock.
type span struct{ From, To time.Duration }

// A delay says how long events took from the call of Publish until a client had
// read them, over all clients and events of a span, in ms. What has not come yet
// counts with the time that it has not.
type delay struct {
	Events         int // that should have come
	Missing        int
	P50, P99, Most float64
}

func (f *fleet) slice(_ context.Context, s span) (delay, error) {
	var all []float64
	var d delay
	asked := now()
	for _, c := range f.clients {
		last := c.last()
		for _, fact := range f.judge.within(c.channel, s) {
			if fact.N > last {
				all = append(all, millis(asked-fact.At))
				d.Missing++
			}
		}
		all = c.delays(all, s)
	}
	if len(all) == 0 {
		return d, fmt.Errorf("nothing was published from %v to %v", s.From, s.To)
	}
	slices.Sort(all)
	d.Events = len(all)
	d.P50, d.P99, d.Most = quantile(all, 0.5), quantile(all, 0.99), all[len(all)-1]
	return d, nil
}

// within are the facts of a span.
func (j *judge) within(channel string, s span) []fact {
	all := j.facts[channel]
	from, _ := slices.BinarySearchFunc(all, s.From, func(f fact, t time.Duration) int { return int(f.At - t) })
	to, _ := slices.BinarySearchFunc(all, s.To, func(f fact, t time.Duration) int { return int(f.At - t) })
	return all[from:to]
}

// delays appends those of the events that came and were published in a span.
func (c *client) delays(all []float64, s span) []float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range slices.Backward(c.heard) {
		if r.gap != 0 {
			continue
		}
		if r.published < s.From {
			break // they are in order
		}
		if r.published < s.To {
			all = append(all, millis(r.received-r.published))
		}
	}
	return all
}

// quantile takes sorted values, of which there is at least one.
func quantile(sorted []float64, q float64) float64 {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }

// reach waits until each client has the last event of its channel, and tells
// how many don't.
func (f *fleet) reach(ctx context.Context, patience time.Duration) (behind int, err error) {
	for deadline := now() + patience; ; pause(ctx, 10*time.Millisecond) {
		behind = 0
		for _, c := range f.clients {
			if all := f.judge.facts[c.channel]; len(all) > 0 && c.last() < all[len(all)-1].N {
				behind++
			}
		}
		if behind == 0 || now() > deadline {
			return behind, nil
		}
	}
}

// A verdict is what the oracles say of all clients.
type verdict struct {
	Clients, Bad int
	Events       int // that were handed over
	Lost         int
	Repeated     int
	Invented     int
	Missing      int // in gaps
	Unreached    int
	First        string // what was found of the first bad one
}

func (f *fleet) verdict(context.Context, none) (verdict, error) {
	all := verdict{Clients: len(f.clients)}
	for i, c := range f.clients {
		begin, seen := c.seen()
		if begin == "" && len(seen) > 0 {
			begin = f.judge.before(c.channel, seen[0].N)
		}
		v := f.judge.oracles[c.channel].Judge(begin, seen)
		all.Events += len(seen)
		all.Lost += v.Lost
		all.Repeated += v.Repeated
		all.Invented += v.Invented
		all.Missing += v.Missing
		all.Unreached += v.Unreached
		if !v.OK() || v.Missing+v.Unreached > 0 {
			all.Bad++
			if all.First == "" {
				all.First = fmt.Sprintf("client %d, %s: %v", i, c.carrier, v)
			}
		}
	}
	return all, nil
}

// before is the position before an event. A poll's first answer may hold one
// that came meanwhile, and then doesn't say where it began.
func (j *judge) before(channel string, n int) string {
	at := j.begins[channel]
	for _, f := range j.facts[channel] {
		if f.N == n {
			break
		}
		at = f.Position
	}
	return at
}

func (v verdict) String() string {
	s := fmt.Sprintf("%d clients, %d events: lost %d, repeated or reordered %d, invented %d, in gaps %d, unreached %d",
		v.Clients, v.Events, v.Lost, v.Repeated, v.Invented, v.Missing, v.Unreached)
	if v.First != "" {
		s += "; " + v.First
	}
	return s
}
