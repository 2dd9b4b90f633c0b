package redis

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
	"github.com/throughline/throughline/session"
)

func testLeaseOptions() leaseOptions {
	return leaseOptions{
		prefix: newPrefix(), buckets: 4, maxLeases: 1_000_000, timeout: 5 * time.Second,
	}
}

// A leaseStore is one or several leases that share a Redis, and are called in
// turn.
type leaseStore struct {
	nodes []*leases
	calls atomic.Uint64
}

// openLeases opens leases as seen by some nodes, for the suite to close.
func openLeases(s *redistest.Server, nodes int) *leaseStore {
	o, clientOptions := testLeaseOptions(), s.Options
	if inBubble() {
		o.now = func() int64 { return time.Now().UnixMicro() }
		bubble := redistest.NewBubble()
		clientOptions = func() *goredis.Options { return bubble.Options(s) }
	}
	store := new(leaseStore)
	for range nodes {
		store.nodes = append(store.nodes, newLeases(goredis.NewClient(clientOptions()), o))
	}
	return store
}

func (s *leaseStore) next() *leases { return s.nodes[s.calls.Add(1)%uint64(len(s.nodes))] }

func (s *leaseStore) Secret(ctx context.Context) ([]byte, error) { return s.next().Secret(ctx) }

func (s *leaseStore) Claim(ctx context.Context, held session.Held, l session.Lease) error {
	return s.next().Claim(ctx, held, l)
}

func (s *leaseStore) Touch(ctx context.Context, held []session.Held) ([]session.Held, error) {
	return s.next().Touch(ctx, held)
}

func (s *leaseStore) Release(ctx context.Context, held session.Held, idle time.Duration) (bool, error) {
	return s.next().Release(ctx, held, idle)
}

func (s *leaseStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	return s.next().Present(ctx, ch, most)
}

func (s *leaseStore) Close() error {
	for _, l := range s.nodes {
		l.close()
		_ = l.client.Close()
	}
	return nil
}

func TestLeasesConformance(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes, "nodes"), func(t *testing.T) {
			conformance.TestStore(t, func(*testing.T) session.Store { return openLeases(s, nodes) })
		})
	}
}
