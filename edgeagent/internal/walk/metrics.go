package walk

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
	"github.com/edgewalk/edgewalk/internal/topology"
)

type metrics struct {
	steps, walks *prometheus.CounterVec
	// stepCounters and walkCounters are those that were used, so that each is looked up once.
	stepCounters counters[stepLabels]
	walkCounters counters[string]

	// What is counted of each endpoint and of each origin, with the first series of each metric.
	endpoints, origins *series.Family
	stepsAt, secondsAt int
}

type stepLabels struct {
	kind    string
	outcome origin.Outcome
	reason  origin.Reason
}

// counters holds counters by what their labels are made of.
type counters[Labels comparable] struct {
	mu   sync.RWMutex
	held map[Labels]prometheus.Counter
}

// of returns the counter of labels, which is looked up if it was not asked for before.
func (c *counters[Labels]) of(labels Labels, lookUp func() prometheus.Counter) prometheus.Counter {
	c.mu.RLock()
	counter := c.held[labels]
	c.mu.RUnlock()
	if counter != nil {
		return counter
	}
	counter = lookUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(map[Labels]prometheus.Counter)
	}
	c.held[labels] = counter
	return counter
}

func newMetrics(cfg Config, m *memory) *metrics {
	reg := cfg.Registerer
	out := &metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_walk_steps_total",
			Help: "Steps of walks, by the origin's kind, outcome and reason.",
		}, []string{"kind", "outcome", "reason"}),
		walks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_walks_total",
			Help: "Walks by how they end.",
		}, []string{"ending"}),
	}
	out.endpoints, _ = series.NewFamily(cfg.Series, "url_endpoint", cfg.HasEndpoint, series.Metric{
		Name: "edgewalk_endpoint_walks_total", Help: "Walks of an endpoint by how they end.",
		Label: "ending", Values: kinds[:],
	})
	var first []int
	out.origins, first = series.NewFamily(cfg.Series, "origin", cfg.HasOrigin,
		series.Metric{
			Name: "edgewalk_origin_steps_total", Help: "Steps of walks for which an origin was asked, by outcome.",
			Label: "outcome", Values: outcomes(),
		},
		series.Metric{
			Name: "edgewalk_origin_step_seconds_total",
			Help: "Time that these steps took, until the first byte of the body.", Unit: 1e-6,
		},
	)
	out.stepsAt, out.secondsAt = first[0], first[1]
	if reg != nil {
		reg.MustRegister(out.endpoints, out.origins, out.steps, out.walks, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edgewalk_walk_remembered_misses",
			Help: "Misses of origins that are held in memory, expired ones included.",
		}, func() float64 { return float64(m.size()) }))
	}
	return out
}

func (m *metrics) step(a *origin.Answer) {
	m.stepCounters.of(stepLabels{a.Kind, a.Outcome, a.Reason}, func() prometheus.Counter {
		return m.steps.WithLabelValues(a.Kind, a.Outcome.String(), string(a.Reason))
	}).Inc()
}

// asked counts a step, if an origin was asked for it.
func (m *metrics) asked(account string, o *topology.Origin, a *origin.Answer) {
	if a.Reason == origin.Unasked {
		return
	}
	of := m.origins.Of(account, stepID(o))
	of.Add(m.stepsAt+int(a.Outcome), 1)
	of.Add(m.secondsAt, uint64(a.Duration.Microseconds()))
}

// outcomes are the names of all outcomes, in their order.
func outcomes() (names []string) {
	for o := origin.Inconclusive; o <= origin.Found; o++ {
		names = append(names, o.String())
	}
	return names
}

func (m *metrics) walk(r *Request, res *Result) {
	m.endpoints.Of(r.Account.ID, r.Endpoint.ID).Add(int(res.Kind), 1)
	ending := res.Kind.String()
	if res.Kind == Failed {
		ending = "failed_" + strconv.Itoa(res.Status)
	}
	m.walkCounters.of(ending, func() prometheus.Counter { return m.walks.WithLabelValues(ending) }).Inc()
}
