package server

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/throughline/throughline/breaker"
	"github.com/throughline/throughline/core"
	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/transport"
)

// metrics are a server's Prometheus series, as docs/metrics.md has them; it
// implements core.Observer. All labels are of closed sets (closed.go).
type metrics struct {
	labels     *labels
	collectors []prometheus.Collector

	sessions    *prometheus.GaugeVec
	connections *prometheus.GaugeVec
	ended       *prometheus.CounterVec
	publishes   *prometheus.CounterVec
	deliveries  *prometheus.CounterVec
	delivered   map[core.Source]prometheus.Counter // of deliveries, looked up once: it is on the path of delivery
	waited      *prometheus.HistogramVec
	waits       map[string]prometheus.Observer // of waited, by transport
	lag         prometheus.Histogram
	resumes     *prometheus.CounterVec
	gaps        *prometheus.CounterVec
	evictions   *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	calls       *prometheus.CounterVec
	functions   *prometheus.HistogramVec
	panics      *prometheus.CounterVec
	logAsked    *prometheus.HistogramVec
	logAsks     map[string]prometheus.Observer
	storeAsked  *prometheus.HistogramVec
	storeFailed *prometheus.CounterVec
	dependency  *prometheus.GaugeVec // set when it is collected
	notAsked    *prometheus.CounterVec
}

// Buckets. Between the bounds of one kind lies a factor of about 3.
var (
	secondsToWrite = []float64{.0003, .001, .003, .01, .03, .1, .3, 1, 3, 10}
	secondsToAsk   = []float64{.00001, .0001, .001, .003, .01, .03, .1, .3, 1, 5}
	secondsToRun   = []float64{.00001, .0001, .001, .01, .03, .1, .3, 1, 3, 10, 30}
	events         = []float64{0, 1, 10, 30, 100, 300, 1000, 3000, 10000}
)

const namespace = "throughline"

func newMetrics(l *labels) *metrics {
	m := &metrics{labels: l}
	m.sessions = m.gauge("sessions", "Sessions that have a connection here, or had one lately.", "namespace")
	m.connections = m.gauge("connections", "Connections that are attached, by transport.", "namespace", "transport")
	m.ended = m.counter("connections_ended_total", "Connections that ended, by reason.", "namespace", "reason")
	m.publishes = m.counter("publishes_total", "Appends to the log, by result: appended, duplicate, refused, unavailable.", "namespace", "result")
	m.deliveries = m.counter("deliveries_total", "Events written to clients, by transport.", "namespace", "transport")
	m.waited = m.histogram("append_to_write_seconds", "From an event's append until a client's connection took it; a sample of the live ones.", secondsToWrite, "transport")
	m.lag = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: "lag_events", Help: "By how many events a client is behind when a write to it is done; a sample.", Buckets: events,
	})
	m.collectors = append(m.collectors, m.lag)
	m.resumes = m.counter("resumes_total", "Positions presented, by outcome: found, lost.", "namespace", "outcome")
	m.gaps = m.counter("gaps_total", "Gaps told to clients, by reason.", "namespace", "reason")
	m.evictions = m.counter("evictions_total", "Clients evicted, by transport and reason: lag, write_timeout, memory.", "namespace", "transport", "reason")
	m.refusals = m.counter("refusals_total", "What clients were refused, by code.", "namespace", "code")
	m.calls = m.counter("calls_total", "Calls answered, by result: ok, or the code of the refusal.", "namespace", "result")
	m.functions = m.histogram("function_seconds", "How long the program's own functions took, by the option's name.", secondsToRun, "function")
	m.panics = m.counter("function_panics_total", "Panics of the program's own functions, by the option's name.", "function")
	m.logAsked = m.histogram("log_seconds", "How long the event log took to answer, by operation: append, read, seek.", secondsToAsk, "operation")
	m.storeAsked = m.histogram("store_seconds", "How long the session store took to answer, by operation.", secondsToAsk, "operation")
	m.storeFailed = m.counter("store_failures_total", "Questions that the session store did not answer, by operation.", "operation")
	m.dependency = m.gauge("dependency_state", "What the server depends on, by the state of its breaker: 0 closed, 1 half-open, 2 open.", "dependency")
	m.notAsked = m.counter("dependency_refused_total", "Questions that were not asked, as what they were for failed before.", "dependency")
	m.lookUp()
	return m
}

// lookUp makes the series that are used often.
func (m *metrics) lookUp() {
	m.delivered = make(map[core.Source]prometheus.Counter)
	m.waits = make(map[string]prometheus.Observer)
	m.logAsks = make(map[string]prometheus.Observer)
	for carrier := range m.labels.transports {
		m.waits[carrier] = m.waited.WithLabelValues(carrier)
		for space := range m.labels.namespaces {
			m.delivered[core.Source{Namespace: space, Transport: carrier}] = m.deliveries.WithLabelValues(space, carrier)
		}
	}
	for _, operation := range []string{"append", "read", "seek", "range"} {
		m.logAsks[operation] = m.logAsked.WithLabelValues(operation)
	}
}

func (m *metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.collectors = append(m.collectors, v)
	return v
}

func (m *metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.collectors = append(m.collectors, v)
	return v
}

func (m *metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	m.collectors = append(m.collectors, v)
	return v
}

// measure adds what a log says of itself.
func (m *metrics) measure(log eventlog.Log) {
	measured, ok := log.(eventlog.Measured)
	if !ok {
		return
	}
	gauge := func(name, help string, value func(eventlog.Size) float64) {
		m.collectors = append(m.collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help},
			func() float64 { return value(measured.Size()) }))
	}
	gauge("log_bytes", "What the event log holds, as it counts towards its bounds.", func(s eventlog.Size) float64 { return float64(s.Bytes) })
	gauge("log_channels", "Channels of which the event log holds something, or remembers the name.", func(s eventlog.Size) float64 { return float64(s.Channels) })
}

// follow adds what an engine knows of evicted clients.
func (m *metrics) follow(e *core.Engine) {
	for state, value := range map[string]func(breaker.Known) int{
		"kept_out": func(k breaker.Known) int { return k.Open },
		"trial":    func(k breaker.Known) int { return k.Trials },
	} {
		m.collectors = append(m.collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "evicted_clients", Help: "Clients that were evicted as slow: kept out for now, or on trial.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(value(e.Evicted())) }))
	}
}

// Describe implements [prometheus.Collector].
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range s.metrics.collectors {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	s.dependencies.measure()
	for _, c := range s.metrics.collectors {
		c.Collect(ch)
	}
}

// Opened implements core.Observer, as does the rest.
func (m *metrics) Opened(of core.Source) {
	of = m.labels.source(of)
	m.connections.WithLabelValues(of.Namespace, of.Transport).Inc()
}

func (m *metrics) Ended(of core.Source, why transport.Reason) {
	of = m.labels.source(of)
	m.connections.WithLabelValues(of.Namespace, of.Transport).Dec()
	m.ended.WithLabelValues(of.Namespace, closed(codes, why.Code)).Inc()
}

func (m *metrics) Delivered(of core.Source, events int) {
	m.delivered[m.labels.source(of)].Add(float64(events))
}

func (m *metrics) Sent(of core.Source, lag uint64, waited time.Duration) {
	m.lag.Observe(float64(lag))
	if waited >= 0 {
		m.waits[m.labels.source(of).Transport].Observe(waited.Seconds())
	}
}

func (m *metrics) Resumed(of core.Source, found bool) {
	outcome := "found"
	if !found {
		outcome = "lost"
	}
	m.resumes.WithLabelValues(m.labels.namespace(of.Namespace), outcome).Inc()
}

func (m *metrics) Gap(of core.Source, why eventlog.Reason) {
	m.gaps.WithLabelValues(m.labels.namespace(of.Namespace), closed(gapReasons, string(why))).Inc()
}

func (m *metrics) Evicted(of core.Source, why core.Slowness) {
	of = m.labels.source(of)
	m.evictions.WithLabelValues(of.Namespace, of.Transport, string(why)).Inc()
}

// Published implements core.Observer; what the program itself publishes counts,
// too.
func (m *metrics) Published(space string, err error, duplicate bool) {
	result := "appended"
	switch {
	case isLogsAnswer(err):
		result = "refused"
	case err != nil: // whatever a log of the program's may say
		result = "unavailable"
	case duplicate:
		result = "duplicate"
	}
	m.publishes.WithLabelValues(m.labels.namespace(space), result).Inc()
}

// isLogsAnswer reports whether an error of an append says what was wrong with it.
func isLogsAnswer(err error) bool {
	_, invalid := errors.AsType[*eventlog.Invalid](err)
	_, unexpected := errors.AsType[*eventlog.Expectation](err)
	return invalid || unexpected || errors.Is(err, eventlog.ErrStale) || errors.Is(err, eventlog.ErrBusy)
}

func (m *metrics) Called(space, code string) {
	result := "ok"
	if code != "" {
		result = closed(codes, code)
	}
	m.calls.WithLabelValues(m.labels.namespace(space), result).Inc()
}

func (m *metrics) Refused(space, code string) {
	m.refusals.WithLabelValues(m.labels.namespace(space), closed(codes, code)).Inc()
}

func (m *metrics) Sessions(space string, more int) {
	m.sessions.WithLabelValues(m.labels.namespace(space)).Add(float64(more))
}

func (m *metrics) AskedLog(operation string, took time.Duration) {
	m.logAsks[operation].Observe(took.Seconds())
}

func (m *metrics) Hooked(name string, took time.Duration, panicked bool) {
	if !functions[name] {
		return // one that is made of another, which counts
	}
	m.functions.WithLabelValues(name).Observe(took.Seconds())
	if panicked {
		m.panics.WithLabelValues(name).Inc()
	}
}
