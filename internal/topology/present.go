package topology

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// computed are the fields that are made when a resource is read and never stored. Of a purge, revision, state and edges are
// computed too.
var computed = []protoreflect.Name{"name", "id", "uid", "etag", "walk", "urls", "secrets_set"}

// Strip clears, in place, what is never stored.
func Strip(m proto.Message) {
	r := m.ProtoReflect()
	for _, name := range computed {
		// Urls of a purge is a message and what the admin wrote, not the list that is computed for an endpoint.
		if field := r.Descriptor().Fields().ByName(name); field != nil && field.Message() == nil {
			r.Clear(field)
		}
	}
	if p, ok := m.(*topologyv1.Purge); ok {
		p.Revision, p.State, p.Edges = 0, topologyv1.Purge_STATE_UNSPECIFIED, nil
	}
}

// Present is a copy of a stored resource with what its key and revisions tell: name, id, uid, etag, a purge's revision. What
// takes more than the resource itself is added by [AccountState.PresentOrigin] and [AccountState.PresentEndpoint].
func Present[M proto.Message](key Key, stored Stored[M]) M {
	m := proto.Clone(stored.Message).(M)
	id := key.ID
	if key.Kind == KindAccounts {
		id = key.Account
	}
	r := m.ProtoReflect()
	set := func(name protoreflect.Name, value string) {
		if field := r.Descriptor().Fields().ByName(name); field != nil {
			r.Set(field, protoreflect.ValueOfString(value))
		}
	}
	set("name", key.Name())
	set("id", id)
	set("uid", UID(id, stored.CreateRevision))
	set("etag", Etag(stored.ModRevision))
	if p, ok := any(m).(*topologyv1.Purge); ok {
		p.Revision = stored.CreateRevision
	}
	return m
}

// PresentOrigin is an origin of the account as admins see it, nil if there is none.
func (s *AccountState) PresentOrigin(id string) *topologyv1.Origin {
	stored, ok := s.Origins[id]
	if !ok {
		return nil
	}
	o := Present(Key{KindOrigins, s.ID, id}, stored)
	o.SecretsSet = SecretsSet(s.Secrets[id].Message.GetValues())
	return o
}

// PresentEndpoint is an endpoint of the account as admins see it, nil if there is none.
func (s *AccountState) PresentEndpoint(id string) *topologyv1.UrlEndpoint {
	stored, ok := s.Endpoints[id]
	if !ok {
		return nil
	}
	e := Present(Key{KindURLEndpoints, s.ID, id}, stored)
	e.Walk = Walk(e)
	e.Urls = s.URLs(id)
	return e
}
