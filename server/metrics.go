package server

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/longpoll"
	"github.com/throughline/throughline/sse"
	"github.com/throughline/throughline/transport"
	"github.com/throughline/throughline/ws"
)

// metrics are a server's Prometheus series; it implements core.Observer.
type metrics struct {
	connections *prometheus.GaugeVec
	ended       *prometheus.CounterVec
	publishes   *prometheus.CounterVec
	deliveries  *prometheus.CounterVec
	delivered   map[string]prometheus.Counter // of deliveries, looked up once: it is on the path of delivery
	resumes     *prometheus.CounterVec
	gaps        *prometheus.CounterVec
	evictions   *prometheus.CounterVec
	calls       *prometheus.CounterVec
	sessions    prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "throughline", Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "throughline", Name: "connections", Help: "Connections that are attached, by transport.",
		}, []string{"transport"}),
		ended:      counter("connections_ended_total", "Connections that ended, by reason.", "reason"),
		publishes:  counter("publishes_total", "Publishes, by result: appended, duplicate, refused, unavailable.", "result"),
		deliveries: counter("deliveries_total", "Events written to clients, by transport.", "transport"),
		resumes:    counter("resumes_total", "Positions presented, by outcome: found, lost.", "outcome"),
		gaps:       counter("gaps_total", "Gaps told to clients, by reason.", "reason"),
		evictions:  counter("evictions_total", "Clients evicted as slow, by transport.", "transport"),
		calls:      counter("calls_total", "Calls answered, by result: ok, or the code of the refusal where it is one of ours, else refused.", "result"),
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "throughline", Name: "sessions", Help: "Sessions that have a connection here, or had one lately.",
		}),
		delivered: map[string]prometheus.Counter{},
	}
	for _, carrier := range []string{sse.Name, ws.Name, longpoll.Name} {
		m.delivered[carrier] = m.deliveries.WithLabelValues(carrier)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.connections, m.ended, m.publishes, m.deliveries, m.resumes, m.gaps, m.evictions, m.calls, m.sessions}
}

// Describe implements [prometheus.Collector].
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	for _, c := range s.metrics.all() {
		c.Collect(ch)
	}
}

// Opened implements core.Observer, as does the rest.
func (m *metrics) Opened(carrier string) { m.connections.WithLabelValues(carrier).Inc() }

func (m *metrics) Ended(carrier string, why transport.Reason) {
	m.connections.WithLabelValues(carrier).Dec()
	m.ended.WithLabelValues(why.Code).Inc()
}

func (m *metrics) Delivered(carrier string, events int) {
	counter, ok := m.delivered[carrier]
	if !ok {
		counter = m.deliveries.WithLabelValues(carrier) // of Options.Transports
	}
	counter.Add(float64(events))
}

func (m *metrics) Resumed(found bool) {
	outcome := "found"
	if !found {
		outcome = "lost"
	}
	m.resumes.WithLabelValues(outcome).Inc()
}

func (m *metrics) Gap(why eventlog.Reason) { m.gaps.WithLabelValues(string(why)).Inc() }

func (m *metrics) Evicted(carrier string) { m.evictions.WithLabelValues(carrier).Inc() }

// Published implements core.Observer; what the program itself publishes counts,
// too.
func (m *metrics) Published(err error, duplicate bool) {
	result := "appended"
	switch {
	case errors.Is(err, eventlog.ErrUnavailable):
		result = "unavailable"
	case err != nil:
		result = "refused"
	case duplicate:
		result = "duplicate"
	}
	m.publishes.WithLabelValues(result).Inc()
}

// Called implements core.Observer. Codes of the program's own would make labels
// without bound.
func (m *metrics) Called(code string) {
	switch code {
	case "":
		code = "ok"
	case transport.CodeFailed, transport.CodeUnknown, transport.CodeForbidden, transport.CodeBusy, transport.CodeNotFound, transport.CodeUnavailable:
	default:
		code = "refused"
	}
	m.calls.WithLabelValues(code).Inc()
}

// Sessions implements core.Observer.
func (m *metrics) Sessions(more int) { m.sessions.Add(float64(more)) }
