package server_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

var (
	seed  = flag.Uint64("seed", 0, "run only this schedule of the random tests")
	seeds = flag.Uint64("seeds", 25, "how many schedules the random tests run")
)

// TestNothingIsLostWhateverHappens runs random schedules of publishing, cut
// connections, changes of carrier, trimming, forgetting and waiting, and has
// the oracle judge what each reader was handed.
func TestNothingIsLostWhateverHappens(t *testing.T) {
	first, last := uint64(1), *seeds
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for s := first; s <= last; s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			log := func() eventlog.Log {
				return eventlog.NewMemory(eventlog.MemoryOptions{
					Retain:     func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: 20, Age: time.Hour} },
					Generation: 2 * time.Hour,
				})
			}
			inBubbleWith(t, log, server.Options{Authorize: allow, Heartbeat: 20 * time.Second}, func(w *world) {
				newSchedule(w, s).run()
			})
		})
	}
}

// A schedule is one random run: a publisher, and readers that come and go.
type schedule struct {
	*world
	rand    *rand.Rand
	oracle  *conformance.Oracle
	readers []*reader
	whole   atomic.Bool // no more cuts

	forgotten int
}

// A reader goes on from its last position over whatever carrier it is given.
type reader struct {
	begin, position string
	seen            []conformance.Seen
	stream          wireclient.Stream
	stopped         chan struct{}
	hold            atomic.Pointer[chan struct{}] // it reads nothing until that closes
}

func newSchedule(w *world, seed uint64) *schedule {
	s := &schedule{world: w, rand: rand.New(rand.NewPCG(seed, 1))}
	begin, err := w.log.Seek(w.ctx, eventlog.Channel{Name: "r"}, eventlog.Start{})
	if err != nil {
		w.Fatal(err)
	}
	s.oracle = conformance.NewOracle(begin.String())
	for range 4 {
		s.readers = append(s.readers, &reader{begin: begin.String(), position: begin.String()})
	}
	cuts := rand.New(rand.NewPCG(seed, 2))
	var mu sync.Mutex
	s.net.CutAfter = func() int {
		mu.Lock()
		defer mu.Unlock()
		if s.whole.Load() || cuts.IntN(2) == 0 {
			return -1
		}
		return cuts.IntN(4000)
	}
	return s
}

func (s *schedule) run() {
	for range 60 {
		r := s.readers[s.rand.IntN(len(s.readers))]
		switch s.rand.IntN(10) {
		case 0, 1, 2, 3:
			s.publishSome()
		case 4, 5, 6:
			s.connect(r)
		case 7:
			if s.rand.IntN(2) == 0 {
				s.disconnect(r)
			} else {
				s.stall(r)
			}
		case 8:
			time.Sleep(time.Duration(s.rand.IntN(60)) * time.Second)
		case 9:
			switch s.rand.IntN(8) {
			case 0, 1:
				s.pass(s.rand.IntN(4)) // events age
			case 2:
				for _, r := range s.readers {
					s.disconnect(r)
				}
				s.pass(20) // the channel is forgotten
				s.forgotten++
			}
		}
		synctest.Wait()
	}
	s.finish()
}

// pass lets some half hours pass, and tells the oracle of the places that the
// channel's end has meanwhile.
func (s *schedule) pass(halves int) {
	for range halves {
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		s.oracle.Place(s.seek("r", eventlog.Start{}).String())
	}
}

func (s *schedule) publishSome() {
	pad := strings.Repeat(" ", s.rand.IntN(2)*9000) // so that windows fill
	for range s.rand.IntN(12) {
		n, payload := s.oracle.Payload()
		payload = append(payload, pad...)
		s.oracle.Appended(n, s.publish("r", string(payload)).String())
		if s.rand.IntN(3) == 0 {
			synctest.Wait()
		}
	}
}

// connect has a reader change to a random carrier: it stops reading the old one
// and goes on from its position.
func (s *schedule) connect(r *reader) {
	s.disconnect(r)
	c := carriers[s.rand.IntN(len(carriers))]
	stream, err := c.open(s.world, "r", r.position)
	if err != nil {
		return // cut before it began
	}
	r.stream, r.stopped = stream, make(chan struct{})
	stopped := r.stopped
	go func() {
		defer close(stopped)
		for {
			it, err := stream.Next()
			if err != nil {
				return
			}
			if hold := r.hold.Load(); hold != nil {
				<-*hold
			}
			r.take(it)
		}
	}()
}

// stall has a reader not read while more is published than the log keeps and
// the connection holds.
func (s *schedule) stall(r *reader) {
	hold := make(chan struct{})
	r.hold.Store(&hold)
	for range 5 {
		s.publishSome()
	}
	synctest.Wait()
	close(hold)
}

func (r *reader) take(it wireclient.Item) {
	switch {
	case it.Event:
		n, _ := conformance.Number(it.Data)
		r.seen = append(r.seen, conformance.Seen{N: n, Position: it.Position})
		r.position = it.Position
	case it.Gap != nil:
		r.seen = append(r.seen, conformance.Seen{From: it.Gap.From, To: it.Gap.To})
		r.position = it.Gap.To
	case it.Opening:
		r.position = it.Position
	}
}

func (s *schedule) disconnect(r *reader) {
	if r.stream == nil {
		return
	}
	r.stream.Close()
	s.http.CloseIdleConnections()
	<-r.stopped
	r.stream = nil
}

// finish lets everybody catch up over a whole line, and judges.
func (s *schedule) finish() {
	s.whole.Store(true)
	for i, r := range s.readers {
		for range 20 {
			s.connect(r)
			time.Sleep(time.Second)
		}
		s.disconnect(r)
		verdict := s.oracle.Judge(r.begin, r.seen)
		if !verdict.OK() || verdict.Unreached > 0 {
			s.Errorf("reader %d of %d events: %v", i, len(r.seen), verdict)
		}
	}
}
