package server

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// TestPressure: what is decided, step by step. The limit is 1000.
func TestPressure(t *testing.T) {
	const tenth, second = 100 * time.Millisecond, time.Second
	type step struct {
		after        time.Duration
		used, mapped int64
		collections  uint64
		dry          bool // the log gives up nothing
		stage        memoryStage
		order        memoryOrder
	}
	for name, steps := range map[string][]step{
		"enough": {
			{0, 0, 0, 0, false, memoryEnough, memoryOrder{next: second}},
			{second, 699, 699, 0, false, memoryEnough, memoryOrder{next: second}},
			{second, 700, 0, 0, false, memoryEnough, memoryOrder{next: tenth}},
			{second, 0, 700, 0, false, memoryEnough, memoryOrder{next: tenth}},
			{second, 799, 700, 0, false, memoryEnough, memoryOrder{next: tenth}},
		},
		"up a stage at a time, and trimmed to three quarters": {
			{0, 800, 0, 0, false, memoryTrimming, memoryOrder{trim: 50, next: tenth}},
			{tenth, 899, 0, 0, false, memoryTrimming, memoryOrder{trim: 149, next: tenth}},
			{tenth, 900, 0, 0, false, memoryRefusing, memoryOrder{trim: 150, next: tenth}},
			{tenth, 949, 0, 0, false, memoryRefusing, memoryOrder{trim: 199, next: tenth}},
			{tenth, 950, 0, 0, false, memoryEvicting, memoryOrder{trim: 200, collect: true, next: tenth}},
		},
		"a stage stays for 5 s, and until less than 5 % below it is used": {
			{0, 800, 0, 0, false, memoryTrimming, memoryOrder{trim: 50, next: tenth}},
			{9 * second, 750, 0, 0, false, memoryTrimming, memoryOrder{next: tenth}},
			{4900 * time.Millisecond, 749, 0, 0, false, memoryTrimming, memoryOrder{next: tenth}},
			{tenth, 749, 0, 0, false, memoryEnough, memoryOrder{next: tenth}},
			{tenth, 799, 0, 0, false, memoryEnough, memoryOrder{next: tenth}},
		},
		"down a stage at a time": {
			{0, 960, 0, 0, false, memoryEvicting, memoryOrder{trim: 210, collect: true, next: tenth}},
			{5 * second, 100, 0, 1, false, memoryRefusing, memoryOrder{next: second}},
			{4 * second, 100, 0, 1, false, memoryRefusing, memoryOrder{next: second}},
			{second, 100, 0, 1, false, memoryTrimming, memoryOrder{next: second}},
			{5 * second, 100, 0, 1, false, memoryEnough, memoryOrder{next: second}},
			{second, 950, 0, 1, false, memoryEvicting, memoryOrder{trim: 200, collect: true, next: tenth}},
		},
		"nobody is evicted before a collection, nor while the log gives": {
			{0, 990, 0, 7, true, memoryEvicting, memoryOrder{trim: 240, collect: true, next: tenth}},
			{tenth, 990, 0, 7, true, memoryEvicting, memoryOrder{trim: 240, collect: true, next: tenth}},
			{tenth, 990, 0, 8, false, memoryEvicting, memoryOrder{trim: 240, evict: 4, next: tenth}},
			{9 * second, 990, 0, 8, false, memoryEvicting, memoryOrder{trim: 240, next: tenth}},
		},
		"evictions: once a second, twice as many each time": {
			{0, 1990, 0, 0, true, memoryEvicting, memoryOrder{trim: 1240, collect: true, next: tenth}},
			{tenth, 1990, 0, 1, true, memoryEvicting, memoryOrder{trim: 1240, evict: 4, next: tenth}},
			{tenth, 1990, 0, 1, true, memoryEvicting, memoryOrder{trim: 1240, next: tenth}},
			{second, 1990, 0, 1, true, memoryEvicting, memoryOrder{trim: 1240, evict: 8, next: tenth}},
			{second, 949, 0, 1, true, memoryEvicting, memoryOrder{trim: 199, next: tenth}},
			{second, 950, 0, 1, true, memoryEvicting, memoryOrder{trim: 200, evict: 4, next: tenth}},
			{second, 950, 0, 1, true, memoryEvicting, memoryOrder{trim: 200, evict: 8, next: tenth}},
		},
		"garbage is collected before it exceeds the limit, with pauses": {
			{0, 100, 999, 0, false, memoryEnough, memoryOrder{next: tenth}},
			{0, 100, 1000, 0, false, memoryEnough, memoryOrder{collect: true, next: tenth}},
			{collectPause - 1, 100, 1000, 0, false, memoryEnough, memoryOrder{next: tenth}},
			{1, 100, 1000, 0, false, memoryEnough, memoryOrder{collect: true, next: tenth}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := pressure{limit: 1000}
			now := time.Now()
			for i, s := range steps {
				now = now.Add(s.after)
				got := p.decide(now, &memorySight{used: s.used, mapped: s.mapped, perByte: 1, collections: s.collections})
				if got != s.order || p.stage != s.stage {
					t.Errorf("step %d: %v %+v, want %v %+v", i, p.stage, got, s.stage, s.order)
				}
				freed := got.trim
				if s.dry {
					freed = 0
				}
				if got.trim > 0 {
					p.trimmed(freed, got.trim)
				}
			}
		})
	}
}

// TestCollectionsLeaveTime: those that take long come more seldom.
func TestCollectionsLeaveTime(t *testing.T) {
	p := pressure{limit: 1000, took: time.Second}
	now, collected := time.Now(), 0
	for range 600 { // a minute
		now = now.Add(100 * time.Millisecond)
		if p.decide(now, &memorySight{goal: 2000, mapped: 900, perByte: 1}).collect {
			collected++
		}
	}
	if collected < 5 || collected > 7 {
		t.Errorf("%d collections of a second each in a minute, want 6", collected)
	}
}

// A logOf is a log that holds something.
type logOf struct {
	eventlog.Log
	bytes, floor int64
}

func (l *logOf) Size() eventlog.Size { return eventlog.Size{Bytes: l.bytes} }

func (l *logOf) Shrink(bytes int64) int64 {
	freed := max(0, min(bytes, l.bytes-l.floor))
	l.bytes -= freed
	return freed
}

// TestMemorySight: what counts of what the runtime says.
func TestMemorySight(t *testing.T) {
	usual := runtimeMemory{mapped: 500, other: 50, live: 100, goal: 200, percent: 100, limit: math.MaxInt64, collections: 1}
	with := func(change func(*runtimeMemory)) runtimeMemory { r := usual; change(&r); return r }
	for name, c := range map[string]struct {
		r       runtimeMemory
		used    int64
		goal    int64
		perByte float64
	}{
		"the heap may double":                          {usual, 250, 250, 2},
		"GOGC=300":                                     {with(func(r *runtimeMemory) { r.percent, r.goal = 300, 400 }), 450, 450, 4},
		"GOGC=off, and nobody else collects":           {with(func(r *runtimeMemory) { r.percent, r.goal = math.MaxInt64, math.MaxInt64 }), 150, 50 + math.MaxInt64/4, 1},
		"GOMEMLIMIT is the limit: garbage has to go":   {with(func(r *runtimeMemory) { r.limit, r.goal = 1000, 200 }), 150, 250, 1},
		"GOMEMLIMIT is below the limit":                {with(func(r *runtimeMemory) { r.limit = 900 }), 150, 250, 1},
		"GOMEMLIMIT is above the limit: as without it": {with(func(r *runtimeMemory) { r.limit = 1001 }), 250, 250, 2},
	} {
		m := newMemoryMeter(memoryLimit{bytes: 1000}, nil)
		if s := m.sight(&c.r); s.used != c.used || s.goal != c.goal || s.perByte != c.perByte || s.mapped != 500 || s.collections != 1 {
			t.Errorf("%s: %+v, want %d used, the goal %d and %v", name, s, c.used, c.goal, c.perByte)
		}
	}
}

// TestMemorySightOfTheLog: what it took since the heap was collected counts, with
// room to grow, and what it gave up counts no more, until the next collection has seen it.
func TestMemorySightOfTheLog(t *testing.T) {
	log := &logOf{bytes: 70}
	m := newMemoryMeter(memoryLimit{bytes: 1000}, log)
	r := runtimeMemory{live: 100, goal: 200, percent: 100, limit: math.MaxInt64, collections: 1}
	for i, c := range []struct {
		log         int64
		live        int64
		collections uint64
		used        int64
	}{
		{70, 100, 1, 200}, {100, 100, 1, 320}, {50, 100, 1, 160}, {0, 30, 1, 0}, {50, 80, 2, 160}, {51, 80, 2, 164},
	} {
		log.bytes, r.live, r.collections = c.log, c.live, c.collections
		if got := m.sight(&r).used; got != c.used {
			t.Errorf("%d: %d used, want %d", i, got, c.used)
		}
	}
}

// TestMemoryMeterLooks: what the runtime is asked for has these names here, and
// what it says fits together.
func TestMemoryMeterLooks(t *testing.T) {
	hold := bytes.Repeat([]byte("x"), 64<<20)
	debug.FreeOSMemory()
	m := newMemoryMeter(memoryLimit{bytes: math.MaxInt64 - 1}, nil)
	full := m.look()
	runtime.KeepAlive(hold)
	debug.FreeOSMemory()
	empty := m.look()
	if full.perByte < 1 || full.collections == 0 || full.goal < 64<<20 || full.used < 64<<20 {
		t.Errorf("with 64 MiB: %+v", full)
	}
	if full.used-empty.used < 60<<20 || full.mapped-empty.mapped < 60<<20 || empty.collections <= full.collections {
		t.Errorf("%+v, and without 64 MiB %+v", full, empty)
	}
}

// TestMemoryActs: what is decided is done, counted and told, in fake time.
func TestMemoryActs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := &logOf{bytes: 300, floor: 100}
		asked := []int{}
		m := newMemory(memoryLimit{bytes: 1000, source: "a test"}, log, slog.New(slog.NewTextHandler(&out, nil)), func(n int) int {
			asked = append(asked, n)
			return n - 1
		})
		var used, looks atomic.Int64
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		m.look = func() memorySight {
			n := looks.Add(1)
			return memorySight{used: used.Load() + log.bytes, mapped: used.Load() + log.bytes, perByte: 1, collections: uint64(n)}
		}
		m.start()
		wait(10*time.Second + 1)
		if looks.Load() != 11 || len(asked) != 0 || log.bytes != 300 {
			t.Errorf("in 10 s of peace %d looks, %v evictions, %d bytes left in the log", looks.Load(), asked, log.bytes)
		}
		used.Store(510) // 810 with the log
		wait(time.Second)
		if log.bytes != 240 || m.admit(&transport.Hello{}) != nil {
			t.Errorf("at 81 %% the log has %d", log.bytes)
		}
		used.Store(950)
		wait(3 * time.Second)
		if log.bytes != 100 || len(asked) != 3 || asked[0] != 4 || asked[1] != 8 || asked[2] != 16 {
			t.Errorf("above all the log has %d, and evicted are %v", log.bytes, asked)
		}
		if m.admit(&transport.Hello{}) == nil {
			t.Error("new clients are let in")
		}
		used.Store(0)
		wait(20 * time.Second)
		m.close()
		m.close()
		wait(time.Hour) // nothing looks any more
		if err := m.admit(&transport.Hello{}); err != nil {
			t.Error(err)
		}
		checkMemoryTold(t, out.String())
		checkMemoryMetrics(t, m, map[string]float64{
			"limit_bytes": 1000, "used_bytes": 100, "stage": 0, "trimmed_bytes_total": 200, "refusals_total": 1, "evictions_total": 25,
		})
	})
}

// checkMemoryTold: one line for each stage, with what was done.
func checkMemoryTold(t *testing.T, out string) {
	t.Helper()
	var told []string
	for line := range strings.Lines(out) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " ")
		told = append(told, line)
	}
	want := []string{
		`level=INFO msg="memory limit" limit=1000 source="a test" collected=false`,
		`level=WARN msg="memory short" stage=trimming used=810 limit=1000 mapped=810 trimmed=60 refused=0 evicted=0`,
		`level=WARN msg="memory short" stage=evicting used=1190 limit=1000 mapped=1190 trimmed=140 refused=0 evicted=0`,
		`level=WARN msg="memory short" stage=refusing used=100 limit=1000 mapped=100 trimmed=0 refused=1 evicted=25`,
		`level=WARN msg="memory short" stage=trimming used=100 limit=1000 mapped=100 trimmed=0 refused=0 evicted=0`,
		`level=INFO msg="memory enough" stage=enough used=100 limit=1000 mapped=100 trimmed=0 refused=0 evicted=0`,
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
}

func checkMemoryMetrics(t *testing.T, m *memory, want map[string]float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m.collectors()...)
	families, err := registry.Gather()
	if err != nil || len(families) != len(want) {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	for _, f := range families {
		one := f.GetMetric()[0]
		name := strings.TrimPrefix(f.GetName(), "throughline_memory_")
		if got := one.GetGauge().GetValue() + one.GetCounter().GetValue(); got != want[name] {
			t.Errorf("%s is %v, want %v", f.GetName(), got, want[name])
		}
	}
}

// TestMemoryLooksWithAppends: whoever appends much looks, so that no log can grow
// past the limit between two looks.
func TestMemoryLooksWithAppends(t *testing.T) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	const message = 128 + 1000 + 7 // as the log counts it
	m := newMemory(memoryLimit{bytes: 10 * message * lookShares}, log, slog.New(slog.DiscardHandler), nil)
	looks := 0
	m.look = func() memorySight { looks++; return memorySight{} }
	counted := m.count(log)
	batch := eventlog.Batch{Messages: []eventlog.Message{{Type: "message", Kind: eventlog.Text, Data: make([]byte, 1000)}}}
	for i := range 95 {
		if _, _, err := counted.Append(t.Context(), eventlog.Channel{Name: "a"}, batch); err != nil {
			t.Fatal(err)
		}
		if looks != (i+1)/10 {
			t.Fatalf("%d looks after %d messages, want one for each ten", looks, i+1)
		}
	}
	if size := log.Size().Bytes; size != 95*message {
		t.Errorf("the log has %d bytes", size)
	}
	if none := newMemory(memoryLimit{}, log, nil, nil); none.count(log) != eventlog.Log(log) {
		t.Error("without a limit there is nothing to count")
	}
}

// TestMemoryCallsOthersWithoutItsTurn: a logger, or who evicts, may append.
func TestMemoryCallsOthersWithoutItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		defer log.Close()
		var m *memory
		said, evicted := 0, 0
		publish := func() {
			_, _, err := m.count(log).Append(t.Context(), eventlog.Channel{Name: "log"}, eventlog.Batch{Messages: []eventlog.Message{{Kind: eventlog.Text, Data: make([]byte, 1000)}}})
			if err != nil {
				t.Error(err)
			}
		}
		m = newMemory(memoryLimit{bytes: lookShares}, log, slog.New(writesTo(func() { said++; publish() })), func(int) int { evicted++; publish(); return 1 })
		looks := uint64(0)
		m.look = func() memorySight { looks++; return memorySight{used: lookShares, perByte: 1, collections: looks} }
		m.start()
		time.Sleep(10 * time.Second)
		m.close()
		if said != 2 || evicted == 0 {
			t.Errorf("%d lines and %d evictions", said, evicted)
		}
	})
}

// A writer does something with each line.
type writer func()

func writesTo(do writer) slog.Handler { return slog.NewTextHandler(do, nil) }

func (w writer) Write(line []byte) (int, error) {
	w()
	return len(line), nil
}

// TestMemoryEvictsThoughSomebodyLooks: what was decided is done, though the next
// look decides that it is not yet time for more. A collection is a real one.
func TestMemoryEvictsThoughSomebodyLooks(t *testing.T) {
	evicted := 0
	m := newMemory(memoryLimit{bytes: 1000}, nil, slog.New(slog.DiscardHandler), func(n int) int { evicted += n; return n })
	looks := uint64(0)
	m.look = func() memorySight { looks++; return memorySight{used: 1000, perByte: 1, collections: looks} }
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 3 {
		m.act()
	}
	runtime.ReadMemStats(&after)
	m.follow()
	m.follow()
	if evicted != 4 || m.evicted.Load() != 4 {
		t.Errorf("%d were evicted, %d counted, want 4", evicted, m.evicted.Load())
	}
	if after.NumForcedGC == before.NumForcedGC {
		t.Error("nothing was collected")
	}
}

// TestMemoryWithoutAShrinker says at the start what can't be done.
func TestMemoryWithoutAShrinker(t *testing.T) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer log.Close()
	for name, c := range map[string]struct {
		log   eventlog.Log
		warns bool
	}{"in memory": {log, false}, "one that wraps it": {struct{ eventlog.Log }{log}, true}} {
		var out bytes.Buffer
		m := newMemory(memoryLimit{bytes: math.MaxInt64, source: "a test"}, c.log, slog.New(slog.NewTextHandler(&out, nil)), nil)
		m.start()
		m.close()
		if strings.Contains(out.String(), "level=WARN msg=\"log can't be trimmed\"") != c.warns {
			t.Errorf("%s: %s", name, out.String())
		}
	}
}

// TestMemoryIsReady: who refuses new clients for want of memory is not ready for
// them, and says since when.
func TestMemoryIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := New(Options{Logger: slog.New(slog.DiscardHandler), MemoryLimit: 1 << 50})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		var used atomic.Int64
		srv.memory.turn.Lock()
		srv.memory.look = func() memorySight { return memorySight{used: used.Load(), perByte: 1} }
		srv.memory.turn.Unlock()
		for _, c := range []struct {
			used  float64
			after time.Duration
			want  string
		}{
			{.1, 2 * time.Second, `{"ready":true}`},
			{.85, 2 * time.Second, `{"ready":true}`},
			{.92, 3 * time.Second, `{"ready":false,"failing":{"memory":{"for":`},
			{.1, time.Minute, `{"ready":true}`},
		} {
			used.Store(int64(c.used * (1 << 50)))
			time.Sleep(c.after)
			w := httptest.NewRecorder()
			srv.Readyz().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			if !strings.HasPrefix(w.Body.String(), c.want) {
				t.Errorf("at %v of the limit: %s", c.used, w.Body)
			}
		}
	})
}

// TestMemoryAdmits: who is new is refused while memory is short, and who was here
// is let in.
func TestMemoryAdmits(t *testing.T) {
	after := eventlog.Position{Offset: 1, Mark: 2}
	fresh, resumed := transport.Subscription{Channel: "a"}, transport.Subscription{Channel: "b", After: after}
	for name, c := range map[string]struct {
		hello transport.Hello
		new   bool
	}{
		"nothing":              {transport.Hello{}, true},
		"plain":                {transport.Hello{Channels: []transport.Subscription{fresh}}, true},
		"with history":         {transport.Hello{Channels: []transport.Subscription{{Channel: "a", Start: eventlog.Start{Last: 5}}}}, true},
		"a session":            {transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{fresh, fresh}}, true},
		"plain, resumed":       {transport.Hello{Channels: []transport.Subscription{resumed}}, false},
		"resumed in one":       {transport.Hello{Version: 1, Line: 1, Channels: []transport.Subscription{fresh, resumed}}, false},
		"a session, continued": {transport.Hello{Version: 1, Line: 2, Token: "t"}, false},
		"a probe":              {transport.Hello{Version: 1, Line: 2, Probe: true}, false},
	} {
		for stage := memoryEnough; stage <= memoryEvicting; stage++ {
			m := newMemory(memoryLimit{bytes: 1}, nil, nil, nil)
			m.stage.Store(int64(stage))
			err := m.admit(&c.hello)
			var refusal *transport.Refusal
			switch {
			case !c.new || stage < memoryRefusing:
				if err != nil {
					t.Errorf("%s, %v: %v", name, stage, err)
				}
			case !errors.As(err, &refusal) || refusal.Reason.Code != transport.CodeBusy || !strings.Contains(refusal.Reason.Message, "Options.MemoryLimit"):
				t.Errorf("%s, %v: %v", name, stage, err)
			}
		}
	}
}
