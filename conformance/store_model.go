package conformance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

const storeModelSteps = 4000

// A storeModel is what a store should hold: a map.
type storeModel struct {
	*storeCheck
	store  session.Store
	random *rand.Rand
	leases map[string]*modelLease // what was claimed and not released
}

// A modelLease is the lease of one session.
type modelLease struct {
	line    uint64
	lease   session.Lease
	renewed time.Time
}

func (l *modelLease) ranOutFor() time.Duration { return time.Since(l.renewed) - l.lease.For }

func storeModelHolds(c *storeCheck) {
	seed := modelSeed()
	if s, err := strconv.ParseUint(os.Getenv("THROUGHLINE_SEED"), 10, 64); err == nil {
		seed = s
	}
	defer func() {
		if len(c.failures) > 0 {
			c.errorf("run again with THROUGHLINE_SEED=%d", seed)
		}
	}()
	m := &storeModel{storeCheck: c, store: c.open(), random: rand.New(rand.NewPCG(seed, 0)), leases: make(map[string]*modelLease)}
	for range storeModelSteps {
		m.step()
		m.checkPresent([]string{"a", "b", "c"}[m.random.IntN(3)])
	}
}

// some draws a line of one of a few sessions.
func (m *storeModel) some() session.Held {
	return held(fmt.Sprint(m.random.IntN(12)), 1+m.random.Uint64N(5))
}

func (m *storeModel) step() {
	switch p := m.random.IntN(100); {
	case p < 30:
		m.claimSome()
	case p < 55:
		m.touchSome()
	case p < 70:
		m.releaseSome()
	case p < 97:
		m.passSome(40 * time.Second)
	default: // long enough for some to be forgotten
		m.passSome(2 * session.Remembered)
	}
}

// passSome lets whole seconds pass. What leases and releases name ends in half
// a second, so that nothing is ever at an edge, where a store may say either.
func (m *storeModel) passSome(most time.Duration) {
	m.pass(m.store, time.Duration(1+m.random.Int64N(int64(most/time.Second)))*time.Second)
	for id, l := range m.leases {
		if l.ranOutFor() >= session.Remembered {
			m.dropForgotten(id)
		}
	}
}

// dropForgotten has the model and the store forget a lease: the store may do so
// soon or late.
func (m *storeModel) dropForgotten(id string) {
	if _, err := m.store.Release(m.ctx, held(id, 1<<63), 0); err != nil {
		m.fatalf("Release: %v", err)
	}
	delete(m.leases, id)
}

func (m *storeModel) claimSome() {
	h := m.some()
	lease := session.Lease{For: time.Duration(1+m.random.IntN(60))*time.Second + time.Second/2, Info: strconv.AppendUint(nil, m.random.Uint64(), 10)}
	for _, name := range []string{"a", "b", "c"} {
		if m.random.IntN(2) == 0 {
			lease.Channels = append(lease.Channels, name)
		}
	}
	m.claim(m.store, h, lease)
	if old := m.leases[h.ID]; old == nil || old.line <= h.Line {
		m.leases[h.ID] = &modelLease{line: h.Line, lease: lease, renewed: time.Now()}
	}
}

func (m *storeModel) touchSome() {
	var touched, missing []session.Held
	for range m.random.IntN(4) {
		h := m.some()
		if slices.ContainsFunc(touched, func(other session.Held) bool { return other.ID == h.ID }) {
			continue
		}
		touched = append(touched, h)
		switch l := m.leases[h.ID]; {
		case l == nil || l.line < h.Line:
			missing = append(missing, h)
		case l.line == h.Line:
			l.renewed = time.Now()
		}
	}
	m.touch(m.store, touched, missing...)
}

func (m *storeModel) releaseSome() {
	h := m.some()
	idle := time.Duration(m.random.IntN(3)) * 15 * time.Second
	if idle > 0 {
		idle += time.Second / 2
	}
	l := m.leases[h.ID]
	ends := l != nil && l.line <= h.Line && time.Since(l.renewed) >= idle
	m.release(m.store, h, idle, ends)
	if ends {
		delete(m.leases, h.ID)
	}
}

// checkPresent checks who is in a channel.
func (m *storeModel) checkPresent(channel string) {
	var want []string
	for id, l := range m.leases {
		if l.ranOutFor() < 0 && slices.Contains(l.lease.Channels, channel) {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	m.present(m.store, channel, want...)
	members, _, _ := m.store.Present(m.ctx, eventlog.Channel{Name: channel}, 3)
	for i, member := range members {
		if member.ID != want[i] || string(member.Info) != string(m.leases[member.ID].lease.Info) {
			m.fatalf("in %s number %d is %q", channel, i+1, member)
		}
	}
}
