package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type domains struct {
	resource[*topologyv1.CustomDomain]
	adminv1.UnimplementedCustomDomainServiceServer
}

func newDomains(s *Service) domains {
	r := newResource(s, topology.KindCustomDomains, "custom_domain", func(d *draft) *table[*topologyv1.CustomDomain] { return &d.domains })
	r.put = func(d *draft, id string, next *topologyv1.CustomDomain, _ func(string) bool) error {
		return d.putDomain(id, next)
	}
	read := r.read
	r.read = func(ctx context.Context, key topology.Key, revision int64) (*topologyv1.CustomDomain, int64, error) {
		c, at, err := read(ctx, key, revision)
		if err == nil {
			tellFacts(c)
		}
		return c, at, err
	}
	r.show = func(d *draft, key topology.Key) *topologyv1.CustomDomain {
		return presentDomain(key, d.domains.after(key.ID))
	}
	return domains{resource: r}
}

// presentDomain is a stored domain as admins see it.
func presentDomain(key topology.Key, stored topology.Stored[*topologyv1.CustomDomain]) *topologyv1.CustomDomain {
	c := present(key, stored)
	tellFacts(c)
	return c
}

// tellFacts adds what is known of a domain besides what its owner says.
func tellFacts(c *topologyv1.CustomDomain) {
	c.Ownership = &topologyv1.DomainOwnership{State: topologyv1.DomainOwnership_TRUSTED}
	if c.GetState() == topologyv1.CustomDomain_PENDING {
		c.Ownership.State = topologyv1.DomainOwnership_PENDING
	}
	c.Routing = &topologyv1.DomainRouting{State: topologyv1.DomainRouting_UNKNOWN}
	c.Certificate = &topologyv1.DomainCertificate{State: topologyv1.DomainCertificate_NONE, Reason: topologyv1.DomainCertificate_NO_ISSUER}
	if c.GetTls().GetMode() == topologyv1.DomainTls_OFF {
		c.Certificate.Reason = topologyv1.DomainCertificate_TLS_OFF
	}
}

func domainKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}
}

func (s domains) GetCustomDomain(ctx context.Context, req *adminv1.GetCustomDomainRequest) (*adminv1.GetCustomDomainResponse, error) {
	c, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &adminv1.GetCustomDomainResponse{CustomDomain: c, Revision: revision}, nil
}

func (s domains) ListCustomDomains(ctx context.Context, req *adminv1.ListCustomDomainsRequest) (*adminv1.ListCustomDomainsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	filter, err := parseDomainFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	page, err := list(ctx, s.Service, req, topology.KindCustomDomains, account, "", presentDomain)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(page.items, func(c *topologyv1.CustomDomain) bool { return !filter.matches(c) })
	return &adminv1.ListCustomDomainsResponse{CustomDomains: kept, NextPageToken: page.next, Revision: page.revision}, nil
}

func (s domains) CreateCustomDomain(ctx context.Context, req *adminv1.CreateCustomDomainRequest) (*adminv1.CreateCustomDomainResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	id, name, err := newDomainID(req)
	if err != nil {
		return nil, err
	}
	c, out, err := s.make(ctx, req, domainKey(account, id), req.GetCustomDomain(), func(d *draft, next *topologyv1.CustomDomain) error {
		next.Domain = name
		return d.putDomain(id, next)
	})
	var claimed *store.ClaimedError
	if errors.As(err, &claimed) {
		return nil, domainClaimed(claimed, "custom_domain.domain")
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateCustomDomainResponse{CustomDomain: c, Revision: out.revision}, nil
}

// newDomainID finds the id of a new domain by its name, or its name by its id.
func newDomainID(req *adminv1.CreateCustomDomainRequest) (id, name string, err error) {
	id, given := req.GetCustomDomainId(), req.GetCustomDomain().GetDomain()
	if given == "" {
		if id == "" {
			return "", "", invalid("custom_domain.domain", "give the host name")
		}
		id = canonicalDomainName("/" + id)[1:]
		if name, err = topology.DomainFromID(id); err != nil {
			return "", "", invalid("custom_domain_id", "%v", err)
		}
		return id, name, nil
	}
	if name, err = topology.CanonicalDomain(given, ""); err != nil {
		return "", "", invalid("custom_domain.domain", "%v", err)
	}
	if id != "" && canonicalDomainName("/" + id)[1:] != topology.DomainID(name) {
		return "", "", invalid("custom_domain_id", "the id of %q is %q: leave it out", name, topology.DomainID(name))
	}
	return topology.DomainID(name), name, nil
}

// domainClaimed is the error for a claimed domain in a field of a request. It does not say which
// account has claimed it.
func domainClaimed(claimed *store.ClaimedError, field string) *failure {
	f := fail(kindDomainClaimed, "domain %q, or a wildcard that goes with it, belongs to another account", claimed.Domain)
	f.fields = []fieldFault{{field, f.text}}
	f.facts = map[string]string{"domain": claimed.Domain}
	f.cause = claimed
	return f
}

func (s domains) UpdateCustomDomain(ctx context.Context, req *adminv1.UpdateCustomDomainRequest) (*adminv1.UpdateCustomDomainResponse, error) {
	c, _, out, err := s.update(ctx, req, req.GetCustomDomain(), func(next, stored *topologyv1.CustomDomain) {
		// The domain cannot change, so `*` need not repeat it.
		next.Domain = cmp.Or(next.GetDomain(), stored.GetDomain())
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateCustomDomainResponse{CustomDomain: c, Revision: out.revision}, nil
}

func (s domains) DeleteCustomDomain(ctx context.Context, req *adminv1.DeleteCustomDomainRequest) (*adminv1.DeleteCustomDomainResponse, error) {
	revision, err := s.remove(ctx, req, nil)
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteCustomDomainResponse{Revision: revision}, nil
}

func (s domains) CheckCustomDomain(ctx context.Context, req *adminv1.CheckCustomDomainRequest) (*adminv1.CheckCustomDomainResponse, error) {
	if req.GetName() == "" {
		return s.checkName(ctx, req)
	}
	c, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &adminv1.CheckCustomDomainResponse{CustomDomain: c, Revision: revision}, nil
}

// checkName tells of a name that is perhaps no domain yet.
func (s domains) checkName(ctx context.Context, req *adminv1.CheckCustomDomainRequest) (*adminv1.CheckCustomDomainResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	name, err := topology.CanonicalDomain(req.GetDomain(), "")
	if err != nil {
		return nil, invalid("domain", "%v", err)
	}
	c, revision, err := s.read(ctx, domainKey(account, topology.DomainID(name)), 0)
	var missing *failure
	if errors.As(err, &missing) && missing.kind == kindNotFound {
		c = &topologyv1.CustomDomain{Domain: name, State: topologyv1.CustomDomain_PENDING}
		tellFacts(c)
		_, revision, err = readAt[*topologyv1.Account](ctx, s.Service, accountKey(account), 0)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.CheckCustomDomainResponse{CustomDomain: c, Revision: revision}, nil
}

func (s domains) RenewCertificate(ctx context.Context, req *adminv1.RenewCertificateRequest) (*adminv1.RenewCertificateResponse, error) {
	c, _, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	f := fail(kindNotManaged, "no certificate of %s is managed: this control plane has no issuer", c.GetDomain())
	f.resource = c.GetName()
	return nil, f
}
