package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// rounds tries all contestants again and again, each time another one first, so
// that what the machine does meanwhile hits all of them.
func rounds(ctx context.Context, o settings) ([]result, error) {
	var chosen []contestant
	for _, c := range contestants() {
		if o.wants(c) {
			chosen = append(chosen, c)
		}
	}
	var all []result
	for round := range o.Rounds {
		for i := range chosen {
			c := chosen[(i+round)%len(chosen)]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, o.Rounds, c.name)
			results, err := order{Contestant: c.name, Settings: o, Round: round}.carryOut(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all = append(all, results...)
		}
	}
	return all, nil
}

// carryOut runs a trial in a process of its own.
func (o order) carryOut(ctx context.Context) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Settings.trialLimit())
	defer cancel()
	cmd, err := child(ctx, roleTrial)
	if err != nil {
		return nil, err
	}
	in, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var results []result
	return results, json.Unmarshal(out, &results)
}
