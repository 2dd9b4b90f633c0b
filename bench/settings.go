package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"time"
)

// Bounds of what one can ask for: the machine should still be usable, and
// Throughline's log keeps 10,000 events of a channel.
const (
	maxClients  = 10_000
	maxMessages = 5_000
	maxPayload  = 4_096
)

// Settings are what a run is made of. Trials get them as JSON.
type settings struct {
	Clients int // on one channel
	Rounds  int // how often each contestant is tried
	Paced   int // messages at a fixed pace
	Pace    int // of them in a second
	Burst   int // messages back to back
	Payload int // bytes of a message's data
	Quick   bool
	Only    []string // names of contestants; none: all
	Profile string   // a folder for CPU profiles
}

// limit bounds the wait for one load to arrive.
func (o settings) limit() time.Duration {
	return 20*time.Second + time.Duration(o.Paced)*o.interval()
}

// trialLimit bounds a whole trial, with its connects and its warming up.
func (o settings) trialLimit() time.Duration { return 3 * o.limit() }

func (o settings) interval() time.Duration { return time.Second / time.Duration(o.Pace) }

// wants reports whether a contestant takes part.
func (o settings) wants(c contestant) bool {
	if len(o.Only) > 0 {
		return slices.Contains(o.Only, c.name)
	}
	return !c.extra || !o.Quick
}

func parseSettings(args []string, out io.Writer) (settings, error) {
	var o settings
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.BoolVar(&o.Quick, "quick", false, "under a minute: two rounds, fewer messages, fewer variants")
	f.IntVar(&o.Clients, "clients", 1000, "clients on the channel")
	f.IntVar(&o.Rounds, "rounds", 4, "how often each contestant is tried")
	f.IntVar(&o.Paced, "paced", 60, "messages of the paced load")
	f.IntVar(&o.Pace, "pace", 20, "messages in a second of the paced load")
	f.IntVar(&o.Burst, "burst", 1000, "messages of the burst")
	f.IntVar(&o.Payload, "payload", 130, "bytes of a message's data")
	f.Func("only", "the name of a contestant; may be given several times; default: all", func(name string) error {
		o.Only = append(o.Only, name)
		return nil
	})
	f.StringVar(&o.Profile, "profile", "", "write a CPU profile of each load into this folder (the figures suffer)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.Quick {
		o.Rounds, o.Paced = 2, 30
	}
	return o, o.check()
}

func (o settings) check() error {
	for _, b := range []struct {
		name            string
		is, least, most int
	}{
		{"clients", o.Clients, 1, maxClients},
		{"rounds", o.Rounds, 1, 100},
		{"paced", o.Paced, 1, maxMessages},
		{"pace", o.Pace, 1, 1000},
		{"burst", o.Burst, 1, maxMessages},
		{"payload", o.Payload, 64, maxPayload},
	} {
		if b.is < b.least || b.is > b.most {
			return fmt.Errorf("-%s is %d: it goes from %d to %d", b.name, b.is, b.least, b.most)
		}
	}
	for _, name := range o.Only {
		if _, err := find(name); err != nil {
			return err
		}
	}
	return nil
}
