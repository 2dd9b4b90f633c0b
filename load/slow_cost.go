//go:build linux

package main

import (
	"context"
	"time"
)

// costs measures what a delivery to a good client costs beside those that stall, to
// that without them: all that the server does for them counts, for they read nothing. Its
// options are the defaults, and each pair has a server of its own, as delays grow with
// each eviction and are remembered.
//
// One minute of a virtual machine may be a fifth slower than the next, for all that runs on
// it. So the server's time is counted in that of the good clients' own process, which does
// the same for each event in all minutes.
func (t *trials) costs(ctx context.Context) error {
	o := &t.Slow
	var costs, server, own []float64
	byMinute := make([][]float64, o.CostMinutes)
	for range o.Costs {
		minutes, err := t.cost(ctx)
		if err != nil {
			return err
		}
		var cost, cpu, theirs float64
		for m, r := range minutes {
			byMinute[m] = append(byMinute[m], r.CPU/r.Own)
			cost, cpu, theirs = cost+r.CPU/r.Own, cpu+r.CPU, theirs+r.Own
		}
		n := float64(len(minutes))
		costs, server, own = append(costs, cost/n), append(server, cpu/n), append(own, theirs/n)
	}
	if len(costs) == 0 {
		return nil
	}
	cost := summarise(costs)
	t.gate("slow", cost.Median <= o.Cost, "time of the server's process for each delivery to a good client, in what its own process takes for it, from when those that stall have done so for %.0f s and for %d minutes, to that in a minute before and one after, %d times: %v (median at most %v)",
		o.Lasting.Seconds(), o.CostMinutes, len(costs), cost, o.Cost)
	for m, of := range byMinute {
		t.say("slow", "the same, minute %d: %v", m+1, summarise(of))
	}
	t.say("slow", "the same as it is, by the clock of the processor: the server %v, the good clients themselves %v", summarise(server), summarise(own))
	return nil
}

// cost measures minutes with those that stall, and one without before and after, and returns
// the ratios of the former to the mean of these.
func (t *trials) cost(ctx context.Context) (minutes []ratios, err error) {
	o := &t.Slow
	s, err := t.newSlowScene(ctx, windows{MaxEvictionDelay: o.CostDelay}, 0)
	if err != nil {
		return nil, err
	}
	defer s.close()
	// They begin over the time of a first eviction and return, or all would do everything
	// at once.
	over := o.Windows.WriteTimeout + o.Windows.EvictionDelay
	minute := func(what string) (ratios, error) {
		r, _, err := s.look(ctx, what, time.Minute)
		return r, err
	}
	pause(ctx, over)
	before, err := minute("without")
	if err != nil {
		return nil, err
	}
	if err := tell(s.bad, "be", turn{Mood: steady, Over: over}); err != nil {
		return nil, err
	}
	pause(ctx, over+o.Lasting)
	for range o.CostMinutes {
		cost, err := minute("with")
		if err != nil {
			return nil, err
		}
		minutes = append(minutes, cost)
	}
	if err := s.rest(); err != nil {
		return nil, err
	}
	pause(ctx, over)
	after, err := minute("without")
	if err != nil {
		return nil, err
	}
	for m := range minutes {
		minutes[m].CPU /= (before.CPU + after.CPU) / 2
		minutes[m].Own /= (before.Own + after.Own) / 2
	}
	return minutes, nil
}
