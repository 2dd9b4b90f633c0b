package server

import (
	"math"
	gometrics "runtime/metrics"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// A memorySight is what is seen of the memory of the process at a moment. All
// but collections is in bytes.
type memorySight struct {
	// used is what counts: what the process comes to take if nothing is done.
	// That is what the runtime takes beside the heap, what others in the cgroup and
	// the kernel take, and the heap as it is when it is collected next: what
	// lives, and the garbage that the runtime lets grow beside it.
	used int64
	// mapped is what it has of the system now.
	mapped int64
	// goal is what it has when the heap is as large as the runtime lets it
	// become before it collects.
	goal int64
	// perByte is how much less is used for each byte that is freed.
	perByte float64
	// collections is how many there were of the heap.
	collections uint64
}

// wouldExceed reports whether more memory than the limit may be taken before the
// runtime collects by itself.
func (m *memorySight) wouldExceed(limit int64) bool {
	return max(m.goal, m.mapped) >= limit && m.mapped >= int64(memoryBegins[memoryTrimming]*float64(limit))
}

// memoryMetrics are what is asked of the runtime.
var memoryMetrics = [...]string{
	"/memory/classes/total:bytes",
	"/memory/classes/heap/released:bytes",
	"/memory/classes/heap/objects:bytes",
	"/memory/classes/heap/unused:bytes",
	"/memory/classes/heap/free:bytes",
	"/gc/heap/live:bytes",
	"/gc/heap/goal:bytes",
	"/gc/gogc:percent",
	"/gc/gomemlimit:bytes",
	"/gc/cycles/total:gc-cycles",
}

// A memoryMeter looks at the memory. It is for one goroutine.
type memoryMeter struct {
	limit   memoryLimit
	log     eventlog.Measured // or nil
	samples [len(memoryMetrics)]gometrics.Sample

	cycle  uint64 // collections that were seen
	logged int64  // bytes that the log held when the last of them was seen

	beside int64     // what the cgroup has beside what the runtime maps
	asked  time.Time // when the cgroup was
}

func newMemoryMeter(limit memoryLimit, log eventlog.Measured) *memoryMeter {
	m := &memoryMeter{limit: limit, log: log}
	for i, name := range memoryMetrics {
		m.samples[i].Name = name
	}
	return m
}

// look measures. It costs some microseconds, and a moment of the log's lock.
func (m *memoryMeter) look() memorySight {
	gometrics.Read(m.samples[:])
	var v [len(memoryMetrics)]int64
	for i := range m.samples {
		if m.samples[i].Value.Kind() == gometrics.KindUint64 { // else this runtime has none of that name
			v[i] = int64(min(m.samples[i].Value.Uint64(), math.MaxInt64))
		}
	}
	r := runtimeMemory{
		mapped: v[0] - v[1], live: v[5], goal: v[6], percent: v[7], limit: v[8], collections: uint64(v[9]),
	}
	r.other = r.mapped - v[2] - v[3] - v[4]
	return m.sight(&r)
}

// runtimeMemory is what the runtime says, in bytes.
type runtimeMemory struct {
	mapped      int64 // from the system, and not given back
	other       int64 // of that, all but the heap: stacks, and the runtime's own
	live        int64 // of the heap, when it was last collected
	goal        int64 // how large the heap may become before it is collected again
	percent     int64 // GOGC
	limit       int64 // GOMEMLIMIT
	collections uint64
}

// roomToGrow is how much more memory a log takes, at most, than it counts: the list
// of small events has room for as many again.
const roomToGrow = 2

// sight makes of it what counts. What the log took or gave up since the last
// collection is not in what lived then, and counts beside it.
func (m *memoryMeter) sight(r *runtimeMemory) memorySight {
	grown := int64(0)
	if m.log != nil {
		logged := m.log.Size().Bytes
		if r.collections != m.cycle {
			m.cycle, m.logged = r.collections, logged
		}
		if grown = logged - m.logged; grown > 0 {
			grown *= roomToGrow
		}
	}
	beside := m.askCgroup(r.mapped)
	s := memorySight{mapped: r.mapped + beside, collections: r.collections, perByte: 1}
	if r.limit > m.limit.bytes && r.percent < maxPercent {
		s.perByte += float64(r.percent) / 100
	}
	s.goal = r.other + beside + min(r.goal, math.MaxInt64/4)
	s.used = r.other + beside + int64(float64(max(0, r.live+grown))*s.perByte)
	return s
}

// maxPercent is above which GOGC is as good as off: by itself the runtime would
// collect too late, whatever lives.
const maxPercent = 400

// askCgroup returns what the cgroup has beside what the runtime maps: other
// processes, and what the kernel keeps for sockets.
func (m *memoryMeter) askCgroup(mapped int64) int64 {
	if m.limit.cgroup == nil {
		return 0
	}
	if now := time.Now(); m.asked.IsZero() || now.Sub(m.asked) >= lookOften {
		m.asked = now
		if current, ok := m.limit.cgroup.used(); ok {
			m.beside = max(0, current-mapped)
		}
	}
	return m.beside
}
