package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/internal/redistest"
)

// A redisResult is what one slice showed of one contestant.
type redisResult struct {
	contestant string
	publishers int // 0: at a pace
	round      int

	published int
	took      time.Duration
	waits     []time.Duration // each publish, or each delivery
	missing   int             // deliveries
	cpu       time.Duration   // of this process
	redis     redisUsage
}

// A redisUsage is what a Redis has done.
type redisUsage struct {
	cpu   time.Duration
	calls map[string]int // by command; those that scripts make among them
}

func (u redisUsage) since(before redisUsage) redisUsage {
	d := redisUsage{cpu: u.cpu - before.cpu, calls: map[string]int{}}
	for name, n := range u.calls {
		if n -= before.calls[name]; n > 0 && name != "info" {
			d.calls[name] = n
		}
	}
	return d
}

// redisStats asks a Redis what it does.
type redisStats struct{ client *goredis.Client }

func newRedisStats(s *redistest.Server) *redisStats {
	return &redisStats{goredis.NewClient(s.Options())}
}

func (s *redisStats) close() { _ = s.client.Close() }

func (s *redisStats) usage(ctx context.Context) (redisUsage, error) {
	u := redisUsage{calls: map[string]int{}}
	text, err := s.client.Info(ctx, "cpu", "commandstats").Result()
	if err != nil {
		return u, err
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch command, is := strings.CutPrefix(name, "cmdstat_"); {
		case is:
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			if u.calls[command], err = strconv.Atoi(calls); err != nil {
				return u, err
			}
		case name == "used_cpu_user" || name == "used_cpu_sys":
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return u, err
			}
			u.cpu += time.Duration(seconds * float64(time.Second))
		}
	}
	return u, nil
}

// publishFor has so many publish one after the other, each to one channel
// after the other.
func (r *redisRival) publishFor(ctx context.Context, o redisSettings, publishers int, slice time.Duration) (redisResult, error) {
	result := redisResult{contestant: r.name, publishers: publishers}
	before, err := r.stats.usage(ctx)
	if err != nil {
		return result, err
	}
	used, began := cpu(), now()
	var (
		group  sync.WaitGroup
		waits  = make([][]time.Duration, publishers)
		failed = make([]error, publishers)
		data   = message(0, o.Payload)
	)
	for p := range publishers {
		group.Go(func() {
			for i := p; now()-began < slice; i++ {
				seq := int(r.seq.Add(1))
				at := now()
				if failed[p] = r.publish(ctx, i%o.Channels, p, seq, data); failed[p] != nil {
					return
				}
				waits[p] = append(waits[p], now()-at)
			}
		})
	}
	group.Wait()
	result.took, result.cpu = now()-began, cpu()-used
	for p := range publishers {
		if failed[p] != nil {
			return result, failed[p]
		}
		result.waits = append(result.waits, waits[p]...)
	}
	result.published = len(result.waits)
	if result.published == 0 {
		return result, fmt.Errorf("nothing was published in %v", slice)
	}
	after, err := r.stats.usage(ctx)
	result.redis = after.since(before)
	return result, err
}

// commandsPer tells what Redis did for each publish: what scripts call apart
// from what was sent.
func commandsPer(rs []redisResult) string {
	total, published := map[string]int{}, 0
	for _, r := range rs {
		published += r.published
		for name, n := range r.redis.calls {
			total[name] += n
		}
	}
	var each []string
	for _, name := range slices.Sorted(maps.Keys(total)) {
		if per := float64(total[name]) / float64(published); per >= 0.005 {
			each = append(each, fmt.Sprintf("%s %.3g", name, per))
		}
	}
	return strings.Join(each, ", ")
}

// sequence numbers what all publishers of a contestant publish, so that numbers rise
// for each of them.
type sequence = atomic.Int64
