package adminsvc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/manifest"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type manifests struct {
	*Service
	adminv1.UnimplementedManifestServiceServer
}

// source is a manifest and, when it was text, where its fields stand.
type source struct {
	*adminv1.Manifest
	text *manifest.Document // nil for one given as a message
	etag string             // of the account, instead of the manifest's
}

// has reports whether a section counts as present for prune.
func (m *source) has(section string) bool {
	if m.text != nil {
		return m.text.Has(section)
	}
	switch section {
	case "origins":
		return len(m.GetOrigins()) > 0
	case "url_endpoints":
		return len(m.GetUrlEndpoints()) > 0
	}
	return len(m.GetCustomDomains()) > 0
}

func (s manifests) ApplyManifest(
	ctx context.Context, req *adminv1.ApplyManifestRequest,
) (*adminv1.ApplyManifestResponse, error) {
	m := &source{Manifest: req.GetManifest(), etag: req.GetEtag()}
	if m.Manifest == nil {
		doc, err := manifest.Decode(req.GetText())
		if err != nil {
			return nil, textError(err)
		}
		m.Manifest, m.text = doc.Manifest, doc
		if err := s.validate("", m.Manifest); err != nil {
			return nil, m.locate(err)
		}
	}
	if err := m.check(); err != nil {
		return nil, m.locate(err)
	}
	account := m.GetAccount().GetId()
	if name := req.GetName(); name != "" && name != topology.AccountName(account) {
		return nil, m.locate(invalid("account.id", "the manifest is of %q, and was to be applied to %s", account, name))
	}
	if err := s.mustBeOf(auth.From(ctx), account); err != nil {
		return nil, err
	}
	resp := new(adminv1.ApplyManifestResponse)
	out, err := s.write(ctx, req, account, "", func(d *draft) error {
		if err := m.apply(d, req.GetPrune()); err != nil {
			return m.locate(err)
		}
		d.fail = func(state *topology.AccountState, found []rules.Violation) error {
			return m.locate(m.violations(state, found))
		}
		resp.Changes = m.changes(d)
		return nil
	})
	if claimed, ok := errors.AsType[*store.ClaimedError](err); ok {
		return nil, m.locate(domainClaimed(claimed, m.fieldOf(claimed.Domain)))
	}
	if err != nil {
		return nil, err
	}
	resp.Revision, resp.Etag = out.revision, etagOf(out.changed)
	d := out.draft
	if d == nil {
		if d, err = s.replayed(ctx, account, out.at); err != nil {
			return nil, unread(err, out.revision)
		}
		resp.Changes = m.changes(d)
	}
	resp.Warnings, err = s.manifestWarnings(ctx, d, resp.GetChanges(), out)
	return resp, err
}

// maxLooks is how many origins and endpoints of a manifest are looked at for warnings.
const maxLooks = 50

// manifestWarnings are those of the origins and endpoints that a manifest has made or changed.
func (s manifests) manifestWarnings(
	ctx context.Context, d *draft, changes []*adminv1.ResourceChange, out outcome,
) (warnings []string, err error) {
	var endpoints []*topologyv1.UrlEndpoint
	for _, c := range changes {
		if c.GetAction() != adminv1.ResourceChange_CREATED && c.GetAction() != adminv1.ResourceChange_UPDATED {
			continue
		}
		if key, err := topology.ParseName(topology.KindOrigins, c.GetName()); err == nil && out.draft != nil &&
			len(warnings) < maxLooks {
			o := presentOrigin(key, d.origins.after(key.ID), d.secrets.after(key.ID).Message.GetValues())
			for _, text := range rules.OriginWarnings(o) {
				warnings = append(warnings, key.Name()+": "+text)
			}
		}
		key, err := topology.ParseName(topology.KindURLEndpoints, c.GetName())
		if err != nil || len(endpoints) == maxLooks {
			continue
		}
		endpoints = append(endpoints, present(key, d.endpoints.after(key.ID)))
	}
	found, err := s.endpointWarnings(ctx, d.id, out, endpoints...)
	for _, e := range endpoints {
		for _, text := range found[e.GetId()] {
			warnings = append(warnings, e.GetName()+": "+text)
		}
	}
	return warnings, err
}

// replayed is the draft of a write by an earlier request: it leads from the account before the
// write's revision to the account at it. at is 0 when the request did nothing, or when that is no
// longer known.
func (s *Service) replayed(ctx context.Context, account string, at int64) (*draft, error) {
	before, err := s.store.AccountStateAt(ctx, account, max(at-1, 0))
	if errors.Is(err, store.ErrCompacted) {
		before, err = s.store.AccountStateAt(ctx, account, at)
	}
	if err != nil {
		return nil, err
	}
	next, err := s.store.AccountStateAt(ctx, account, at)
	if err != nil {
		return nil, err
	}
	d, err := newDraft(before, s.now())
	if err != nil {
		return nil, err
	}
	d.changeTo(next)
	return d, nil
}

// apply makes the draft what the manifest says.
func (m *source) apply(d *draft, prune bool) error {
	if err := m.applyAccount(d); err != nil {
		return err
	}
	for i, in := range m.GetOrigins() {
		o := new(topologyv1.Origin)
		mask{all: true}.apply(o, in)
		if err := entryError("origins", i, in.GetEtag(), originKey(d.id, in.GetId()),
			d.origins.before(in.GetId()).ModRevision,
			d.putOrigin(in.GetId(), o, clearsNothing)); err != nil {
			return err
		}
	}
	listsDefault := false
	for i, in := range m.GetUrlEndpoints() {
		listsDefault = listsDefault || in.GetId() == topology.DefaultEndpointID
		e := new(topologyv1.UrlEndpoint)
		mask{all: true}.apply(e, in)
		if err := entryError("url_endpoints", i, in.GetEtag(), endpointKey(d.id, in.GetId()),
			d.endpoints.before(in.GetId()).ModRevision,
			d.putEndpoint(in.GetId(), e)); err != nil {
			return err
		}
	}
	for i, in := range m.GetCustomDomains() {
		id := m.domainID(i)
		c := new(topologyv1.CustomDomain)
		mask{all: true}.apply(c, in)
		if err := entryError("custom_domains", i, in.GetEtag(), domainKey(d.id, id), d.domains.before(id).ModRevision,
			d.putDomain(id, c)); err != nil {
			return err
		}
	}
	if prune {
		m.prune(d)
	}
	if len(m.GetOrigins()) > 0 && !listsDefault {
		d.joinDefault(m.GetOrigins()[0].GetId())
	}
	return nil
}

func (m *source) applyAccount(d *draft) error {
	in := m.GetAccount()
	a := new(topologyv1.Account)
	if stored := d.account.before("").Message; stored != nil {
		a = proto.CloneOf(stored)
	}
	mask{}.apply(a, in) // What a manifest leaves out of the account stays: it may be about some sections alone.
	etag, field, remedy := in.GetEtag(), "account.etag", ": export it again, or leave account.etag out to write over what others did"
	if m.etag != "" {
		etag, field, remedy = m.etag, "etag", ""
	}
	if !d.account.existed("") {
		if etag != "" {
			f := notFound(topology.AccountName(d.id))
			f.text += ": leave " + field + " out to make it"
			return f
		}
		return d.create(a)
	}
	if err := d.mustExist(); err != nil {
		return err
	}
	if f := d.changedSince(etag); f != nil {
		f.text += remedy
		if m.etag == "" {
			f.fields = []fieldFault{{field, f.text}}
		}
		return f
	}
	d.putAccount(a)
	return nil
}

// entryError is what is wrong with an entry that was put: faults are named by their place in the
// manifest, and its etag, if it has one, must be that of what it replaces.
func entryError(section string, i int, etag string, key topology.Key, modRevision int64, err error) error {
	place := fmt.Sprintf("%s[%d]", section, i)
	if err != nil {
		return under(place, err)
	}
	if etag != "" && modRevision == 0 {
		return notFound(key.Name())
	}
	return checkEntryEtag(place, etag, key.Name(), modRevision)
}

func (m *source) domainID(i int) string {
	name, err := topology.CanonicalDomain(m.GetCustomDomains()[i].GetDomain(), "")
	if err != nil {
		return "" // check has refused it.
	}
	return topology.DomainID(name)
}

// prune drops what the manifest does not list, in the kinds whose section is present. The default
// endpoint stays.
func (m *source) prune(d *draft) {
	if m.has("origins") {
		listed := make(map[string]bool)
		for _, o := range m.GetOrigins() {
			listed[o.GetId()] = true
		}
		for id := range d.origins.all {
			if !listed[id] && d.origins.existed(id) {
				d.deleteOrigin(id)
			}
		}
	}
	if m.has("url_endpoints") {
		listed := map[string]bool{topology.DefaultEndpointID: true}
		for _, e := range m.GetUrlEndpoints() {
			listed[e.GetId()] = true
		}
		for id := range d.endpoints.all {
			if !listed[id] {
				d.endpoints.remove(id)
			}
		}
	}
	if m.has("custom_domains") {
		listed := make(map[string]bool)
		for i := range m.GetCustomDomains() {
			listed[m.domainID(i)] = true
		}
		for id := range d.domains.all {
			if !listed[id] {
				d.domains.remove(id)
			}
		}
	}
}

// changes describes what the draft does to each resource: in the manifest's order, then what only
// follows from it, deletions last.
func (m *source) changes(d *draft) []*adminv1.ResourceChange {
	list := &changeList{listed: make(map[topology.Key]bool)}
	id := d.id
	list.add(accountKey(id), d.account.before("").Message, d.account.after("").Message)
	for _, o := range m.GetOrigins() {
		list.origin(d, o.GetId())
	}
	for _, e := range m.GetUrlEndpoints() {
		list.endpoint(d, e.GetId())
	}
	for i := range m.GetCustomDomains() {
		domain := m.domainID(i)
		list.add(domainKey(id, domain), d.domains.before(domain).Message, d.domains.after(domain).Message)
	}
	if e := topology.DefaultEndpointID; !list.listed[endpointKey(id, e)] &&
		!proto.Equal(d.endpoints.after(e).Message, d.endpoints.before(e).Message) {
		list.endpoint(d, e)
	}
	removed(list, &d.domains)
	removed(list, &d.endpoints)
	removed(list, &d.origins)
	return withinAnswer(list.changes)
}
