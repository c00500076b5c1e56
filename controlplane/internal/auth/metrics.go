package auth

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type metrics struct{ checks *prometheus.CounterVec }

// results says what an error of a check counts as.
var results = []struct {
	err  error
	name string
}{
	{nil, "ok"}, {ErrMissing, "missing"}, {ErrInvalid, "invalid"}, {ErrExpired, "expired"},
	{ErrUnavailable, "unavailable"}, {ErrTooMany, "too_many"},
}

func newMetrics(a *Auth, r prometheus.Registerer) *metrics {
	m := &metrics{checks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "edgewalk_controlplane_auth_checks_total",
		Help: "Calls of admins and programs by what came of the check of their credential: ok, missing, invalid, expired, too_many, and " +
			"unavailable (etcd is gone and the token not known).",
	}, []string{"result"})}
	for _, result := range results {
		m.checks.WithLabelValues(result.name)
	}
	if r != nil {
		r.MustRegister(m.checks, collector{a})
	}
	return m
}

func (m *metrics) count(err error) {
	for _, result := range results {
		if errors.Is(err, result.err) {
			m.checks.WithLabelValues(result.name).Inc()
			return
		}
	}
}

var (
	tokensDesc = prometheus.NewDesc("edgewalk_controlplane_auth_tokens", "Tokens that are accepted, by role.",
		[]string{"role"}, nil)
	currentDesc = prometheus.NewDesc("edgewalk_controlplane_auth_current",
		"1 while the control plane hears of new and revoked tokens, 0 while etcd does not tell it.", nil, nil)
)

// collector counts tokens when it is asked.
type collector struct{ a *Auth }

// Describe implements [prometheus.Collector].
func (c collector) Describe(to chan<- *prometheus.Desc) {
	to <- tokensDesc
	to <- currentDesc
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(to chan<- prometheus.Metric) {
	now := c.a.now()
	counts := make(map[Role]int)
	c.a.mu.RLock()
	for _, e := range c.a.tokens {
		if !e.expired(now) {
			counts[e.token().GetRole()]++
		}
	}
	current := 0.0
	if c.a.watched && c.a.answers {
		current = 1
	}
	c.a.mu.RUnlock()
	for role, name := range adminv1.Token_Role_name {
		if role != 0 {
			to <- prometheus.MustNewConstMetric(tokensDesc, prometheus.GaugeValue, float64(counts[Role(role)]), name)
		}
	}
	to <- prometheus.MustNewConstMetric(currentDesc, prometheus.GaugeValue, current)
}
