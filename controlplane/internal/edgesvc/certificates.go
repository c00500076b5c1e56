package edgesvc

import (
	"context"
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// fetchRate is how many certificates an edge may fetch each second, and fetchBurst how many at
	// once. An edge fetches 500 a second by itself, and others when somebody waits for them.
	fetchRate, fetchBurst = 2000, 4000
	// maxFetchers bounds the edges whose rate is remembered.
	maxFetchers = 10_000
)

// fetchers are the rates of edges, by their ids, or their addresses if they have not joined.
type fetchers struct {
	rates *lru.Cache[string, *rate.Limiter]
}

func newFetchers() (fetchers, error) {
	rates, err := lru.New[string, *rate.Limiter](maxFetchers)
	return fetchers{rates}, err
}

func (f fetchers) allow(who string, n int, now time.Time) bool {
	if limiter, ok := f.rates.Get(who); ok {
		return limiter.AllowN(now, n)
	}
	limiter := rate.NewLimiter(fetchRate, fetchBurst)
	if before, ok, _ := f.rates.PeekOrAdd(who, limiter); ok {
		limiter = before
	}
	return limiter.AllowN(now, n)
}

// FetchCertificates implements EdgeService.
func (s *Service) FetchCertificates(
	ctx context.Context, req *edgev1.FetchCertificatesRequest,
) (*edgev1.FetchCertificatesResponse, error) {
	if !s.enter() {
		return nil, errDrained
	}
	defer s.streams.Done()
	if err := s.validator.Validate(req); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "%v", err)
	}
	view := s.cfg.Feed.View()
	if view == nil {
		return nil, status.Error(codes.Unavailable, "the topology is not loaded yet")
	}
	who, pool := "unknown", ""
	if p, ok := grpcpeer.FromContext(ctx); ok {
		who = listen.IP(p.Addr).String()
	}
	if e, ok := ctx.Value(edgeKey{}).(*identity.Edge); ok {
		if err := s.cfg.Identities.Check(*e); err != nil {
			return nil, s.refuse("certificate", identity.Status(err))
		}
		who, pool, view = "edge "+e.ID, e.Pool, view.In(e.Pool)
	}
	if !s.fetchers.allow(who, len(req.GetIds()), s.now()) {
		return nil, s.refuse("fetches", status.Errorf(codes.ResourceExhausted,
			"more than %d certificates a second: come again in a second", fetchRate))
	}
	ids := make([]topology.CertificateID, len(req.GetIds()))
	for i, id := range req.GetIds() {
		copy(ids[i][:], id)
	}
	found, err := s.cfg.Store.SealedCertificates(ctx, ids)
	switch {
	case errors.Is(err, store.ErrUnavailable):
		return nil, status.Error(codes.Unavailable, "etcd does not answer")
	case err != nil:
		s.log.ErrorContext(ctx, "edgesvc: certificates cannot be read", "error", err)
		return nil, status.Error(codes.Internal, "certificates cannot be read")
	}
	answer := new(edgev1.FetchCertificatesResponse)
	for id, stored := range found {
		if !view.Has(stored.GetAccount()) {
			continue
		}
		sealed, err := s.cfg.Store.SealedFor(ctx, pool, id, stored)
		if err != nil {
			s.log.ErrorContext(ctx, "edgesvc: a certificate cannot be sealed for its edge", "certificate", id, "pool",
				pool,
				"error", err)
			continue
		}
		answer.Certificates = append(answer.Certificates, &topologyv1.SealedCertificate{
			Id: id[:], Sealed: sealed.GetSealed(), Keyset: sealed.GetKeyset(),
		})
	}
	s.metrics.fetched.Add(float64(len(answer.GetCertificates())))
	return answer, nil
}
