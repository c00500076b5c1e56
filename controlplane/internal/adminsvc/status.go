package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// statusTimeout bounds the questions to etcd and to other control planes.
	statusTimeout = 2 * time.Second
	// outOfStep is how long a control plane may get no progress from etcd, which comes every 2 s,
	// before status reports a problem.
	outOfStep = 10 * time.Second
	// behindFor is how long an edge may be behind before that needs a person. A change reaches it
	// in milliseconds.
	behindFor = 5 * time.Second
	// goneFor is how long an edge that has gone needs a person. One that is gone for longer was
	// probably meant to go.
	goneFor = time.Hour
	// maxProblems is how many problems are listed one by one.
	maxProblems = 20
)

func (s fleetService) GetStatus(ctx context.Context, _ *adminv1.GetStatusRequest) (*adminv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resp := new(adminv1.GetStatusResponse)
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }

	etcd, err := s.store.Status(ctx)
	if err == nil {
		err = s.store.Health(ctx)
	}
	if err != nil {
		add("writes are refused, and edges are served as before: %s", toFailure(err).text)
	} else if trouble := etcd.Trouble(); trouble != "" {
		add("%s", trouble)
	}
	resp.EtcdQuotaBytes = etcd.QuotaBytes
	for _, m := range etcd.Members {
		resp.EtcdMembers = append(resp.EtcdMembers, &adminv1.GetStatusResponse_EtcdMember{
			Endpoint: m.Endpoint, Version: m.Version, SizeBytes: m.SizeBytes, Leader: m.Leader,
		})
		if m.Version == "" && err == nil {
			add("etcd at %s does not answer: start it again, or replace the member", m.Endpoint)
		}
	}

	_ = s.fleet.Refresh(ctx) // who does not answer is a peer that is not connected
	resp.Revision, resp.Epoch = s.fleet.Revision(), s.fleet.Epoch()
	switch asOf := s.fleet.AsOf(); {
	case asOf.IsZero():
		add("the control plane %s has not read the topology yet", s.fleet.Server())
	default:
		resp.AsOf = timestamppb.New(asOf)
		if age := s.now().Sub(asOf); age > outOfStep {
			add("the control plane %s has had no answer from etcd for %s: its edges go on with what they have", s.fleet.Server(), age.Round(time.Second))
		}
	}
	resp.ControlPlanes = []*adminv1.GetStatusResponse_ControlPlane{{Server: s.fleet.Server(), Connected: true}}
	for _, p := range s.fleet.Peers() {
		resp.ControlPlanes = append(resp.ControlPlanes,
			&adminv1.GetStatusResponse_ControlPlane{Server: p.Server, Connected: p.Connected})
		if !p.Connected {
			add("the control plane %s cannot be reached at its --peer-addr: what its edges have applied is not known", p.Server)
		}
	}
	for _, f := range s.rollout.Freezes() {
		resp.Freezes = append(resp.Freezes, presentFreeze(f))
		which := "all edges are"
		if f.Region != "" {
			which = fmt.Sprintf("the edges of region %s are", f.Region)
		}
		add("%s frozen at revision %d (%s): %s lets them go on", which, f.Revision, cmp.Or(f.Reason, "no reason given"),
			unfreezing(f.Region))
	}
	if err == nil {
		problems = append(problems, s.lostMedia(ctx)...)
	}
	edges := s.fleet.Edges()
	resp.Edges = countEdges(edges)
	problems = append(problems, edgeProblems(edges, s.identities.Revoked, s.now())...)
	problems = append(problems, originProblems(edges)...)
	shown := min(len(problems), maxProblems)
	resp.Problems, resp.MoreProblems = problems[:shown], int32(len(problems)-shown)
	return resp, nil
}

// mediaSample is how many media files are looked for: a bucket that is another one, or empty, has
// none of them.
const mediaSample = 5

// lostMedia reports media files whose bytes are not in the bucket, as after a restore without it.
func (s *Service) lostMedia(ctx context.Context) []string {
	records, _, _, err := s.store.List(ctx, topology.KindMediaFiles, "", "", "", mediaSample)
	if err != nil {
		return nil // The reply says what is wrong with etcd.
	}
	var lost []string
	for _, record := range records {
		stored, err := decode[*topologyv1.MediaFile](record)
		if err != nil {
			continue
		}
		_, err = s.library.Size(ctx, stored.Message.GetSha256())
		switch {
		case errors.Is(err, media.ErrNoBytes):
			lost = append(lost, record.Key.Name())
		case err != nil:
			return []string{fmt.Sprintf("the media bucket cannot be read, so edges fetch no new files from it: %s", toFailure(libraryReadError(err)).text)}
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the media bucket lacks the bytes of %d of %d files looked at, such as %s: edges answer 502 for them; restore the bucket "+
		"(--media-url, by default the folder media in --data-dir), or upload them again", len(lost), len(records), lost[0])}
}

func isBehind(e *topologyv1.Edge) bool {
	return e.GetConnected() && e.GetFrozenRevision() == 0 && e.GetLag().AsDuration() > behindFor
}

func countEdges(edges []*topologyv1.Edge) *adminv1.GetStatusResponse_EdgeCounts {
	counts := new(adminv1.GetStatusResponse_EdgeCounts)
	for _, e := range edges {
		if !e.GetConnected() {
			counts.Gone++
			continue
		}
		counts.Connected++
		if isBehind(e) {
			counts.Behind++
		}
		if e.GetFrozenRevision() != 0 {
			counts.Frozen++
		}
		if len(e.GetRejected()) > 0 {
			counts.Refusing++
		}
	}
	return counts
}

// edgeProblems says what is wrong with edges. One that was revoked was meant to go.
func edgeProblems(edges []*topologyv1.Edge, revoked func(id string) bool, now time.Time) (problems []string) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !slices.ContainsFunc(edges, (*topologyv1.Edge).GetConnected) {
		add("no edge is connected: those that run go on with what they have")
	}
	for _, e := range edges {
		for _, r := range e.GetRejected() {
			add("edge %s refuses %s and goes on with what it had: %s", e.GetId(), r.GetKey(), r.GetReason())
		}
		if isBehind(e) {
			add("edge %s has been behind for %s: see its log and its way to the control plane", e.GetId(), e.GetLag().AsDuration().Round(time.Second))
		}
		if gone := now.Sub(e.GetLastSeen().AsTime()); !e.GetConnected() && gone < goneFor && !revoked(e.GetId()) {
			add("edge %s has been gone for %s", e.GetId(), gone.Round(time.Second))
		}
	}
	return problems
}

// originProblems says of each origin that edges leave alone at how many.
func originProblems(edges []*topologyv1.Edge) (problems []string) {
	unwell := make(map[string][]*topologyv1.OriginState)
	for _, e := range edges {
		for _, s := range e.GetOrigins() {
			if e.GetConnected() && s.GetBreakerOpen() {
				name := topology.OriginName(s.GetAccount(), s.GetOrigin())
				unwell[name] = append(unwell[name], s)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unwell)) {
		h := healthOf(0, unwell[name])
		problems = append(
			problems,
			fmt.Sprintf("%s does not answer %d of the connected edges, last: %s", name, h.GetEdgesBreakerOpen(),
				h.GetLastError()),
		)
	}
	return problems
}
