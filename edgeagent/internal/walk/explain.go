package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var outcomes = map[origin.Outcome]topologyv1.WalkStep_Outcome{
	origin.Found:        topologyv1.WalkStep_FOUND,
	origin.NotHere:      topologyv1.WalkStep_NOT_HERE,
	origin.Inconclusive: topologyv1.WalkStep_INCONCLUSIVE,
}

// Explain makes the walk live, throws the replies away, and tells what each step did, those that were not come to as SKIPPED. It
// neither uses nor changes what is remembered. ending and status say how a request without any stored reply would end.
func (w *Walker) Explain(ctx context.Context, r Request) (steps []*topologyv1.WalkStep, ending string, status int) {
	e := r.Target.Endpoint
	deadline := time.Now().Add(e.WalkDeadline)
	live := r
	live.Stored = nil
	var all answers
	var troubles []string
	for _, step := range e.Steps {
		if ending != "" {
			steps = append(steps, &topologyv1.WalkStep{
				Origin: stepID(step.Origin), Kind: origin.KindName(step.Origin), Outcome: topologyv1.WalkStep_SKIPPED,
			})
			continue
		}
		a := w.ask(ctx, &live, step.Origin, Ask{}, deadline)
		s := report(step.Origin, a)
		all = append(all, a)
		switch a.Outcome {
		case origin.Found:
			ending, status = "found at "+s.Origin, a.Response.Status
			if !sample(ctx, &s, a.Response) {
				ending += ", but the body breaks"
			}
		case origin.Inconclusive:
			troubles = append(troubles, s.Origin+" "+string(a.Reason))
			if e.FailOnInconclusive {
				ending, status = describe(e, r.Target.Path, all, strings.Join(troubles, ", "))
			}
		}
		steps = append(steps, s.proto())
	}
	if ending == "" {
		ending, status = describe(e, r.Target.Path, all, strings.Join(troubles, ", "))
	}
	return steps, ending, status
}

// How a walk ends that found nothing, where a file stands in for it.
const (
	EndsInImage = "default image"
	EndsInPage  = "not-found page"
)

// describe says how a walk for a path ends that found nothing.
func describe(e *topology.Endpoint, path string, all answers, troubles string) (ending string, status int) {
	var res Result
	all.conclude(&res)
	image := e.DefaultImageFor(path)
	switch {
	case res.Kind == NotFound && image != nil:
		return EndsInImage, image.Status
	case res.Kind == NotFound && e.NotFoundPage != "":
		return EndsInPage, http.StatusNotFound
	case res.Kind == NotFound:
		return "every step says no", http.StatusNotFound
	case image != nil && image.OnFailure:
		return EndsInImage + ": " + troubles, image.Status
	}
	return troubles, res.Status
}

func stepID(o *topology.Origin) string {
	if o == nil {
		return topology.MediaStep
	}
	return o.ID
}

func (s StepReport) proto() *topologyv1.WalkStep {
	return &topologyv1.WalkStep{
		Origin: s.Origin, Kind: s.Kind, Outcome: outcomes[s.Outcome], Reason: string(s.Reason), Request: s.Request,
		Status: int32(s.Status), Duration: durationpb.New(s.Duration), Detail: s.Detail, Advice: s.Advice,
	}
}

// TestOrigin asks o for a path, with an optional query, as a walk would, but for the guards that keep walks from an origin in
// trouble. An empty path asks an object store for its probe_key, or
// for a key that nobody can have, and a web server for its base_url. The answer is OK if a walk could go by it.
func (w *Walker) TestOrigin(ctx context.Context, o *topology.Origin, path string) *topologyv1.OriginTest {
	ask, err := testAsk(o, path)
	if err != nil {
		return &topologyv1.OriginTest{Step: &topologyv1.WalkStep{
			Origin: o.ID, Kind: origin.KindName(o), Outcome: topologyv1.WalkStep_INCONCLUSIVE, Reason: string(origin.Misconfigured),
			Detail: fmt.Sprintf("path: %v", err), Advice: "give a path such as /a/b.jpg, or /https://example.com/a.jpg for a web_proxy",
		}}
	}
	ask.Test = true
	// No endpoint's deadline is meant here, so none is blamed.
	ctx, cancel := context.WithTimeout(ctx, topology.DefaultWalkDeadline)
	defer cancel()
	a := w.client.Get(ctx, o, ask)
	s, ok := report(o, a), a.Outcome != origin.Inconclusive
	if a.Response != nil {
		ok = sample(ctx, &s, a.Response)
	}
	return &topologyv1.OriginTest{Ok: ok, Step: s.proto()}
}

var errNoURL = errors.New("a web_proxy has no files but those of the URL that the path spells")

func testAsk(o *topology.Origin, path string) (origin.Ask, error) {
	switch {
	case path != "":
	case origin.Keyed(o):
		return origin.Ask{Object: cmp.Or(o.Spec.GetProbeKey(), origin.RandomKey(o)), ObjectOK: true}, nil
	case o.Spec.GetWebProxy() != nil:
		return origin.Ask{}, errNoURL
	default:
		return origin.Ask{}, nil
	}
	raw, query, _ := strings.Cut(path, "?")
	if !strings.HasPrefix(raw, "/") {
		raw = "/" + raw
	}
	canonical, err := topology.CanonicalPath(raw)
	if err != nil {
		return origin.Ask{}, err
	}
	ask := origin.Ask{Path: canonical, Query: query}
	ask.Object, ask.ObjectOK = topology.ObjectKey(canonical)
	return ask, nil
}
