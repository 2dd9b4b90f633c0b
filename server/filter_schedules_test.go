package server_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// TestFilteredSchedules: readers with filters and starts, over all carriers, who
// are cut, change their carrier and come back while events come and are trimmed.
// Each gets the events that pass its filter, once and in order, or a gap for them;
// and pages of history hold the same.
func TestFilteredSchedules(t *testing.T) {
	first, last := uint64(1), max(2, *seeds/6)
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for s := first; s <= last; s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) { runFiltered(t, s) })
	}
}

// A ledger is what was published: where, and what it says of itself.
type ledger struct {
	mu   sync.Mutex
	all  []eventlog.Message // guarded by mu
	from map[string]int     // guarded by mu: how many events a position stands for
}

func (l *ledger) publish(w *world, m eventlog.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, err := w.srv.Publish(w.ctx, "r", m)
	if err != nil {
		w.Error(err)
		return
	}
	m.Type = cmp.Or(m.Type, eventlog.DefaultType)
	l.all = append(l.all, m)
	l.from[at.String()] = len(l.all)
}

// A filteredReader judges what comes to it.
type filteredReader struct {
	*world
	ledger *ledger
	filter eventlog.Filter
	name   string
	seen   int  // how many events it is past
	begun  bool // it knows where it is
	after  string
}

func (r *filteredReader) fail(format string, args ...any) {
	r.Errorf("%s %+v: %s", r.name, r.filter, fmt.Sprintf(format, args...))
}

// place is how many events a position stands for: one that was not published
// is the place before the first.
func (r *filteredReader) place(position string) int {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	return r.ledger.from[position]
}

// wants reports whether an event passes the filter.
func (r *filteredReader) wants(i int) bool {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	return r.filter.Match(&r.ledger.all[i])
}

// missed is the first event that it should have got up to a place.
func (r *filteredReader) missed(to int) int {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	for i := r.seen; i < to; i++ {
		if r.filter.Match(&r.ledger.all[i]) {
			return i
		}
	}
	return -1
}

// take judges one thing that came.
func (r *filteredReader) take(it wireclient.Item) {
	switch {
	case it.Event:
		to := r.place(it.Position)
		switch {
		case to == 0:
			r.fail("an event at %q, which nobody published", it.Position)
		case to <= r.seen && r.begun:
			r.fail("event %d again, after %d", to-1, r.seen-1)
		case r.begun && r.missed(to-1) >= 0:
			r.fail("event %d is missing before %d", r.missed(to-1), to-1)
		case !r.wants(to - 1):
			r.fail("event %d, which it does not want", to-1)
		}
		r.move(to, it.Position)
	case it.Gap != nil:
		if from := r.place(it.Gap.From); r.begun && from != r.seen {
			r.fail("a gap from %d, where it is at %d", from, r.seen)
		}
		r.move(r.place(it.Gap.To), it.Gap.To)
	case it.Opening:
		if to := r.place(it.Position); r.begun && (to < r.seen || r.missed(to) >= 0) {
			r.fail("moved from %d to %d over %d", r.seen, to, r.missed(to))
		}
		r.move(r.place(it.Position), it.Position)
	}
}

func (r *filteredReader) move(to int, at string) { r.seen, r.after, r.begun = to, at, true }

// query is the filter in an address.
func filterQuery(f eventlog.Filter) string {
	return "&" + url.Values{"type": f.Types, "tag": f.Tags, "key": f.Keys}.Encode()
}

// open opens a line over one of the carriers.
func (r *filteredReader) open(ctx context.Context, carrier string) (wireclient.Stream, error) {
	hello := func(after string) wireclient.Hello {
		h := wireclient.HelloFor(after, "r")
		h.Channels[0].Filter = map[string]any{"types": r.filter.Types, "tags": r.filter.Tags, "keys": r.filter.Keys}
		return h
	}
	plain := func(path, after string) string {
		return base + path + wireclient.Query(after, "r") + filterQuery(r.filter)
	}
	again := func(ask func(ctx context.Context, after string) (*wireclient.Answer, error)) (wireclient.Stream, error) {
		after := r.after
		return wireclient.NewPollStream(ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at["r"]; ok {
				after = p
			}
			return ask(ctx, after)
		}), nil
	}
	h := hello(r.after)
	switch carrier {
	case "sse":
		return wireclient.SSE(ctx, r.http, plain("/sse", r.after), "")
	case "ws":
		return wireclient.WS(ctx, r.http, plain("/ws", r.after), nil)
	case "poll":
		return again(func(ctx context.Context, after string) (*wireclient.Answer, error) {
			return wireclient.PlainPoll(ctx, r.http, plain("/poll", after)+"&wait=5s")
		})
	case "sse session":
		return wireclient.SSESession(ctx, r.http, base+"/sse", h)
	case "ws session":
		return wireclient.WS(ctx, r.http, base+"/ws", &h)
	}
	return again(func(ctx context.Context, after string) (*wireclient.Answer, error) {
		return wireclient.SessionPoll(ctx, r.http, base+"/poll?wait=5s", hello(after))
	})
}

// read reads over one carrier until it is cut, or until it is past all that is
// there and somebody says that it is over.
func (r *filteredReader) read(carrier string, long time.Duration) {
	ctx, cancel := context.WithTimeout(r.ctx, long)
	defer cancel()
	s, err := r.open(ctx, carrier)
	if err != nil {
		if ctx.Err() == nil {
			r.fail("%s after %q: %v", carrier, r.after, err)
		}
		return
	}
	cut := time.AfterFunc(long, s.Close)
	defer cut.Stop()
	defer s.Close()
	for {
		it, err := s.Next()
		if err != nil {
			return
		}
		if refused := it.End; refused != nil {
			r.fail("%s ended: %+v", carrier, *refused)
			return
		}
		r.take(it)
	}
}

var filteredCarriers = []string{"sse", "ws", "poll", "sse session", "ws session", "poll session"}

func runFiltered(t *testing.T, seed uint64) {
	chance := rand.New(rand.NewPCG(seed, 7))
	keep, size := 5+chance.IntN(200), 10<<chance.IntN(10)
	log := func() eventlog.Log {
		return eventlog.NewMemory(eventlog.MemoryOptions{Retain: func(eventlog.Channel) eventlog.Retention { return eventlog.Retention{Events: keep} }})
	}
	o := server.Options{Authorize: allow, AddressRates: server.Unlimited, IdentityRates: server.Unlimited, PageBytes: 300 << chance.IntN(5), Heartbeat: 3 * time.Second}
	inBubbleWith(t, log, o, func(w *world) {
		l := &ledger{from: map[string]int{}}
		some := func(words string, n int) (all []string) {
			list := strings.Fields(words)
			for range chance.IntN(n) {
				all = append(all, list[chance.IntN(len(list))])
			}
			return all
		}
		message := func() eventlog.Message {
			m := eventlog.Message{Data: []byte(`"` + strings.Repeat("x", chance.IntN(size)) + `"`), Tags: some("x y z", 3)}
			m.Type, m.Key = append(some("said seen said", 2), "")[0], append(some("a b", 2), "")[0]
			slices.Sort(m.Tags)
			m.Tags = slices.Compact(m.Tags)
			return m
		}
		began := time.Now()
		for range chance.IntN(150) {
			l.publish(w, message())
		}
		var readers []*filteredReader
		var plans [][]time.Duration
		var routes [][]string
		for i := range 8 {
			r := &filteredReader{world: w, ledger: l, name: fmt.Sprint("reader ", i), filter: eventlog.Filter{Types: some("said seen message none", 3), Tags: some("x y none", 2), Keys: some("a b", 2)}}
			r.after = []string{"", "earliest", "last=5", "since=0", fmt.Sprint("since=", began.Add(time.Second).UnixMilli())}[chance.IntN(5)]
			var plan []time.Duration
			var route []string
			for range 6 {
				plan = append(plan, time.Duration(chance.IntN(8000))*time.Millisecond)
				route = append(route, filteredCarriers[chance.IntN(len(filteredCarriers))])
			}
			readers, plans, routes = append(readers, r), append(plans, plan), append(routes, route)
		}
		var wait sync.WaitGroup
		for i, r := range readers {
			wait.Go(func() {
				for n, long := range plans[i] {
					r.read(routes[i][n], long)
					time.Sleep(plans[i][(n+1)%6] / 10)
				}
			})
		}
		for range 150 {
			for range chance.IntN(1 + chance.IntN(6)) {
				l.publish(w, message())
			}
			time.Sleep(time.Duration(chance.IntN(300)) * time.Millisecond)
			if chance.IntN(15) == 0 {
				pastEqualsTheLog(w, l, eventlog.Filter{Types: some("said seen message", 2), Tags: some("x y", 2)}, 1+chance.IntN(20))
			}
		}
		wait.Wait()
		for i, r := range readers { // what is still kept comes to all
			r.read(routes[i][0], 20*time.Second)
			if n := r.missed(len(l.all)); r.begun && n >= 0 {
				r.fail("event %d never came, at %d of %d", n, r.seen, len(l.all))
			}
		}
		synctest.Wait()
	})
}

// pastEqualsTheLog has pages of history, in both orders, hold what was published
// and is kept.
func pastEqualsTheLog(w *world, l *ledger, f eventlog.Filter, limit int) {
	w.Helper()
	query := fmt.Sprint("r&limit=", limit, filterQuery(f))
	r := &filteredReader{world: w, ledger: l, filter: f, name: "history"}
	for q := query; ; {
		p := w.history(q)
		if !r.begun {
			r.take(wireclient.Item{Opening: true, Position: p.First})
		}
		if p.Gap != nil {
			r.take(wireclient.Item{Gap: &wireclient.Gap{From: p.Gap.From, To: p.Gap.To, Reason: p.Gap.Reason}})
		}
		for _, e := range p.Events {
			r.take(wireclient.Item{Event: true, Position: e.Position})
		}
		r.take(wireclient.Item{Opening: true, Position: p.Next})
		if p.Done {
			break
		}
		q = query + "&after=" + p.Next
	}
	if n := r.missed(len(l.all)); n >= 0 {
		r.fail("event %d of %d is in no page", n, len(l.all))
	}
	// Backwards it is the same, from the other end.
	next := len(l.all)
	for q := query + "&order=desc"; ; {
		p := w.history(q)
		for _, e := range p.Events {
			at := r.place(e.Position)
			for i := next - 1; i >= at; i-- {
				if f.Match(&l.all[i]) {
					r.fail("backwards, event %d is missing after %d", i, at-1)
				}
			}
			if !f.Match(&l.all[at-1]) {
				r.fail("backwards, event %d, which nobody wants", at-1)
			}
			next = at - 1
		}
		if p.Done {
			for i := r.place(p.First); i < next; i++ {
				if f.Match(&l.all[i]) {
					r.fail("backwards, event %d is in no page", i)
				}
			}
			break
		}
		q = query + "&order=desc&until=" + p.Next
	}
}
