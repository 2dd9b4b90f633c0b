package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/redistest"
)

// TestRedisContestantsDeliver runs each of them small.
func TestRedisContestantsDeliver(t *testing.T) {
	o := redisSettings{Rounds: 1, Slice: 50 * time.Millisecond, Delivery: 200 * time.Millisecond, Channels: 3, Clients: 4, Pace: 100, Payload: 130, Keep: 100}
	var rivals []*redisRival
	for _, c := range redisContestants() {
		r, err := startRedisRival(t.Context(), c, o)
		if errors.Is(err, redistest.ErrMissing) && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		if r != nil {
			defer r.end()
		}
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		rivals = append(rivals, r)
	}
	results, err := redisRounds(t.Context(), o, rivals)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.published == 0 || r.missing > 0 || r.redis.calls["evalsha"] < r.published {
			t.Errorf("%s, %d publishers: %d published, %d missing, %v", r.contestant, r.publishers, r.published, r.missing, r.redis.calls)
		}
		if r.publishers == 0 && len(r.waits) < r.published {
			t.Errorf("%s: %d deliveries of %d messages", r.contestant, len(r.waits), r.published)
		}
	}
	if want := len(rivals)*len(redisPublishers) + 2; len(results) != want {
		t.Errorf("%d results, not %d", len(results), want)
	}
}
