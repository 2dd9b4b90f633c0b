package server_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

func TestMetrics(t *testing.T) {
	inBubbleWith(t, smallLog(3), server.Options{}, func(w *world) {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(w.srv)
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
		synctest.Wait()
		want := `
# HELP throughline_connections Connections that are attached, by transport.
# TYPE throughline_connections gauge
throughline_connections{transport="poll"} 0
throughline_connections{transport="ws"} 1
# HELP throughline_connections_ended_total Connections that ended, by reason.
# TYPE throughline_connections_ended_total counter
throughline_connections_ended_total{reason="spent"} 1
# HELP throughline_deliveries_total Events written to clients, by transport.
# TYPE throughline_deliveries_total counter
throughline_deliveries_total{transport="poll"} 0
throughline_deliveries_total{transport="sse"} 0
throughline_deliveries_total{transport="ws"} 3
# HELP throughline_gaps_total Gaps told to clients, by reason.
# TYPE throughline_gaps_total counter
throughline_gaps_total{reason="trimmed"} 1
# HELP throughline_publishes_total Publishes, by result: appended, duplicate, refused, unavailable.
# TYPE throughline_publishes_total counter
throughline_publishes_total{result="appended"} 5
# HELP throughline_resumes_total Positions presented, by outcome: found, lost.
# TYPE throughline_resumes_total counter
throughline_resumes_total{outcome="lost"} 1
# HELP throughline_sessions Sessions that have a connection here, or had one lately.
# TYPE throughline_sessions gauge
throughline_sessions 0
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		problems, err := testutil.GatherAndLint(registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
	})
}
