package edgeagent

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// report returns what the control plane shows of the agent.
func (a *Agent) report() *edgev1.Report {
	s := a.store.Stats()
	r := &edgev1.Report{
		Cache:        &topologyv1.Edge_Cache{Objects: s.Objects, Bytes: s.Bytes, LimitBytes: s.Limit},
		Origins:      a.client.States(a.currentOrigin),
		AskedOrigins: &topologyv1.AskedOrigins{Names: a.client.Asked(a.currentOrigin)},

		Certificates: a.certs.Report(),
		PendingHosts: a.server.PendingHosts(),
	}
	r.Traffic = a.server.Traffic(maxReport - proto.Size(r))
	return r
}

// maxReport leaves room for the rest of the message, which takes at most 64 KiB.
const maxReport = 60 << 10

// answer answers a question of the control plane. It keeps a tenth of the time for sending the
// answer, because an incomplete answer is worth more than one that comes too late.
func (a *Agent) answer(ctx context.Context, ask *edgev1.Ask) *edgev1.Answer {
	if deadline, ok := ctx.Deadline(); ok {
		bounded, cancel := context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/10))
		defer cancel()
		ctx = bounded
	}
	switch q := ask.GetQuestion().(type) {
	case *edgev1.Ask_TestOrigin_:
		test, err := a.testOrigin(ctx, q.TestOrigin)
		if err != nil {
			return &edgev1.Answer{Result: &edgev1.Answer_Error{Error: err.Error()}}
		}
		return &edgev1.Answer{Result: &edgev1.Answer_TestOrigin{TestOrigin: test}}
	case *edgev1.Ask_Explain_:
		return &edgev1.Answer{Result: &edgev1.Answer_Explain{Explain: a.explain(ctx, q.Explain.GetUrl(),
			q.Explain.GetAccount())}}
	default:
		return &edgev1.Answer{Result: &edgev1.Answer_Error{Error: "this edge does not know the question; it may be older than the control plane"}}
	}
}

func (a *Agent) testOrigin(ctx context.Context, q *edgev1.Ask_TestOrigin) (*topologyv1.OriginTest, error) {
	o, err := topology.CompileOrigin(q.GetOrigin().GetId(), q.GetOrigin(), q.GetSecrets().GetValues())
	if err != nil {
		return nil, fmt.Errorf("origin cannot be used: %w", err)
	}
	step, ok := a.walker.TestOrigin(ctx, o, q.GetPath())
	return &topologyv1.OriginTest{Edge: a.id, Ok: ok, Step: stepOf(step)}, nil
}

// explain says what a browser's request for a URL would do. It stores nothing. With an account it
// answers about that account's URLs only.
func (a *Agent) explain(ctx context.Context, url, account string) *topologyv1.Explanation {
	root := a.table.Root()
	e := &topologyv1.Explanation{Edge: a.id, Revision: root.Revision()}
	url, _, _ = strings.Cut(withScheme(url), "#")
	authority, path, query, ok := topology.SplitTarget(url)
	if !ok || authority == "" {
		e.Status, e.Ending = http.StatusBadRequest, "this is no URL: write https://host/path, or host/path"
		return e
	}
	target, refusal := topology.Locate(root, topology.Request{
		Host: authority, RawPath: path, RawQuery: query, TLS: hasScheme(url, "https://"),
		AccountHosts: a.cfg.AccountHosts,
	})
	if refusal != nil {
		e.Host, e.Status, e.Ending = authority, int32(refusal.Status), refusal.Reason
		if host, err := topology.CanonicalHost(authority); err == nil {
			e.Host = host
		}
		if refusal.Account != "" {
			e.Ending += ": " + refusal.Account
		}
		return e
	}
	if account != "" && target.Account.ID != account {
		e.Status, e.Ending = http.StatusNotFound, "it does not lead to the account"
		return e
	}
	e.Host, e.Account, e.UrlEndpoint, e.Path, e.Query = target.Host, target.Account.ID, target.Endpoint.ID, target.Path,
		target.Query
	if target.Domain != nil {
		e.Domain = target.Domain.Name
	}
	alone := target.AccountAlone()
	if alone {
		target.Path = "/"
	}
	request := walk.Request{Target: target, Revision: root.Revision(), Epoch: root.Epoch()}
	for _, c := range a.cache.Inspect(&httpcache.Request{
		Method: http.MethodGet, Request: request, Fields: new(field.Lines),
	}) {
		e.Cached = append(e.Cached, &topologyv1.Explanation_Cached{
			Status: int32(c.Status), Supplier: c.Supplier, Stored: timestamppb.New(c.At), Age: durationpb.New(c.Age),
			Ttl: durationpb.New(c.TTL), SizeBytes: c.Length, Use: c.Use,
		})
	}
	x := a.walker.Explain(ctx, &request)
	for _, s := range x.Steps {
		e.Steps = append(e.Steps, stepOf(s))
	}
	switch {
	case alone && x.Found():
		x.Status, x.Ending = http.StatusMovedPermanently,
			x.Ending+", at /"+e.Account+"/, which an account alone leads to"
	case alone && x.Status < http.StatusInternalServerError:
		x.Status, x.Ending = http.StatusNotFound, "an account alone is no file, and there is none at /"+e.Account+"/"
	case x.StandIn != "":
		if why := a.images.Refused(target.Account.UID, x.StandIn); why != "" {
			x.Status, x.Ending = http.StatusNotFound, fmt.Sprintf("no %s: %s", x.Ending, why)
		}
	}
	e.Status, e.Ending = int32(x.Status), x.Ending
	return e
}

var outcomes = map[origin.Outcome]topologyv1.WalkStep_Outcome{
	origin.Found: topologyv1.WalkStep_FOUND, origin.NotHere: topologyv1.WalkStep_NOT_HERE,
	origin.Inconclusive: topologyv1.WalkStep_INCONCLUSIVE,
}

func stepOf(s walk.StepReport) *topologyv1.WalkStep {
	if s.Skipped {
		return &topologyv1.WalkStep{Origin: s.Origin, Kind: s.Kind, Outcome: topologyv1.WalkStep_SKIPPED}
	}
	return &topologyv1.WalkStep{
		Origin: s.Origin, Kind: s.Kind, Outcome: outcomes[s.Outcome], Reason: string(s.Reason), Request: s.Request,
		Status: int32(s.Status), Duration: durationpb.New(s.Duration), Detail: s.Detail, Advice: s.Advice,
	}
}

// withScheme returns a URL with a scheme, http if it has none.
func withScheme(url string) string {
	if hasScheme(url, "http://") || hasScheme(url, "https://") {
		return url
	}
	return "http://" + url
}

func hasScheme(url, scheme string) bool {
	return len(url) >= len(scheme) && strings.EqualFold(url[:len(scheme)], scheme)
}

// purgeOf converts a purge to the type of package purges, which does not know the topology.
func purgeOf(accountUID string, p *topologyv1.Purge, revision int64) purges.Purge {
	out := purges.Purge{Account: accountUID, Revision: revision, Hard: p.GetKind() == topologyv1.Purge_HARD}
	switch s := p.GetScope().(type) {
	case *topologyv1.Purge_Urls_:
		for _, t := range p.GetTargets() {
			out.URLs = append(
				out.URLs,
				purges.URLScope{
					Endpoint: t.GetUrlEndpointUid(), Path: t.GetPath(), Query: t.GetQuery(), AnyQuery: t.GetAnyQuery(),
				},
			)
		}
	case *topologyv1.Purge_Prefix:
		for _, t := range p.GetTargets() {
			out.Prefix = &purges.PrefixScope{Endpoint: t.GetUrlEndpointUid(), Path: t.GetPath()}
		}
	case *topologyv1.Purge_Tag:
		out.Tag = s.Tag
	case *topologyv1.Purge_UrlEndpoint:
		for _, t := range p.GetTargets() {
			out.Endpoint = t.GetUrlEndpointUid()
		}
	case *topologyv1.Purge_Everything:
		out.Everything = true
	}
	return out
}
