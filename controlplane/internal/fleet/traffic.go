package fleet

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/traffic"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// trafficTimeout is how long other control planes may take to say what they know.
const trafficTimeout = 2 * time.Second

// count takes what an edge reports of accounts that it is sent.
func (f *Fleet) count(c *Conn, reports []*edgev1.AccountTraffic) {
	in := f.cfg.Feed.View().In(c.Pool)
	for _, r := range reports {
		id := r.GetAccount()
		account, ok := f.cfg.Feed.Get(topology.Key{Kind: topology.KindAccounts, Account: id})
		if ok && in.Has(id) && topology.UID(id, account.CreateRevision) == r.GetUid() {
			f.traffic.Add(r)
		}
	}
}

// Traffic returns what the edges of all control planes have reported of an account's clients, by
// its uid.
func (f *Fleet) Traffic(ctx context.Context, uid string) *topologyv1.Traffic {
	ctx, cancel := context.WithTimeout(ctx, trafficTimeout)
	defer cancel()
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		others []*topologyv1.Traffic
		silent []string
	)
	f.mu.Lock()
	for _, p := range f.peers {
		if !p.present() {
			continue
		}
		server, link := p.server(), p.link
		if link == nil {
			mu.Lock()
			silent = append(silent, server)
			mu.Unlock()
			continue
		}
		all.Go(func() {
			resp, err := link.client.GetTraffic(ctx, &fleetv1.GetTrafficRequest{Uid: uid})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, server)
			} else {
				others = append(others, resp.GetTraffic())
			}
		})
	}
	f.mu.Unlock()
	all.Wait()
	result := f.traffic.Of(uid)
	traffic.Merge(result, others...)
	slices.Sort(silent)
	result.Unreached = silent
	return result
}

// GetTraffic implements FleetService.
func (s service) GetTraffic(_ context.Context, req *fleetv1.GetTrafficRequest) (*fleetv1.GetTrafficResponse, error) {
	return &fleetv1.GetTrafficResponse{Traffic: s.fleet.traffic.Of(req.GetUid())}, nil
}
