package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// Of the random schedules of slow clients: one channel, into which 1 kB/s is
// published, in bursts now and then.
const (
	slowEvent  = 6_000 // bytes
	slowEvery  = 6 * time.Second
	slowBurst  = 8
	perSecond  = float64(slowEvent) / 6 // bytes a second
	modem      = 7_000.0
	slowMaxLag = 15
	slowWindow = 20 * time.Second
	slowMost   = time.Minute // of a delay
	slowHours  = 2 * time.Hour
	slowPage   = 70_000 // at most, with what is around events
	// onTheWay is more than a network and a client here take before a write
	// waits, and a page.
	onTheWay = 200_000
)

// TestNoHealthyReaderIsEvicted: hours of clients that read, stall, drain, come and
// go, over all carriers, from a random seed. No healthy one is evicted, each
// hopeless one is in the stated time, and each that recovers has everything, in
// order and without a gap.
func TestNoHealthyReaderIsEvicted(t *testing.T) {
	first, last := uint64(1), max(2, *seeds/16)
	if *seed > 0 {
		first, last = *seed, *seed
	}
	all := map[string]int{}
	for s := first; s <= last; s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			for kind, n := range runSlow(t, s) {
				all[kind] += n
			}
		})
	}
	t.Logf("evictions: %v", all)
	for _, kind := range []string{"hopeless", "stalled"} {
		if all[kind] == 0 && first != last {
			t.Errorf("nobody %s was evicted: nothing is shown", kind)
		}
	}
}

// Kinds of clients. Healthy are all but the first two.
var slowKinds = []string{"hopeless", "stalled", "well", "modem", "flapping", "absent", "absent modem"}

// kindsOf are those that a carrier may have: between polls nothing counts.
func kindsOf(carrier string) []string {
	if strings.HasPrefix(carrier, "poll") {
		return []string{"well", "flapping", "absent"}
	}
	return slowKinds
}

// A slowRun is one schedule.
type slowRun struct {
	*world
	seed    uint64
	write   time.Duration // the deadline of one; every other schedule has a long one, so that lag alone is judged
	begin   string
	oracle  *conformance.Oracle
	clients []*slowClient

	mu      sync.Mutex
	count   int                    // guarded by mu: events so far
	over    bool                   // guarded by mu: no more will be published, and all read as they can
	evicted map[string][]time.Time // guarded by mu: by subject
	faults  []string               // guarded by mu
}

func runSlow(t *testing.T, seed uint64) (evictions map[string]int) {
	run := &slowRun{seed: seed, evicted: map[string][]time.Time{}, write: 10 * time.Second}
	if seed%2 == 0 {
		run.write = 20 * time.Minute
	}
	o := server.Options{
		MaxLag: slowMaxLag, LagWindow: slowWindow, WriteTimeout: run.write, MaxEvictionDelay: slowMost, EvictionMemory: 5 * time.Minute,
		PeerTimeout: time.Hour, // whose pong waits behind what it has not read is slow, not dead
		Logger:      slog.New(&evictionLog{run: run}),
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Subject: r.Header.Get(who)}, nil
		},
		Authorize: allow,
	}
	inBubbleWith(t, keepsAll, o, func(w *world) {
		run.world, run.begin = w, w.seekEarliest("r")
		run.oracle = conformance.NewOracle(run.begin)
		run.play()
		evictions = run.judge()
	})
	return evictions
}

func keepsAll() eventlog.Log {
	return eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention {
		return eventlog.Retention{Events: 1 << 20, Bytes: 1 << 30, Age: 100 * time.Hour}
	}})
}

// An evictionLog notes who is evicted.
type evictionLog struct {
	slog.Handler
	run *slowRun
}

func (h *evictionLog) Enabled(context.Context, slog.Level) bool { return true }

func (h *evictionLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "evicted" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "subject" {
			h.run.mu.Lock()
			h.run.evicted[a.Value.String()] = append(h.run.evicted[a.Value.String()], r.Time)
			h.run.mu.Unlock()
		}
		return true
	})
	return nil
}

func (run *slowRun) fault(format string, args ...any) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if len(run.faults) < 10 {
		run.faults = append(run.faults, fmt.Sprintf(format, args...))
	}
}

// play publishes for hours, and then has all clients come to the end.
func (run *slowRun) play() {
	ctx, cancel := context.WithCancel(run.ctx)
	var all sync.WaitGroup
	for i, c := range carriers {
		for j := range 2 {
			kinds := kindsOf(c.name)
			kind := kinds[(int(run.seed)*2+i+j*3)%len(kinds)]                                                       //nolint:gosec // small
			one := newSlowClient(run, fmt.Sprintf("%s over %s (%d)", kind, c.name, j), kind, c.name, uint64(2*i+j)) //nolint:gosec // small
			run.clients = append(run.clients, one)
			all.Go(func() { one.live(ctx) })
		}
	}
	random := rand.New(rand.NewPCG(run.seed, 99))
	for began := time.Now(); time.Since(began) < slowHours; {
		n := 1
		if random.IntN(20) == 0 {
			n = slowBurst
		}
		for range n {
			run.say()
		}
		time.Sleep(time.Duration(n)*slowEvery - time.Second + time.Duration(random.Int64N(int64(2*time.Second))))
	}
	run.mu.Lock()
	run.over = true
	run.count++ // the last, which wakes those that wait
	run.mu.Unlock()
	run.say()
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(slowHours):
		run.fault("not all clients came to the end in %v", slowHours)
	}
	cancel()
	<-done
}

func (run *slowRun) say() {
	n, payload := run.oracle.Payload()
	text := strings.Replace(string(payload), "}", `,"pad":"`+strings.Repeat("x", slowEvent)+`"}`, 1)
	run.oracle.Appended(n, run.publish("r", text).String())
	run.mu.Lock()
	run.count = n
	run.mu.Unlock()
}

func (run *slowRun) state() (count int, over bool) {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.count, run.over
}

// judge holds all that clients got, and who was evicted, against what is promised.
func (run *slowRun) judge() (evictions map[string]int) {
	evictions = map[string]int{}
	total := 0
	for _, c := range run.clients {
		n := len(run.evicted[c.name])
		total += n
		evictions[c.kind] += n
		if v := run.oracle.Judge(run.begin, c.seen); !v.OK() || v.Missing > 0 || v.Unreached > 0 {
			run.fault("%s got %v", c.name, v)
		}
		if healthy := c.kind != "hopeless" && c.kind != "stalled"; healthy && n > 0 {
			run.fault("%s is healthy, and was evicted %d times", c.name, n)
		}
		if c.kind == "hopeless" {
			c.inTime(run.evicted[c.name])
		}
	}
	for _, carrier := range []string{"sse", "ws", "poll"} {
		total -= int(metric(run.T, run.srv, "throughline_evictions_total", carrier))
	}
	if total != 0 {
		run.fault("there are %d more evictions in the log than in the metrics", total)
	}
	for _, fault := range run.faults {
		run.Errorf("seed %d: %s", run.seed, fault)
	}
	return evictions
}

// inTime has each line of a hopeless client be evicted in the stated time: what
// it takes to the head as of when it began, until it is as far behind as it may
// be, then the window and one write.
func (c *slowClient) inTime(evicted []time.Time) {
	for _, b := range c.lines {
		rate := perSecond / 3
		behind := float64(b.behind) * slowEvent
		until := behind / rate
		if more := slowMaxLag*slowEvent + onTheWay - behind; more > 0 {
			until += more / (perSecond - rate)
		}
		aWrite := time.Duration(slowPage / rate * float64(time.Second))
		stated := time.Duration(1.3*until*float64(time.Second)) + slowWindow + min(aWrite, c.run.write)
		if b.at.Add(stated).After(c.recovers) {
			continue // it was let read as it can before that
		}
		in := false
		for _, at := range evicted {
			in = in || at.After(b.at) && at.Sub(b.at) <= stated
		}
		if !in {
			c.run.fault("%s began %d events behind, and was not evicted within %v", c.name, b.behind, stated)
		}
	}
}

// A slowClient reads in some way.
type slowClient struct {
	run     *slowRun
	name    string // its subject
	kind    string
	carrier string
	http    *http.Client
	rand    *rand.Rand

	token string
	line  uint64
	at    string
	seen  []conformance.Seen
	last  int // the number of the last event

	begun    began // the line at hand, which may be refused yet
	lines    []began
	told     time.Duration // how long to stay away
	code     string        // why its last line ended
	waited   bool          // it has stayed away for as long
	wsClosed bool          // WebSockets are refused to it
	recovers time.Time
}

// began is when a line of a client did, and by how many events it was behind.
type began struct {
	at     time.Time
	behind int
}

func newSlowClient(run *slowRun, name, kind, carrier string, n uint64) *slowClient {
	c := &slowClient{run: run, name: name, kind: kind, carrier: carrier, at: run.begin, rand: rand.New(rand.NewPCG(run.seed, n))}
	c.http = &http.Client{Transport: named{run.http.Transport, name}}
	return c
}

// named says who asks.
type named struct {
	next http.RoundTripper
	name string
}

func (t named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(who, t.name)
	return t.next.RoundTrip(r)
}

// live has it read over one line after another, until it has all.
func (c *slowClient) live(ctx context.Context) {
	c.sleep(ctx, time.Duration(c.rand.IntN(60))*time.Second)
	for ctx.Err() == nil && !c.hasAll() {
		c.told, c.code = time.Second, ""
		s, err := c.open(ctx)
		if err != nil {
			c.refusedBy(err)
		} else {
			count, _ := c.run.state()
			c.begun = began{time.Now(), count - c.last}
			c.read(ctx, s)
			s.Close()
		}
		c.stayAway(ctx)
	}
}

func (c *slowClient) hasAll() bool {
	count, over := c.run.state()
	return over && c.last == count
}

// stayAway waits as it was told.
func (c *slowClient) stayAway(ctx context.Context) {
	slow := c.code == "slow_consumer"
	if slow && c.waited {
		c.run.fault("%s stayed away for as long as it was told, and is to wait for %v more", c.name, c.told)
	}
	if slow && c.told > slowMost {
		c.run.fault("%s is to stay away for %v", c.name, c.told)
	}
	c.waited = slow
	if c.kind == "absent" || c.kind == "absent modem" {
		if _, over := c.run.state(); !over && c.code == "" {
			c.told += time.Hour
		}
	}
	c.sleep(ctx, c.told)
}

func (c *slowClient) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// open begins a line of its carrier, or if WebSockets are closed to it by SSE.
func (c *slowClient) open(ctx context.Context) (wireclient.Stream, error) {
	c.line++
	h := hello("r", c.at)
	h.Token, h.Line = c.token, c.line
	query := wireclient.Query(c.at, "r")
	carrier := c.carrier
	if c.wsClosed {
		carrier = "sse session"
	}
	c.wsClosed = false
	switch carrier {
	case "sse":
		return stream(wireclient.SSE(ctx, c.http, base+"/sse"+query, ""))
	case "ws":
		return stream(wireclient.WS(ctx, c.http, base+"/ws"+query, nil))
	case "sse session":
		return stream(wireclient.SSESession(ctx, c.http, base+"/sse", h))
	case "ws session":
		return stream(wireclient.WS(ctx, c.http, base+"/ws", &h))
	}
	return wireclient.NewPollStream(ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
		if p, ok := at["r"]; ok {
			h.Channels[0].After = p
		}
		if carrier == "poll" {
			return wireclient.PlainPoll(ctx, c.http, base+"/poll"+wireclient.Query(h.Channels[0].After, "r")+"&wait=25s")
		}
		a, err := wireclient.SessionPoll(ctx, c.http, base+"/poll?wait=25s", h)
		if err == nil && a.Open != nil && a.Open.Token != "" {
			c.token = a.Open.Token
			h.Token = c.token
		}
		return a, err
	}), nil
}

func stream[S wireclient.Stream](s S, err error) (wireclient.Stream, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// refusedBy notes why a line was refused or ended, and how long to stay away.
func (c *slowClient) refusedBy(err error) {
	if r, ok := errors.AsType[*wireclient.Refused](err); ok {
		c.hear(r.Reason)
	} else if _, text, ok := strings.Cut(err.Error(), `reason = "slow_consumer `); ok {
		ms, _ := strconv.Atoi(text[:strings.IndexByte(text, '"')])
		c.hear(wireclient.Reason{Code: "slow_consumer", After: int64(ms)})
	}
}

func (c *slowClient) hear(why wireclient.Reason) {
	c.code, c.told = why.Code, time.Duration(why.After)*time.Millisecond
	switch why.Code {
	case "slow_consumer":
	case "broken_carrier":
		if c.carrier != "ws session" || fmt.Sprint(why.Instead) != "[sse poll]" {
			c.run.fault("%s is refused with %+v", c.name, why)
		}
		c.told, c.wsClosed = 0, true
	case "superseded":
		c.token = ""
	default:
		c.run.fault("%s is told %+v", c.name, why)
	}
}

// read reads a line in the way of its kind, until it ends or the client leaves.
func (c *slowClient) read(ctx context.Context, s wireclient.Stream) {
	stallsAt, leavesAt := -1, -1
	switch c.kind {
	case "stalled":
		stallsAt = c.rand.IntN(40)
	case "flapping":
		leavesAt = c.rand.IntN(5)
	case "absent", "absent modem":
		if len(c.lines) == 0 {
			leavesAt = 50 + c.rand.IntN(400)
		}
	}
	for n := 0; !c.hasAll(); n++ {
		it, err := c.next(s)
		if err == nil && it.Close != nil {
			c.hear(*it.Close)
			return
		}
		if err != nil {
			c.refusedBy(err)
			return
		}
		c.take(it)
		_, over := c.run.state()
		switch {
		case over:
			if c.recovers.IsZero() {
				c.recovers = time.Now()
			}
			continue
		case n == leavesAt:
			c.told = time.Duration(c.rand.IntN(3000)) * time.Millisecond
			return
		case n == stallsAt:
			c.sleep(ctx, time.Duration(20+c.rand.IntN(400))*time.Second)
		}
		c.sleep(ctx, c.takes(it))
	}
}

// takes is how long its network needs for something.
func (c *slowClient) takes(it wireclient.Item) time.Duration {
	size := float64(len(it.Data) + 100)
	switch c.kind {
	case "hopeless":
		return time.Duration(size / (perSecond / 3) * float64(time.Second))
	case "modem", "absent modem":
		return time.Duration(size / modem * float64(time.Second))
	}
	return 0
}

// next is the stream's, but that it hears a plain stream's retry.
func (c *slowClient) next(s wireclient.Stream) (wireclient.Item, error) {
	sse, ok := s.(*wireclient.SSEStream)
	if !ok || c.carrier != "sse" {
		return s.Next()
	}
	b, err := sse.Parser.Next()
	switch {
	case err != nil:
		return wireclient.Item{}, err
	case b.Event == "throughline.gap":
		return wireclient.Item{}, fmt.Errorf("a gap: %s", b.Data)
	case b.HasData:
		return wireclient.Item{Event: true, Position: b.ID, Data: []byte(b.Data)}, nil
	case b.Retry != "" && !b.HasID: // the only word of a plain stream
		ms, _ := strconv.Atoi(b.Retry)
		return wireclient.Item{Close: &wireclient.Reason{Code: "slow_consumer", After: int64(ms)}}, nil
	}
	return wireclient.Item{Beat: true}, nil
}

func (c *slowClient) take(it wireclient.Item) {
	if !it.Beat && !c.begun.at.IsZero() {
		c.lines, c.begun, c.waited = append(c.lines, c.begun), began{}, false
	}
	switch {
	case it.Event:
		n := 0
		_, _ = fmt.Sscanf(string(it.Data[:min(len(it.Data), 20)]), `{"n":%d,`, &n)
		c.seen = append(c.seen, conformance.Seen{N: n, Position: it.Position})
		c.at, c.last = it.Position, n
	case it.Gap != nil:
		c.seen = append(c.seen, conformance.Seen{From: it.Gap.From, To: it.Gap.To})
		c.at = it.Gap.To
	case it.Opening:
		c.at = it.Position
	case it.Open != nil && it.Open.Token != "":
		c.token = it.Open.Token
	}
}

// TestReturnAfterAnHour: an honest client that was away for an hour, and is 100,000
// events behind, catches up over any carrier, though for a while more comes
// than it takes, and is not evicted.
func TestReturnAfterAnHour(t *testing.T) {
	const away, burst, live = 100_000, 10_000, 50
	inBubbleWith(t, keepsAll, server.Options{MaxLag: 10, LagWindow: time.Second}, func(w *world) {
		begin := w.seekEarliest("r")
		oracle := conformance.NewOracle(begin)
		say := func() {
			n, payload := oracle.Payload()
			oracle.Appended(n, w.publish("r", string(payload)).String())
		}
		for n := range away {
			say()
			if n%100 == 0 {
				time.Sleep(time.Hour / (away / 100))
			}
		}
		var all sync.WaitGroup
		for _, c := range carriers {
			s := w.must(c, "r", begin)
			all.Go(func() {
				seen, err := reads(s, away+burst+live)
				if v := oracle.Judge(begin, seen); err != nil || !v.OK() || v.Missing+v.Unreached > 0 {
					t.Errorf("over %s came %d events, then %v: %v", c.name, len(seen), err, v)
				}
			})
		}
		for n := range burst {
			say()
			if n%100 == 0 {
				time.Sleep(40 * time.Millisecond)
			}
		}
		for range live {
			time.Sleep(200 * time.Millisecond)
			say()
		}
		all.Wait()
		for _, carrier := range []string{"sse", "ws", "poll"} {
			if n := metric(t, w.srv, "throughline_evictions_total", carrier); n > 0 {
				t.Errorf("%v were evicted over %s", n, carrier)
			}
		}
	})
}

// reads reads to a number of an event, a thousand of them in 500 ms.
func reads(s wireclient.Stream, last int) (seen []conformance.Seen, err error) {
	for n := 0; n < last; {
		it, err := s.Next()
		switch {
		case err != nil:
			return seen, err
		case it.Close != nil:
			return seen, errors.New(it.Close.Code)
		case it.Gap != nil:
			seen = append(seen, conformance.Seen{From: it.Gap.From, To: it.Gap.To})
		case it.Event:
			if _, err := fmt.Sscanf(string(it.Data), `{"n":%d}`, &n); err != nil {
				return seen, err
			}
			seen = append(seen, conformance.Seen{N: n, Position: it.Position})
			if n%1000 == 0 {
				time.Sleep(500 * time.Millisecond)
			}
		}
	}
	return seen, nil
}
