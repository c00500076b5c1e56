package adminsvc

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// resourceMessage is the message of a resource that admins write.
type resourceMessage interface {
	message
	GetName() string
	GetEtag() string
}

// resource does what the services of accounts, origins, endpoints and domains have in common: the
// standard methods of AIP-131 to AIP-135. An account has no id within itself: the ID of its key is
// empty, and so is its place in its table.
type resource[M resourceMessage] struct {
	*Service
	kind  topology.Kind
	field string // of requests that carry the resource
	table func(*draft) *table[M]
	// put makes next the resource that the draft leads to. cleared reports which secrets the caller
	// wants gone.
	put func(d *draft, id string, next M, cleared func(path string) bool) error
	// read reads a resource as admins see it, as of a revision; 0 is the current one.
	read func(ctx context.Context, key topology.Key, revision int64) (M, int64, error)
	// show is a resource of a draft as admins see it.
	show func(d *draft, key topology.Key) M
}

// updateRequest is what requests that update a resource have in common.
type updateRequest interface {
	writeRequest
	GetUpdateMask() *fieldmaskpb.FieldMask
}

// deleteRequest is what requests that delete a resource have in common.
type deleteRequest interface {
	writeRequest
	GetName() string
	GetEtag() string
}

func (r resource[M]) get(ctx context.Context, name string) (m M, revision int64, err error) {
	key, err := parseName(r.kind, "name", name)
	if err != nil {
		return m, 0, err
	}
	return r.read(ctx, key, 0)
}

// make creates a resource from what a request says of it, by put.
func (r resource[M]) make(
	ctx context.Context, req writeRequest, key topology.Key, in M, put func(d *draft, next M) error,
) (m M, out outcome, err error) {
	out, err = r.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		if r.kind != topology.KindAccounts {
			if err := d.mustExist(); err != nil {
				return err
			}
		}
		if r.table(d).existed(key.ID) {
			return alreadyExists(key.Name())
		}
		next := in.ProtoReflect().New().Interface().(M)
		mask{all: true}.apply(next, orEmpty(in))
		return under(r.field, put(d, next))
	})
	if err != nil {
		return m, out, err
	}
	m, err = r.result(ctx, key, out)
	return m, out, err
}

// update changes a resource. adjust, unless it is nil, may change it before it is checked.
func (r resource[M]) update(
	ctx context.Context, req updateRequest, in M, adjust func(next, stored M),
) (m M, key topology.Key, out outcome, err error) {
	in = orEmpty(in)
	if key, err = parseName(r.kind, r.field+".name", in.GetName()); err != nil {
		return m, key, out, err
	}
	changed, err := parseMask(req.GetUpdateMask(), in.ProtoReflect().Descriptor())
	if err != nil {
		return m, key, out, err
	}
	out, err = r.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		stored := r.table(d).before(key.ID)
		if err := d.found(there(stored), key, in.GetEtag(), stored.ModRevision); err != nil {
			return err
		}
		next := proto.Clone(stored.Message).(M)
		changed.apply(next, in)
		if adjust != nil {
			adjust(next, stored.Message)
		}
		if err := r.validate(r.field, next); err != nil {
			return err
		}
		return under(r.field, r.put(d, key.ID, next, changed.names))
	})
	if err != nil {
		return m, key, out, err
	}
	m, err = r.result(ctx, key, out)
	return m, key, out, err
}

// remove deletes a resource. may, unless it is nil, returns an error if something stands in the
// way.
func (r resource[M]) remove(
	ctx context.Context, req deleteRequest, may func(d *draft, key topology.Key) error,
) (revision int64, err error) {
	key, err := parseName(r.kind, "name", req.GetName())
	if err != nil {
		return 0, err
	}
	out, err := r.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		stored := r.table(d).before(key.ID)
		if err := d.found(there(stored), key, req.GetEtag(), stored.ModRevision); err != nil && !d.discard(key) {
			return err
		}
		if may != nil {
			if err := may(d, key); err != nil {
				return err
			}
		}
		r.table(d).remove(key.ID)
		return nil
	})
	return out.revision, err
}

// result is what a write has made of a resource, now or by an earlier request.
func (r resource[M]) result(ctx context.Context, key topology.Key, out outcome) (M, error) {
	if out.draft != nil {
		return r.show(out.draft, key), nil
	}
	m, _, err := r.read(ctx, key, out.at)
	return m, unread(err, out.revision)
}

// newResource returns a resource of which admins see what is stored, and what its key and revisions
// tell.
func newResource[M resourceMessage](
	s *Service, kind topology.Kind, field string, table func(*draft) *table[M],
) resource[M] {
	return resource[M]{
		Service: s, kind: kind, field: field, table: table,
		read: func(ctx context.Context, key topology.Key, revision int64) (m M, at int64, err error) {
			stored, at, err := readAt[M](ctx, s, key, revision)
			if err != nil {
				return m, 0, err
			}
			return present(key, stored), at, nil
		},
		show: func(d *draft, key topology.Key) M { return present(key, table(d).after(key.ID)) },
	}
}

// found returns an error unless a resource of an account that takes writes exists and has the etag.
func (d *draft) found(ok bool, key topology.Key, etag string, modRevision int64) error {
	if err := d.mustExist(); err != nil {
		return err
	}
	if !ok {
		if err := d.broken(key); err != nil {
			return err
		}
		return notFound(key.Name())
	}
	return checkEtag(etag, key.Name(), modRevision)
}

// parseName reads the resource name in a field of a request.
func parseName(kind topology.Kind, field, name string) (topology.Key, error) {
	if kind == topology.KindCustomDomains {
		name = canonicalDomainName(name)
	}
	key, err := topology.ParseName(kind, name)
	if err != nil {
		return topology.Key{}, invalid(field, "%v", err)
	}
	return key, nil
}

// canonicalDomainName takes the domain of a resource name in any spelling: capital or
// international, and `*.` for a wildcard.
func canonicalDomainName(name string) string {
	slash := strings.LastIndexByte(name, '/')
	domain := name[slash+1:]
	if base, ok := strings.CutPrefix(domain, topology.DomainID("*.")); ok {
		domain = "*." + base
	}
	canonical, err := topology.CanonicalDomain(domain, "")
	if slash < 0 || err != nil {
		return name
	}
	return name[:slash+1] + topology.DomainID(canonical)
}

// parseParent reads the account that a request is about.
func parseParent(parent string) (string, error) {
	key, err := parseName(topology.KindAccounts, "parent", parent)
	return key.Account, err
}

// orEmpty is m, or an empty message in place of none.
func orEmpty[M proto.Message](m M) M {
	if !m.ProtoReflect().IsValid() {
		return m.ProtoReflect().New().Interface().(M)
	}
	return m
}
