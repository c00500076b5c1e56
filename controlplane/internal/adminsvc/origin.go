package adminsvc

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type origins struct {
	resource[*topologyv1.Origin]
	adminv1.UnimplementedOriginServiceServer
}

func newOrigins(s *Service) origins {
	r := newResource(s, topology.KindOrigins, "origin", func(d *draft) *table[*topologyv1.Origin] { return &d.origins })
	r.put = (*draft).putOrigin
	r.read = s.origin
	r.show = func(d *draft, key topology.Key) *topologyv1.Origin {
		return presentOrigin(key, d.origins.after(key.ID), d.secrets.after(key.ID).Message.GetValues())
	}
	return origins{resource: r}
}

func originKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindOrigins, Account: account, ID: id}
}

func secretsKey(origin topology.Key) topology.Key {
	return topology.Key{Kind: topology.KindOriginSecrets, Account: origin.Account, ID: origin.ID}
}

func (s origins) GetOrigin(ctx context.Context, req *adminv1.GetOriginRequest) (*adminv1.GetOriginResponse, error) {
	o, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	key, err := parseName(topology.KindOrigins, "name", o.GetName())
	if err != nil {
		return nil, err
	}
	addHealth(s.fleet.Edges(), key.Account, o)
	return &adminv1.GetOriginResponse{Origin: o, Revision: revision}, nil
}

// origin reads an origin and which of its secrets are set, both as of one revision.
func (s *Service) origin(ctx context.Context, key topology.Key, revision int64) (*topologyv1.Origin, int64, error) {
	stored, revision, err := readAt[*topologyv1.Origin](ctx, s, key, revision)
	if err != nil {
		return nil, 0, err
	}
	secrets, err := s.secrets(ctx, key, stored.Message, revision)
	if err != nil {
		return nil, 0, err
	}
	return presentOrigin(key, stored, secrets), revision, nil
}

func presentOrigin(
	key topology.Key, stored topology.Stored[*topologyv1.Origin], secrets map[string]string,
) *topologyv1.Origin {
	o := present(key, stored)
	o.SecretsSet = rules.SecretsSet(secrets)
	return o
}

// secrets reads the values of an origin's secrets.
func (s *Service) secrets(
	ctx context.Context, key topology.Key, origin *topologyv1.Origin, revision int64,
) (map[string]string, error) {
	stored, _, err := readAt[*topologyv1.OriginSecrets](ctx, s, secretsKey(key), revision)
	if err != nil && toFailure(err).kind == kindNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.open(ctx, key, origin, stored.Message)
}

// open returns the values of secrets as stored.
func (s *Service) open(
	ctx context.Context, key topology.Key, origin *topologyv1.Origin, stored *topologyv1.OriginSecrets,
) (map[string]string, error) {
	values, err := s.store.OpenSecrets(ctx, key, origin, stored)
	if errors.Is(err, seal.ErrUnknownKey) || errors.Is(err, seal.ErrForged) {
		return nil, brokenRecord(secretsKey(key), err)
	}
	return values, err
}

func (s origins) ListOrigins(
	ctx context.Context, req *adminv1.ListOriginsRequest,
) (*adminv1.ListOriginsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	page, err := list(ctx, s.Service, req, topology.KindOrigins, account, "", present[*topologyv1.Origin])
	if err != nil {
		return nil, err
	}
	if err := s.markSecretsSet(ctx, account, page); err != nil {
		return nil, err
	}
	addHealth(s.fleet.Edges(), account, page.items...)
	return &adminv1.ListOriginsResponse{Origins: page.items, NextPageToken: page.next, Revision: page.revision}, nil
}

// markSecretsSet sets, in a page of origins, which of their secrets hold a value.
func (s *Service) markSecretsSet(ctx context.Context, account string, page listing[*topologyv1.Origin]) error {
	if len(page.items) == 0 {
		return nil
	}
	origins := make(map[string]*topologyv1.Origin, len(page.items))
	for _, o := range page.items {
		origins[o.GetId()] = o
	}
	first, last := page.items[0].GetId(), page.items[len(page.items)-1].GetId()
	after := first[:len(first)-1] // What sorts before first; ids are never empty.
	for {
		records, more, _, err := s.store.ListAt(ctx, topology.KindOriginSecrets, account, "", after, maxPageSize,
			page.revision)
		if err != nil {
			return err
		}
		for _, r := range records {
			after = r.Key.ID
			stored, err := decode[*topologyv1.OriginSecrets](r)
			if err != nil {
				continue
			}
			o := origins[after]
			if o == nil {
				continue
			}
			values, err := s.store.OpenSecrets(ctx, originKey(account, after), o, stored.Message)
			if errors.Is(err, store.ErrUnavailable) {
				return err
			}
			o.SecretsSet = rules.SecretsSet(values) // of what cannot be read, none is
		}
		if !more || after >= last {
			return nil
		}
	}
}

func (s origins) CreateOrigin(
	ctx context.Context, req *adminv1.CreateOriginRequest,
) (*adminv1.CreateOriginResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	if err := topology.ValidateOriginID(req.GetOriginId()); err != nil {
		return nil, invalid("origin_id", "%v", err)
	}
	key := originKey(account, req.GetOriginId())
	o, out, err := s.make(ctx, req, key, req.GetOrigin(), func(d *draft, next *topologyv1.Origin) error {
		if err := d.putOrigin(key.ID, next, clearsNothing); err != nil {
			return err
		}
		d.joinDefault(key.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateOriginResponse{Origin: o, Revision: out.revision, Warnings: rules.OriginWarnings(o)}, nil
}

// clearsNothing is for writes that name no secret to clear: in a message that is replaced, an empty
// secret keeps the stored one.
func clearsNothing(string) bool { return false }

func (s origins) UpdateOrigin(
	ctx context.Context, req *adminv1.UpdateOriginRequest,
) (*adminv1.UpdateOriginResponse, error) {
	o, _, out, err := s.update(ctx, req, req.GetOrigin(), nil)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateOriginResponse{Origin: o, Revision: out.revision, Warnings: rules.OriginWarnings(o)}, nil
}

func (s origins) DeleteOrigin(
	ctx context.Context, req *adminv1.DeleteOriginRequest,
) (*adminv1.DeleteOriginResponse, error) {
	revision, err := s.remove(ctx, req, func(d *draft, key topology.Key) error {
		if err := d.inUse(key, topology.KindURLEndpoints); err != nil {
			return err
		}
		d.deleteOrigin(key.ID)
		d.discard(secretsKey(key))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteOriginResponse{Revision: revision}, nil
}

func (s origins) TestOrigin(ctx context.Context, req *adminv1.TestOriginRequest) (*adminv1.TestOriginResponse, error) {
	key, err := parseName(topology.KindOrigins, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	o, secrets, err := s.testee(ctx, key, req.GetOrigin())
	if err != nil {
		return nil, err
	}
	path, err := testPath(req.GetPath(), o)
	if err != nil {
		return nil, err
	}
	o.Id = key.ID
	answer, err := s.ask(ctx, req.GetEdge(), req.GetRegion(),
		&edgev1.Ask{Question: &edgev1.Ask_TestOrigin_{TestOrigin: &edgev1.Ask_TestOrigin{
			Account: key.Account, Origin: o, Secrets: &topologyv1.OriginSecrets{Values: secrets}, Path: path,
		}}})
	if err != nil {
		return nil, err
	}
	return &adminv1.TestOriginResponse{Test: answer.GetTestOrigin()}, nil
}

// testee is the origin to test with its secrets: the stored one, or one that is given and takes
// over the secrets of the stored one while its target is the same.
func (s *Service) testee(
	ctx context.Context, key topology.Key, given *topologyv1.Origin,
) (*topologyv1.Origin, map[string]string, error) {
	stored, revision, err := readAt[*topologyv1.Origin](ctx, s, key, 0)
	if err != nil && (given == nil || toFailure(err).kind != kindNotFound) {
		return nil, nil, err
	}
	var kept map[string]string
	if stored.Message != nil {
		if kept, err = s.secrets(ctx, key, stored.Message, revision); err != nil {
			return nil, nil, err
		}
	}
	if given == nil {
		return proto.CloneOf(stored.Message), kept, nil
	}
	o := new(topologyv1.Origin)
	mask{all: true}.apply(o, given)
	if found := rules.Normalize(key.Account, key.Name(), o); len(found) > 0 {
		return nil, nil, malformed(key.Account, found, key.Name())
	}
	public, fresh := rules.SplitOrigin(o)
	secrets, required := rules.MergeSecrets(stored.Message, kept, public, fresh, clearsNothing)
	if len(required) > 0 {
		return nil, nil, under("origin", secretRequired(key.Name(), required))
	}
	alone := topology.NewAccountState(key.Account, "")
	alone.Endpoints[topology.DefaultEndpointID] = topology.Stored[*topologyv1.UrlEndpoint]{Message: new(
		topologyv1.UrlEndpoint,
	)}
	alone.Origins[key.ID] = topology.Stored[*topologyv1.Origin]{Message: public}
	alone.Secrets[key.ID] = topology.Stored[*topologyv1.OriginSecrets]{Message: &topologyv1.OriginSecrets{
		Values: secrets,
	}}
	if found := rules.Check(alone); len(found) > 0 {
		return nil, nil, violationsError(alone, found, key.Name())
	}
	return public, secrets, nil
}

// testPath is the canonical path to ask for. Without any it is a random one, which shows how the
// origin says "no such file".
func testPath(given string, o *topologyv1.Origin) (string, error) {
	switch {
	case given != "":
		path, err := topology.CanonicalPath("/" + strings.TrimPrefix(given, "/"))
		if err != nil {
			return "", invalid("path", "%v", err)
		}
		return path, nil
	case o.GetProbeKey() != "":
		path, err := topology.CanonicalPath((&url.URL{Path: "/" + o.GetProbeKey()}).EscapedPath())
		if err != nil {
			return "", invalid("origin.probe_key", "%v", err)
		}
		return path, nil
	}
	return "/edgewalk-test-" + strings.ToLower(rand.Text()), nil
}

// ask puts a question to an edge.
func (s *Service) ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	answer, err := s.fleet.Ask(ctx, edge, region, question)
	if err != nil {
		return nil, err
	}
	if text := answer.GetError(); text != "" {
		return nil, fail(kindEdgeFailed, "the edge could not answer: %s", text)
	}
	return answer, nil
}
