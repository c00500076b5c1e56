package walk

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Config is what a [Walker] needs.
type Config struct {
	// Client asks the origins. Required.
	Client *origin.Client
	// Purged reports whether what an origin was asked at revision asof about a file of the endpoint
	// is covered by a purge, or may be. Default: never.
	Purged func(accountUID, endpointUID, path, query string, asof int64, asked time.Time) bool
	// Now is the clock of what is remembered. Default: time.Now.
	Now func() time.Time
	// MemoryBytes bounds what is remembered of "no such file". Default 16 MiB.
	MemoryBytes int
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
	// Tracer makes a span for each walk and for each of its steps. Nil: there are none.
	Tracer trace.Tracer
	// Series bounds what is counted of each endpoint and origin. Nil: they are counted together.
	Series *series.Bound
	// HasEndpoint and HasOrigin report whether there still is an endpoint or an origin, which is
	// forgotten otherwise. Default: always.
	HasEndpoint, HasOrigin func(account, id string) bool
}

// Walker walks. It may be used by any number of goroutines, and has none of its own.
type Walker struct {
	client  *origin.Client
	purged  func(accountUID, endpointUID, path, query string, asof int64, asked time.Time) bool
	now     func() time.Time
	memory  *memory
	metrics *metrics
	tracer  trace.Tracer
}

// New returns a walker that remembers nothing yet.
func New(cfg Config) *Walker {
	if cfg.Purged == nil {
		cfg.Purged = func(string, string, string, string, int64, time.Time) bool { return false }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 16 << 20
	}
	always := func(string, string) bool { return true }
	if cfg.HasEndpoint == nil {
		cfg.HasEndpoint = always
	}
	if cfg.HasOrigin == nil {
		cfg.HasOrigin = always
	}
	m := newMemory(cfg.MemoryBytes, cfg.Now())
	return &Walker{
		client: cfg.Client, purged: cfg.Purged, now: cfg.Now, memory: m, metrics: newMetrics(cfg, m),
		tracer: cfg.Tracer,
	}
}

// Find looks for a file in the endpoint's walk. The result is never nil. ctx bounds the walk and
// the body of its reply; a walk's own deadline ends when the head of the file arrives.
func (w *Walker) Find(ctx context.Context, r *Request, stored Stored) *Result {
	deadline := time.Now().Add(r.Endpoint.WalkDeadline)
	now := w.now()
	till := now.Add(r.Endpoint.Cache.NegativeTTL)
	var room [4]*origin.Answer
	answers := answers(room[:0])
	held := &struct { // most walks ask the Media Library and one origin
		Result
		steps [2]StepReport
	}{}
	res := &held.Result
	res.Steps = held.steps[:0]
	ctx, span := w.traceWalk(ctx, r)
	for i, step := range r.Endpoint.Steps {
		if i > 0 {
			now = w.now()
		}
		a, until := w.recall(r, step.Origin, now)
		if a == nil {
			a = w.ask(ctx, r, step.Origin, stored.validators(r, step.Origin), deadline)
			until = w.learn(r, step.Origin, a, now)
			w.metrics.asked(r.Account.ID, step.Origin, a)
		} else {
			w.noteStep(ctx, step.Origin, a)
		}
		if !until.IsZero() && until.Before(till) {
			till = until
		}
		res.Steps = append(res.Steps, report(step.Origin, a))
		w.metrics.step(a)
		answers = append(answers, a)
		if a.Outcome == origin.Found {
			res.supply(r, i, a)
			break
		}
		if a.Outcome == origin.Inconclusive {
			res.EarlierInconclusive = true
			if stored.UseOnError || r.Endpoint.FailOnInconclusive {
				break
			}
		}
	}
	if res.Response == nil {
		res.EarlierInconclusive = false
		answers.conclude(res)
		if res.Kind == NotFound {
			res.Left = max(0, till.Sub(w.now()))
		}
	}
	w.metrics.walk(r, res)
	endWalk(span, res)
	return res
}

// From asks the supplier of a stored reply, and nobody else. It ends Found with status 200, 203,
// 206 or 416, NotModified, NotFound if the supplier has the file no more, or Failed, also when the
// supplier has left the walk or looks elsewhere.
func (w *Walker) From(ctx context.Context, r *Request, s Supplier, conditions Conditions) *Result {
	res := &Result{}
	ctx, span := w.traceWalk(ctx, r)
	defer func() { endWalk(span, res) }()
	var a *origin.Answer
	for i, step := range r.Endpoint.Steps {
		if SupplierOf(step.Origin) != s {
			continue
		}
		began := w.now()
		a = w.ask(ctx, r, step.Origin, conditions, time.Now().Add(r.Endpoint.WalkDeadline))
		w.learn(r, step.Origin, a, began)
		w.metrics.asked(r.Account.ID, step.Origin, a)
		res.Steps = []StepReport{report(step.Origin, a)}
		w.metrics.step(a)
		if a.Outcome == origin.Found {
			res.supply(r, i, a)
			return res
		}
		break
	}
	if a == nil {
		a = &origin.Answer{Reason: origin.Misconfigured, ProxyError: "proxy_configuration_error"}
	}
	answers{a}.conclude(res)
	return res
}

// SupplierOf names an origin as a supplier, nil standing for the Media Library.
func SupplierOf(o *topology.Origin) Supplier {
	if o == nil {
		return Supplier{UID: LibraryUID}
	}
	return Supplier{UID: o.UID, Target: o.Target}
}

// supply sets the result to the answer of step i, which has the file.
func (res *Result) supply(r *Request, i int, a *origin.Answer) {
	step := r.Endpoint.Steps[i]
	res.Kind, res.Response = Found, a.Response
	if a.Response.Status == http.StatusNotModified {
		res.Kind = NotModified
	}
	res.Supplier, res.Step, res.Version = SupplierOf(step.Origin), i, step.Version
	if step.Origin == nil {
		res.Library, _ = r.Account.Media.Lookup(r.Object)
	}
	res.Forwarded = forwarded(r.Endpoint.Steps[:i+1])
	if res.Kind == NotModified {
		return // what the file depends on was recorded when it was found
	}
	h := a.Response.Header
	for _, name := range res.dependsOn(r, h["Vary"]) {
		rfc9111.AddVary(h, name)
	}
	if res.EarlierInconclusive {
		// Whether an earlier origin answered may depend on how it was asked.
		rfc9111.AddVary(h, "Accept")
		rfc9111.AddVary(h, "Accept-Encoding")
	}
}

// dependsOn returns the forwarded fields that a file with this Vary may depend on. If the
// supplier's Vary names at least one of the fields that the supplier lists, the others that it
// lists do not matter. That says nothing about fields that earlier origins list. A Cookie always
// counts, because it belongs to one client. Authorization never does, because it is not for Vary to
// name (RFC 9110 12.5.5): RFC 9111 3.5 says who else may be given the reply.
func (res *Result) dependsOn(r *Request, vary []string) []string {
	if len(res.Forwarded) == 0 {
		return nil
	}
	own := forwarded(r.Endpoint.Steps[res.Step : res.Step+1])
	names, _ := rfc9111.ParseVary(vary)
	said := slices.ContainsFunc(own, func(name string) bool { return slices.Contains(names, strings.ToLower(name)) })
	earlier := forwarded(r.Endpoint.Steps[:res.Step])
	return slices.DeleteFunc(slices.Clone(res.Forwarded), func(name string) bool {
		return name == "Authorization" || said && name != "Cookie" && !slices.Contains(earlier, name)
	})
}

// forwarded returns the names of the client's fields that the origins of steps list.
func forwarded(steps []topology.Step) []string {
	var names []string
	for _, step := range steps {
		if step.Origin != nil {
			names = append(names, origin.Forwarded(step.Origin)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// validators returns the conditions that confirm the stored reply, if o supplied it; for the Media
// Library, if it still has the same file.
func (s *Stored) validators(r *Request, o *topology.Origin) Conditions {
	if s.Supplier != SupplierOf(o) {
		return Conditions{}
	}
	if o == nil {
		if sha, ok := r.Account.Media.Lookup(r.Object); !ok || sha != s.Library {
			return Conditions{}
		}
	}
	// RFC 9110 13.1.3: the date is for replies that have no entity tag.
	if s.ETag != "" {
		return Conditions{IfNoneMatch: s.ETag}
	}
	return Conditions{IfModifiedSince: s.LastModified}
}

var notInLibrary = &origin.Answer{
	Outcome: origin.NotHere, Reason: origin.Unasked, Kind: origin.MediaKind,
	Detail: "the Media Library has no such file",
}

// ask asks one step.
func (w *Walker) ask(
	ctx context.Context, r *Request, o *topology.Origin, conditions Conditions, deadline time.Time,
) *origin.Answer {
	ask := origin.Ask{Request: r, Conditions: conditions, Deadline: deadline}
	if o == nil {
		sha, ok := r.Account.Media.Lookup(r.Object)
		if !r.ObjectOK || !ok {
			w.noteStep(ctx, o, notInLibrary)
			return notInLibrary
		}
		ask.Library = sha
	}
	if !time.Now().Before(deadline) {
		a := &origin.Answer{
			Reason: origin.Timeout, Kind: origin.KindName(o), ProxyError: "http_response_timeout",
			Detail: "the walk's deadline had passed",
		}
		w.noteStep(ctx, o, a)
		return a
	}
	ctx, span := w.traceStep(ctx, trace.SpanKindClient)
	a := w.client.Get(ctx, o, ask)
	endStep(span, o, a)
	return a
}

// learn remembers that an origin answered "no such file" to a question that was asked at began; the
// file may have appeared after that. It returns until when the answer may be used, or zero if it is
// not remembered.
func (w *Walker) learn(r *Request, o *topology.Origin, a *origin.Answer, began time.Time) time.Time {
	ttl := r.Endpoint.Cache.NegativeTTL
	if o == nil || a.Outcome != origin.NotHere || a.Reason == origin.Unasked || ttl <= 0 {
		return time.Time{}
	}
	m := w.memory.miss(began, r.Revision, a.Reason == origin.Denied)
	w.memory.remember(w.memory.key(r, o), m)
	return began.Add(m.life(ttl))
}

// recall returns a remembered answer and the time until which it may be used, or nil if o has to be
// asked.
func (w *Walker) recall(r *Request, o *topology.Origin, now time.Time) (*origin.Answer, time.Time) {
	if o == nil {
		return nil, time.Time{}
	}
	m, left := w.memory.recall(w.memory.key(r, o), r.Endpoint.Cache.NegativeTTL, now)
	if left <= 0 || w.purged(r.Account.UID, r.Endpoint.UID, r.Path, r.Query, m.asof, now.Add(-w.memory.since(m, now))) {
		return nil, time.Time{}
	}
	return &origin.Answer{
		Outcome: origin.NotHere, Reason: origin.Remembered, Kind: origin.KindName(o), Detail: "it said so a moment ago",
	}, now.Add(left)
}

func report(o *topology.Origin, a *origin.Answer) StepReport {
	return StepReport{
		Origin: stepID(o), Kind: a.Kind, Outcome: a.Outcome, Reason: a.Reason, Status: a.Status, Unreached: a.Unreached,
		Duration: a.Duration, Request: a.Request, Detail: a.Detail, Advice: a.Advice,
	}
}
