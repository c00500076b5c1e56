package adminsvc

import (
	"context"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type endpoints struct {
	resource[*topologyv1.UrlEndpoint]
	adminv1.UnimplementedUrlEndpointServiceServer
}

func newEndpoints(s *Service) endpoints {
	r := newResource(s, topology.KindURLEndpoints, "url_endpoint",
		func(d *draft) *table[*topologyv1.UrlEndpoint] { return &d.endpoints })
	r.put = func(d *draft, id string, next *topologyv1.UrlEndpoint, _ func(string) bool) error {
		return d.putEndpoint(id, next)
	}
	r.read = s.endpoint
	r.show = func(d *draft, key topology.Key) *topologyv1.UrlEndpoint {
		return s.entrances(d.state, d.sharedHost).present(key, d.endpoints.after(key.ID))
	}
	return endpoints{resource: r}
}

func endpointKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindURLEndpoints, Account: account, ID: id}
}

func (s endpoints) GetUrlEndpoint(
	ctx context.Context, req *adminv1.GetUrlEndpointRequest,
) (*adminv1.GetUrlEndpointResponse, error) {
	e, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &adminv1.GetUrlEndpointResponse{UrlEndpoint: e, Revision: revision}, nil
}

// endpoint reads an endpoint with what only a read computes, all as of one revision; 0 is the
// current one.
func (s *Service) endpoint(
	ctx context.Context, key topology.Key, revision int64,
) (*topologyv1.UrlEndpoint, int64, error) {
	state, err := s.store.AccountStateAt(ctx, key.Account, revision)
	if err != nil {
		return nil, 0, err
	}
	shared, err := sharedHostOf(state.Settings)
	if err != nil {
		return nil, 0, err
	}
	item, ok := state.Records.Get(key.Kind, key.ID)
	if !ok {
		return nil, 0, notFound(key.Name())
	}
	stored, err := decode[*topologyv1.UrlEndpoint](item.Record())
	if err != nil {
		return nil, 0, err
	}
	return s.entrances(state, shared).present(key, stored), state.Revision, nil
}

// maxURLs is how many URLs of an endpoint are listed.
const maxURLs = 100

// entrances is what the URLs of an account's endpoints depend on: the shared host, the account's
// domains, and whether an edge is reached over HTTPS.
type entrances struct {
	sharedHost string
	plain      bool
	account    string
	records    *index.Account
	everywhere []*topologyv1.CustomDomain // some of mode ACCOUNT, which lead to every endpoint
}

func (s *Service) entrances(state *store.State, sharedHost string) *entrances {
	e := &entrances{
		sharedHost: sharedHost, plain: s.fleet.PlainHTTP(), account: state.Account, records: state.Records,
	}
	e.everywhere = e.domains(topology.KindAccounts, "")
	return e
}

// domains are the first domains that serve and lead to a resource, one more than are listed. One
// that cannot be read leads nowhere.
func (e *entrances) domains(kind topology.Kind, id string) (domains []*topologyv1.CustomDomain) {
	for user := range e.records.Users(kind, id) {
		item, ok := e.records.Get(topology.KindCustomDomains, user)
		if !ok {
			continue
		}
		stored, err := decode[*topologyv1.CustomDomain](item.Record())
		if err != nil || stored.Message.GetState() != topologyv1.CustomDomain_ACTIVE {
			continue
		}
		if domains = append(domains, stored.Message); len(domains) > maxURLs {
			break
		}
	}
	return domains
}

// present is a stored endpoint as admins see it.
func (e *entrances) present(key topology.Key, stored topology.Stored[*topologyv1.UrlEndpoint]) *topologyv1.UrlEndpoint {
	m := present(key, stored)
	m.Walk = rules.Walk(m)
	m.Urls = rules.URLs(e.sharedHost, e.account, key.ID,
		append(e.domains(topology.KindURLEndpoints, key.ID), e.everywhere...), e.plain)
	if m.MoreUrls = len(m.Urls) > maxURLs; m.MoreUrls {
		m.Urls = m.Urls[:maxURLs]
	}
	return m
}

func (s endpoints) ListUrlEndpoints(
	ctx context.Context, req *adminv1.ListUrlEndpointsRequest,
) (*adminv1.ListUrlEndpointsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	state, err := s.store.AccountState(ctx, account)
	if err != nil {
		return nil, err
	}
	shared, err := sharedHostOf(state.Settings)
	if err != nil {
		return nil, err
	}
	page, err := list(ctx, s.Service, req, topology.KindURLEndpoints, account, "", s.entrances(state, shared).present)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListUrlEndpointsResponse{
		UrlEndpoints: page.items, NextPageToken: page.next, Revision: page.revision,
	}, nil
}

func (s endpoints) CreateUrlEndpoint(
	ctx context.Context, req *adminv1.CreateUrlEndpointRequest,
) (*adminv1.CreateUrlEndpointResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	if err := topology.ValidateEndpointID(req.GetUrlEndpointId()); err != nil {
		return nil, invalid("url_endpoint_id", "%v", err)
	}
	key := endpointKey(account, req.GetUrlEndpointId())
	e, out, err := s.make(ctx, req, key, req.GetUrlEndpoint(), func(d *draft, next *topologyv1.UrlEndpoint) error {
		return d.putEndpoint(key.ID, next)
	})
	if err != nil {
		return nil, err
	}
	warnings, err := s.endpointWarnings(ctx, account, out, e)
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateUrlEndpointResponse{UrlEndpoint: e, Revision: out.revision, Warnings: warnings[key.ID]}, nil
}

func (s endpoints) UpdateUrlEndpoint(
	ctx context.Context, req *adminv1.UpdateUrlEndpointRequest,
) (*adminv1.UpdateUrlEndpointResponse, error) {
	e, key, out, err := s.update(ctx, req, req.GetUrlEndpoint(), nil)
	if err != nil {
		return nil, err
	}
	warnings, err := s.endpointWarnings(ctx, key.Account, out, e)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateUrlEndpointResponse{UrlEndpoint: e, Revision: out.revision, Warnings: warnings[key.ID]}, nil
}

func (s endpoints) DeleteUrlEndpoint(
	ctx context.Context, req *adminv1.DeleteUrlEndpointRequest,
) (*adminv1.DeleteUrlEndpointResponse, error) {
	revision, err := s.remove(ctx, req, func(d *draft, key topology.Key) error {
		if key.ID == topology.DefaultEndpointID {
			f := fail(kindDefaultEndpoint, "%s is the default endpoint, which every account has: it cannot be deleted", key.Name())
			f.resource = key.Name()
			return f
		}
		return d.inUse(key, topology.KindCustomDomains)
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteUrlEndpointResponse{Revision: revision}, nil
}
