package adminsvc

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc/manifest"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// secretChanged stands for a secret in a list of changes.
const secretChanged = "(changed)"

// changeList collects what becomes of resources.
type changeList struct {
	changes []*adminv1.ResourceChange
	told    map[topology.Key]bool
}

// add tells what becomes of one resource; a nil message is one that is not there.
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
	l.told[key] = true
	l.changes = append(l.changes, c)
	return c
}

// origin tells what becomes of an origin. Of its secrets only that they differ is told.
func (l *changeList) origin(d *draft, id string) {
	c := l.add(originKey(d.before.ID, id), d.before.Origins[id].Message, d.next.Origins[id].Message)
	before, next := d.before.Secrets[id].Message.GetValues(), d.next.Secrets[id].Message.GetValues()
	paths := maps.Clone(before)
	if paths == nil {
		paths = make(map[string]string)
	}
	maps.Copy(paths, next)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if before[path] == next[path] {
			continue
		}
		f := &adminv1.FieldChange{Path: path}
		if before[path] != "" {
			f.Before = secretChanged
		}
		if next[path] != "" {
			f.After = secretChanged
		}
		c.Fields = append(c.Fields, f)
	}
}

func removed[M proto.Message](l *changeList, account string, kind topology.Kind, before, next map[string]topology.Stored[M]) {
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, ok := next[id]; !ok {
			l.add(topology.Key{Kind: kind, Account: account, ID: id}, before[id].Message, next[id].Message)
		}
	}
}

// export is an account as a manifest, sections in the order of ids but for what the account has by itself.
func export(s *topology.AccountState) *adminv1.Manifest {
	m := &adminv1.Manifest{Account: asEntry(s.Account.Message)}
	m.Account.Id = s.ID
	for _, id := range slices.Sorted(maps.Keys(s.Origins)) {
		o := asEntry(s.Origins[id].Message)
		o.Id = id
		m.Origins = append(m.Origins, o)
	}
	for _, id := range exportedEndpoints(s) {
		e := asEntry(s.Endpoints[id].Message)
		e.Id = id
		m.UrlEndpoints = append(m.UrlEndpoints, e)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Domains)) {
		m.CustomDomains = append(m.CustomDomains, asEntry(s.Domains[id].Message))
	}
	return m
}

// exportedEndpoints puts the default endpoint first, as people do.
func exportedEndpoints(s *topology.AccountState) []string {
	ids := slices.Sorted(maps.Keys(s.Endpoints))
	slices.SortStableFunc(ids, func(a, b string) int {
		switch topology.DefaultEndpointID {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	return ids
}
