package domaincheck

import (
	"maps"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// standing is what counts of the facts of a domain.
type standing struct {
	uid    string
	state  topologyv1.DomainCertificate_State
	reason topologyv1.DomainCertificate_Reason
	// away says that the name leads elsewhere, so that its certificate cannot be renewed.
	away bool
	// renew is when the certificate is due to be renewed, Unix time, 0 if that is not known.
	renew int64
}

// standings are those of all domains while this control plane leads.
type standings struct {
	mu  sync.Mutex
	all map[topology.Key]standing // nil while another leads
}

// begin forgets all; end says that this control plane leads no more.
func (s *standings) begin() { s.reset(make(map[topology.Key]standing)) }

func (s *standings) end() { s.reset(nil) }

func (s *standings) reset(to map[topology.Key]standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = to
}

func (s *standings) facts(f store.DomainFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.all == nil:
	case f.Facts == nil:
		delete(s.all, f.Key)
	default:
		s.all[f.Key] = standingOf(f.Facts)
	}
}

func standingOf(f *storev1.DomainFacts) standing {
	s := standing{uid: f.GetUid(), state: f.GetCertificate().GetState(), reason: f.GetCertificate().GetReason()}
	switch f.GetRouting().GetState() {
	case topologyv1.DomainRouting_ELSEWHERE, topologyv1.DomainRouting_NXDOMAIN:
		s.away = true
	}
	if at := f.GetIssuance().GetGot().GetRenew(); at != nil {
		s.renew = at.GetSeconds()
	}
	return s
}

func (s *standings) leads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all != nil
}

// read returns a copy, nil while another control plane leads.
func (s *standings) read() map[topology.Key]standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.all)
}

// certificateMetrics counts the certificates of all domains, at the control plane that leads.
type certificateMetrics struct {
	service                 *Service
	feed                    *feed.Feed
	states, soonest, ending *prometheus.Desc

	mu     sync.Mutex // counts once for scrapes that come together
	last   *count
	counts time.Time // when last was counted
	took   time.Duration
}

// count is how the certificates stand.
type count struct {
	states       map[topologyv1.DomainCertificate_State]int
	third, sixth int
	soonest      int64 // Unix time, 0 for none
}

// countShare bounds the share of its time that a control plane counts.
const countShare = 100

// Metrics returns the metrics of the certificates of the domains that a feed has. They are there
// at the control plane alone that leads.
func (s *Service) Metrics(f *feed.Feed) prometheus.Collector {
	return &certificateMetrics{
		service: s, feed: f,
		states: prometheus.NewDesc("edgewalk_certificates",
			"Domains by how their certificates stand: none, waiting, ordering, issued, renewing, failed, expired. "+
				"At the control plane that leads.", []string{"state"}, nil),
		soonest: prometheus.NewDesc("edgewalk_certificate_soonest_expiry_seconds",
			"Seconds until the first certificate of a domain that leads here ends; negative once it has. "+
				"At the control plane that leads.", nil, nil),
		ending: prometheus.NewDesc("edgewalk_certificates_ending",
			"Certificates of domains that lead here with less than a third, or a sixth, of their life left "+
				"that are due to be replaced. At the control plane that leads.", []string{"left"}, nil),
	}
}

// Describe implements [prometheus.Collector].
func (m *certificateMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.states
	out <- m.soonest
	out <- m.ending
}

// Collect implements [prometheus.Collector].
func (m *certificateMetrics) Collect(out chan<- prometheus.Metric) {
	c, now := m.count()
	if c == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for state := topologyv1.DomainCertificate_NONE; state <= topologyv1.DomainCertificate_EXPIRED; state++ {
		gauge(m.states, float64(c.states[state]), stateLabel(state))
	}
	gauge(m.ending, float64(c.third), "third")
	gauge(m.ending, float64(c.sixth), "sixth")
	if c.soonest != 0 {
		gauge(m.soonest, math.Floor(time.Unix(c.soonest, 0).Sub(now).Seconds()))
	}
}

// stateLabel is a state as labels have it.
func stateLabel(state topologyv1.DomainCertificate_State) string {
	return map[topologyv1.DomainCertificate_State]string{
		topologyv1.DomainCertificate_NONE: "none", topologyv1.DomainCertificate_WAITING: "waiting",
		topologyv1.DomainCertificate_ORDERING: "ordering", topologyv1.DomainCertificate_ISSUED: "issued",
		topologyv1.DomainCertificate_RENEWING: "renewing", topologyv1.DomainCertificate_FAILED: "failed",
		topologyv1.DomainCertificate_EXPIRED: "expired",
	}[state]
}

// count counts, unless that was done a moment ago. It returns nil while another control plane
// leads.
func (m *certificateMetrics) count() (*count, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.service.now()
	if m.last != nil && now.Sub(m.counts) < countShare*m.took && m.service.standings.leads() {
		return m.last, now
	}
	m.last = nil
	known := m.service.standings.read()
	if known == nil {
		return nil, now
	}
	began := time.Now()
	c := &count{states: make(map[topologyv1.DomainCertificate_State]int)}
	for record := range m.feed.All(topology.KindCustomDomains) {
		decoded, err := record.Decode()
		if err != nil {
			continue // edges do without it too
		}
		m.add(c, record, decoded.(*topologyv1.CustomDomain), known[record.Key], now)
	}
	m.last, m.counts, m.took = c, now, time.Since(began)
	return c, now
}

// add counts one domain.
func (m *certificateMetrics) add(
	c *count, record topology.Record, d *topologyv1.CustomDomain, known standing, now time.Time,
) {
	if known.uid != topology.UID(record.Key.ID, record.CreateRevision) {
		known = standing{}
	}
	var held *topology.Certificate
	key := topology.Key{Kind: topology.KindCertificates, Account: record.Key.Account, ID: record.Key.ID}
	if stored, ok := m.feed.Get(key); ok {
		held, _ = topology.CompileCertificate(stored) // edges do without one that cannot be read too
	}
	var fact *topologyv1.DomainCertificate
	if known.state != topologyv1.DomainCertificate_STATE_UNSPECIFIED {
		fact = &topologyv1.DomainCertificate{State: known.state, Reason: known.reason}
	}
	c.states[m.service.certificate(d, fact, held).GetState()]++
	if held == nil || known.away || d.GetState() != topologyv1.CustomDomain_ACTIVE ||
		d.GetTls().GetMode() == topologyv1.DomainTls_OFF {
		return
	}
	if c.soonest == 0 || held.NotAfter < c.soonest {
		c.soonest = held.NotAfter
	}
	if known.renew > now.Unix() {
		return // as its issuer has said
	}
	switch left := held.Left(now); {
	case left < 1.0/6:
		c.sixth++
		c.third++
	case left < 1.0/3:
		c.third++
	}
}
