package server_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

var (
	seed  = flag.Uint64("seed", 0, "run only this schedule of the random test")
	seeds = flag.Uint64("seeds", 25, "how many schedules the random test runs")
)

// TestUpstreamIsOnceInOrder runs random schedules of publishes and calls from
// clients that change their carriers, to two nodes over one log and store, while
// requests and answers are lost, come late or twice, rights change, the log fails
// and nodes die in the middle of all that; and judges what each client was told
// by what the log holds (PROTOCOL §9).
func TestUpstreamIsOnceInOrder(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for s := first; s <= last; s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newUpstream(t, s).run() })
		})
	}
}

// Times of the schedule. All that a copy may take on its way and in work is less
// than a tenth of what the log remembers, the margin of P9.6.
const (
	remembered  = 10 * time.Minute
	publishTime = 5 * time.Second
	callTime    = 8 * time.Second
	patience    = 25 * time.Second // of a client that waits for an answer
	copyMargin  = 90 * time.Second
)

// upChannels are those that the clients publish to; they read the first.
var upChannels = []string{"a", "b", "c", "d"}

// What a channel's publishes meet: the rights of the moment.
const (
	open        int32 = iota
	forbidden         // Authorize refuses
	payFirst          // OnPublish refuses for good, by a code of its own
	slowDown          // OnPublish refuses for a while
	hookPanics        // failed, for good
	rightsPanic       // unavailable, for a while
	verdicts
)

// An upstream is one random run.
type upstream struct {
	*house
	t       *testing.T
	ctx     context.Context
	cancel  context.CancelFunc
	rand    *rand.Rand
	begin   eventlog.Position // of the channel that is read
	crowded bool              // the log remembers one producer less than there are

	clients []*upClient
	rights  map[string]*atomic.Int32
	numbers int // messages so far
	work    sync.WaitGroup

	mu      sync.Mutex
	notes   []string             // guarded by mu, as all below
	sent    map[string]time.Time // when each frame was first sent
	twice   map[string]bool      // the frames and calls that something on the way doubled
	changed map[string][]change  // how each channel's rights changed
	runs    map[string][]run
}

// A change is one of a channel's rights.
type change struct {
	at time.Time
	to int32
}

// A run is one of a call's handler.
type run struct {
	key, result string // result is empty if it was broken off
	began       time.Time
	took        time.Duration
}

func newUpstream(t *testing.T, seed uint64) *upstream {
	u := &upstream{
		t: t, rand: rand.New(rand.NewPCG(seed, 7)), rights: map[string]*atomic.Int32{}, sent: map[string]time.Time{},
		twice: map[string]bool{}, changed: map[string][]change{}, runs: map[string][]run{},
	}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	o := eventlog.MemoryOptions{RememberProducers: remembered}
	if u.crowded = seed%4 == 0; u.crowded {
		o.MaxProducersPerChannel = 2
	}
	u.house = &house{
		log: eventlog.NewMemory(o), store: session.NewMemory(session.MemoryOptions{}),
		options: u.options, trace: u.trace, seed: seed, draws: map[string]int{}, asked: map[string]bool{},
	}
	u.faults.Store(true)
	for _, name := range upChannels {
		u.rights[name] = new(atomic.Int32)
	}
	var err error
	if u.begin, err = u.log.Seek(u.ctx, eventlog.Channel{Name: upChannels[0]}, eventlog.Start{}); err != nil {
		t.Fatal(err)
	}
	u.start(0)
	u.start(1)
	began := time.Now()
	u.notes = append(u.notes, "began "+began.Format(time.TimeOnly))
	for i := range 3 {
		u.clients = append(u.clients, newUpClient(u, fmt.Sprintf("p%d", i)))
	}
	return u
}

// trace notes what the schedule did, for the log of a failure.
func (u *upstream) trace(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notes = append(u.notes, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (u *upstream) run() {
	for range 70 {
		c := u.clients[u.rand.IntN(len(u.clients))]
		switch u.rand.IntN(13) {
		case 0, 1, 2, 3:
			u.publishSome(c)
		case 4, 5:
			u.callSome(c)
		case 6, 7:
			u.changeRights()
		case 8:
			c.hangUp()
		case 9, 10:
			u.arm()
		case 11:
			time.Sleep(time.Duration(u.rand.IntN(15)) * time.Second)
		case 12:
			if u.rand.IntN(4) == 0 {
				u.outage()
			}
		}
		time.Sleep(time.Duration(u.rand.IntN(1500)) * time.Millisecond)
	}
	u.finish()
}

func (u *upstream) publishSome(c *upClient) {
	for range 1 + u.rand.IntN(5) {
		name := upChannels[u.rand.IntN(len(upChannels))]
		want := ""
		var messages []wireclient.Message
		of := 1 + u.rand.IntN(3)
		for i := range of {
			u.numbers++
			messages = append(messages, wireclient.Say(fmt.Sprintf(`{"n":%d,"i":%d,"of":%d}`, u.numbers, i, of)))
		}
		switch u.rand.IntN(20) {
		case 0:
			want, name = "bad_channel", "\x01"
		case 1:
			want, messages[of-1].Type = "invalid", "throughline.mine"
		}
		c.pubs = append(c.pubs, parcel{Publication: c.outbox.Publish(name, messages...), want: want, last: u.numbers})
	}
}

func (u *upstream) callSome(c *upClient) {
	for range 1 + u.rand.IntN(3) {
		c.call(u.rand.IntN(2) == 0)
	}
}

func (u *upstream) changeRights() {
	for range 1 + u.rand.IntN(3) {
		to := open
		if u.rand.IntN(3) > 0 {
			to = u.rand.Int32N(verdicts)
		}
		u.setRights(upChannels[u.rand.IntN(len(upChannels))], to)
	}
}

func (u *upstream) setRights(name string, to int32) {
	u.trace("rights of %s: %d", name, to)
	u.rights[name].Store(to)
	u.mu.Lock()
	u.changed[name] = append(u.changed[name], change{time.Now(), to})
	u.mu.Unlock()
}

// arm has a node die, go away, or lose its wires at the next passing of a step.
func (u *upstream) arm() {
	step := steps[u.rand.IntN(len(steps))]
	switch u.rand.IntN(4) {
	case 0:
		u.armed.Store(&arm{step, (*life).goAway, "goes away"})
	case 1:
		u.armed.Store(&arm{step, (*life).cut, "is cut off"})
	default:
		u.armed.Store(&arm{step, (*life).crash, "dies"})
	}
}

// outage has no node there for longer than an outbox may repeat, or shorter.
func (u *upstream) outage() {
	d := time.Duration(5+u.rand.IntN(7)) * time.Minute
	u.trace("outage of %v", d)
	u.house.mu.Lock()
	u.down = time.Now().Add(d)
	nodes := u.nodes
	u.house.mu.Unlock()
	for _, l := range nodes {
		if l != nil {
			l.crash()
		}
	}
	time.Sleep(d + 10*time.Second)
}

// finish ends all faults, lets everybody come to an end, and judges.
func (u *upstream) finish() {
	u.trace("the end of all faults")
	u.faults.Store(false)
	u.armed.Store(nil)
	for _, name := range upChannels {
		u.setRights(name, open)
	}
	for range 150 {
		if u.settled() {
			break
		}
		time.Sleep(time.Second)
	}
	u.extra.Wait()               // late copies
	time.Sleep(30 * time.Second) // readers
	u.cancel()
	for _, c := range u.clients {
		c.hangUp()
	}
	u.work.Wait()
	u.judge()
	u.end()
	_ = u.log.Close()
	_ = u.store.Close()
	time.Sleep(time.Second)
	if u.t.Failed() {
		u.t.Log(strings.Join(u.notes, "\n"))
	}
}

// settled reports whether each publish and call has its answer.
func (u *upstream) settled() bool {
	for _, c := range u.clients {
		for _, p := range c.pubs {
			if !p.settled() {
				return false
			}
		}
		for _, call := range c.calls {
			if !call.settled() {
				return false
			}
		}
	}
	return true
}

// options are those of a node in one of its lives.
func (u *upstream) options(l *life) server.Options {
	return server.Options{
		PublishTimeout: publishTime, CallTimeout: callTime, RetryDelay: 300 * time.Millisecond,
		Authorize: func(_ context.Context, _ server.Identity, what server.Action, ch server.Channel) error {
			if what == server.Call && u.faults.Load() && u.draw("rights of a call").IntN(12) == 0 {
				time.Sleep(callTime + 2*time.Second) // deaf to its context
			}
			if what != server.Publish {
				return nil
			}
			l.pass(atAuthorize)
			switch u.rights[ch.Name].Load() {
			case forbidden:
				return errDenied
			case rightsPanic:
				panic("the schedule wants it")
			}
			return nil
		},
		OnPublish: func(ctx context.Context, p *server.Publication) error { return u.onPublish(ctx, l, p) },
		OnCall:    func(ctx context.Context, r server.Request) (server.Payload, error) { return u.onCall(ctx, l, r) },
	}
}

func (u *upstream) onPublish(ctx context.Context, l *life, p *server.Publication) error {
	l.pass(inHook)
	dice := u.draw("hook %s %d", p.Producer, p.Number)
	slow := time.Duration(0)
	switch dice.IntN(12) {
	case 0:
		slow = 2 * publishTime
	case 1, 2, 3:
		slow = time.Duration(dice.IntN(3000)) * time.Millisecond
	}
	if u.faults.Load() && slow > 0 && !sleep(ctx, slow) {
		return ctx.Err()
	}
	switch u.rights[p.Channel.Name].Load() {
	case payFirst:
		return transport.Refuse("pay_first", "the bill is open")
	case slowDown:
		return transport.RefuseFor(700*time.Millisecond, "slow_down", "not so fast")
	case hookPanics:
		panic("the schedule wants it")
	}
	return nil
}

// onCall counts the runs of each argument. What a run does is drawn.
func (u *upstream) onCall(ctx context.Context, l *life, r server.Request) (server.Payload, error) {
	l.pass(inHandler)
	arg := string(r.Data)
	dice := u.draw("run %s", arg)
	began := time.Now()
	u.mu.Lock()
	n := len(u.runs[arg])
	u.runs[arg] = append(u.runs[arg], run{key: r.Key, began: began})
	u.mu.Unlock()
	slow := time.Duration(0)
	switch dice.IntN(10) {
	case 0:
		slow = callTime + time.Second
	case 1, 2, 3:
		slow = time.Duration(dice.IntN(6000)) * time.Millisecond
	}
	whole := sleep(ctx, slow)
	l.pass(handled)
	result := ""
	if whole {
		result = []string{"failed", "panic", "no_sugar", "value", "value", "value", "value", "value"}[dice.IntN(8)]
	}
	if result == "value" {
		result = fmt.Sprintf(`{"run":%d}`, n)
	}
	u.mu.Lock()
	u.runs[arg][n].result, u.runs[arg][n].took = result, time.Since(began)
	u.mu.Unlock()
	switch result {
	case "":
		return server.Payload{}, ctx.Err()
	case "failed":
		return server.Payload{}, errors.New("it went wrong")
	case "panic":
		panic("the schedule wants it")
	case "no_sugar":
		return server.Payload{}, transport.Refuse("no_sugar", "there is none")
	}
	return server.Payload{Data: []byte(result)}, nil
}
