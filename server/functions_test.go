package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/transport"
)

// A moody function does what it is told to do.
type moody struct {
	mood  atomic.Value // of string: what it does; "": it says yes
	asked atomic.Int32
}

var errAway = fmt.Errorf("the database: %w", eventlog.ErrUnavailable)

func (m *moody) ask(ctx context.Context) error {
	m.asked.Add(1)
	mood, _ := m.mood.Load().(string)
	switch mood {
	case "panics":
		panic("as told")
	case "refuses":
		return transport.Refuse("own_code", "no")
	case "fails":
		return errors.New("no such thing")
	case "is away":
		return errAway
	case "is unavailable":
		return transport.RefuseFor(time.Second, transport.CodeUnavailable, "later")
	case "hangs":
		<-ctx.Done()
		return ctx.Err()
	case "is deaf":
		time.Sleep(time.Hour)
	}
	return nil
}

// options has it be one of the program's functions.
func (m *moody) options(function string) server.Options {
	o := server.Options{Authorize: allow, MaxCalls: 1000}
	switch function {
	case "Authenticate":
		o.Authenticate = func(r *http.Request) (server.Identity, error) { return server.Identity{}, m.ask(r.Context()) }
	case "Authorize":
		o.Authorize = func(ctx context.Context, _ server.Identity, _ server.Action, _ server.Channel) error {
			return m.ask(ctx)
		}
	case "OnConnect":
		o.OnConnect = func(ctx context.Context, _ server.Client) (server.Welcome, error) {
			return server.Welcome{}, m.ask(ctx)
		}
	case "OnSubscribe":
		o.OnSubscribe = func(ctx context.Context, _ server.Client, _ server.Channel) error { return m.ask(ctx) }
	case "OnPublish":
		o.OnPublish = func(ctx context.Context, _ *server.Publication) error { return m.ask(ctx) }
	case "OnCall":
		o.OnCall = func(ctx context.Context, r server.Request) (server.Payload, error) {
			if r.Name != "x" {
				return server.Payload{}, nil
			}
			return server.Payload{}, m.ask(ctx)
		}
	case "From":
		o.Namespaces = map[string]server.Namespace{"": {Rules: map[string]server.Rule{"*": {
			From: func(ctx context.Context, _ server.Identity, _ server.Channel) (time.Time, error) {
				return time.Time{}, m.ask(ctx)
			},
		}}}}
	}
	return o
}

var functionsWithBreakers = []string{"Authenticate", "Authorize", "OnConnect", "OnSubscribe", "OnPublish", "OnCall", "From"}

// meet has a client do all that asks functions, and returns what it was refused.
func (w *world) meet(function string) (why wireclient.Reason) {
	w.Helper()
	switch function {
	case "OnCall":
		it := w.up("", call(1, "x", "1"))
		if it.Close != nil {
			return *it.Close
		}
		if it.Reply.Error != nil {
			return *it.Reply.Error
		}
		return why
	case "OnPublish":
		if it := w.up("", batch(frame(1, "r"))); it.Published[0].Error != nil {
			return *it.Published[0].Error
		} else if it.Published[0].Retry != nil {
			return *it.Published[0].Retry
		}
		return why
	}
	s, _, err := w.begin(w.http, "poll", hello("r", ""))
	if r := refusal(err); r != nil {
		return r.Reason
	} else if err != nil {
		w.Fatal(err)
	}
	defer s.Close()
	for function == "Authorize" || function == "OnSubscribe" || function == "From" {
		it, err := s.Next()
		if err != nil {
			return why
		}
		if it.End != nil {
			return *it.End
		}
		if it.Opening {
			return why
		}
	}
	return why
}

// TestFunctionsThatFail: they are not asked any more, and clients are told at
// once which it is.
func TestFunctionsThatFail(t *testing.T) {
	for _, function := range functionsWithBreakers {
		for _, mood := range []string{"is away", "is unavailable", "hangs"} {
			t.Run(function+" "+mood, func(t *testing.T) {
				m := &moody{}
				inBubble(t, m.options(function), func(w *world) {
					m.mood.Store(mood)
					var all sync.WaitGroup
					for range 20 {
						all.Go(func() { w.meet(function) })
					}
					all.Wait()
					asked, began := m.asked.Load(), time.Now()
					for range 50 {
						r := w.meet(function)
						if r.Code != "unavailable" || r.Class != "later" || r.After < 2000 || r.After > 5000 || !strings.Contains(r.Message, function+" ") {
							t.Fatalf("%+v", r)
						}
					}
					if n, took := m.asked.Load()-asked, time.Since(began); n != 0 || took != 0 {
						t.Errorf("it was asked %d times, in %v", n, took)
					}
					if got := w.states("throughline_dependency_state"); !strings.Contains(got, function+"=2") || strings.Count(got, "=2") != 1 {
						t.Error(got)
					}
					m.mood.Store("")
					time.Sleep(openFor)
					if r := w.meet(function); r.Code != "" {
						t.Errorf("the trial: %+v", r)
					}
					if r := w.meet(function); r.Code != "" {
						t.Errorf("back: %+v", r)
					}
				})
			})
		}
	}
}

// TestOneBadClient trips nothing: by what panics, and by what it is refused.
func TestOneBadClient(t *testing.T) {
	for _, function := range functionsWithBreakers {
		for _, mood := range []string{"panics", "refuses", "fails"} {
			t.Run(function+" "+mood, func(t *testing.T) {
				m := &moody{}
				inBubble(t, m.options(function), func(w *world) {
					m.mood.Store(mood)
					for range 100 {
						if r := w.meet(function); r.Code == "" || strings.Contains(r.Message, "this server fails") && r.After > 2000 {
							t.Fatalf("%+v", r)
						}
					}
					if n := m.asked.Load(); n < 100 {
						t.Errorf("it was asked %d times", n)
					}
					m.mood.Store("")
					if r := w.meet(function); r.Code != "" {
						t.Errorf("somebody else: %+v", r)
					}
					if got := w.states("throughline_dependency_state"); strings.Contains(got, "=1") || strings.Contains(got, "=2") {
						t.Error(got)
					}
				})
			})
		}
	}
}

// TestCallsByName: one that fails harms no other, and names that are made up
// take no room.
func TestCallsByName(t *testing.T) {
	m := &moody{}
	o := m.options("OnCall")
	names := 0
	o.OnCall = func(ctx context.Context, r server.Request) (server.Payload, error) {
		if strings.HasPrefix(r.Name, "bad") {
			names++
			return server.Payload{}, errAway
		}
		return server.Payload{}, m.ask(ctx)
	}
	inBubble(t, o, func(w *world) {
		say := func(name string) string { return reply(w.up("", call(1, name, "1"))) }
		for range 20 {
			expect(t, "it fails", say("bad"), "failed")
		}
		expect(t, "open", say("bad"), "unavailable")
		expect(t, "another", say("good"), "null")
		if s, b := probe(w.srv.Readyz(), "GET"); s != 200 || b != `{"ready":true,"degraded":{"OnCall":{"for":0,"breaker":"open"}}}` {
			t.Errorf("%d %s", s, b)
		}
		for i := range 1000 { // each has failures of its own, and there are no more breakers
			say(fmt.Sprint("bad", i))
		}
		if names != 1020 {
			t.Errorf("%d", names)
		}
		expect(t, "the first is still known", say("bad"), "unavailable")
		m.mood.Store("is away")
		for range 40 {
			expect(t, "without a breaker", say("good"), "failed")
		}
		time.Sleep(11 * time.Second) // there is room again
		for range 20 {
			expect(t, "with one", say("good"), "failed")
		}
		expect(t, "open", say("good"), "unavailable")
	})
}

// TestAuthenticateHangs: a flood of hellos holds, once that is known, no more
// than the one that tries, also if the function is deaf to its context.
func TestAuthenticateHangs(t *testing.T) {
	for _, mood := range []string{"hangs", "is deaf"} {
		t.Run(mood, func(t *testing.T) {
			m := &moody{}
			o := m.options("Authenticate")
			o.AttachTimeout = 10 * time.Second
			inBubble(t, o, func(w *world) {
				m.mood.Store(mood)
				flood := func(n int) (all *sync.WaitGroup) {
					all = &sync.WaitGroup{}
					for range n {
						all.Go(func() {
							ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
							defer cancel()
							req, _ := http.NewRequestWithContext(ctx, http.MethodPost, base+"/poll", strings.NewReader(`{"hello":{"version":1,"line":1}}`))
							if resp, err := w.http.Do(req); err == nil {
								_ = resp.Body.Close()
							}
						})
					}
					return all
				}
				flood(30)
				time.Sleep(10*time.Second + time.Millisecond) // their time is over
				synctest.Wait()
				asked := m.asked.Load()
				if s, b := probe(w.srv.Readyz(), "GET"); s != 503 || !strings.Contains(b, `"failing":{"Authenticate":{"for":0.001,"breaker":"open"}}`) {
					t.Errorf("open: %d %s", s, b)
				}
				before := runtime.NumGoroutine()
				flood(100).Wait()
				if n := m.asked.Load() - asked; n != 0 {
					t.Errorf("while open it was asked %d times", n)
				}
				time.Sleep(openFor)
				if s, b := probe(w.srv.Readyz(), "GET"); s != 200 {
					t.Errorf("time for a trial: %d %s", s, b)
				}
				w.http.CloseIdleConnections()
				flood(100)
				synctest.Wait()
				w.http.CloseIdleConnections()
				synctest.Wait()
				if n := m.asked.Load() - asked; n != 1 {
					t.Errorf("it was asked %d times by the flood", n)
				}
				if n := runtime.NumGoroutine() - before; n > 20 {
					t.Errorf("the flood holds %d goroutines", n)
				}
				time.Sleep(2 * time.Second)
				if s, b := probe(w.srv.Readyz(), "GET"); s != 503 || !strings.Contains(b, "half-open") {
					t.Errorf("the trial is under way: %d %s", s, b)
				}
				m.mood.Store("")
				time.Sleep(time.Minute)
				if r := w.meet("Authenticate"); r.Code != "" {
					t.Errorf("later: %+v", r)
				}
				time.Sleep(2 * time.Hour) // those that are deaf
			})
		})
	}
}

// TestOneClientClosesNoFunction: whoever knows how to make a function fail, and
// does it again and again, closes it to nobody else; when it fails for several,
// it is closed.
func TestOneClientClosesNoFunction(t *testing.T) {
	poisoned := func(ctx context.Context, who server.Client) error {
		if strings.HasPrefix(who.Subject, "bad") {
			return errAway
		}
		return nil
	}
	o := server.Options{
		Authorize: allow, MaxCalls: 1000,
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Subject: r.Header.Get(who)}, nil
		},
		OnPublish: func(ctx context.Context, p *server.Publication) error { return poisoned(ctx, p.Client) },
	}
	inBubble(t, o, func(w *world) {
		publish := func(as string) (status int, body string) {
			r := w.do("POST", "/publish?channel=r", "1", who, as)
			text, _ := io.ReadAll(r.Body)
			return r.StatusCode, string(text)
		}
		closed := func() bool {
			status, body := publish("good")
			return status == 503 && strings.Contains(body, "Options.OnPublish of this server fails")
		}
		for range 3 { // windows
			for range 10 {
				publish("good")
				for range 10 {
					publish("bad")
				}
			}
			if closed() {
				t.Fatal("one client has closed OnPublish to the others")
			}
			time.Sleep(11 * time.Second)
		}
		for i := range 100 {
			publish(fmt.Sprint("bad ", i%20))
		}
		if !closed() {
			t.Error("OnPublish failed for twenty clients, and is still asked")
		}
	})
}
