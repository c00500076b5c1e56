package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// subject is a domain with all that decides whether it needs a certificate.
type subject struct {
	key     topology.Key
	uid     string
	created int64
	domain  *topologyv1.CustomDomain
	facts   store.DomainFacts // of this domain
	held    *topology.Certificate
	// wildcard is the certificate of the account's wildcard that covers the name, if it is served.
	wildcard *topology.Certificate
}

func (s *subject) name() string { return s.domain.GetDomain() }

// issuance returns what is stored of earlier orders. It is empty at first.
func (s *subject) issuance() *storev1.Issuance { return s.facts.Facts.GetIssuance() }

// got returns what is stored of the held certificate, nil if it did not come from an issuer.
func (s *subject) got() *storev1.IssuedCertificate {
	if got := s.issuance().GetGot(); s.held != nil && bytes.Equal(got.GetId(), s.held.ID[:]) {
		return got
	}
	return nil
}

// read reads a subject. It returns [store.ErrNotFound] if there is no such domain.
func (s *Service) read(ctx context.Context, key topology.Key) (*subject, error) {
	record, _, err := s.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	sub := &subject{key: key, created: record.CreateRevision, uid: topology.UID(key.ID, record.CreateRevision)}
	if sub.domain, err = decodeDomain(record); err != nil {
		return nil, err
	}
	if sub.held, err = s.held(ctx, key); err != nil {
		return nil, err
	}
	if wildcard, ok := topology.WildcardOf(sub.name()); ok {
		if sub.wildcard, err = s.served(ctx, topology.Key{
			Kind: topology.KindCustomDomains, Account: key.Account, ID: topology.DomainID(wildcard),
		}); err != nil {
			return nil, err
		}
	}
	return sub, s.readFacts(ctx, sub)
}

func (s *Service) readFacts(ctx context.Context, sub *subject) (err error) {
	if sub.facts, err = s.store.Facts(ctx, sub.key); err != nil {
		return err
	}
	if sub.facts.Facts.GetUid() != sub.uid {
		sub.facts.Facts = &storev1.DomainFacts{Uid: sub.uid}
	}
	return nil
}

func decodeDomain(record topology.Record) (*topologyv1.CustomDomain, error) {
	m, err := record.Decode()
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", record.Key, err)
	}
	return m.(*topologyv1.CustomDomain), nil
}

// held returns the certificate of a domain, nil if there is none that can be read.
func (s *Service) held(ctx context.Context, domain topology.Key) (*topology.Certificate, error) {
	record, _, err := s.store.Get(ctx,
		topology.Key{Kind: topology.KindCertificates, Account: domain.Account, ID: domain.ID})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	c, err := topology.CompileCertificate(record)
	if err != nil {
		return nil, nil // edges ignore it too
	}
	return c, nil
}

// served returns the certificate of a domain if edges show it.
func (s *Service) served(ctx context.Context, key topology.Key) (*topology.Certificate, error) {
	record, _, err := s.store.Get(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	domain, err := decodeDomain(record)
	if err != nil || domain.GetState() != topologyv1.CustomDomain_ACTIVE ||
		domain.GetTls().GetMode() == topologyv1.DomainTls_OFF {
		return nil, nil
	}
	return s.held(ctx, key)
}

// factTries bounds the tries of a change of facts after a conflict.
const factTries = 10

// change changes the facts of a subject's domain, in etcd and in the subject. It may call change
// several times. fence may be nil.
func (s *Service) change(
	ctx context.Context, sub *subject, fence *store.Fence, change func(*storev1.DomainFacts),
) error {
	for try := 1; ; try++ {
		next := proto.CloneOf(sub.facts.Facts)
		if next.Issuance == nil {
			next.Issuance = new(storev1.Issuance)
		}
		change(next)
		domaincheck.Bound(next)
		if next.Certificate != nil {
			s.date(next.Certificate, sub.facts.Facts.GetCertificate())
		}
		if same(next, sub.facts.Facts) && !aged(next.Certificate, sub.facts.Facts.GetCertificate()) {
			return nil
		}
		revision, err := s.store.PutFacts(ctx,
			store.DomainFacts{Key: sub.key, Facts: next, Revision: sub.facts.Revision}, sub.created, fence)
		if err == nil {
			sub.facts.Facts, sub.facts.Revision = next, revision
			return nil
		}
		if !errors.Is(err, store.ErrConflict) || try == factTries {
			return err
		}
		record, _, err := s.store.Get(ctx, sub.key)
		if err != nil {
			return err
		}
		if record.CreateRevision != sub.created {
			return fmt.Errorf("%s: %w", sub.key, store.ErrNotFound)
		}
		if err := s.readFacts(ctx, sub); err != nil {
			return err
		}
	}
}

// date sets since when the state is what it is.
func (s *Service) date(next, was *topologyv1.DomainCertificate) {
	next.LastCheck = timestamppb.New(s.now())
	if next.Since = next.LastCheck; was.GetState() == next.GetState() && was.GetSince() != nil {
		next.Since = was.GetSince()
	}
}

// aged reports whether a certificate's state was last checked so long ago, or by a clock so far
// ahead, that it would be due again at once; see dueBy.
func aged(next, was *topologyv1.DomainCertificate) bool {
	last, now := was.GetLastCheck().AsTime(), next.GetLastCheck().AsTime()
	return next != nil && (now.Sub(last) >= later || clockAhead(last, now))
}

// same reports whether facts differ in nothing but the time of the last check.
func same(a, b *storev1.DomainFacts) bool {
	strip := func(f *storev1.DomainFacts) *storev1.DomainFacts {
		f = proto.CloneOf(f)
		if f.Certificate != nil {
			f.Certificate.LastCheck = nil
		}
		if f.Issuance != nil && proto.Size(f.Issuance) == 0 {
			f.Issuance = nil
		}
		return f
	}
	return proto.Equal(strip(a), strip(b))
}

// unix returns the time of a certificate's end.
func unix(seconds int64) time.Time { return time.Unix(seconds, 0) }
