package adminsvc

import (
	"cmp"
	"context"
	"errors"

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
	return domains{resource: r}
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
	page, err := list(ctx, s.Service, req, topology.KindCustomDomains, account, "", present[*topologyv1.CustomDomain])
	if err != nil {
		return nil, err
	}
	return &adminv1.ListCustomDomainsResponse{CustomDomains: page.items, NextPageToken: page.next, Revision: page.revision}, nil
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

// domainClaimed is about the domain in a field of a request. It does not tell by whom it is claimed.
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
