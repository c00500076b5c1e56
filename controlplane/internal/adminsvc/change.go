package adminsvc

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/manifest"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// secretChanged stands for a secret in a list of changes.
const secretChanged = "(changed)"

// changeList collects what becomes of resources.
type changeList struct {
	changes []*adminv1.ResourceChange
	listed  map[topology.Key]bool
	// secret is what stands for a secret. Nil: secretChanged.
	secret func(value string) string
	// room is how many bytes of changes differing lists. 0: any number.
	room int
}

// of stands for a secret.
func (l *changeList) of(secret string) string {
	if l.secret == nil {
		return secretChanged
	}
	return l.secret(secret)
}

// add describes what becomes of one resource; a nil message is one that does not exist.
func (l *changeList) add(key topology.Key, before, next proto.Message) *adminv1.ResourceChange {
	c := &adminv1.ResourceChange{Name: key.Name()}
	was, is := before.ProtoReflect().IsValid(), next.ProtoReflect().IsValid()
	switch {
	case !is:
		c.Action = adminv1.ResourceChange_DELETED
	case !was:
		c.Action = adminv1.ResourceChange_CREATED
	case proto.Equal(before, next):
		c.Action = adminv1.ResourceChange_UNCHANGED
	default:
		c.Action = adminv1.ResourceChange_UPDATED
	}
	if c.Action == adminv1.ResourceChange_CREATED || c.Action == adminv1.ResourceChange_UPDATED {
		c.Fields = manifest.Diff(asEntry(before), asEntry(next))
	}
	l.listed[key] = true
	l.changes = append(l.changes, c)
	return c
}

func (l *changeList) endpoint(d *draft, id string) {
	l.add(endpointKey(d.id, id), d.endpoints.before(id).Message, d.endpoints.after(id).Message)
}

// origin describes what becomes of an origin. Of its secrets it says only that they differ.
func (l *changeList) origin(d *draft, id string) {
	c := l.add(originKey(d.id, id), d.origins.before(id).Message, d.origins.after(id).Message)
	before, next := d.secrets.before(id).Message.GetValues(), d.secrets.after(id).Message.GetValues()
	paths := maps.Clone(before)
	if paths == nil {
		paths = make(map[string]string)
	}
	maps.Copy(paths, next)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if before[path] == next[path] {
			continue
		}
		f := &adminv1.FieldChange{Path: fieldpath.JSON(path)}
		if before[path] != "" {
			f.Before = l.of(before[path])
		}
		if next[path] != "" {
			f.After = l.of(next[path])
		}
		c.Fields = append(c.Fields, f)
	}
}

func removed[M message](l *changeList, t *table[M]) {
	for _, id := range t.removed() {
		l.add(topology.Key{Kind: t.kind, Account: t.state.Account, ID: id}, t.before(id).Message, t.after(id).Message)
	}
}

// asEntry is a resource as a manifest has it: nothing that only a read computes, and no times.
func asEntry[M proto.Message](stored M) M {
	m := stored.ProtoReflect().New().Interface().(M)
	mask{all: true}.apply(m, stored)
	return m
}

// withinAnswer leaves out the fields of changes for which an answer has no room.
func withinAnswer(changes []*adminv1.ResourceChange) []*adminv1.ResourceChange {
	size := 0
	for _, c := range changes {
		if size += proto.Size(c); size > maxPageBytes {
			c.Fields = nil
		}
	}
	return changes
}

// differing describes what a draft changes, up to a number of resources, and returns how many more
// there are.
func (l *changeList) differing(d *draft, most int) (more int) {
	size := 0
	add := func(ids []string, differs func(id string) bool, tell func(id string)) {
		for _, id := range ids {
			switch {
			case !differs(id):
			case len(l.changes) == most, l.room > 0 && size >= l.room:
				more++
			default:
				tell(id)
				size += proto.Size(l.changes[len(l.changes)-1])
			}
		}
	}
	add(slices.Sorted(maps.Keys(d.account.next)), d.account.differs, func(string) {
		l.add(accountKey(d.id), d.account.before("").Message, d.account.after("").Message)
	})
	origins := keysOf(d.origins.next)
	maps.Copy(origins, keysOf(d.secrets.next))
	add(slices.Sorted(maps.Keys(origins)),
		func(id string) bool { return d.origins.differs(id) || d.secrets.differs(id) },
		func(id string) { l.origin(d, id) })
	add(slices.Sorted(maps.Keys(d.endpoints.next)), d.endpoints.differs, func(id string) { l.endpoint(d, id) })
	add(slices.Sorted(maps.Keys(d.domains.next)), d.domains.differs, func(id string) {
		l.add(domainKey(d.id, id), d.domains.before(id).Message, d.domains.after(id).Message)
	})
	return more
}

// differs reports whether a resource shall be something else than it was.
func (t *table[M]) differs(id string) bool {
	before, after := t.before(id).Message, t.after(id).Message
	return before != after && !proto.Equal(before, after)
}
