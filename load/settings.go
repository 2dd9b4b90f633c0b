//go:build linux

package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The trials, in order.
var trialNames = []string{"idle", "bad", "serial", "churn", "storm", "resume", "slow", "wall"}

// Settings are what a run is made of.
type settings struct {
	Quick bool
	Only  []string

	Idle      int           // connections of each transport
	Heartbeat time.Duration // while they are idle

	Clients int           // with the bad ones
	Bad     float64       // how many of a hundred are bad in each way
	Ways    string        // in which they are bad
	Pace    float64       // events a second of each channel
	Run     time.Duration // with the bad ones
	Pairs   int           // of slices, with and without the bad ones
	Slice   time.Duration
	Settle  time.Duration // before a slice
	Target  float64       // what the median of the ratios should be at most
	Gate    float64       // what it must be
	Serial  bool          // try the build that is bad on purpose

	Cycles int // of connecting and disconnecting
	Storm  int // clients that are cut at once
	Resume int // clients whose node is killed

	Slow slowSettings

	Wall      int64         // bytes: Options.MemoryLimit
	WallTimes float64       // how many times the cgroup's limit is published
	WallOver  time.Duration // over how long, if the machine is fast enough

	Verbose bool // the server's log
}

// slowSettings are those of trial slow.
type slowSettings struct {
	Clients int // of which 10 % stall, 10 % flap, and 5 % are at modem speed
	Pace    float64
	Backlog int           // events of each channel that those begin with who stall
	Modems  int           // and those at modem speed
	Away    time.Duration // how long those at most are away who flap, so that what connecting costs is bounded
	Run     time.Duration // with all of them
	Pairs   int           // of slices with all and without
	// How often it is measured what a delivery costs beside those that stall, and without;
	// for how long they have stalled then; for how many minutes; and
	// Options.MaxEvictionDelay meanwhile. 0: the default.
	Costs       int
	Lasting     time.Duration
	CostMinutes int
	CostDelay   time.Duration
	Slice       time.Duration
	Settle      time.Duration
	Gate        float64 // the highest median of the ratios of p99 that passes
	Cost        float64 // and of the ratios of the processor's time for each delivery
	Windows     windows
}

// full is `make load`.
func full() settings {
	return settings{
		Idle: 10_000, Heartbeat: 5 * time.Second,
		Clients: 1000, Bad: 5, Pace: 20, Run: time.Minute, Pairs: 5, Slice: 8 * time.Second, Settle: 2 * time.Second, Target: 1.2, Gate: 1.2,
		Cycles: 10_000, Storm: 10_000, Resume: 10_000,
		Slow: slowSettings{
			Clients: 10_000, Pace: 1, Backlog: 2000, Modems: 500, Away: 10 * time.Second, Run: time.Minute, Pairs: 5, Costs: 3, Lasting: time.Minute, CostMinutes: 4, Slice: 8 * time.Second, Settle: 4 * time.Second, Gate: 1.2, Cost: 1.1,
			Windows: windows{WriteTimeout: 10 * time.Second, LagWindow: 10 * time.Second, EvictionDelay: 5 * time.Second, MaxEvictionDelay: 20 * time.Second, LaggardBytes: 64 << 20},
		},
		Wall: 192 << 20, WallTimes: 10, WallOver: 40 * time.Second,
	}
}

// quick is what each change has to pass.
func (s settings) quick() settings {
	s.Idle, s.Heartbeat = 2000, 2*time.Second
	s.Run, s.Pairs, s.Slice, s.Settle, s.Gate = 15*time.Second, 3, 3*time.Second, time.Second, 1.5
	s.Storm, s.Resume = 2000, 2000
	s.Slow = slowSettings{
		Clients: 2000, Pace: 10, Backlog: 2000, Away: 2 * time.Second, Pairs: 3, Lasting: time.Minute, CostMinutes: 4, Slice: 1300 * time.Millisecond, Settle: 1500 * time.Millisecond, Gate: 1.5, Cost: 1.5,
		Windows: windows{WriteTimeout: time.Second, LagWindow: time.Second, EvictionDelay: time.Second, MaxEvictionDelay: 2 * time.Second, LaggardBytes: 4 << 20},
	}
	s.Wall, s.WallTimes, s.WallOver = 128<<20, 7.5, 4*time.Second
	return s
}

func parseSettings(args []string, out io.Writer) (settings, error) {
	s := full()
	if slices.Contains(args, "-quick") || slices.Contains(args, "--quick") {
		s = s.quick()
	}
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		_, _ = fmt.Fprintf(out, "load [flags] [%s]\n", strings.Join(trialNames, "] ["))
		f.PrintDefaults()
	}
	f.BoolVar(&s.Quick, "quick", false, "what each change has to pass: fewer connections, shorter runs, wider gates")
	f.IntVar(&s.Idle, "idle", s.Idle, "idle connections of each transport")
	f.DurationVar(&s.Heartbeat, "heartbeat", s.Heartbeat, "of the server of idle connections")
	f.IntVar(&s.Clients, "clients", s.Clients, "clients beside which the bad ones are, them included")
	f.Float64Var(&s.Bad, "bad", s.Bad, "how many clients of a hundred are bad, in each of four ways")
	f.StringVar(&s.Ways, "ways", "stalled,half-open,garbage,reconnecting", "in which ways they are bad, to find out who harms")
	f.Float64Var(&s.Pace, "pace", s.Pace, "events a second of each channel")
	f.DurationVar(&s.Run, "run", s.Run, "how long the run with the bad clients takes")
	f.IntVar(&s.Pairs, "pairs", s.Pairs, "pairs of slices, one with the bad clients and one without")
	f.DurationVar(&s.Slice, "slice", s.Slice, "how long each slice takes")
	f.DurationVar(&s.Settle, "settle", s.Settle, "how long nothing is measured before each slice")
	f.Float64Var(&s.Gate, "gate", s.Gate, "the highest median of the ratios of p99 that passes")
	f.BoolVar(&s.Serial, "serial", false, "have trial bad try a build that writes to all clients from one goroutine")
	f.IntVar(&s.Cycles, "cycles", s.Cycles, "connections that are made and left")
	f.IntVar(&s.Storm, "storm", s.Storm, "clients that are cut at once")
	f.IntVar(&s.Resume, "resume", s.Resume, "clients whose node is killed, and that resume on another one")
	f.IntVar(&s.Slow.Clients, "slow", s.Slow.Clients, "clients of trial slow: 10 % stall, 10 % flap, 5 % are at modem speed")
	f.Float64Var(&s.Slow.Pace, "slow-pace", s.Slow.Pace, "events a second of each channel there")
	f.DurationVar(&s.Slow.Away, "slow-away", s.Slow.Away, "how long those at most are away there who flap")
	f.DurationVar(&s.Slow.Run, "slow-run", s.Slow.Run, "how long they are at it before the slices")
	f.DurationVar(&s.Slow.Slice, "slow-slice", s.Slow.Slice, "how long each slice there takes")
	f.DurationVar(&s.Slow.Settle, "slow-settle", s.Slow.Settle, "how long nothing is measured before each slice there")
	f.IntVar(&s.Slow.Pairs, "slow-pairs", s.Slow.Pairs, "pairs of slices there, one with all of them and one without")
	f.IntVar(&s.Slow.Costs, "slow-costs", s.Slow.Costs, "how often it is measured there what a delivery costs beside those that stall, and without")
	f.DurationVar(&s.Slow.Lasting, "slow-lasting", s.Slow.Lasting, "for how long they have stalled when that begins")
	f.IntVar(&s.Slow.CostMinutes, "slow-cost-minutes", s.Slow.CostMinutes, "how many minutes that takes")
	f.DurationVar(&s.Slow.CostDelay, "slow-cost-delay", s.Slow.CostDelay, "Options.MaxEvictionDelay meanwhile; 0: the default")
	f.DurationVar(&s.Slow.Windows.WriteTimeout, "slow-timeout", s.Slow.Windows.WriteTimeout, "Options.WriteTimeout there")
	f.IntVar(&s.Slow.Windows.LaggardBytes, "slow-room", s.Slow.Windows.LaggardBytes, "Options.LaggardBytes there")
	f.Int64Var(&s.Wall, "wall", s.Wall, "bytes of memory that the server of trial wall may take (Options.MemoryLimit)")
	f.BoolVar(&s.Verbose, "v", false, "show the server's log")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	s.Only = f.Args()
	if len(s.Only) == 0 {
		s.Only = trialNames
	}
	return s, s.check()
}

func (s settings) check() error {
	for _, b := range []struct {
		name            string
		is, least, most float64
	}{
		{"idle", float64(s.Idle), 1, 50_000},
		{"clients", float64(s.Clients), 20, 10_000},
		{"bad", s.Bad, 0, 20},
		{"pace", s.Pace, 1, 1000},
		{"pairs", float64(s.Pairs), 0, 100},
		{"cycles", float64(s.Cycles), 100, 1_000_000},
		{"storm", float64(s.Storm), 1, 50_000},
		{"resume", float64(s.Resume), 1, 50_000},
		{"slow", float64(s.Slow.Clients), 100, 20_000},
		{"slow-pace", s.Slow.Pace, 0.5, 100},
		{"slow-run", s.Slow.Run.Seconds(), 0, 600},
		{"slow-slice", s.Slow.Slice.Seconds(), 1, 60},
		{"slow-away", s.Slow.Away.Seconds(), 0, 60},
		{"slow-settle", s.Slow.Settle.Seconds(), 0, 60},
		{"slow-pairs", float64(s.Slow.Pairs), 1, 20},
		{"slow-costs", float64(s.Slow.Costs), 0, 20},
		{"slow-cost-minutes", float64(s.Slow.CostMinutes), 1, 30},
		{"slow-cost-delay", s.Slow.CostDelay.Seconds(), 0, 600},
		{"slow-lasting", s.Slow.Lasting.Seconds(), 0, 600},
		{"slow-timeout", s.Slow.Windows.WriteTimeout.Seconds(), 1, 30},
		{"slow-room", float64(s.Slow.Windows.LaggardBytes), 1 << 20, 1 << 30},
		{"wall", float64(s.Wall), 64 << 20, 1 << 30},
		{"run", s.Run.Seconds(), 0, 3600},
		{"slice", s.Slice.Seconds(), 1, 600},
		{"settle", s.Settle.Seconds(), 0, 600},
		{"heartbeat", s.Heartbeat.Seconds(), 1, 60},
	} {
		if b.is < b.least || b.is > b.most {
			return fmt.Errorf("-%s is %v: it goes from %v to %v", b.name, b.is, b.least, b.most)
		}
	}
	for _, name := range s.Only {
		if !slices.Contains(trialNames, name) {
			return fmt.Errorf("there is no trial %q, but %s", name, strings.Join(trialNames, ", "))
		}
	}
	return nil
}
