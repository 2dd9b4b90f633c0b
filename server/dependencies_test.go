package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/conformance"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
)

// A faultyLog counts how often it is asked, and may fail, before or after it did
// what it was asked for, or take its time.
type faultyLog struct {
	eventlog.Log
	asked atomic.Int32
	fails atomic.Bool  // before it did anything
	loses atomic.Bool  // after it appended
	takes atomic.Int64 // so long, whatever its context says
}

func (l *faultyLog) open() eventlog.Log {
	l.Log = eventlog.NewMemory(eventlog.MemoryOptions{})
	return l
}

func (l *faultyLog) ask() error {
	l.asked.Add(1)
	time.Sleep(time.Duration(l.takes.Load()))
	if l.fails.Load() {
		return errors.New("the disk is gone")
	}
	return nil
}

func (l *faultyLog) Append(ctx context.Context, ch eventlog.Channel, b eventlog.Batch) (eventlog.Position, bool, error) {
	if err := l.ask(); err != nil {
		return eventlog.Position{}, false, err
	}
	at, duplicate, err := l.Log.Append(ctx, ch, b)
	if l.loses.Load() {
		return eventlog.Position{}, false, eventlog.ErrUnavailable
	}
	return at, duplicate, err
}

func (l *faultyLog) Seek(ctx context.Context, ch eventlog.Channel, s eventlog.Start) (eventlog.Position, error) {
	if err := l.ask(); err != nil {
		return eventlog.Position{}, err
	}
	return l.Log.Seek(ctx, ch, s)
}

func (l *faultyLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	if err := l.ask(); err != nil {
		return eventlog.Page{}, err
	}
	return l.Log.Read(ctx, ch, after, limit)
}

// states are the series of a name, by dependency.
func (w *world) states(name string) (text string) {
	w.Helper()
	families, err := w.registry().Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				text += fmt.Sprintf("%s=%v ", m.GetLabel()[0].GetValue(), m.GetGauge().GetValue()+m.GetCounter().GetValue())
			}
		}
	}
	return strings.TrimSpace(text)
}

const openFor = 2*time.Second + time.Millisecond

// TestLogThatFails: it is asked no more after five failures, who needs it is
// told at once and what that means, and one question brings it back.
func TestLogThatFails(t *testing.T) {
	var book logbook
	log := &faultyLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow, Logger: book.logger()}, func(w *world) {
		s := w.must(carriers[1], "r", "")
		w.next(s)
		log.fails.Store(true)
		for i := range 5 {
			if got, want := outcomes(w.up("", batch(frame(i+1, "r")))), fmt.Sprintf("%d:again:unavailable:tried", i+1); got != want {
				t.Errorf("P9.5: %s, not %s", got, want)
			}
		}
		asked, began := log.asked.Load(), time.Now()
		for range 100 {
			it := w.up("", batch(frame(6, "r")))
			if got := outcomes(it); got != "6:again:unavailable" {
				t.Fatalf("P9.5: %s", got)
			}
			if after := it.Published[0].Retry.After; after < 2000 || after > 3000 {
				t.Errorf("to come back after %d ms", after)
			}
			if r := w.do("POST", "/publish?channel=r", "1"); r.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a plain publish: %d", r.StatusCode)
			} else if why := w.refusedBy("publish", r); why.Code != "unavailable" || !strings.Contains(why.Message, "not asked") {
				t.Errorf("P7.4: %+v", why)
			}
			if r := w.do("GET", "/poll?channel=other", ""); r.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a poll: %d", r.StatusCode)
			}
		}
		_, err := w.srv.Publish(w.ctx, "r", server.Message{Data: []byte("1")})
		if not, ok := errors.AsType[*breaker.NotAsked](err); !ok || !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, eventlog.ErrNotAppended) || not.After != 2*time.Second ||
			err.Error() != "eventlog: unavailable: not asked: it failed 5 times, asked again in 2s" {
			t.Errorf("the program's own: %v", err)
		}
		if n, took := log.asked.Load()-asked, time.Since(began); n != 0 || took != 0 {
			t.Errorf("while open the log was asked %d times, in %v", n, took)
		}
		expect(t, "state", w.states("throughline_dependency_state"), "Authorize=0 log=2 store=0")
		time.Sleep(openFor)
		w.up("", batch(frame(6, "r"))) // the trial
		w.up("", batch(frame(6, "r")))
		if n := log.asked.Load() - asked; n != 1 {
			t.Errorf("the trial asked the log %d times", n)
		}
		log.fails.Store(false)
		expect(t, "open again", outcomes(w.up("", batch(frame(6, "r")))), "6:again:unavailable")
		time.Sleep(openFor)
		expect(t, "back", outcomes(w.up("", batch(frame(1, "r")))), "1:ok")
		expect(t, "back", outcomes(w.up("", batch(frame(2, "r")))), "2:ok")
		for _, want := range []string{"1", "2"} {
			if it := w.next(s); string(it.Data) != want {
				t.Errorf("%+v, not %s", it, want)
			}
		}
		expect(t, "state", w.states("throughline_dependency_state"), "Authorize=0 log=0 store=0")
		opened, shut := book.lines(t, "msg", "dependency open"), book.lines(t, "msg", "dependency closed")
		if len(opened) != 1 || opened[0]["dependency"] != "log" || opened[0]["failures"] != 5.0 || opened[0]["level"] != "WARN" {
			t.Errorf("%v", opened)
		}
		if len(shut) != 1 || shut[0]["after"] != 2*float64(openFor) || shut[0]["failures"] != 6.0 {
			t.Errorf("%v", shut)
		}
	})
}

// TestNothingIsLostWhileTheLogFails: clients on all carriers read on, and a
// producer sends what was not acknowledged again.
func TestNothingIsLostWhileTheLogFails(t *testing.T) {
	const events = 300
	log := &faultyLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow}, func(w *world) {
		begin := w.publish("r", "0").String()
		oracle := conformance.NewOracle(begin)
		var serving atomic.Pointer[http.Client]
		serving.Store(w.http)
		var all sync.WaitGroup
		seen := make([][]conformance.Seen, 2*len(carriers))
		for i := range seen {
			all.Go(func() { seen[i] = w.follow(&serving, carriers[i%len(carriers)], begin, events) })
		}
		refused := 0
		for n := 1; n <= events; n++ {
			log.loses.Store(n%60 == 20)
			log.fails.Store(n%60 == 30)
			next := frame(n, "r")
			for tries := 0; ; tries++ {
				it := w.up("", batch(next))
				if len(it.Published) != 1 || it.Published[0].Error != nil {
					t.Fatalf("%d: %+v", n, it)
				}
				o := it.Published[0]
				if o.Retry == nil {
					oracle.Appended(n, o.Position)
					break
				}
				refused++
				if o.Tried {
					next = repeated(frame(n, "r"))
				}
				if tries == 12 {
					log.loses.Store(false)
					log.fails.Store(false)
				}
				time.Sleep(time.Duration(o.Retry.After) * time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond)
		}
		all.Wait()
		for i := range seen {
			if v := oracle.Judge(begin, seen[i]); !v.OK() || v.Missing+v.Unreached > 0 {
				t.Errorf("%s: %v", carriers[i%len(carriers)].name, v)
			}
		}
		if n := len(w.holds("r")); n != events+1 {
			t.Errorf("the log holds %d events", n)
		}
		if got := w.states("throughline_dependency_refused_total"); refused < 100 || strings.Contains(got, "log=0") {
			t.Errorf("nothing failed: %d, %s", refused, got)
		}
	})
}

// TestSlowLog: what comes after its time is a failure, also if it is an answer.
func TestSlowLog(t *testing.T) {
	log := &faultyLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow, PublishTimeout: 5 * time.Second}, func(w *world) {
		log.takes.Store(int64(6 * time.Second))
		for i := range 5 {
			w.do("POST", "/publish?channel=r", fmt.Sprint(i))
		}
		expect(t, "state", w.states("throughline_dependency_state"), "Authorize=0 log=2 store=0")
		defer w.takes(0)()
		w.do("POST", "/publish?channel=r", "1")
	})
}

// TestHasteOpensNothing: whose own time is over soon or who goes away says
// nothing about the log.
func TestHasteOpensNothing(t *testing.T) {
	log := &heedingLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow}, func(w *world) {
		publish := func(ctx context.Context, cancel func()) {
			defer cancel()
			if _, err := w.srv.Publish(ctx, "r", server.Message{Data: []byte("1")}); !errors.Is(err, eventlog.ErrUnavailable) {
				t.Errorf("%v", err)
			}
		}
		for range 20 {
			publish(context.WithTimeout(w.ctx, 900*time.Millisecond))
			ctx, cancel := context.WithCancel(w.ctx)
			time.AfterFunc(2*time.Second, cancel)
			publish(ctx, cancel)
		}
		expect(t, "state", w.states("throughline_dependency_state"), "Authorize=0 log=0 store=0")
		for range 5 {
			publish(context.WithTimeout(w.ctx, 1100*time.Millisecond))
		}
		expect(t, "state", w.states("throughline_dependency_state"), "Authorize=0 log=2 store=0")
	})
}

// A heedingLog never appends, and says so when its context is over.
type heedingLog struct{ eventlog.Log }

func (l *heedingLog) open() eventlog.Log {
	l.Log = eventlog.NewMemory(eventlog.MemoryOptions{})
	return l
}

func (l *heedingLog) Append(ctx context.Context, _ eventlog.Channel, _ eventlog.Batch) (eventlog.Position, bool, error) {
	<-ctx.Done()
	return eventlog.Position{}, false, eventlog.ErrUnavailable
}

// TestStoreIsNotAsked: while it fails; clients come in all the same.
func TestStoreIsNotAsked(t *testing.T) {
	store := &countedStore{}
	inBubble(t, server.Options{Authorize: allow, Store: store}, func(w *world) {
		store.Store = w.store
		store.down.Store(true)
		for range 5 {
			if _, _, err := w.srv.Present(w.ctx, server.Channel{Name: "r"}); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("%v", err)
			}
		}
		asked := store.asked.Load()
		w.publish("r", "1")
		for i := range 20 {
			defer w.takes(0)()
			if _, _, err := w.srv.Present(w.ctx, server.Channel{Name: "r"}); !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "not asked") {
				t.Errorf("%v", err)
			}
			s, _ := w.line(w.http, "ws", wireclient.Hello{Line: uint64(i + 1), Channels: []wireclient.Channel{{Channel: "r", After: "earliest"}}})
			w.next(s)
			s.Close()
		}
		if n := store.asked.Load() - asked; n != 0 {
			t.Errorf("it was asked %d times", n)
		}
		expect(t, "state", w.states("throughline_dependency_state"), "Authorize=0 log=0 store=2")
		if s, b := probe(w.srv.Readyz(), "GET"); s != 503 || b != `{"ready":false,"failing":{"store":{"for":0,"breaker":"open"}}}` {
			t.Errorf("%d %s", s, b)
		}
	})
}

// A countedStore counts who is present.
type countedStore struct {
	flakyStore
	asked atomic.Int32
}

func (s *countedStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	s.asked.Add(1)
	return s.flakyStore.Present(ctx, ch, most)
}

// TestReadyOfADependency: the question itself may be the trial.
func TestReadyOfADependency(t *testing.T) {
	log := &faultyLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow}, func(w *world) {
		log.fails.Store(true)
		for range 5 {
			w.do("POST", "/publish?channel=r", "1")
		}
		time.Sleep(1500 * time.Millisecond)
		if s, b := probe(w.srv.Readyz(), "GET"); s != 503 || b != `{"ready":false,"failing":{"log":{"for":1.5,"breaker":"open"}}}` {
			t.Errorf("open: %d %s", s, b)
		}
		time.Sleep(1100 * time.Millisecond)
		if s, b := probe(w.srv.Readyz(), "GET"); s != 503 || b != `{"ready":false,"failing":{"log":{"for":2.6,"breaker":"open"}}}` {
			t.Errorf("a trial that failed: %d %s", s, b)
		}
		log.fails.Store(false)
		time.Sleep(openFor)
		if s, b := probe(w.srv.Readyz(), "GET"); s != 200 || b != ready {
			t.Errorf("a trial that went well: %d %s", s, b)
		}
		w.publish("r", "1")
	})
}

// TestDependenciesOff: all is asked always.
func TestDependenciesOff(t *testing.T) {
	log := &faultyLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow, Dependencies: server.Dependencies{Disabled: true}}, func(w *world) {
		synctest.Wait()
		asked := log.asked.Load()
		log.fails.Store(true)
		for i := range 50 {
			expect(t, "P9.5", outcomes(w.up("", batch(frame(i+1, "r")))), fmt.Sprintf("%d:again:unavailable:tried", i+1))
		}
		if n := log.asked.Load() - asked; n != 50 {
			t.Errorf("the log was asked %d times", n)
		}
		if n := testutil.CollectAndCount(w.srv, "throughline_dependency_state"); n != 0 {
			t.Errorf("%d series", n)
		}
	})
}

// TestDependenciesOptions: both are heeded, and neither may be below zero.
func TestDependenciesOptions(t *testing.T) {
	for _, n := range []int{1, 7} {
		for _, d := range []time.Duration{time.Second, 30 * time.Second} {
			log := &faultyLog{}
			o := server.Options{Authorize: allow, Dependencies: server.Dependencies{FailuresInARow: n, OpenFor: d}}
			inBubbleWith(t, log.open, o, func(w *world) {
				synctest.Wait()
				log.fails.Store(true)
				for i := range n {
					expect(t, "before", outcomes(w.up("", batch(frame(i+1, "r")))), fmt.Sprintf("%d:again:unavailable:tried", i+1))
				}
				log.fails.Store(false)
				time.Sleep(d - time.Millisecond)
				expect(t, "open", outcomes(w.up("", batch(frame(1, "r")))), "1:again:unavailable")
				time.Sleep(2 * time.Millisecond)
				expect(t, "after", outcomes(w.up("", batch(frame(1, "r")))), "1:ok")
			})
		}
	}
	for _, o := range []server.Dependencies{{FailuresInARow: -1}, {OpenFor: -1}} {
		if _, err := server.New(server.Options{Dependencies: o}); err == nil || !strings.Contains(err.Error(), "Options.Dependencies.") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestLogAnswers: what a log says to a question is no failure of it.
func TestLogAnswers(t *testing.T) {
	for _, answer := range []error{&eventlog.Lost{}, &eventlog.Invalid{}, &eventlog.Expectation{}, eventlog.ErrStale, eventlog.ErrBusy, eventlog.ErrNotDurable, eventlog.ErrFull, context.Canceled} {
		log := &answeringLog{answer: answer}
		inBubbleWith(t, log.open, server.Options{Authorize: allow}, func(w *world) {
			for range 40 {
				if _, err := w.srv.Publish(w.ctx, "r", server.Message{Data: []byte("1")}); !errors.Is(err, answer) {
					t.Errorf("%v, not %v", err, answer)
				}
			}
			expect(t, fmt.Sprint(answer), w.states("throughline_dependency_state"), "Authorize=0 log=0 store=0")
		})
	}
}

// An answeringLog appends nothing and says why.
type answeringLog struct {
	eventlog.Log
	answer error
}

func (l *answeringLog) open() eventlog.Log {
	l.Log = eventlog.NewMemory(eventlog.MemoryOptions{})
	return l
}

func (l *answeringLog) Append(context.Context, eventlog.Channel, eventlog.Batch) (eventlog.Position, bool, error) {
	return eventlog.Position{}, false, l.answer
}

// TestDeafTrial: one that does not come back keeps nobody else from trying.
func TestDeafTrial(t *testing.T) {
	m := server.Message{Data: []byte("1")}
	log := &faultyLog{}
	inBubbleWith(t, log.open, server.Options{Authorize: allow}, func(w *world) {
		fail := func() {
			synctest.Wait() // who follows the log has read: it would try again just when we do
			log.fails.Store(true)
			for range 5 {
				_, _ = w.srv.Publish(w.ctx, "r", m)
			}
			log.fails.Store(false)
			time.Sleep(openFor)
			log.takes.Store(int64(time.Hour))
		}
		fail()
		go func() { _, _ = w.srv.Publish(context.Background(), "r", m) }()
		time.Sleep(10*time.Second + time.Millisecond)
		expect(t, "a trial without a deadline", w.states("throughline_dependency_state"), "Authorize=0 log=2 store=0")
		log.takes.Store(0)
		time.Sleep(openFor)
		w.publish("r", "1")

		fail()
		ctx, cancel := context.WithCancel(w.ctx)
		go func() { _, _ = w.srv.Publish(ctx, "r", m) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		log.takes.Store(0)
		w.publish("r", "1")
		time.Sleep(2 * time.Hour)
	})
}

// BenchmarkBreakers: what the log's breaker costs beside the log in memory.
func BenchmarkBreakers(b *testing.B) {
	for _, off := range []bool{true, false} {
		log := eventlog.NewMemory(eventlog.MemoryOptions{})
		srv, err := server.New(server.Options{Log: log, Logger: slog.New(slog.DiscardHandler), Dependencies: server.Dependencies{Disabled: off}})
		if err != nil {
			b.Fatal(err)
		}
		m := server.Message{Data: []byte(`"hello"`)}
		var last server.Position
		b.Run(fmt.Sprintf("append/disabled=%t", off), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				last, _ = srv.Publish(b.Context(), "r", m)
			}
		})
		b.Run(fmt.Sprintf("read/disabled=%t", off), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = srv.Read(b.Context(), server.Channel{Name: "r"}, last, server.Limit{})
			}
		})
		_, _ = srv.Close(), log.Close()
	}
}
