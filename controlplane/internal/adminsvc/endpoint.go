package adminsvc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

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

// endpoint reads an endpoint with what only a read computes, all as of one revision.
func (s *Service) endpoint(ctx context.Context, key topology.Key, revision int64) (*topologyv1.UrlEndpoint, int64, error) {
	stored, revision, err := readAt[*topologyv1.UrlEndpoint](ctx, s, key, revision)
	if err != nil {
		return nil, 0, err
	}
	state, err := s.entrances(ctx, key.Account, revision)
	if err != nil {
		return nil, 0, err
	}
	return presentEndpoint(state, key, stored), revision, nil
}

func presentEndpoint(s *topology.AccountState, key topology.Key, stored topology.Stored[*topologyv1.UrlEndpoint]) *topologyv1.UrlEndpoint {
	e := present(key, stored)
	e.Walk = topology.Walk(e)
	e.Urls = s.URLs(key.ID)
	return e
}

// entrances is what the URLs of an account's endpoints depend on: the shared host and the account's domains.
func (s *Service) entrances(ctx context.Context, account string, revision int64) (*topology.AccountState, error) {
	shared, err := s.sharedHost(ctx, revision)
	if err != nil {
		return nil, err
	}
	state := topology.NewAccountState(account, shared)
	after := ""
	for {
		records, more, _, err := s.store.ListAt(ctx, topology.KindCustomDomains, account, "", after, maxPageSize, revision)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			after = r.Key.ID
			_ = state.Apply(r) // one that cannot be read is no entrance
		}
		if !more {
			return state, nil
		}
	}
}

func (s endpoints) ListUrlEndpoints(ctx context.Context, req *adminv1.ListUrlEndpointsRequest) (*adminv1.ListUrlEndpointsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	state, err := s.entrances(ctx, account, 0)
	if err != nil {
		return nil, err
	}
	page, err := list(ctx, s.Service, req, topology.KindURLEndpoints, account, "", func(key topology.Key, stored topology.Stored[*topologyv1.UrlEndpoint]) *topologyv1.UrlEndpoint {
		return presentEndpoint(state, key, stored)
	})
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
		if _, ok := d.before.Endpoints[key.ID]; ok {
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
	var e *topologyv1.UrlEndpoint
	if out.draft != nil {
		e = presentEndpoint(out.draft.next, key, out.draft.next.Endpoints[key.ID])
	} else {
		var err error
		if e, _, err = s.endpoint(ctx, key, out.at); err != nil {
			return nil, nil, unread(err, out.revision)
		}
	}
	if out.committed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookTimeout)
		defer cancel()
	}
	warnings, err := s.endpointWarnings(ctx, key, e, out.at)
	if err != nil && out.committed {
		return e, []string{notLooked(err)}, nil
	}
	return e, warnings, err
}

// lookTimeout bounds how long the answer to a write waits for what to warn of.
const lookTimeout = time.Second

// notLooked takes the place of warnings about a write that is done, if they cannot be had.
func notLooked(err error) string {
	return "nobody could look for what is probably not meant: " + toFailure(err).text
}

// endpointWarnings tells what is allowed and probably not meant: an identifier that hides a folder of the library, and a
// default image or not-found page that the library does not have, or that is too large.
func (s *Service) endpointWarnings(ctx context.Context, key topology.Key, e *topologyv1.UrlEndpoint, revision int64) ([]string, error) {
	var warnings []string
	files, _, _, err := s.store.ListAt(ctx, topology.KindMediaFiles, key.Account, key.ID+"/", "", 1, revision)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if text := topology.ShadowWarning(key.ID, file.Key.ID); text != "" {
			warnings = append(warnings, text)
		}
	}
	for _, named := range []struct{ what, path string }{
		{"default image", e.GetDefaultImage().GetPath()}, {"not-found page", e.GetNotFoundPage()},
	} {
		if named.path == "" {
			continue
		}
		record, _, err := s.store.GetAt(ctx, topology.Key{Kind: topology.KindMediaFiles, Account: key.Account, ID: named.path}, revision)
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
		stored, ok := d.before.Endpoints[key.ID]
		if err := d.found(ok, key, in.GetEtag(), stored.ModRevision); err != nil {
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
		stored, ok := d.before.Endpoints[key.ID]
		if err := d.found(ok, key, req.GetEtag(), stored.ModRevision); err != nil && !d.discard(key) {
			return err
		}
		if key.ID == topology.DefaultEndpointID {
			f := fail(kindDefaultEndpoint, "%s is the default endpoint, which every account has: it cannot be deleted", key.Name())
			f.resource = key.Name()
			return f
		}
		if users := d.before.EndpointUsers(key.ID); len(users) > 0 {
			return inUse(key.Name(), users)
		}
		delete(d.next.Endpoints, key.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteUrlEndpointResponse{Revision: out.revision}, nil
}
