package conformance

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/internal/memnet"
)

// scheduleSetup is what a schedule's server is like.
var scheduleSetup = ServerSetup{
	Heartbeat: 2 * time.Minute, MaxWait: 4 * time.Minute, WriteTimeout: 10 * time.Second, EvictFor: 5 * time.Second,
	Keep: keepEvents, KeepFor: keepFor, Forget: forgetIn,
}

// scheduleChannel is what is published to and read.
const scheduleChannel = "room"

// run runs a schedule in a bubble and returns what happened.
func (s *Schedule) run(t *testing.T, server Server) (h *History) {
	synctest.Test(t, func(t *testing.T) {
		r := newScheduleRun(t, server, s)
		defer r.tearDown()
		for _, step := range s.Steps {
			r.recorder.pass(0)
			r.do(&step)
			synctest.Wait()
		}
		r.finish()
		h = &r.recorder.history
	})
	return h
}

// A scheduleRun is a schedule that runs. One goroutine does its steps; each
// reader's line is read by one of its own.
type scheduleRun struct {
	*recorder
	t        *testing.T
	ctx      context.Context
	cancel   context.CancelFunc
	server   Server
	schedule *Schedule
	first    *Testee  // holds the log
	nodes    [2]*node // that serve
	sites    []*node  // all that ever did
	readers  []*traveller
	live     sync.WaitGroup
}

// A node is a server that runs, and the network to it.
type node struct {
	name    string
	testee  *Testee
	network *memnet.Network
	serve   *http.Server
	served  chan struct{}
}

func newScheduleRun(t *testing.T, server Server, s *Schedule) *scheduleRun {
	r := &scheduleRun{recorder: newRecorder(s), t: t, server: server, schedule: s}
	r.ctx, r.cancel = context.WithTimeout(context.Background(), fakeDeadline)
	r.begin()
	for i := range readers {
		if tr := newTraveller(r, i); tr != nil {
			r.readers = append(r.readers, tr)
			tr.connect()
		}
	}
	synctest.Wait()
	return r
}

// begin starts a server whose log holds nothing.
func (r *scheduleRun) begin() {
	r.first = r.server.Start(r.t, scheduleSetup)
	for i := range r.nodes {
		r.replace(i)
	}
}

func (r *scheduleRun) alone() bool { _, alone := r.server.Lacks[Nodes]; return alone }

// replace has a new server take a node's place.
func (r *scheduleRun) replace(i int) {
	switch {
	case !r.alone():
		r.nodes[i] = r.open(i, r.first.Another())
	case i == 0:
		r.nodes[0] = r.open(0, r.first)
	default:
		r.nodes[i] = r.nodes[0]
	}
}

func (r *scheduleRun) open(i int, testee *Testee) *node {
	n := &node{name: nodeName(i), testee: testee, network: memnet.New(), served: make(chan struct{})}
	n.serve = &http.Server{Handler: testee.Handler, ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { defer close(n.served); _ = n.serve.Serve(n.network) }()
	r.sites = append(r.sites, n)
	return n
}

func (n *node) base() string { return "http://" + n.network.Addr().String() + n.testee.Base }

// end ends a node at once.
func (n *node) end() {
	n.testee.Close()
	_ = n.serve.Close()
	<-n.served
}

func (r *scheduleRun) tearDown() {
	for _, tr := range r.readers {
		tr.close()
	}
	for _, n := range r.sites {
		n.end()
	}
	r.first.Close()
	r.cancel()
	r.live.Wait()
	time.Sleep(time.Minute) // net/http lingers over connections it ended
	r.arrange()
}

// pass lets some time pass, and has those rest whose lines nothing happened to.
func (r *scheduleRun) pass(d time.Duration) {
	for d > 0 {
		piece := min(d, halfHour)
		r.recorder.pass(piece)
		time.Sleep(piece)
		synctest.Wait()
		d -= piece
	}
}

// serverTime is what a server may take for a request that nothing happens to.
const serverTime = time.Second

// witness has somebody look whether the event that was published last is in the
// channel: a gap may name its position later.
func (r *scheduleRun) witness() {
	for _, f := range allForms {
		if f.lacking(r.server) == "" {
			w := newWitness(r, f)
			time.Sleep(serverTime) // for what may still be worked on
			w.connect()
			time.Sleep(serverTime)
			synctest.Wait()
			w.close()
			return
		}
	}
}

// rest is how long after the last event a whole line has brought it.
const rest = 5 * time.Second

func (r *scheduleRun) do(s *Step) {
	reader := r.readers[s.Reader%len(r.readers)]
	switch s.Do {
	case PublishSome:
		r.publish(s)
	case PublishByWire, GiveUp, PublishBad:
		r.publishByWire(s)
	case Wait:
		r.pass(s.For)
		if s.For >= rest {
			r.rested()
		}
	case ForgetName:
		for _, tr := range r.readers {
			tr.leave()
		}
		r.pass(20 * halfHour)
	case KillNode, ShutDownNode:
		r.endNode(s)
	case LoseHistory:
		r.loseHistory()
	default:
		reader.do(s)
	}
}

func (r *scheduleRun) rested() {
	for _, tr := range r.readers {
		if tr.rests() {
			r.add(Entry{What: Rested, By: tr.name})
		}
	}
}

func (r *scheduleRun) publish(s *Step) {
	for i := range s.N {
		n, m := r.publishing(nodeName(s.Node), s)
		position, err := r.nodes[s.Node].testee.Publish(r.ctx, scheduleChannel, m)
		if err == nil {
			r.acknowledged(n, position)
		} else {
			r.witness()
		}
		if i%4 == s.N%4 {
			synctest.Wait()
		}
	}
}

func (r *scheduleRun) endNode(s *Step) {
	if r.alone() {
		return
	}
	if s.Do == ShutDownNode {
		ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
		_ = r.nodes[s.Node].testee.Shutdown(ctx)
		cancel()
	}
	r.nodes[s.Node].end()
	r.replace(s.Node)
}

// loseHistory starts the whole house anew, with nothing in it.
func (r *scheduleRun) loseHistory() {
	for _, n := range r.nodes {
		n.end()
	}
	r.first.Close()
	r.lostAll()
	r.begin()
}

// finish ends all that is in the way, lets everybody catch up, and has all that
// is still kept read once more over each form.
func (r *scheduleRun) finish() {
	for _, tr := range r.readers {
		tr.heal()
	}
	for range 60 {
		r.revive()
		r.pass(rest)
		if !slices.ContainsFunc(r.readers, func(tr *traveller) bool { return !tr.rests() }) {
			break
		}
	}
	r.rested()
	r.publish(&Step{N: 3})
	r.pass(rest)
	r.revive()
	r.pass(rest)
	for _, tr := range r.readers {
		r.add(Entry{What: Rested, By: tr.name})
	}
	for _, f := range allForms {
		if f.lacking(r.server) != "" {
			continue
		}
		tr := newReplay(r, f)
		tr.connect()
		r.pass(time.Second)
		r.add(Entry{What: Rested, By: tr.name})
		tr.close()
	}
}

func (r *scheduleRun) revive() {
	for _, tr := range r.readers {
		if !tr.rests() {
			tr.connect()
		}
	}
}
