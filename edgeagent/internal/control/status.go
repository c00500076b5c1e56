package control

import (
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/connfault"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Status is how an agent stands to the topology.
type Status struct {
	// Epoch is the identity of the topology's history, empty while there is none to serve. Agents
	// that were sent a history that was rewritten have one of their own.
	Epoch string
	// Revision is what requests see. Persisted is what is fsynced, 0 when nothing is.
	Revision, Persisted int64
	// Durable says whether what is applied is also kept on disk.
	Durable bool
	// Server is the control plane that the agent is connected to, empty for none.
	Server string
	// Parted says why no control plane is connected, as the last one that was tried told. It holds
	// no secret, and is empty while one is connected and before one was tried.
	Parted string
	// AsOf is when the agent last knew that it was in step with etcd, by the control plane's clock.
	// Zero = never.
	AsOf time.Time
	// Age is the time since AsOf, 0 without one.
	Age time.Duration
	// Rejected is how many resources are not in effect as received.
	Rejected int
	// Refused says why the agent keeps what it has instead of what control planes last sent. Empty
	// when it does not.
	Refused string
}

// Status returns the state of the agent. It may be called at any time.
func (c *Control) Status() Status {
	persisted, durable := c.state.Durable()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Persisted, s.Durable = min(persisted, s.Revision), durable
	if !s.AsOf.IsZero() {
		s.Age = max(0, c.cfg.Now().Sub(s.AsOf))
	}
	return s
}

// Settings are those that a control plane last gave. They are never nil and must not be changed.
func (c *Control) Settings() *edgev1.Welcome_Settings { return c.settings.Load() }

// publish makes Status return the current position.
func (c *Control) publish() {
	rejected, at := len(c.rejected()), c.state.At()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Epoch, c.status.Revision, c.status.Rejected, c.digest = at.Epoch, at.Revision, rejected, at.Digest
}

// ack returns how far the agent is in the history of an epoch. It reads what is persisted first, so
// that this is never ahead of what is applied.
func (c *Control) ack(epoch string) *edgev1.Ack {
	persisted, durable := c.state.Durable()
	c.mu.Lock()
	defer c.mu.Unlock()
	if state.Common(c.status.Epoch) != epoch {
		return &edgev1.Ack{Durable: durable} // revisions of another history would be taken for revisions of this one
	}
	digest := c.digest
	return &edgev1.Ack{
		Applied: c.status.Revision, Persisted: min(persisted, c.status.Revision), Durable: durable, Digest: digest[:],
	}
}

// inStep records a proof of being in step. Proofs of different control planes may come out of
// order. None is later than now: else, once a clock was ahead, no proof would count until then.
func (c *Control) inStep(asOf time.Time) {
	now := c.cfg.Now().Round(0)
	if asOf.After(now) {
		asOf = now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if asOf.After(c.status.AsOf) || c.status.AsOf.After(now) {
		c.status.AsOf = asOf
	}
}

// parted records why a session has ended, in one line.
func (c *Control) parted(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Parted = strings.Join(strings.Fields(why), " ")
}

func (c *Control) refused(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Refused = why
}

// forgetAsOf clears AsOf when another history begins, because nothing is known of that yet.
func (c *Control) forgetAsOf() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.AsOf = time.Time{}
}

func (c *Control) asOf() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status.AsOf
}

func (e ending) level() slog.Level {
	if e.drain != nil {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// words returns why the stream ended and, if it was never established, what may fix that.
func (e ending) words(secure bool) (why, fix string) {
	st, ok := status.FromError(e.err)
	switch {
	case !ok:
		return e.err.Error(), ""
	case st.Code() == codes.Unauthenticated, st.Code() == codes.PermissionDenied:
		return "refused: " + strings.TrimPrefix(st.Message(), "refused: "), ""
	case st.Code() != codes.Unavailable:
		return e.err.Error(), ""
	}
	why, kind := connfault.Of(st.Message())
	switch {
	case e.inStep: // it was established
	case kind == connfault.NoTLS:
		fix = "it does not speak TLS: leave out --ca"
	case kind == connfault.Untrusted:
		fix = "name the CA of its certificate with --ca, and the host that its certificate is for with --control-plane"
	case kind == connfault.NoGRPC:
		fix = "name the address of its --edge-addr with --control-plane"
	case kind == connfault.Silent:
		fix = "it may be another program, or stand still: name the address of its --edge-addr with --control-plane"
	case kind == connfault.HungUp && !secure:
		fix = "it may ask for TLS: use --ca, or --join-token-file"
	case kind == connfault.HungUp:
		fix = "it may ask for a certificate: use --join-token-file, or --cert and --key"
	}
	return why, fix
}

// metrics shows Status, and counts.
type metrics struct {
	control *Control

	revision, persisted, age, durable, connected, rejected *prometheus.Desc

	lag           prometheus.Histogram
	resyncs       *prometheus.CounterVec
	nacks         prometheus.Counter
	refusedStates prometheus.Counter
	duplicates    prometheus.Counter
}

func newMetrics(c *Control) *metrics {
	gauge := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		control:   c,
		revision:  gauge("edgewalk_edge_config_revision", "Revision of the topology that requests see."),
		persisted: gauge("edgewalk_edge_config_persisted_revision", "Revision of the topology that is fsynced in the state folder."),
		age:       gauge("edgewalk_edge_config_age_seconds", "Time since the topology was last known to be that of etcd. Absent while there is none."),
		durable:   gauge("edgewalk_edge_config_durable", "1 while the topology is kept on disk."),
		connected: gauge("edgewalk_edge_stream_connected", "1 while a control plane is connected."),
		rejected:  gauge("edgewalk_edge_config_rejected", "Resources that are not in effect as received."),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "edgewalk_edge_config_lag_seconds", Help: "Time from a control plane seeing a step to requests seeing it here, by the two machines' clocks.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		resyncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_edge_config_resyncs_total", Help: "Full states that replaced a topology that the agent held, by reason.",
		}, []string{"reason"}),
		nacks:         counter("edgewalk_edge_config_nacks_total", "Resources that were refused when they arrived."),
		refusedStates: counter("edgewalk_edge_config_refused_states_total", "Full states that were refused for being less than half of what the agent holds."),
		duplicates:    counter("edgewalk_edge_config_duplicate_steps_total", "Steps that the agent had already."),
	}
}

func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.revision, m.persisted, m.age, m.durable, m.connected, m.rejected} {
		out <- d
	}
	m.lag.Describe(out)
	m.resyncs.Describe(out)
	for _, c := range []prometheus.Counter{m.nacks, m.refusedStates, m.duplicates} {
		c.Describe(out)
	}
}

func (m *metrics) Collect(out chan<- prometheus.Metric) {
	s := m.control.Status()
	gauge := func(d *prometheus.Desc, v float64) { out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(m.revision, float64(s.Revision))
	gauge(m.persisted, float64(s.Persisted))
	if !s.AsOf.IsZero() {
		gauge(m.age, s.Age.Seconds())
	}
	gauge(m.durable, toFloat(s.Durable))
	gauge(m.connected, toFloat(s.Server != ""))
	gauge(m.rejected, float64(s.Rejected))
	m.lag.Collect(out)
	m.resyncs.Collect(out)
	for _, c := range []prometheus.Counter{m.nacks, m.refusedStates, m.duplicates} {
		c.Collect(out)
	}
}

func toFloat(v bool) float64 {
	if v {
		return 1
	}
	return 0
}
