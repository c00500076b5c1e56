package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/token"
	"github.com/edgewalk/edgewalk/internal/topology"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// DefaultLoopID names an edge in Via and CDN-Loop unless its Config does.
const DefaultLoopID = "edgewalk"

// Config is what a [Client] needs.
type Config struct {
	// Version is the edge's version, for User-Agent. Default: "dev".
	Version string
	// LoopID returns the pseudonym of this deployment in Via and CDN-Loop (RFC 8586). A client's
	// request that has it in CDN-Loop was sent by an edge of this deployment. Default:
	// [DefaultLoopID].
	LoopID func() string
	// AllowPrivate lets origins have loopback and private addresses, AllowCIDRs those in the
	// ranges. Link-local addresses and metadata services are never allowed.
	AllowPrivate bool
	AllowCIDRs   []netip.Prefix
	// Own are the edge's own listeners, to which no origin leads whatever is allowed. Default:
	// none.
	Own []netip.AddrPort
	// AllowAmbientCredentials lets S3 origins of any account use the credentials of the machine
	// that the edge runs on. Default: false.
	AllowAmbientCredentials bool
	// MediaURL returns the URL of the Media Library, "" while the control plane has named none. It
	// may have any address, because it is the operator's. Default: none.
	MediaURL func() string
	// MediaToken returns the bearer token that is sent to the Media Library. It is called for each
	// request. Default: none.
	MediaToken func() string
	// MediaTLS returns the TLS settings for connections to the Media Library. It is called for each
	// connection. Default: those for any server.
	MediaTLS func() *tls.Config
	// Roots are the authorities that origins' certificates may be signed by. Default: the
	// system's.
	Roots *x509.CertPool
	// VerifyTLS refuses web origins that turn the check of certificates off. Default: false.
	VerifyTLS bool
	// Resolver looks up hosts. Default: the system's.
	Resolver *net.Resolver
	// Now is the clock of breakers and budgets, and for the age of connections and lookups.
	// Default: time.Now.
	Now func() time.Time
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
}

// Client asks origins. It may be used by any number of goroutines.
type Client struct {
	edge              *kind.Edge
	kinds             map[string]*kind.Kind
	origins, operator side
	secures           *secures
	proofs            *proofs
	healths           *healths
	tokens            *token.Cache
	prober            *prober
	metrics           *metrics
	alarms            sync.Pool // of *alarm
}

// A side is what one of two groups shares: all accounts' origins, or the operator's own Media
// Library. Their connections are apart.
type side struct {
	client *http1.Client
	dialer *dialer
}

// New returns a client. Close it when it is no longer used.
func New(cfg Config) *Client {
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	if cfg.LoopID == nil {
		cfg.LoopID = func() string { return DefaultLoopID }
	}
	if cfg.MediaURL == nil {
		cfg.MediaURL = func() string { return "" }
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	m := newMetrics()
	healths := newHealths(cfg.Now, m)
	m.register(cfg.Registerer, healths)
	base := newTLSConfig(cfg.Roots)
	network := &guard.Network{Private: cfg.AllowPrivate, Ranges: cfg.AllowCIDRs, Own: cfg.Own}
	lookups := newLookups(cfg.Resolver, cfg.Now)
	if cfg.MediaTLS == nil {
		media := newTLSConfig(nil)
		cfg.MediaTLS = func() *tls.Config { return media }
	}
	c := &Client{
		edge: &kind.Edge{UserAgent: "edgewalk/" + cfg.Version, LoopID: cfg.LoopID},
		origins: side{
			http1.New(cfg.Now), &dialer{network: network, lookups: lookups, tls: func() *tls.Config { return base }},
		},
		operator: side{http1.New(cfg.Now), &dialer{lookups: lookups, tls: cfg.MediaTLS}},
		secures:  newSecures(base, cfg.VerifyTLS),
		proofs:   newProofs(),
		healths:  healths,
		prober:   newProber(),
		metrics:  m,
	}
	c.tokens = token.New(c.issuer, func(after string) time.Duration { return retryAfter(after, time.Now()) })
	c.kinds = newKinds(&cfg, c.tokens)
	return c
}

// Close closes the idle connections, and ends what runs in the background.
func (c *Client) Close() {
	c.prober.close()
	c.tokens.Close()
	c.origins.client.Close()
	c.operator.client.Close()
}

// LoopID returns the name of this deployment in CDN-Loop.
func (c *Client) LoopID() string { return c.edge.LoopID() }

const (
	// A busy origin gets one retry after busyDelay to twice that, unless it asks for more than
	// busyPatience.
	busyDelay    = 50 * time.Millisecond
	busyPatience = time.Second
)

// Get asks o for a file; a nil o is the Media Library. The answer is never nil. ctx bounds the body
// too.
func (c *Client) Get(ctx context.Context, o *topology.Origin, ask Ask) *Answer {
	k := c.kindOf(o)
	began := time.Now()
	b := &body{c: c, ctx: ctx, kind: k, origin: o, ask: ask}
	h := c.healths.of(k, o, &b.ask)
	b.health = h
	a := c.get(ctx, k, o, &b.ask, h, began)
	h.conclude(a)
	if a.Outcome == Found {
		b.wrap(a.Response)
		if k.Finish != nil {
			if err := k.Finish(&b.ask, a.Response); err != nil {
				a.Response.Body.Close()
				failed := errorAnswer(err)
				failed.Request, failed.Status = a.Request, a.Status
				a = failed
			}
		}
	}
	a.Kind, a.Duration = k.Name, time.Since(began)
	if a.Request != "" {
		h.duration().Observe(a.Duration.Seconds())
	}
	return a
}

func (c *Client) get(
	ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, h *health, began time.Time,
) *Answer {
	if k.Keyed && !ask.ObjectOK {
		return &Answer{Outcome: NotHere, Reason: Unasked, Detail: "the path cannot be the key of an object"}
	}
	a, row := c.guarded(ctx, k, o, ask, h, began)
	if a.Reason == Busy && a.Status != 0 && a.RetryAfter <= busyPatience && h.retry("busy") &&
		pause(ctx, ask.Deadline, busyDelay+rand.N(busyDelay)) {
		after := a.RetryAfter
		a, row = c.guarded(ctx, k, o, ask, h, time.Now())
		a.RetryAfter = max(a.RetryAfter, after)
	}
	if o == nil || !k.Keyed {
		return a
	}
	switch {
	case a.Outcome == Found:
		c.proofs.succeeded(o)
	case row != nil && row.Deniable:
		c.prove(ctx, k, o, ask, h, a)
	case row != nil && row.Vague:
		c.askBucket(ctx, k, o, ask, h, a)
	}
	return a
}

// guarded asks once, unless the origin's breaker is open, and records the result. When a probe is
// due, it starts it and waits for its end first. now is when the question began.
func (c *Client) guarded(
	ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, h *health, now time.Time,
) (*Answer, *kind.Row) {
	refusal := h.admit()
	if refusal != nil && refusal.RetryAfter == 0 {
		if c.awaitProbe(ctx, k, o, ask, h) {
			refusal, now = h.admit(), time.Now()
		}
	}
	if refusal != nil {
		return refusal, nil
	}
	a, row := c.try(ctx, k, o, ask, h)
	var took time.Duration
	if a.hurried {
		took = time.Since(now)
	}
	h.report(k, o, ask, a, verdictOf(k, o, a, took))
	c.startProbe(k, o, ask, h)
	return a, row
}

// pause waits, and reports whether there is still time to ask.
func pause(ctx context.Context, deadline time.Time, d time.Duration) bool {
	if !deadline.IsZero() && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// try asks once, following redirects. The row is nil if there was no answer to judge.
func (c *Client) try(
	ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, health *health,
) (*Answer, *kind.Row) {
	if k.Build == nil {
		return faultAnswer(fault{
			Misconfigured, "proxy_configuration_error", "this edge does not know the origin's kind",
			"update the edge, or take the origin out of the walk"}), nil
	}
	req, err := k.Build(c.edge, o, ask)
	if err != nil {
		return errorAnswer(err), nil
	}
	line := kind.Line(req.URL)
	h := c.newHop(k, o, ask, health, req)
	if k == web.Kind {
		if h.secure, err = c.secures.of(o); err != nil {
			return errorAnswer(err), nil
		}
	}
	for renewed := false; ; {
		ask.Apply(h.Req.Header)
		if k == web.Kind && h.Own {
			nameSpan(ctx, h.Req.Header)
		}
		if err := sign(ctx, k, h); err != nil {
			return errorAnswer(err), nil
		}
		a, row, next := c.exchange(ctx, k, h)
		if next == nil && a.Status == http.StatusUnauthorized && h.Token != "" && !renewed {
			// The token may have been revoked before it expired.
			renewed = true
			c.tokens.Spoil(o, h.Token)
			again, req := *h, *h.Req // a hedge that came too late may still read h and its header
			req.Header = h.Req.Header.Clone()
			again.Req, h = &req, &again
			continue
		}
		if next == nil {
			a.Request = line
			a.elsewhere = !h.Own
			if h.Count > 0 {
				a.Detail += ", after a redirect to " + kind.Shown(h.Req.URL, false)
			}
			return a, row
		}
		h = next
	}
}

// nameSpan sends the span of ctx, if there is one, to a web server, which makes its own spans
// children of it (https://www.w3.org/TR/trace-context/#traceparent-header). Object stores make no
// spans for others.
func nameSpan(ctx context.Context, h http.Header) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		h.Del("Tracestate") // The client's belongs to another trace.
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	}
}

// A hop is a [kind.Hop] with what this package needs to send it.
type hop struct {
	kind.Hop
	health *health
	// secure holds the origin's TLS settings for its own host, nil for the default ones.
	secure *secure
	// reached says that this hop or one before has connected to the origin, at any of its
	// addresses.
	reached *atomic.Bool
	// first is the first attempt to send the first hop, nil once it was made.
	first *attempt
}

// newHop returns the first hop of a question to o.
func (c *Client) newHop(k *kind.Kind, o *topology.Origin, ask *Ask, health *health, req *http.Request) *hop {
	first := &struct {
		hop
		reached atomic.Bool
		attempt attempt
	}{hop: hop{Hop: kind.Hop{Origin: o, Ask: ask, Req: req, Own: true}, health: health}}
	h := &first.hop
	h.reached, h.first = &first.reached, &first.attempt
	if k.Sign == nil {
		return h
	}
	h.Head = func(ctx context.Context, conditions Conditions) http.Header {
		again := *ask
		again.Conditions = conditions
		a, _ := c.try(ctx, k, o, &again, health)
		if a.Response == nil {
			return nil
		}
		a.Response.Body.Close()
		return a.Response.Header
	}
	return h
}

// sign adds a hop's credentials, within the time that there is to ask.
func sign(ctx context.Context, k *kind.Kind, h *hop) error {
	if k.Sign == nil {
		return nil
	}
	if !h.Ask.Deadline.IsZero() {
		bounded, cancel := context.WithDeadlineCause(ctx, h.Ask.Deadline, errWalkDeadline)
		defer cancel()
		ctx = bounded
	}
	return k.Sign(ctx, &h.Hop)
}

// An issuer carries requests for tokens of an origin.
type issuer struct {
	c *Client
	o *topology.Origin
}

func (c *Client) issuer(o *topology.Origin) http.RoundTripper { return &issuer{c, o} }

// RoundTrip implements [http.RoundTripper]. The whole answer has to come within the origin's
// timeout for the first byte.
func (i *issuer) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeoutCause(req.Context(), i.o.Connect+i.o.FirstByte, errFirstByteTimeout)
	asked := req.Clone(ctx)
	asked.Header.Set("User-Agent", i.c.edge.UserAgent)
	to := newLink(i.o, req.URL, i.o.Connect)
	resp, err := i.c.origins.client.Do(ctx, asked, &http1.Call{
		Key: to.key, Dial: func(ctx context.Context) (net.Conn, error) { return i.c.origins.dialer.connect(ctx, to) },
	})
	if err != nil {
		err = causeOf(ctx, err)
		cancel()
		return nil, err
	}
	resp.Status = strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	resp.Body = &issuerBody{resp.Body, ctx, cancel}
	return resp, nil
}

// An issuerBody is the body of an issuer's answer.
type issuerBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelFunc
}

func (b *issuerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = causeOf(b.ctx, err)
	}
	return n, err
}

func (b *issuerBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// errorAnswer is the answer of a request that was not made.
func errorAnswer(err error) *Answer {
	var unasked *kind.UnaskedError
	if errors.As(err, &unasked) {
		return &Answer{Outcome: NotHere, Reason: Unasked, Detail: unasked.Detail, Advice: unasked.Advice}
	}
	a := faultAnswer(faultOf(err))
	a.hurried = hurried(err)
	var refused *token.Error
	if errors.As(err, &refused) {
		a.RetryAfter = retryAfter(refused.RetryAfter, time.Now())
	}
	return a
}

func faultAnswer(f fault) *Answer {
	return &Answer{Outcome: Inconclusive, Reason: f.reason, ProxyError: f.proxy, Detail: f.detail, Advice: f.advice}
}
