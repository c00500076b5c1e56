package adminsvc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type endpoints struct {
	*Service
	adminv1.UnimplementedUrlEndpointServiceServer
}

func endpointKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindURLEndpoints, Account: account, ID: id}
}

func (s endpoints) GetUrlEndpoint(ctx context.Context, req *adminv1.GetUrlEndpointRequest) (*adminv1.GetUrlEndpointResponse, error) {
	key, err := parseName(topology.KindURLEndpoints, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	e, revision, err := s.endpoint(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetUrlEndpointResponse{UrlEndpoint: e, Revision: revision}, nil
}

// endpoint reads an endpoint with what only a read computes, all as of one revision; 0 is the current one.
func (s *Service) endpoint(ctx context.Context, key topology.Key, revision int64) (*topologyv1.UrlEndpoint, int64, error) {
	state, err := s.store.AccountStateAt(ctx, key.Account, revision)
	if err != nil {
		return nil, 0, err
	}
	entrances, err := newEntrances(state)
	if err != nil {
		return nil, 0, err
	}
	stored, err := endpointOf(state, key)
	if err != nil {
		return nil, 0, err
	}
	return entrances.present(key, stored), state.Revision, nil
}

func endpointOf(state *store.State, key topology.Key) (topology.Stored[*topologyv1.UrlEndpoint], error) {
	item, ok := state.Records.Get(key.Kind, key.ID)
	if !ok {
		return topology.Stored[*topologyv1.UrlEndpoint]{}, notFound(key.Name())
	}
	return decode[*topologyv1.UrlEndpoint](item.Record())
}

// maxURLs is how many URLs of an endpoint are listed.
const maxURLs = 100

// entrances is what the URLs of an account's endpoints depend on: the shared host and the account's domains.
type entrances struct {
	sharedHost string
	account    string
	records    *index.Account
	everywhere []*topologyv1.CustomDomain // some of mode ACCOUNT, which lead to every endpoint
}

func newEntrances(state *store.State) (*entrances, error) {
	shared, err := sharedHostOf(state.Settings)
	if err != nil {
		return nil, err
	}
	e := &entrances{sharedHost: shared, account: state.Account, records: state.Records}
	e.everywhere = e.domains(topology.KindAccounts, "")
	return e, nil
}

// domains are the first domains that serve and lead to a resource, one more than are listed. One that cannot be read leads
// nowhere.
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
	m.Urls = rules.URLs(e.sharedHost, e.account, key.ID, append(e.domains(topology.KindURLEndpoints, key.ID), e.everywhere...))
	if m.MoreUrls = len(m.Urls) > maxURLs; m.MoreUrls {
		m.Urls = m.Urls[:maxURLs]
	}
	return m
}

func (s endpoints) ListUrlEndpoints(ctx context.Context, req *adminv1.ListUrlEndpointsRequest) (*adminv1.ListUrlEndpointsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	state, err := s.store.AccountState(ctx, account)
	if err != nil {
		return nil, err
	}
	entrances, err := newEntrances(state)
	if err != nil {
		return nil, err
	}
	page, err := list(ctx, s.Service, req, topology.KindURLEndpoints, account, "", entrances.present)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListUrlEndpointsResponse{UrlEndpoints: page.items, NextPageToken: page.next, Revision: page.revision}, nil
}

func (s endpoints) CreateUrlEndpoint(ctx context.Context, req *adminv1.CreateUrlEndpointRequest) (*adminv1.CreateUrlEndpointResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	if err := topology.ValidateEndpointID(req.GetUrlEndpointId()); err != nil {
		return nil, invalid("url_endpoint_id", "%v", err)
	}
	key := endpointKey(account, req.GetUrlEndpointId())
	out, err := s.write(ctx, req, account, key.Name(), func(d *draft) error {
		if err := d.mustExist(); err != nil {
			return err
		}
		if d.endpoints.existed(key.ID) {
			return alreadyExists(key.Name())
		}
		e := new(topologyv1.UrlEndpoint)
		mask{all: true}.apply(e, req.GetUrlEndpoint())
		return under("url_endpoint", d.putEndpoint(key.ID, e))
	})
	if err != nil {
		return nil, err
	}
	e, warnings, err := s.writtenEndpoint(ctx, key, out)
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateUrlEndpointResponse{UrlEndpoint: e, Revision: out.revision, Warnings: warnings}, nil
}

func (s *Service) writtenEndpoint(ctx context.Context, key topology.Key, out outcome) (*topologyv1.UrlEndpoint, []string, error) {
	state, err := s.answered(ctx, key.Account, out)
	if err != nil {
		return nil, nil, err
	}
	entrances, err := newEntrances(state)
	if err != nil {
		return nil, nil, err
	}
	stored, err := out.endpoint(state, key)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := s.writtenWarnings(ctx, state, key.ID, stored.Message, out)
	return entrances.present(key, stored), warnings, err
}

// answered is the account that the answer to a write tells of, besides what was written.
func (s *Service) answered(ctx context.Context, account string, out outcome) (*store.State, error) {
	if out.draft != nil {
		return out.draft.state, nil
	}
	state, err := s.store.AccountStateAt(ctx, account, out.at)
	return state, unread(err, out.revision)
}

// endpoint is an endpoint as it was written, now or by an earlier request.
func (o outcome) endpoint(state *store.State, key topology.Key) (topology.Stored[*topologyv1.UrlEndpoint], error) {
	if o.draft != nil {
		return o.draft.endpoints.after(key.ID), nil
	}
	stored, err := endpointOf(state, key)
	return stored, unread(err, o.revision)
}

// writtenWarnings are endpointWarnings of an endpoint that was written, or would be.
func (s *Service) writtenWarnings(ctx context.Context, state *store.State, id string, e *topologyv1.UrlEndpoint, out outcome) ([]string, error) {
	if out.committed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookTimeout)
		defer cancel()
	}
	warnings, err := endpointWarnings(ctx, state, id, e)
	if err != nil && out.committed {
		return []string{notLooked(err)}, nil
	}
	return warnings, err
}

// lookTimeout bounds how long the answer to a write waits for what to warn of.
const lookTimeout = time.Second

// notLooked takes the place of warnings about a write that is done, if they cannot be had.
func notLooked(err error) string {
	return "nobody could look for what is probably not meant: " + toFailure(err).text
}

// endpointWarnings tells what is allowed and probably not meant: an identifier that hides a folder of the library, and a
// default image or not-found page that the library does not have, or that is too large.
func endpointWarnings(ctx context.Context, state *store.State, id string, e *topologyv1.UrlEndpoint) ([]string, error) {
	var warnings []string
	files, _, err := state.List(ctx, topology.KindMediaFiles, id+"/", "", 1)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if text := rules.ShadowWarning(id, file.Key.ID); text != "" {
			warnings = append(warnings, text)
		}
	}
	for _, named := range []struct{ what, path string }{
		{"default image", e.GetDefaultImage().GetPath()}, {"not-found page", e.GetNotFoundPage()},
	} {
		if named.path == "" {
			continue
		}
		record, err := state.Get(ctx, topology.Key{Kind: topology.KindMediaFiles, Account: state.Account, ID: named.path})
		file := new(topologyv1.MediaFile)
		if err == nil {
			err = proto.Unmarshal(record.Value, file)
		}
		switch {
		case err == nil && file.GetSizeBytes() > topology.MaxNamedFile:
			warnings = append(warnings, fmt.Sprintf("%s %q has %d bytes: edges keep %d at most, and answer with a plain 404 instead",
				named.what, named.path, file.GetSizeBytes(), topology.MaxNamedFile))
		case errors.Is(err, store.ErrNotFound):
			warnings = append(warnings, fmt.Sprintf("%s %q is not in the Media Library: until it is, the endpoint answers with a plain 404", named.what, named.path))
		case err != nil:
			return nil, err
		}
	}
	return warnings, nil
}

func (s endpoints) UpdateUrlEndpoint(ctx context.Context, req *adminv1.UpdateUrlEndpointRequest) (*adminv1.UpdateUrlEndpointResponse, error) {
	in := orEmpty(req.GetUrlEndpoint())
	key, err := parseName(topology.KindURLEndpoints, "url_endpoint.name", in.GetName())
	if err != nil {
		return nil, err
	}
	m, err := parseMask(req.GetUpdateMask(), in.ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	out, err := s.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		stored := d.endpoints.before(key.ID)
		if err := d.found(there(stored), key, in.GetEtag(), stored.ModRevision); err != nil {
			return err
		}
		next := proto.CloneOf(stored.Message)
		m.apply(next, in)
		if err := s.validate("url_endpoint", next); err != nil {
			return err
		}
		return under("url_endpoint", d.putEndpoint(key.ID, next))
	})
	if err != nil {
		return nil, err
	}
	e, warnings, err := s.writtenEndpoint(ctx, key, out)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateUrlEndpointResponse{UrlEndpoint: e, Revision: out.revision, Warnings: warnings}, nil
}

func (s endpoints) DeleteUrlEndpoint(ctx context.Context, req *adminv1.DeleteUrlEndpointRequest) (*adminv1.DeleteUrlEndpointResponse, error) {
	key, err := parseName(topology.KindURLEndpoints, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	out, err := s.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		stored := d.endpoints.before(key.ID)
		if err := d.found(there(stored), key, req.GetEtag(), stored.ModRevision); err != nil && !d.discard(key) {
			return err
		}
		if key.ID == topology.DefaultEndpointID {
			f := fail(kindDefaultEndpoint, "%s is the default endpoint, which every account has: it cannot be deleted", key.Name())
			f.resource = key.Name()
			return f
		}
		if err := d.inUse(key, topology.KindCustomDomains); err != nil {
			return err
		}
		d.endpoints.remove(key.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteUrlEndpointResponse{Revision: out.revision}, nil
}
