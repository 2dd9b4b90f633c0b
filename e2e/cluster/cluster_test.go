//go:build unix

package cluster

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seed    = flag.Uint64("seed", 0, "the seed of the dice; 0: a new one each time, which is printed")
	lasting = flag.Duration("for", 7*time.Second, "how long each kind of trouble lasts")
	many    = flag.Int("clients", 200, "how many clients read")
)

// channels are those that clients read. In the last two little is said: so a failover may
// take the last event, and nothing come in its place for a while.
var channels = []string{"a", "b", "c", "d", "e", "f"}

const quiet = 2

// somewhere draws a channel to publish to.
func somewhere(dice *rand.Rand) string {
	if dice.IntN(40) == 0 {
		return channels[len(channels)-1-dice.IntN(quiet)]
	}
	return channels[dice.IntN(len(channels)-quiet)]
}

const (
	nodes      = 3
	publishers = 8 // by requests, with keys; and half as many without
)

// A run is one test.
type run struct {
	*testing.T
	seed    uint64
	started time.Time
	house   *house
	proxy   *proxy
	clients []*client
	begin   map[string]string // the position of each channel's first event
	said    record
	calm    atomic.Bool // nobody leaves any more

	// Owned by who troubles Redis, then by the judge.
	eras     []*era
	lostLast time.Time

	mu     sync.Mutex
	counts map[string]int // guarded by mu
	faults int            // guarded by mu
	notes  []string       // guarded by mu
}

// A kind is a kind of trouble.
type kind struct {
	replicas int  // that have an event before it is acknowledged and read
	loses    bool // history, so clients hear of gaps
	troubles func(*house) []trouble
}

// TestNothingIsLost: nodes are killed, frozen and cut off, Redis is killed and restarted
// with its data, and clients go from carrier to carrier. Everybody gets all that was
// acknowledged, once and in order, and nobody hears of a gap.
func TestNothingIsLost(t *testing.T) {
	kind{troubles: (*house).keepingTroubles}.test(t)
}

// TestWhatIsLostIsTold: besides, replicas are promoted that lack what was written last, and
// Redis loses all that it has. Who had got something that vanished, and nobody else,
// hears of a gap; all get the rest, and agree in the end.
func TestWhatIsLostIsTold(t *testing.T) {
	kind{loses: true, troubles: func(h *house) []trouble {
		return slices.Concat(h.losingTroubles(), h.losingTroubles(), h.keepingTroubles())
	}}.test(t)
}

// TestReplicasKeepWhatIsRead: where a replica must have what is acknowledged and read, its
// promotion takes nothing from anybody, whatever it lacks.
func TestReplicasKeepWhatIsRead(t *testing.T) {
	kind{replicas: 1, troubles: func(h *house) []trouble {
		return []trouble{{"failover", h.failover}}
	}}.test(t)
}

func (k kind) test(t *testing.T) {
	r := &run{T: t, seed: *seed, started: time.Now(), counts: map[string]int{}}
	for r.seed == 0 {
		r.seed = rand.Uint64()
	}
	t.Logf("-seed %d -for %v -clients %d", r.seed, *lasting, *many)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.house = newHouse(t, r, nodes, k.replicas)
	var addresses []string
	for _, n := range r.house.nodes {
		addresses = append(addresses, n.site.Address)
	}
	r.proxy = startProxy(t, ctx, addresses)
	defer r.proxy.close()
	defer cancel()
	r.await(ctx, 20*time.Second, "all nodes are ready", r.proxy.allReady)
	r.first(ctx)

	var reading sync.WaitGroup
	for i := range *many {
		c := newClient(r, i, r.begin)
		r.clients = append(r.clients, c)
		reading.Go(func() { c.live(ctx) })
	}
	r.trouble(ctx, k)
	r.last(ctx)
	cancel()
	reading.Wait()
	r.judge()
	r.report(k)
}

// dice are dice of somebody's own.
func (r *run) dice(who uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, who)) }

// first has an event in each channel, after which clients begin.
func (r *run) first(ctx context.Context) {
	r.begin = map[string]string{}
	p := newPublisher(r, 100, fmt.Sprintf("the-first-of-%d", r.seed))
	for _, channel := range channels {
		s := p.publish(ctx, channel)
		r.begin[channel] = s.position
	}
}

// trouble has everybody publish, and meanwhile things go wrong.
func (r *run) trouble(ctx context.Context, k kind) {
	began := time.Now()
	finish, cancel := context.WithTimeout(ctx, *lasting+30*time.Second)
	defer cancel()
	going, stop := context.WithTimeout(ctx, *lasting)
	defer stop()
	var publishing, troubling sync.WaitGroup
	for i := range publishers * 3 / 2 {
		name := ""
		if i < publishers {
			name = fmt.Sprintf("publisher-%d-of-%d", i, r.seed)
		}
		p := newPublisher(r, i, name)
		publishing.Go(func() { p.publishing(going, finish) })
	}
	for _, c := range r.clients {
		if c.outbox != nil {
			publishing.Go(func() { c.speaking(going, finish) })
		}
	}
	for i := range r.house.nodes {
		troubling.Go(func() { r.makeTrouble(going, uint64(i), fmt.Sprintf("node %d: ", i), r.house.nodeTroubles(i)) })
	}
	troubling.Go(func() { r.makeTrouble(going, 99, "", k.troubles(r.house)) })
	troubling.Wait()
	if err := r.house.heal(); err != nil {
		r.Fatal(err)
	}
	r.lostLast = time.Now()
	publishing.Wait()
	r.Logf("trouble was over after %v, and all was published after %v", r.lostLast.Sub(began).Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// makeTrouble does one thing after the other, each of them to its end, in any order, and
// each before it does them again.
func (r *run) makeTrouble(ctx context.Context, who uint64, where string, troubles []trouble) {
	dice := r.dice(who)
	var deck []trouble
	for pause(ctx, some(dice, time.Second)); ctx.Err() == nil; pause(ctx, some(dice, time.Second)) {
		if len(deck) == 0 {
			deck = slices.Clone(troubles)
			dice.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		it := deck[0]
		deck = deck[1:]
		r.count("trouble: " + it.name)
		began := time.Since(r.started)
		err := it.do(context.WithoutCancel(ctx), dice)
		r.note("%6d to %6d ms: %s%s", began.Milliseconds(), time.Since(r.started).Milliseconds(), where, it.name)
		if err != nil {
			r.faultf("%s%s: %v", where, it.name, err)
		}
	}
}

// last waits until all is calm and everybody has everything.
func (r *run) last(ctx context.Context) {
	r.calm.Store(true)
	r.await(ctx, 20*time.Second, "all nodes are ready again", r.proxy.allReady)
	p := newPublisher(r, 101, fmt.Sprintf("the-last-of-%d", r.seed))
	for range 3 {
		for _, channel := range channels {
			p.publish(ctx, channel)
		}
	}
	now, err := look(ctx, r.house.primary, "the end")
	if err != nil {
		r.Fatal(err)
	}
	r.eras = append(r.eras, now)
	began := time.Now()
	r.Logf("calm since %v", time.Since(r.started).Round(time.Millisecond))
	late := ""
	r.await(ctx, 20*time.Second, "everybody is at the head", func() bool {
		who := r.behind()
		if late == "" && who != "" && time.Since(began) > 1500*time.Millisecond {
			late = who
			r.Logf("late: %s", late)
		}
		return who == ""
	})
	if who := r.behind(); who != "" {
		r.faultf("not at the head: %s", who)
	}
	r.Logf("everybody was at the head after %v", time.Since(began).Round(time.Millisecond))
}

// behind names those who are not at the head.
func (r *run) behind() string {
	var all []string
	for _, c := range r.clients {
		for _, channel := range c.channels {
			if head := r.eras[len(r.eras)-1].events[channel].head(); c.position(channel) != head {
				all = append(all, fmt.Sprintf("%s in %s (at %s of %s, %s)", c.name, channel, c.position(channel), head, c.doing.Load()))
			}
		}
	}
	return strings.Join(all[:min(len(all), 10)], ", ")
}

func (r *run) await(ctx context.Context, most time.Duration, what string, is func() bool) {
	r.Helper()
	for end := time.Now().Add(most); !is(); pause(ctx, 20*time.Millisecond) {
		if time.Now().After(end) {
			r.faultf("never: %s", what)
			return
		}
	}
}

// note notes what happened, for people: it is told if the test fails.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *run) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

// maxFaults is how many are told.
const maxFaults = 20

func (r *run) faultf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.faults++; r.faults <= maxFaults {
		r.Errorf(format, args...)
	}
}

func (r *run) report(k kind) {
	all := 0
	for _, channel := range channels {
		all += len(r.eras[len(r.eras)-1].events[channel].facts)
	}
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		r.Logf("%6d %s", r.counts[what], what)
	}
	r.Logf("%6d events at the end; %d vanished in %d losses", all, r.vanished(), len(r.eras)-1)
	if r.faults > maxFaults {
		r.Errorf("and %d more", r.faults-maxFaults)
	}
	if r.faults > 0 {
		r.Logf("what was done:\n%s", strings.Join(r.notes, "\n"))
	}
	gaps := r.counts["gaps rewritten"]
	switch {
	case !k.loses && gaps > 0:
		r.Errorf("%d gaps were told, and nobody lost anything", gaps)
	case k.loses && (gaps == 0 || len(r.eras) == 1):
		r.Errorf("nothing was lost: this run has shown nothing")
	}
}
