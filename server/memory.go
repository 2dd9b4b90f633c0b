package server

import (
	"context"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// A memoryStage is what a server does about its memory. Each does what those
// before it do.
type memoryStage int32

const (
	memoryEnough   memoryStage = iota
	memoryTrimming             // the log gives up its oldest events
	memoryRefusing             // nobody new is let in
	memoryEvicting             // who lags behind most is sent away
)

var memoryStages = [...]string{memoryEnough: "enough", memoryTrimming: "trimming", memoryRefusing: "refusing", memoryEvicting: "evicting"}

func (s memoryStage) String() string { return memoryStages[s] }

// A stage begins where its share of the limit is used, and is over when less
// than memoryBack below that was for memoryCalm.
var memoryBegins = [...]float64{memoryTrimming: .80, memoryRefusing: .90, memoryEvicting: .95}

const (
	memoryBack = .05
	memoryCalm = 5 * time.Second
	// trimTo is the share that is left when the log was trimmed.
	trimTo = .75
	// logKeeps is of how many parts of the limit the log keeps one, by its own
	// count: with less nobody who comes back would find anything.
	logKeeps = 32
	// collectPause is the least time between two collections that are forced, and
	// collectShare how many times as long as the last one took it is at least.
	collectPause = 50 * time.Millisecond
	collectShare = 10
	// Evictions come once in evictPause, and each time twice as many, up to
	// evictMost, until they help.
	evictPause = time.Second
	evictMost  = 512
)

// How often memory is looked at. A log in memory can grow by some 100 MB in a tenth
// of a second, so whoever appends looks, too, each time that one of lookShares of
// the limit was appended.
const (
	lookSeldom = time.Second // below seven tenths of the limit
	lookOften  = 100 * time.Millisecond
	lookShares = 128
)

// A memoryOrder is what is to be done now.
type memoryOrder struct {
	trim    int64 // so many bytes of the log, as it counts them
	collect bool  // garbage, and give back to the system what it took
	evict   int   // so many clients
	next    time.Duration
}

// A pressure decides by what is seen of the memory. It is a plain state machine:
// it neither measures nor does anything. The zero value is ready.
type pressure struct {
	limit int64

	stage     memoryStage
	high      time.Time // when the stage was last called for
	since     uint64    // collections that there had been when the stage began
	collected time.Time // when a collection was ordered
	took      time.Duration
	evicted   time.Time
	evicting  int  // how many were evicted last, in a row
	exhausted bool // the log has no more to give
}

// decide takes what is seen at a moment.
func (p *pressure) decide(now time.Time, m *memorySight) memoryOrder {
	used := float64(m.used) / float64(p.limit)
	p.move(now, used, m.collections)
	o := memoryOrder{next: lookSeldom}
	if p.stage >= memoryTrimming && used >= memoryBegins[memoryTrimming] {
		o.trim = int64(math.Ceil((float64(m.used) - trimTo*float64(p.limit)) / m.perByte))
	}
	shown := p.stage < memoryEvicting || m.collections > p.since // whether trimming was enough
	if (m.wouldExceed(p.limit) || !shown) && now.Sub(p.collected) >= max(collectPause, collectShare*p.took) {
		p.collected, o.collect = now, true
	}
	o.evict = p.evict(now, used, m.collections)
	if max(used, float64(m.mapped)/float64(p.limit)) >= .70 {
		o.next = lookOften
	}
	return o
}

// move goes up at once, and down a stage at a time.
func (p *pressure) move(now time.Time, used float64, collections uint64) {
	begun := p.stage
	for p.stage < memoryEvicting && used >= memoryBegins[p.stage+1] {
		p.stage++
	}
	switch {
	case p.stage > begun:
		p.high, p.since, p.evicting = now, collections, 0
	case p.stage == memoryEnough:
	case used >= memoryBegins[p.stage]-memoryBack:
		p.high = now
	case now.Sub(p.high) >= memoryCalm:
		p.stage--
		p.high = now
	}
}

// trimmed takes how much the log gave up of what it was asked for.
func (p *pressure) trimmed(freed, asked int64) { p.exhausted = freed < asked }

// evict returns how many are to be evicted: nobody while the log has something to
// give, or no collection has shown that this was not enough.
func (p *pressure) evict(now time.Time, used float64, collections uint64) int {
	if p.stage < memoryEvicting || used < memoryBegins[memoryEvicting] {
		p.evicting = 0
		return 0
	}
	if !p.exhausted || collections == p.since || now.Sub(p.evicted) < evictPause {
		return 0
	}
	p.evicted = now
	p.evicting = min(max(4, 2*p.evicting), evictMost)
	return p.evicting
}

// memory watches over what the process takes, and does what a pressure decides.
// Without a limit it only tells.
type memory struct {
	limit  memoryLimit
	logger *slog.Logger
	log    eventlog.Shrinker      // or nil
	evict  func(n int) (done int) // or nil
	forget func()                 // what can be read again; or nil
	look   func() memorySight
	over   sync.Once // closes stop
	stop   chan struct{}
	done   chan struct{}

	turn     sync.Mutex // to look, and do what is to be done
	pressure pressure   // guarded by turn
	told     [3]int64   // guarded by turn: the counts below at the last line

	lines     []memoryLine  // guarded by turn: to be written
	evictions int           // guarded by turn: to be done
	wake      chan struct{} // holds one: there is something of these

	appended                  atomic.Int64 // bytes since the last look
	used, stage               atomic.Int64
	refusing                  atomic.Int64 // since when, in nanoseconds since 1970; 0: it does not
	trimmed, refused, evicted atomic.Int64
}

// newMemory returns one that is not started. evict sends away up to so many of
// those who lag behind most, and returns how many it found; nil: nobody. It must
// not block, and is called without a lock of the log or the engine held.
func newMemory(limit memoryLimit, log eventlog.Log, logger *slog.Logger, evict func(n int) int) *memory {
	m := &memory{limit: limit, logger: logger, evict: evict, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	m.log, _ = log.(eventlog.Shrinker)
	measured, _ := log.(eventlog.Measured)
	m.look = newMemoryMeter(limit, measured).look
	m.pressure.limit = limit.bytes
	return m
}

// start begins to watch, if there is a limit. close ends it.
func (m *memory) start() {
	if m.limit.bytes == 0 {
		close(m.done)
		return
	}
	m.logger.Info("memory limit", "limit", m.limit.bytes, "source", m.limit.source, "collected", m.limit.collected)
	if m.log == nil {
		m.logger.Warn("log can't be trimmed", "note", "Options.Log is no eventlog.Shrinker (one that wraps another has to pass on its optional methods), so when memory is short clients are refused at once")
	}
	go m.run()
}

// close returns when the watcher has ended. It is called after start, and may be
// called again.
func (m *memory) close() {
	m.over.Do(func() { close(m.stop) })
	<-m.done
}

func (m *memory) run() {
	defer close(m.done)
	timer := time.NewTimer(m.step())
	defer timer.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-m.wake:
			m.follow()
		case <-timer.C:
			timer.Reset(m.step())
		}
	}
}

// step looks, does what is to be done, and returns when to look again.
func (m *memory) step() time.Duration {
	m.turn.Lock()
	next := m.act()
	m.turn.Unlock()
	m.follow()
	return next
}

// A countedLog looks at the memory for whoever appends much.
type countedLog struct {
	eventlog.Log
	memory *memory
}

// count returns a log by which appends are counted. Without a limit it is the log
// itself.
func (m *memory) count(log eventlog.Log) eventlog.Log {
	if m.limit.bytes == 0 {
		return log
	}
	return &countedLog{log, m}
}

// Append implements [eventlog.Log].
func (l *countedLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	size := 0
	for i := range b.Messages {
		size += b.Messages[i].Size()
	}
	l.memory.append(int64(size))
	return l.Log.Append(ctx, ch, b)
}

// append looks at the memory if enough was appended since that was last done. All
// who append then wait, so that they can't be faster than what makes room for
// them.
func (m *memory) append(size int64) {
	enough := m.limit.bytes / lookShares
	if m.appended.Add(size) < enough {
		return
	}
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.appended.Load() >= enough { // else somebody else was quicker
		m.act()
	}
}

// act looks, and does what is to be done, but for what follow does. It returns
// when to look again. Guarded by turn.
func (m *memory) act() time.Duration {
	m.appended.Store(0)
	seen := m.look()
	before := m.pressure.stage
	o := m.pressure.decide(time.Now(), &seen)
	m.used.Store(seen.used)
	m.stage.Store(int64(m.pressure.stage))
	if m.pressure.stage < memoryRefusing {
		m.refusing.Store(0)
	} else {
		m.refusing.CompareAndSwap(0, time.Now().UnixNano())
	}
	if o.trim > 0 {
		freed := int64(0)
		if m.log != nil {
			freed = m.log.Shrink(max(0, min(o.trim, m.log.Size().Bytes-m.limit.bytes/logKeeps)))
		}
		m.trimmed.Add(freed)
		m.pressure.trimmed(freed, o.trim)
	}
	if o.collect {
		began := time.Now()
		debug.FreeOSMemory()
		m.pressure.took = time.Since(began)
	}
	m.evictions = max(m.evictions, o.evict)
	if m.pressure.stage != before && len(m.lines) < maxMemoryLines { // else nobody has written for long
		now := [3]int64{m.trimmed.Load(), m.refused.Load(), m.evicted.Load()}
		m.lines = append(m.lines, memoryLine{m.pressure.stage, seen, [3]int64{now[0] - m.told[0], now[1] - m.told[1], now[2] - m.told[2]}})
		m.told = now
	}
	if len(m.lines) > 0 || m.evictions > 0 {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
	return o.next
}

// follow does what calls others. Only the watcher does: they may append, and who
// appends may be within one of them.
func (m *memory) follow() {
	m.turn.Lock()
	lines, evictions := m.lines, m.evictions
	m.lines, m.evictions = nil, 0
	m.turn.Unlock()
	for i := range lines {
		m.tell(&lines[i])
	}
	if m.stage.Load() > 0 && m.forget != nil {
		m.forget()
	}
	if evictions > 0 && m.evict != nil {
		m.evicted.Add(int64(m.evict(evictions)))
	}
}

// maxMemoryLines bounds how many lines wait to be written.
const maxMemoryLines = 16

// A memoryLine is what there is to tell of a stage that began.
type memoryLine struct {
	stage memoryStage
	seen  memorySight
	done  [3]int64 // since the last line: bytes trimmed, clients refused, and evicted
}

func (m *memory) tell(l *memoryLine) {
	attrs := []any{
		slog.String("stage", l.stage.String()),
		slog.Int64("used", l.seen.used), slog.Int64("limit", m.limit.bytes), slog.Int64("mapped", l.seen.mapped),
		slog.Int64("trimmed", l.done[0]), slog.Int64("refused", l.done[1]), slog.Int64("evicted", l.done[2]),
	}
	if l.stage == memoryEnough {
		m.logger.Info("memory enough", attrs...)
		return
	}
	m.logger.Warn("memory short", attrs...)
}

// short returns since when new clients are refused; zero: they are not.
func (m *memory) short() time.Time {
	since := m.refusing.Load()
	if since == 0 {
		return time.Time{}
	}
	return time.Unix(0, since)
}

// admit refuses who is new while memory is short. Who goes on from somewhere was
// here, and so was who shows a token: they were counted before. A probe is for
// one who is here, and short.
func (m *memory) admit(hello *transport.Hello) error {
	if memoryStage(m.stage.Load()) < memoryRefusing || hello.Probe || hello.Token != "" {
		return nil
	}
	for i := range hello.Channels {
		if !hello.Channels[i].After.IsZero() {
			return nil
		}
	}
	m.refused.Add(1)
	return transport.RefuseFor(jittered(memoryCalm), transport.CodeBusy, "this server is short of memory (Options.MemoryLimit)")
}

// collectors are the metrics.
func (m *memory) collectors() []prometheus.Collector {
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	counter := func(name, help string, value *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return float64(value.Load()) })
	}
	return []prometheus.Collector{
		gauge("memory_limit_bytes", "How much memory the process may take; 0: nobody says.", func() int64 { return m.limit.bytes }),
		gauge("memory_used_bytes", "How much memory the process will take if nothing is done, as it counts towards the limit; 0 without one.", m.used.Load),
		gauge("memory_stage", "What is done about memory: 0 nothing, 1 the log is trimmed, 2 new clients are refused, 3 those who lag behind are evicted.", m.stage.Load),
		counter("memory_trimmed_bytes_total", "What the log gave up because memory was short, as it counts towards the log's bounds.", &m.trimmed),
		counter("memory_refusals_total", "New clients that were refused because memory was short.", &m.refused),
		counter("memory_evictions_total", "Clients that were evicted because memory was short.", &m.evicted),
	}
}
