package edgehttp

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
	"github.com/edgewalk/edgewalk/edgeagent/internal/traffic"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// metrics are what an operator sees of requests. No label holds a host or a path.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	bytes    prometheus.Counter
	inFlight prometheus.GaugeFunc
	refused  *prometheus.CounterVec
	aborted  prometheus.Counter
	dropped  prometheus.Counter

	acceptErrors, panics, unknownNames prometheus.Counter

	observed [outcomes]observed // of requests and duration

	// endpoints counts for each endpoint; the indexes are those of the first series of each metric.
	// While the topology does not change, requests find the counters by the compiled endpoint, and
	// not by names.
	endpoints           *series.Family
	outcomesAt, bytesAt int
	traffic             *traffic.Table
	compiled            sync.Map // *topology.Endpoint to *counted
	revision            atomic.Int64
}

// counted holds the counters of an endpoint: for Prometheus, and for the report.
type counted struct {
	series  *series.Counters
	account *traffic.Account
}

// newMetrics returns metrics; inFlight is how many requests are being answered.
func newMetrics(
	r prometheus.Registerer, bound *series.Bound, table *route.Table, inFlight func() int,
) *metrics {
	m := &metrics{
		traffic: traffic.New(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_edge_requests_total", Help: "Requests by what became of them and by class of status.",
		}, []string{"outcome", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "edgewalk_edge_request_duration_seconds", Help: "Time from a request's head to the end of its reply.",
			Buckets: []float64{
				.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120,
			},
		}, []string{"outcome"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_edge_response_bytes_total", Help: "Bytes of bodies sent to clients.",
		}),
		inFlight: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edgewalk_edge_requests_in_flight", Help: "Requests that are being answered.",
		}, func() float64 { return float64(inFlight()) }),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_edge_refused_total", Help: "Connections and requests turned away to keep the edge alive, by limit.",
		}, []string{"reason"}),
		aborted: prometheus.NewCounter(
			prometheus.CounterOpts{
				Name: "edgewalk_edge_aborted_replies_total",
				Help: "Replies cut off because their body ended early or the client went away.",
			},
		),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_edge_access_log_lost_lines_total",
			Help: "Lines of the access log that could not be written.",
		}),
		acceptErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_edge_accept_errors_total", Help: "Connections that the machine could not hand over; see the log.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_edge_panics_total", Help: "Requests that ended by a fault of edgewalk; see the log.",
		}),
	}
	m.unknownNames = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "edgewalk_edge_tls_unknown_names_total",
		Help: "TLS handshakes for names that nobody has a certificate for.",
	})
	// Alerts use rates, which need the series before the first refusal.
	for _, reason := range []string{
		"connections", "connections_per_client", "requests", "requests_per_client", "requests_per_account",
		"waiting", "waiting_per_client", "waiting_per_account",
	} {
		m.refused.WithLabelValues(reason)
	}
	names := make([]string, outcomes)
	for o := range outcomes {
		names[o] = o.String()
	}
	exists := func(account, id string) bool {
		a := table.Root().Account(account)
		return a != nil && a.Endpoint(id) != nil
	}
	family, first := series.NewFamily(bound, "url_endpoint", exists,
		series.Metric{
			Name: "edgewalk_endpoint_requests_total", Help: "Requests of an endpoint by what became of them.",
			Label: "outcome", Values: names,
		},
		series.Metric{
			Name: "edgewalk_endpoint_response_bytes_total", Help: "Bytes of bodies that an endpoint sent to clients.",
		},
	)
	m.endpoints, m.outcomesAt, m.bytesAt = family, first[0], first[1]
	if r != nil {
		r.MustRegister(m.requests, m.duration, m.bytes, m.inFlight, m.refused, m.aborted, m.dropped, m.acceptErrors,
			m.panics,
			m.unknownNames, family)
	}
	return m
}

// outcome is what became of a request: one of [httpcache.Outcome], or one of those below.
type outcome uint8

const (
	outcomeRefused   = outcome(httpcache.Refused)
	outcomeOptions   = outcome(httpcache.Canceled) + 1
	outcomeRedirect  = outcomeOptions + 1
	outcomeChallenge = outcomeRedirect + 1
	outcomes         = outcomeChallenge + 1
)

func (o outcome) String() string {
	switch o {
	case outcomeRedirect:
		return "redirect"
	case outcomeOptions:
		return "options"
	case outcomeChallenge:
		return "challenge"
	}
	return httpcache.Outcome(o).String()
}

// observed are the metrics of one outcome, looked up when it comes first.
type observed struct {
	requests [6]atomic.Pointer[prometheus.Counter] // by class of status
	duration atomic.Pointer[prometheus.Observer]
}

func (m *metrics) observe(o outcome, status int, took time.Duration) {
	of := &m.observed[o]
	class := status / 100
	if class >= len(of.requests) || class < 0 {
		class = 0
	}
	requests, duration := of.requests[class].Load(), of.duration.Load()
	if requests == nil {
		counter := m.requests.WithLabelValues(o.String(), codeClass(class))
		requests = &counter
		of.requests[class].Store(requests)
	}
	if duration == nil {
		observer := m.duration.WithLabelValues(o.String())
		duration = &observer
		of.duration.Store(duration)
	}
	(*requests).Inc()
	(*duration).Observe(took.Seconds())
}

// of returns the counters of an endpoint, in the topology of a revision, by id and uid of its
// account.
func (m *metrics) of(account, uid string, endpoint *topology.Endpoint, revision int64) *counted {
	if held := m.revision.Load(); revision != held && m.revision.CompareAndSwap(held, revision) {
		m.compiled.Clear() // else it would keep endpoints that were compiled again since
	}
	if found, ok := m.compiled.Load(endpoint); ok {
		return found.(*counted)
	}
	c := &counted{m.endpoints.Of(account, endpoint.ID), m.traffic.Of(account, uid)}
	m.compiled.Store(endpoint, c)
	return c
}

// count counts a request whose endpoint is known, once it is answered.
func (m *metrics) count(x *exchange) {
	e := &x.entry
	of := x.known.counters(m, x)
	of.series.Add(m.outcomesAt+int(x.outcome), 1)
	if e.Bytes > 0 {
		of.series.Add(m.bytesAt, uint64(e.Bytes))
	}
	of.account.Count(httpcache.Outcome(x.outcome), e.Status, e.Bytes)
	if x.outcome == outcome(httpcache.NotFound) || x.outcome == outcome(httpcache.DefaultImage) {
		of.account.Missing(x.endpoint.ID, e.Path)
	}
}

// counters returns those that a request is counted with. l is nil if where it leads was not known.
func (l *location) counters(m *metrics, x *exchange) *counted {
	if l != nil {
		if of := l.counted.Load(); of != nil {
			return of
		}
	}
	of := m.of(x.entry.Account, x.account, x.endpoint, x.entry.Revision)
	if l != nil {
		l.counted.Store(of)
	}
	return of
}

// Traffic returns what was counted of accounts since the last call, as [traffic.Table.Report] does.
func (s *Server) Traffic(room int) []*edgev1.AccountTraffic {
	root := s.cfg.Table.Root()
	return s.metrics.traffic.Report(room, func(id, uid string) bool {
		a := root.Account(id)
		return a != nil && a.UID == uid
	})
}

func codeClass(class int) string {
	if class == 0 {
		return "other"
	}
	return strconv.Itoa(class) + "xx"
}
