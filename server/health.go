package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
)

const (
	// readyTimeout is how long the log and the store may take to answer.
	readyTimeout = 2 * time.Second
	// readyFor is for how long an answer is good, so that whoever asks often
	// can't load them.
	readyFor = time.Second
)

// Healthz answers whether the process is to be left alone: 200 until this server
// is closed, then 503. It asks nothing else, so that a log that is down gets
// nobody restarted. It is not routed by the server: mount it where only the
// platform can ask.
func (s *Server) Healthz() http.Handler {
	return reading(func(w http.ResponseWriter, _ *http.Request) {
		if s.health.closed.Load() {
			writeHealth(w, goingAway())
			return
		}
		writeHealth(w, readiness{Ready: true})
	})
}

// Readyz answers whether clients are to be sent here: 200 if this server isn't
// going away, its log and its store answer within 2 s, Authenticate is asked, and
// memory is not so short that new clients are refused (Options.MemoryLimit);
// else 503, with JSON that names what fails, and for how many seconds. Another
// function that is not asked for now (Options.Dependencies) is named, too, and
// keeps nobody away: what does not need it goes on. A question to the log or the
// store may be the one that tries it again; Authenticate is tried by the next
// client, so this answers 200 when it is time for one. An answer is kept for 1 s.
// It is not routed by the server, as Healthz isn't.
func (s *Server) Readyz() http.Handler {
	return reading(func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, s.health.look()) })
}

// reading refuses what isn't a question.
func reading(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
			return
		}
		next(w, r)
	})
}

// readiness is the answer as it crosses the wire.
type readiness struct {
	Ready   bool               `json:"ready"`
	Failing map[string]failing `json:"failing,omitempty"`
	// Degraded is what fails and is no reason to send nobody here.
	Degraded map[string]failing `json:"degraded,omitempty"`
}

type failing struct {
	For     float64 `json:"for"`               // seconds
	Breaker string  `json:"breaker,omitempty"` // open, half-open
}

// fail notes what keeps clients away.
func (r *readiness) fail(name string, f failing) {
	r.Ready = false
	if r.Failing == nil {
		r.Failing = make(map[string]failing)
	}
	r.Failing[name] = f
}

func goingAway() readiness { return readiness{Failing: map[string]failing{"server": {}}} }

func writeHealth(w http.ResponseWriter, answer readiness) {
	body, _ := json.Marshal(answer) // it has nothing that could fail
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // nobody is left to tell
}

// health asks what the server depends on.
type health struct {
	ctx    context.Context // ends when no more clients are to come here
	drain  context.CancelFunc
	closed atomic.Bool
	log    *slog.Logger
	parts  []*part
	needs  *dependencies
	short  func() time.Time // since when new clients are refused for want of memory; zero: they are not

	turn   chan struct{} // holds one: whoever has it may go on
	answer readiness     // guarded by turn
	at     time.Time     // guarded by turn: when that was
}

// A part is something that has to answer. All but its name and question is
// guarded by health.turn.
type part struct {
	name  string
	ask   func(context.Context) error
	reply chan found // of a question under way, or nil
	since time.Time  // when it failed first; zero: it does not
}

// A found is what a part answered.
type found struct{ err error }

func newHealth(s *Server) *health {
	h := &health{log: s.o.Logger, needs: s.dependencies, short: s.memory.short, turn: make(chan struct{}, 1), parts: []*part{
		{name: "log", ask: func(ctx context.Context) error {
			_, err := s.log.Seek(ctx, core.Control, eventlog.Start{})
			return err
		}},
		{name: "store", ask: func(ctx context.Context) error {
			_, _, err := s.store.Present(ctx, core.Control, 0)
			return err
		}},
	}}
	h.turn <- struct{}{}
	h.ctx, h.drain = context.WithCancel(context.Background())
	return h
}

// close waits for the questions under way, as long as ctx lasts.
func (h *health) close(ctx context.Context) {
	h.drain()
	h.closed.Store(true)
	select {
	case <-h.turn:
		defer func() { h.turn <- struct{}{} }()
	case <-ctx.Done():
		return
	}
	for _, p := range h.parts {
		if p.reply == nil {
			continue
		}
		select {
		case <-p.reply:
			p.reply = nil
		case <-ctx.Done():
		}
	}
}

// look returns what was found lately, or asks. Whoever comes meanwhile waits for
// the same answer.
func (h *health) look() readiness {
	<-h.turn
	defer func() { h.turn <- struct{}{} }()
	if h.ctx.Err() != nil {
		return goingAway()
	}
	if !h.at.IsZero() && time.Since(h.at) < readyFor {
		return h.answer
	}
	ctx, cancel := context.WithTimeout(h.ctx, readyTimeout)
	defer cancel()
	for _, p := range h.parts {
		p.begin(ctx)
	}
	answer := readiness{Ready: true}
	for _, p := range h.parts {
		err := p.wait(ctx)
		if h.ctx.Err() != nil {
			return goingAway()
		}
		h.note(p, err, &answer)
	}
	h.needs.tell(&answer)
	if since := h.short(); !since.IsZero() {
		answer.fail("memory", failingSince(since))
	}
	h.answer, h.at = answer, time.Now()
	return answer
}

// begin asks a part, unless an earlier question is still under way: one that is
// deaf to its context gets no second one.
func (p *part) begin(ctx context.Context) {
	select {
	case <-p.reply: // it came too late
		p.reply = nil
	default:
	}
	if p.reply == nil {
		reply := make(chan found, 1)
		p.reply = reply
		go func() { reply <- found{p.ask(ctx)} }()
	}
}

var errNoAnswer = errors.New("server: it does not answer")

func (p *part) wait(ctx context.Context) error {
	select {
	case f := <-p.reply:
		p.reply = nil
		return f.err
	case <-ctx.Done():
	}
	select {
	case f := <-p.reply: // it came in time, while another part was waited for
		p.reply = nil
		return f.err
	default:
		return errNoAnswer
	}
}

// note puts what was found into the answer, and tells of a change. It is called
// in turn.
func (h *health) note(p *part, err error, answer *readiness) {
	if err == nil {
		if !p.since.IsZero() {
			h.log.Info("ready again", "part", p.name, "after", time.Since(p.since))
		}
		p.since = time.Time{}
		return
	}
	if p.since.IsZero() {
		p.since = time.Now()
		h.log.Warn("not ready", "part", p.name, "error", err)
	}
	answer.fail(p.name, failingSince(p.since))
}

func failingSince(t time.Time) failing {
	return failing{For: float64(time.Since(t).Round(time.Millisecond).Milliseconds()) / 1000}
}

// tell puts what is not asked for now into the answer. The log and the store were
// asked for it just now.
func (ds *dependencies) tell(answer *readiness) {
	if ds == nil {
		return
	}
	for _, d := range ds.named {
		is := ds.status(d)
		f := failingSince(is.Since)
		f.Breaker = is.State.String()
		was, asked := answer.Failing[d.name]
		switch {
		case is.State == breaker.Closed:
		case asked:
			f.For = max(f.For, was.For)
			answer.fail(d.name, f)
		case d.name == "log", d.name == "store": // they answered
		case !is.Refusing: // who comes now is asked about
		case d.name == "Authenticate":
			answer.fail(d.name, f)
		default:
			if answer.Degraded == nil {
				answer.Degraded = make(map[string]failing)
			}
			answer.Degraded[d.name] = f
		}
	}
}
