package adminsvc

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type domains struct {
	*Service
	adminv1.UnimplementedCustomDomainServiceServer
}

func domainKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}
}

func (s domains) GetCustomDomain(ctx context.Context, req *adminv1.GetCustomDomainRequest) (*adminv1.GetCustomDomainResponse, error) {
	key, err := parseName(topology.KindCustomDomains, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	stored, revision, err := readAt[*topologyv1.CustomDomain](ctx, s.Service, key, 0)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetCustomDomainResponse{CustomDomain: present(key, stored), Revision: revision}, nil
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
	key := domainKey(account, id)
	out, err := s.write(ctx, req, account, key.Name(), func(d *draft) error {
		if err := d.mustExist(); err != nil {
			return err
		}
		if d.domains.existed(key.ID) {
			return alreadyExists(key.Name())
		}
		c := new(topologyv1.CustomDomain)
		mask{all: true}.apply(c, req.GetCustomDomain())
		c.Domain = name
		return under("custom_domain", d.putDomain(key.ID, c))
	})
	var claimed *store.ClaimedError
	if errors.As(err, &claimed) {
		return nil, domainClaimed(claimed, "custom_domain.domain")
	}
	if err != nil {
		return nil, err
	}
	c, err := s.writtenDomain(ctx, key, out)
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
		if name, err = topology.DomainFromID(id); err != nil {
			return "", "", invalid("custom_domain_id", "%v", err)
		}
		return id, name, nil
	}
	if name, err = topology.CanonicalDomain(given, ""); err != nil {
		return "", "", invalid("custom_domain.domain", "%v", err)
	}
	if id != "" && id != topology.DomainID(name) {
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

func (s *Service) writtenDomain(ctx context.Context, key topology.Key, out outcome) (*topologyv1.CustomDomain, error) {
	if out.draft != nil {
		return present(key, out.draft.domains.after(key.ID)), nil
	}
	stored, _, err := readAt[*topologyv1.CustomDomain](ctx, s, key, out.at)
	if err != nil {
		return nil, unread(err, out.revision)
	}
	return present(key, stored), nil
}

func (s domains) UpdateCustomDomain(ctx context.Context, req *adminv1.UpdateCustomDomainRequest) (*adminv1.UpdateCustomDomainResponse, error) {
	in := orEmpty(req.GetCustomDomain())
	key, err := parseName(topology.KindCustomDomains, "custom_domain.name", in.GetName())
	if err != nil {
		return nil, err
	}
	m, err := parseMask(req.GetUpdateMask(), in.ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	out, err := s.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		stored := d.domains.before(key.ID)
		if err := d.found(there(stored), key, in.GetEtag(), stored.ModRevision); err != nil {
			return err
		}
		next := proto.CloneOf(stored.Message)
		m.apply(next, in)
		if next.GetDomain() == "" {
			next.Domain = stored.Message.GetDomain() // Immutable, so `*` need not repeat it.
		}
		if err := s.validate("custom_domain", next); err != nil {
			return err
		}
		return under("custom_domain", d.putDomain(key.ID, next))
	})
	if err != nil {
		return nil, err
	}
	c, err := s.writtenDomain(ctx, key, out)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateCustomDomainResponse{CustomDomain: c, Revision: out.revision}, nil
}

func (s domains) DeleteCustomDomain(ctx context.Context, req *adminv1.DeleteCustomDomainRequest) (*adminv1.DeleteCustomDomainResponse, error) {
	key, err := parseName(topology.KindCustomDomains, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	out, err := s.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		stored := d.domains.before(key.ID)
		if err := d.found(there(stored), key, req.GetEtag(), stored.ModRevision); err != nil && !d.discard(key) {
			return err
		}
		d.domains.remove(key.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteCustomDomainResponse{Revision: out.revision}, nil
}
