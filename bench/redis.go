package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/throughline/throughline/internal/redistest"
)

// redisWord is the first argument of the benchmark of logs in Redis.
const redisWord = "redis"

// redisSettings are what that is made of.
type redisSettings struct {
	Quick    bool
	Rounds   int           // how often each contestant has each load
	Slice    time.Duration // of publishing
	Delivery time.Duration // a slice of publishing at a pace
	Channels int
	Clients  int // on the other node, over all channels
	Pace     int // publishes a second, over all channels
	Payload  int // bytes of data
	Keep     int // events of each channel
	Only     []string
	Skip     bool // delivery
}

// redisPublishers are how many publish at once.
var redisPublishers = []int{1, 16, 256}

// redisKeepFor is how long events are kept.
const redisKeepFor = 24 * time.Hour

func parseRedisSettings(args []string, out io.Writer) (redisSettings, error) {
	o := redisSettings{Rounds: 5, Slice: 1500 * time.Millisecond, Delivery: 4 * time.Second}
	if slices.Contains(args, "-quick") || slices.Contains(args, "--quick") {
		o.Rounds, o.Slice, o.Delivery = 2, 400*time.Millisecond, 1500*time.Millisecond
	}
	f := flag.NewFlagSet("bench redis", flag.ContinueOnError)
	f.SetOutput(out)
	f.BoolVar(&o.Quick, "quick", false, "under 25 seconds: two rounds, shorter slices")
	f.IntVar(&o.Rounds, "rounds", o.Rounds, "how often each contestant has each load")
	f.DurationVar(&o.Slice, "slice", o.Slice, "how long is published at a time as fast as it goes")
	f.DurationVar(&o.Delivery, "delivery", o.Delivery, "how long is published at a time at a pace")
	f.IntVar(&o.Channels, "channels", 16, "channels")
	f.IntVar(&o.Clients, "clients", 64, "clients on the other node, over all channels")
	f.IntVar(&o.Pace, "pace", 200, "publishes a second at a pace, over all channels")
	f.IntVar(&o.Payload, "payload", 130, "bytes of a message's data")
	f.IntVar(&o.Keep, "keep", 1000, "events that are kept of each channel")
	f.BoolVar(&o.Skip, "no-delivery", false, "measure publishing only")
	f.Func("only", "the name of a contestant; may be given several times; default: all", func(name string) error {
		o.Only = append(o.Only, name)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for _, b := range []struct {
		name            string
		is, least, most int
	}{
		{"rounds", o.Rounds, 1, 100},
		{"channels", o.Channels, 1, 1000},
		{"clients", o.Clients, 1, maxClients},
		{"pace", o.Pace, 1, 2000},
		{"payload", o.Payload, 64, maxPayload},
		{"keep", o.Keep, 1, 100_000},
	} {
		if b.is < b.least || b.is > b.most {
			return o, fmt.Errorf("-%s is %d: it goes from %d to %d", b.name, b.is, b.least, b.most)
		}
	}
	return o, nil
}

// A redisRival is a contestant with a Redis of its own, so that what that
// uses is the rival's.
type redisRival struct {
	redisContestant
	server  *redistest.Server
	stats   *redisStats
	publish redisPublish
	nodes   *redisNodes
	seq     sequence
	close   []func()
}

func (r *redisRival) end() {
	for _, f := range slices.Backward(r.close) {
		f()
	}
}

// runRedis measures contestants in turn, in slices, all in this process: what
// else the machine does hits all of them, and so does what each of them has
// in memory.
func runRedis(ctx context.Context, args []string) error {
	o, err := parseRedisSettings(args, os.Stderr)
	if err != nil {
		return err
	}
	if err := enoughFiles(3 * o.Clients); err != nil {
		return err
	}
	before := load()
	var rivals []*redisRival
	defer func() {
		for _, r := range rivals {
			r.end()
		}
	}()
	for _, c := range redisContestants() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, c.name) {
			continue
		}
		r, err := startRedisRival(ctx, c, o)
		if r != nil {
			rivals = append(rivals, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if len(rivals) == 0 {
		return fmt.Errorf("there is no contestant %q", o.Only)
	}
	results, err := redisRounds(ctx, o, rivals)
	if err != nil {
		return err
	}
	return reportRedis(os.Stdout, o, args, before, results)
}

func startRedisRival(ctx context.Context, c redisContestant, o redisSettings) (*redisRival, error) {
	server, err := redistest.Run(redistest.Options{})
	if err != nil {
		return nil, err
	}
	r := &redisRival{redisContestant: c, server: server}
	r.close = append(r.close, func() { _ = server.Close() })
	r.stats = newRedisStats(server)
	r.close = append(r.close, r.stats.close)
	publish, end, err := c.publisher(ctx, server, o)
	if err != nil {
		return r, err
	}
	r.publish = publish
	r.close = append(r.close, end)
	if c.node == nil || o.Skip {
		return r, nil
	}
	r.nodes, err = startRedisNodes(ctx, r, o)
	if err == nil {
		r.close = append(r.close, r.nodes.end)
	}
	return r, err
}

// redisRounds has each load of each contestant in each round, and begins each
// round with another.
func redisRounds(ctx context.Context, o redisSettings, rivals []*redisRival) (all []redisResult, err error) {
	for _, r := range rivals { // until scripts are loaded, and connections made
		if _, err := r.publishFor(ctx, o, redisPublishers[len(redisPublishers)-1], o.Slice/4); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	for round := range o.Rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.Rounds)
		for _, publishers := range redisPublishers {
			for i := range rivals {
				r := rivals[(i+round)%len(rivals)]
				runtime.GC() // so that nobody pays for what went before
				result, err := r.publishFor(ctx, o, publishers, o.Slice)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", r.name, err)
				}
				result.round = round
				all = append(all, result)
			}
		}
		for i := range rivals {
			r := rivals[(i+round)%len(rivals)]
			if r.nodes == nil {
				continue
			}
			runtime.GC()
			result, err := r.deliver(ctx, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			result.round = round
			all = append(all, result)
		}
	}
	return all, nil
}
