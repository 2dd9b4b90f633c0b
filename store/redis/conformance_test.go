package redis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/redistest"
)

// shared is the Redis of tests that need nothing but one.
var shared *redistest.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		goredis.SetLogger(silence{}) // it tells each dial that fails
		var err error
		if shared, err = redistest.Run(redistest.Options{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			if os.Getenv("CI") == "true" {
				return 1
			}
			return 0
		}
		defer shared.Close()
		return m.Run()
	}())
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

var prefixes atomic.Int64

// newPrefix names a log that nobody else has.
func newPrefix() string { return fmt.Sprint("t", prefixes.Add(1)) }

// inBubble reports whether time is fake: there it begins in 2000.
func inBubble() bool { return time.Now().Year() < 2020 }

// A node is a log, with a client of its own.
type node struct {
	*Log
	client goredis.UniversalClient
}

func (n *node) Close() error { return errors.Join(n.Log.Close(), n.client.Close()) }

func open(t testing.TB, o Options) *node {
	t.Helper()
	return openOn(t, shared, o)
}

// openOn opens a log by a client of its own. In a bubble, Redis takes the time from it.
func openOn(t testing.TB, s *redistest.Server, o Options) *node {
	t.Helper()
	n := &node{client: goredis.NewClient(s.Options())}
	if inBubble() {
		n.client = bubbleOf(t).Client(s)
		o.tests = tests{now: time.Now, sweep: 20 * time.Minute, ping: 30 * time.Minute, hurry: true}
		def(&o.CheckInterval, time.Hour)
	}
	var err error
	if n.Log, err = Open(context.Background(), n.client, o); err != nil {
		t.Fatal(err)
	}
	return n
}

// bubbles are those of the tests that run in one: bells of one node ring on another.
var bubbles sync.Map

func bubbleOf(t testing.TB) *redistest.Bubble {
	b, known := bubbles.LoadOrStore(t, redistest.NewBubble())
	if !known {
		t.Cleanup(func() { bubbles.Delete(t) })
	}
	return b.(*redistest.Bubble) //nolint:forcetypeassert // it holds nothing else
}

// options are what a clause needs of a log.
func options(s conformance.LogSetup) Options {
	o := Options{
		Prefix:                 newPrefix(),
		Buckets:                2, // each is swept, in weeks of fake time
		Retain:                 func(eventlog.Channel) eventlog.Retention { return s.Retention },
		MaxData:                s.MaxData,
		Generation:             s.Generation,
		RememberProducers:      s.RememberProducers,
		MaxProducersPerOwner:   s.MaxProducersPerOwner,
		MaxProducersPerChannel: s.MaxProducersPerChannel,
	}
	if s.MaxProducersPerOwner > 0 {
		o.Buckets = 1 // each counts on its own
	}
	return o
}

func TestLogConformance(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		return open(t, options(s))
	})
}

// several is a log of which each call is made by another node. Each serves every
// channel that it is asked of, if serving, so that it has a tail of it.
type several struct {
	nodes   []*node
	serving bool
	calls   atomic.Int64

	mu     sync.Mutex
	served map[eventlog.Channel]bool
}

func openSeveral(t *testing.T, n int, serving bool, o Options) *several {
	s := &several{serving: serving, served: make(map[eventlog.Channel]bool)}
	for range n {
		s.nodes = append(s.nodes, open(t, o))
	}
	return s
}

func (s *several) node(ch eventlog.Channel) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving && !s.served[ch] {
		s.served[ch] = true
		for _, n := range s.nodes {
			n.Watch(ch, func() {})
		}
	}
	return s.nodes[int(s.calls.Add(1))%len(s.nodes)]
}

func (s *several) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	return s.node(ch).Append(ctx, ch, b)
}

func (s *several) Seek(ctx context.Context, ch eventlog.Channel, at eventlog.Start) (eventlog.Position, error) {
	return s.node(ch).Seek(ctx, ch, at)
}

func (s *several) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, l eventlog.Limit) (eventlog.Page, error) {
	return s.node(ch).Read(ctx, ch, after, l)
}

func (s *several) Range(ctx context.Context, ch eventlog.Channel, r eventlog.Range, l eventlog.Limit) (eventlog.RangePage, error) {
	return s.node(ch).Range(ctx, ch, r, l)
}

func (s *several) Watch(ch eventlog.Channel, wake func()) (stop func()) {
	return s.node(ch).Watch(ch, wake)
}

func (s *several) Info() eventlog.Info { return s.nodes[0].Info() }

func (s *several) Close() (err error) {
	for _, n := range s.nodes {
		err = errors.Join(err, n.Close())
	}
	return err
}

// ofNames are the clauses about names that nobody serves: those who do keep them.
var ofNames = map[string]bool{"L44_NamesAreDropped": true, "L45_DroppedIsNotConfused": true}

func TestSeveralNodesConformance(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		return openSeveral(t, 2, false, options(s))
	})
}

func TestServingNodesConformance(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		_, name, _ := strings.Cut(t.Name(), "/")
		return openSeveral(t, 3, !ofNames[name], options(s))
	})
}

func TestReplicatedConformance(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	redistest.Start(t, redistest.Options{ReplicaOf: primary.Addr()})
	conformance.TestLog(t, func(t *testing.T, s conformance.LogSetup) eventlog.Log {
		o := options(s)
		o.Durability = func(eventlog.Channel) Durability { return Durability{Replicas: 1} }
		return openOn(t, primary, o)
	})
}
