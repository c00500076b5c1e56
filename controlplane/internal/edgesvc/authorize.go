package edgesvc

import (
	"context"
	"crypto/x509"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// edgeKey is the key of a call's context for the edge that makes the call, if that has joined.
type edgeKey struct{}

// authorize says whether a call may be made, as soon as its header has come.
func (s *Service) authorize(ctx context.Context, info *tap.Info) (context.Context, error) {
	if s.cfg.Identities != nil {
		e, ok, err := s.cfg.Identities.Caller(ctx)
		switch {
		case err != nil:
			return ctx, s.refuse("certificate", identity.Status(err))
		case ok:
			return context.WithValue(ctx, edgeKey{}, &e), nil
		case info.FullMethodName == edgev1.IdentityService_Join_FullMethodName:
			return ctx, nil // the join token decides
		}
	}
	if s.cfg.Authorities != nil && !signedBy(ctx, s.cfg.Authorities) {
		return ctx, s.refuse("unauthenticated", status.Error(codes.Unauthenticated, "a certificate of one of the authorities of --client-ca is needed, or one that an edge has joined for"))
	}
	if s.cfg.Authorize == nil {
		return ctx, nil
	}
	call, err := s.cfg.Authorize(ctx, metadata.ValueFromIncomingContext(ctx, "authorization"), s.cfg.Authorities != nil)
	switch {
	case err == nil:
		return call, nil
	case errors.Is(err, auth.ErrUnavailable):
		return ctx, s.refuse("unavailable", status.Error(codes.Unavailable, "etcd does not answer, so an edge token that is new here cannot be checked"))
	case errors.Is(err, auth.ErrMissing):
		return ctx, s.refuse("unauthenticated", status.Error(codes.Unauthenticated, "the edge has to join first, or present a token: start it with --join-token-file, whose "+
			"token `edgewalk edges join-token` makes, or with --edge-token-file"))
	}
	return ctx, s.refuse("unauthenticated", status.Error(codes.Unauthenticated, "the edge token is wrong: "+
		"--edge-token-file takes a token of role edge, such as edge-token in the control plane's --data-dir"))
}

func (s *Service) refuse(reason string, err error) error {
	s.metrics.refused.WithLabelValues(reason).Inc()
	return err
}

// signedBy reports whether the client of a call has shown a certificate of one of some authorities.
func signedBy(ctx context.Context, authorities *x509.CertPool) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	secure, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(secure.State.PeerCertificates) == 0 {
		return false
	}
	chain := x509.NewCertPool()
	for _, cert := range secure.State.PeerCertificates[1:] {
		chain.AddCert(cert)
	}
	_, err := secure.State.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: authorities, Intermediates: chain, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

// identify gives a stream the edge that its certificate is about, whatever the edge says of itself.
// Without one, the id must belong to nobody.
func (s *Service) identify(st *stream) error {
	if e, ok := st.rpc.Context().Value(edgeKey{}).(*identity.Edge); ok {
		st.edge = e
		st.hello.Id, st.hello.Region = e.ID, e.Region
		return nil
	}
	if s.cfg.Identities != nil && s.cfg.Identities.Owned(st.hello.GetId()) {
		s.log.Warn("edgesvc: somebody without its certificate uses the id of an edge that has joined", "edge", st.hello.GetId(), "from", st.from)
		return status.Errorf(codes.PermissionDenied, "edge id %q belongs to an edge that has joined: only its certificate will do", st.hello.GetId())
	}
	return nil
}

// identityChanged ends the streams that an edge of an id may no longer have.
func (s *Service) identityChanged(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.live {
		if st.hello.GetId() == id {
			s.recheck(st)
		}
	}
}

// recheck ends a stream whose edge is no longer who it was taken for.
func (s *Service) recheck(st *stream) {
	if st.edge == nil {
		if s.cfg.Identities.Owned(st.hello.GetId()) {
			st.end(status.Error(codes.PermissionDenied, "the edge of this id has joined: only its certificate will do"))
		}
		return
	}
	if err := s.cfg.Identities.Check(*st.edge); err != nil {
		st.end(identity.Status(err))
	}
}
