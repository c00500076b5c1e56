package topology

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// computed are the fields that are made when a resource is read and never stored. Of a purge, revision, state and edges are
// computed too.
var computed = []protoreflect.Name{"name", "id", "uid", "etag", "walk", "urls", "more_urls", "effective_limits", "secrets_set", "health"}

// managed are the fields that are stored and that no admin writes.
var managed = []protoreflect.Name{"state", "create_time", "update_time", "size_bytes", "sha256"}

// OutputOnly reports whether a field of a resource is one that writes ignore (AIP-203). A purge's are others.
func OutputOnly(field protoreflect.Name) bool {
	return slices.Contains(computed, field) || slices.Contains(managed, field)
}

// Strip clears, in place, what is never stored.
func Strip(m proto.Message) {
	r := m.ProtoReflect()
	for _, name := range computed {
		// Urls of a purge is a message and what the admin wrote, not the list that is computed for an endpoint.
		if field := r.Descriptor().Fields().ByName(name); field != nil && field.Message() == nil {
			r.Clear(field)
		}
	}
	switch m := m.(type) {
	case *topologyv1.Purge:
		m.Revision, m.State, m.Edges = 0, topologyv1.Purge_STATE_UNSPECIFIED, nil
	case *topologyv1.Origin:
		m.Health = nil
	}
}

// Present is a copy of a stored resource with what its key and revisions tell: name, id, uid, etag, a purge's revision. What
// takes more than the resource itself, such as an endpoint's URLs, callers add.
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
