package rules

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Strip clears, in place, what is never stored.
func Strip(m proto.Message) {
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		// Urls of a purge is a message and what the admin wrote, not the list that is computed for
		// an endpoint.
		if field := fields.Get(i); topology.Computed(field.Name()) && field.Message() == nil {
			r.Clear(field)
		}
	}
	switch m := m.(type) {
	case *topologyv1.Purge:
		m.Revision, m.State, m.Edges = 0, topologyv1.Purge_STATE_UNSPECIFIED, nil
	case *topologyv1.Origin:
		m.Health = nil
	case *topologyv1.CustomDomain:
		m.Ownership, m.Certificate = nil, nil
		if m.GetRouting().GetState() != topologyv1.DomainRouting_PROXIED {
			m.Routing = nil // edges go by that state alone
		}
	}
}

// Present is a copy of a stored resource with what follows from its key and revisions: name, id,
// uid, etag, a purge's revision. What takes more than the resource itself, such as an endpoint's
// URLs, callers add.
func Present[M proto.Message](key topology.Key, stored topology.Stored[M]) M {
	m := proto.Clone(stored.Message).(M)
	id := key.ID
	if key.Kind == topology.KindAccounts {
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
	set("uid", topology.UID(id, stored.CreateRevision))
	set("etag", topology.Etag(stored.ModRevision))
	if p, ok := any(m).(*topologyv1.Purge); ok {
		p.Revision = stored.CreateRevision
	}
	return m
}
