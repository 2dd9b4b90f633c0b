package server_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
	"github.com/throughline/throughline/session"
	"github.com/throughline/throughline/transport"
)

// registry is one that has the metrics of the world's server.
func (w *world) registry() *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(w.srv)
	return r
}

// TestMetrics: what a few clients do is counted.
func TestMetrics(t *testing.T) {
	inBubbleWith(t, smallLog(3), server.Options{}, func(w *world) {
		begin := w.seekEarliest("r")
		for range 5 {
			w.publish("r", "1")
		}
		s := w.must(carriers[1], "r", begin)
		for range 4 { // the gap and three events
			w.next(s)
		}
		if _, err := wireclient.PlainPoll(w.ctx, w.http, base+"/poll?channel=r"); err != nil {
			t.Fatal(err)
		}
		w.do("GET", "/sse?channel=%24secret", "")
		synctest.Wait()
		want := `
# HELP throughline_connections Connections that are attached, by transport.
# TYPE throughline_connections gauge
throughline_connections{namespace="",transport="poll"} 0
throughline_connections{namespace="",transport="ws"} 1
# HELP throughline_connections_ended_total Connections that ended, by reason.
# TYPE throughline_connections_ended_total counter
throughline_connections_ended_total{namespace="",reason="spent"} 1
# HELP throughline_deliveries_total Events written to clients, by transport.
# TYPE throughline_deliveries_total counter
throughline_deliveries_total{namespace="",transport="other"} 0
throughline_deliveries_total{namespace="",transport="poll"} 0
throughline_deliveries_total{namespace="",transport="sse"} 0
throughline_deliveries_total{namespace="",transport="ws"} 3
throughline_deliveries_total{namespace="other",transport="other"} 0
throughline_deliveries_total{namespace="other",transport="poll"} 0
throughline_deliveries_total{namespace="other",transport="sse"} 0
throughline_deliveries_total{namespace="other",transport="ws"} 0
# HELP throughline_gaps_total Gaps told to clients, by reason.
# TYPE throughline_gaps_total counter
throughline_gaps_total{namespace="",reason="trimmed"} 1
# HELP throughline_log_channels Channels of which the event log holds something, or remembers the name.
# TYPE throughline_log_channels gauge
throughline_log_channels 1
# HELP throughline_publishes_total Appends to the log, by result: appended, duplicate, refused, unavailable.
# TYPE throughline_publishes_total counter
throughline_publishes_total{namespace="",result="appended"} 5
# HELP throughline_refusals_total What clients were refused, by code.
# TYPE throughline_refusals_total counter
throughline_refusals_total{code="forbidden",namespace=""} 1
# HELP throughline_resumes_total Positions presented, by outcome: found, lost.
# TYPE throughline_resumes_total counter
throughline_resumes_total{namespace="",outcome="lost"} 1
`
		if err := testutil.GatherAndCompare(w.registry(), strings.NewReader(want),
			"throughline_connections", "throughline_connections_ended_total", "throughline_deliveries_total", "throughline_gaps_total", "throughline_log_channels",
			"throughline_publishes_total", "throughline_refusals_total", "throughline_resumes_total", "throughline_sessions"); err != nil {
			t.Error(err)
		}
	})
}

// TestAppendToWrite: how long live events take is measured, from the append to
// the end of the write; what somebody missed is not.
func TestAppendToWrite(t *testing.T) {
	inBubble(t, server.Options{}, func(w *world) {
		for range 100 {
			w.publish("r", "1")
		}
		time.Sleep(time.Hour)
		for range 50 { // each catches up with events that are an hour old
			s := w.must(carriers[1], "r", w.seekEarliest("r"))
			w.next(s)
			s.Close()
		}
		if n, _ := histogram(t, w.srv, "throughline_append_to_write_seconds"); n != 0 {
			t.Errorf("%d waits were measured of those who caught up", n)
		}
		s := w.must(carriers[1], "r", "")
		w.next(s)
		for range 800 {
			w.publish("r", "1")
			w.next(s)
		}
		if n, sum := histogram(t, w.srv, "throughline_append_to_write_seconds"); n < 30 || n > 300 || sum > time.Second.Seconds() {
			t.Errorf("%d of 800 waits were measured, %vs in all", n, sum)
		}
		if n, _ := histogram(t, w.srv, "throughline_lag_events"); n < 30 {
			t.Errorf("the lag was looked at %d times", n)
		}
	})
}

// TestAppendToWriteOfASlowWrite: the write is part of it.
func TestAppendToWriteOfASlowWrite(t *testing.T) {
	inBubble(t, server.Options{WriteTimeout: time.Hour}, func(w *world) {
		s := w.must(carriers[1], "r", "")
		w.next(s)
		for range 40 { // nobody reads meanwhile
			for range 20 {
				w.publish("r", fmt.Sprintf(`"%030000d"`, 1))
			}
			time.Sleep(7 * time.Second)
			for range 20 {
				w.next(s)
			}
		}
		if n, sum := histogram(t, w.srv, "throughline_append_to_write_seconds"); n == 0 || sum < 7 {
			t.Errorf("%d waits, %vs", n, sum)
		}
	})
}

// histogram returns how many were observed, of all series of a name, and their
// sum.
func histogram(t *testing.T, srv *server.Server, name string) (count uint64, sum float64) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(srv)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				count += m.GetHistogram().GetSampleCount()
				sum += m.GetHistogram().GetSampleSum()
			}
		}
	}
	return count, sum
}

// A flakyStore answers nothing while it is down.
type flakyStore struct {
	session.Store
	down atomic.Bool
}

func (s *flakyStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	if s.down.Load() {
		return nil, 0, session.ErrUnavailable
	}
	return s.Store.Present(ctx, ch, most)
}

func (s *flakyStore) Claim(ctx context.Context, held session.Held, lease session.Lease) error {
	if s.down.Load() {
		return session.ErrUnavailable
	}
	return s.Store.Claim(ctx, held, lease)
}

// eventful has everything happen that is counted.
func (w *world) eventful(store *flakyStore) {
	w.Helper()
	begin := w.seekEarliest("r")
	for range 5 {
		w.publish("r", "1")
	}
	w.next(w.must(carriers[0], "r", begin)) // a gap
	w.next(w.must(carriers[0], "r", w.publish("r", "1").String()))
	s, open := w.line(w.as("ann"), "ws", wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}, Presence: []wireclient.Watch{{Channel: "r"}}})
	for range 100 {
		w.publish("r", "1")
	}
	time.Sleep(5 * time.Second)
	store.down.Store(true)
	w.line(w.as("bob"), "sse", wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: "r"}}})
	time.Sleep(5 * time.Second)
	store.down.Store(false)
	for _, name := range []string{"ok", "panic"} {
		_, _ = wireclient.Post(w.ctx, w.as("ann"), base, open.Token, wireclient.Up{Call: &wireclient.Call{ID: 1, Name: name, Data: []byte("1")}})
	}
	_, _ = wireclient.Post(w.ctx, w.as("ann"), base, open.Token, wireclient.Up{Publish: &wireclient.Publish{
		Producer: wireclient.Producer("p"), Frames: []wireclient.PublishFrame{{Seq: 1, Channel: "r", Messages: []wireclient.Message{wireclient.Say("1")}}},
	}})
	w.do("GET", "/nothing", "")
	s.Close()
	w.must(carriers[1], "slow", "") // is not read
	for range 100 {
		w.publish("slow", fmt.Sprintf(`"%060000d"`, 1))
	}
	time.Sleep(time.Minute)
}

func eventfulOptions(store *flakyStore) server.Options {
	return server.Options{
		Authorize: allow, Authenticate: byHeader, Store: store,
		Namespaces:  map[string]server.Namespace{"": {Rules: map[string]server.Rule{"*": {From: func(context.Context, server.Identity, server.Channel) (time.Time, error) { return time.Time{}, nil }}}}, "acme": {}},
		OnConnect:   func(context.Context, server.Client) (server.Welcome, error) { return server.Welcome{}, nil },
		OnSubscribe: func(context.Context, server.Client, server.Channel) error { return nil },
		OnPublish:   func(context.Context, *server.Publication) error { return nil },
		OnCall: func(_ context.Context, r server.Request) (server.Payload, error) {
			if r.Name == "panic" {
				panic("as asked")
			}
			return server.Payload{}, nil
		},
		OnDisconnect: func(context.Context, server.Client) {},
	}
}

// TestMetricsAreGolden holds names, types, labels and help of all metrics against
// a list: a dashboard of somebody's hangs on each. Each is in docs/metrics.md,
// and promlint has nothing to say about them.
func TestMetricsAreGolden(t *testing.T) {
	want, err := os.ReadFile("testdata/metrics.golden")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	store := &flakyStore{}
	inBubbleWith(t, smallLog(3), eventfulOptions(store), func(w *world) {
		store.Store = w.store
		w.eventful(store)
		families, err := w.registry().Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, f := range families {
			var labels []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			fmt.Fprintf(&got, "%s %s {%s} %s\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ","), f.GetHelp())
			if row := fmt.Sprintf("| `%s` | %s |", f.GetName(), strings.ToLower(f.GetType().String())); !strings.Contains(string(docs), row) {
				t.Errorf("docs/metrics.md has no row that begins with %s", row)
			}
		}
		if got.String() != string(want) {
			t.Errorf("testdata/metrics.golden is not what there is:\n%s", got.String())
		}
		if rows, n := strings.Count(string(docs), "\n| `throughline_"), len(families); rows != n {
			t.Errorf("docs/metrics.md has %d rows for %d metrics", rows, n)
		}
		problems, err := testutil.GatherAndLint(w.registry())
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
	})
}

// TestLabelsAreClosed: neither names, nor codes, nor reasons, nor namespaces that
// others choose make series.
func TestLabelsAreClosed(t *testing.T) {
	o := server.Options{
		Authenticate: func(r *http.Request) (server.Identity, error) {
			return server.Identity{Namespace: r.Header.Get(who), Subject: r.Header.Get(who)}, nil
		},
		Authorize: func(_ context.Context, id server.Identity, what server.Action, _ server.Channel) error {
			if what == server.History {
				return transport.Refuse("code_"+id.Subject, "no")
			}
			return nil
		},
		OnCall: func(_ context.Context, r server.Request) (server.Payload, error) {
			return server.Payload{}, transport.Refuse("call_"+r.Client.Subject, "no")
		},
		Namespaces:    map[string]server.Namespace{"acme": {}},
		AddressRates:  server.Unlimited,
		IdentityRates: server.Unlimited,
	}
	lost := func() eventlog.Log { return oddLog{eventlog.NewMemory(eventlog.MemoryOptions{})} }
	inBubbleWith(t, lost, o, func(w *world) {
		visit := func(name string) {
			hc := w.as(name)
			s, open := w.line(hc, "ws", wireclient.Hello{Version: 1, Line: 1, Channels: []wireclient.Channel{{Channel: name}, {Channel: "h" + name, After: "earliest"}}})
			if _, err := w.srv.PublishTo(w.ctx, server.Channel{Namespace: name, Name: name}, server.Message{Data: []byte("1")}); err != nil {
				t.Fatal(err)
			}
			_, _ = wireclient.Post(w.ctx, hc, base, open.Token, wireclient.Up{Call: &wireclient.Call{ID: 1, Name: name, Data: []byte("1")}})
			if err := w.srv.Disconnect(w.ctx, server.Target{Namespace: name, Subject: name}, transport.Refuse("bye_"+name, "").Reason); err != nil {
				t.Fatal(err)
			}
			_, _ = endOf(s)
			req, _ := http.NewRequestWithContext(w.ctx, name, base+"/"+name, nil)
			if resp, err := hc.Do(req); err == nil {
				_ = resp.Body.Close()
			}
			synctest.Wait()
		}
		visit("acme")
		visit("first")
		known, first := series(t, w.registry())
		for i := range 50 {
			visit(fmt.Sprintf("tenant%d", i))
		}
		names, n := series(t, w.registry())
		if n != first {
			t.Errorf("%d series became %d: %v", first, n, slices.DeleteFunc(names, func(s string) bool { return slices.Contains(known, s) }))
		}
		if !slices.Contains(names, `throughline_refusals_total{code="other",namespace="acme"}`) || !slices.Contains(names, `throughline_publishes_total{namespace="other",result="appended"}`) {
			t.Errorf("%q", names)
		}
		for _, s := range names {
			if strings.Contains(s, "tenant") || strings.Contains(s, "first") {
				t.Errorf("%s", s)
			}
		}
	})
}

// An oddLog has reasons of its own for what is lost.
type oddLog struct{ *eventlog.Memory }

func (l oddLog) Read(ctx context.Context, ch eventlog.Channel, after eventlog.Position, limit eventlog.Limit) (eventlog.Page, error) {
	page, err := l.Memory.Read(ctx, ch, after, limit)
	if err == nil && len(page.Events) > 0 && ch.Name == ch.Namespace {
		if len(page.Events) == 1 && page.Events[0].Prev == after.Offset && after.Offset == 0 {
			return eventlog.Page{}, &eventlog.Lost{From: after, To: page.Events[0].At, Reason: eventlog.Reason("moth " + ch.Name)}
		}
	}
	return page, err
}

// series returns the names of all series, with their labels, and how many there
// are.
func series(t *testing.T, r *prometheus.Registry) (names []string, n int) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			names = append(names, f.GetName()+"{"+strings.Join(labels, ",")+"}")
		}
	}
	return names, len(names)
}
