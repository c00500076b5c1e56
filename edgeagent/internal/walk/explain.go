package walk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Explanation is what a walk would do, and how it would end without any stored reply.
type Explanation struct {
	// Steps are all steps of the endpoint, in order.
	Steps []StepReport
	// Ending says in words how the walk ends, and Status with which status.
	Ending string
	Status int
	// StandIn is the file of the Media Library that the walk ends in, empty for none.
	StandIn string
}

// Found reports whether some step has the file.
func (e *Explanation) Found() bool {
	return slices.ContainsFunc(e.Steps, func(s StepReport) bool { return !s.Skipped && s.Outcome == origin.Found })
}

// Explain makes the walk live, throws the replies away, and reports what each step did. It neither
// uses nor changes what is remembered.
func (w *Walker) Explain(ctx context.Context, r *Request) *Explanation {
	e := r.Endpoint
	deadline := time.Now().Add(e.WalkDeadline)
	x := &Explanation{}
	var all answers
	var troubles []string
	for _, step := range e.Steps {
		if x.Ending != "" {
			x.Steps = append(x.Steps,
				StepReport{Origin: stepID(step.Origin), Kind: origin.KindName(step.Origin), Skipped: true})
			continue
		}
		a := w.ask(ctx, r, step.Origin, Conditions{}, deadline)
		s := report(step.Origin, a)
		all = append(all, a)
		switch a.Outcome {
		case origin.Found:
			x.Ending, x.Status = "found at "+s.Origin, a.Response.Status
			if !sample(ctx, &s, a.Response) {
				x.Ending += ", but the body breaks"
			}
		case origin.Inconclusive:
			who := "origin " + s.Origin
			if step.Origin == nil {
				who = "the Media Library"
			}
			troubles = append(troubles, fmt.Sprintf("%s gives no usable answer (%s)", who, a.Reason))
			if e.FailOnInconclusive {
				x.describe(e, r.Path, all, strings.Join(troubles, ", "))
			}
		}
		x.Steps = append(x.Steps, s)
	}
	if x.Ending == "" {
		x.describe(e, r.Path, all, strings.Join(troubles, ", "))
	}
	return x
}

// describe sets how a walk for a path ends that found nothing.
func (x *Explanation) describe(e *topology.Endpoint, path string, all answers, troubles string) {
	var res Result
	all.conclude(&res)
	image := e.DefaultImageFor(path)
	switch {
	case res.Kind == NotFound && image != nil:
		x.Ending, x.Status, x.StandIn = "default image", image.Status, image.Path
	case res.Kind == NotFound && e.NotFoundPage != "":
		x.Ending, x.Status, x.StandIn = "not-found page", http.StatusNotFound, e.NotFoundPage
	case res.Kind == NotFound:
		x.Ending, x.Status = "every step says no", http.StatusNotFound
	case image != nil && image.OnFailure:
		x.Ending, x.Status = "default image: "+troubles, image.Status
	default:
		x.Ending, x.Status = troubles, res.Status
	}
}

func stepID(o *topology.Origin) string {
	if o == nil {
		return topology.MediaStep
	}
	return o.ID
}

// TestOrigin asks o for a path, with an optional query, as a walk would, but without regard to
// breakers and budgets. An empty path asks an object store for its probe_key, or for a key that
// nobody can have, and a web server for its base_url. ok reports whether a walk could use the
// answer.
func (w *Walker) TestOrigin(ctx context.Context, o *topology.Origin, path string) (s StepReport, ok bool) {
	r, err := w.testRequest(o, path)
	if err != nil {
		return StepReport{
			Origin: o.ID, Kind: origin.KindName(o), Outcome: origin.Inconclusive, Reason: origin.Misconfigured,
			Detail: fmt.Sprintf("path: %v", err), Advice: "give a path such as /a/b.jpg, or /https://example.com/a.jpg for a webProxy",
		}, false
	}
	// The deadline belongs to no endpoint, so no error may name one.
	ctx, cancel := context.WithTimeout(ctx, topology.DefaultWalkDeadline)
	defer cancel()
	a := w.client.Get(ctx, o, origin.Ask{Request: r, Test: true})
	s, ok = report(o, a), a.Outcome != origin.Inconclusive
	if a.Response != nil {
		ok = sample(ctx, &s, a.Response)
	}
	return s, ok
}

var errNoURL = errors.New("a webProxy has no files but those of the URL that the path spells")

func (w *Walker) testRequest(o *topology.Origin, path string) (*Request, error) {
	// Only the Media Library looks at the account.
	r := &Request{Target: topology.Target{Account: new(topology.Account)}}
	switch {
	case path != "":
	case origin.Keyed(o):
		r.Object, r.ObjectOK = cmp.Or(o.Spec.GetProbeKey(), w.client.RandomKey(o)), true
		return r, nil
	case o.Spec.GetWebProxy() != nil:
		return nil, errNoURL
	default:
		return r, nil
	}
	raw, query, _ := strings.Cut(path, "?")
	if !strings.HasPrefix(raw, "/") {
		raw = "/" + raw
	}
	canonical, err := topology.CanonicalPath(raw)
	if err != nil {
		return nil, err
	}
	r.Path, r.Query = canonical, query
	r.Object, r.ObjectOK = topology.ObjectKey(canonical)
	return r, nil
}
