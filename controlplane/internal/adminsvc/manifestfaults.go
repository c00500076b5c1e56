package adminsvc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/manifest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// textError turns the mistakes of a text into an error with a violation for each.
func textError(err error) error {
	mistakes, ok := errors.AsType[manifest.Errors](err)
	if !ok {
		return err
	}
	f := &failure{kind: kindInvalidManifest, text: mistakes[0].Error(), cause: err}
	for _, e := range mistakes[:min(len(mistakes), maxFaults)] {
		f.fields = append(f.fields, fieldFault{e.Field, (&manifest.Error{Position: e.Position, Text: e.Text}).Error()})
	}
	f.text += more(len(mistakes) - 1)
	return f
}

// locate adds to the faults of an error where they stand in the text. Those of resources that it
// does not list, which are named in full, stand nowhere.
func (m *source) locate(err error) error {
	var f *failure
	if m.text == nil || !errors.As(err, &f) || len(f.fields) == 0 {
		return err
	}
	first := ""
	for i := range f.fields {
		e := &manifest.Error{Text: f.fields[i].text}
		if !strings.HasPrefix(f.fields[i].field, "accounts/") {
			e.Position = m.text.At(f.fields[i].field)
		}
		if i == 0 {
			first = (&manifest.Error{Position: e.Position, Field: f.fields[i].field, Text: e.Text}).Error()
		}
		f.fields[i].text = e.Error()
	}
	f.text = first
	f.text += more(len(f.fields) - 1)
	return f
}

// check refuses what no account could make right: entries without or with the same id, and names,
// which manifests do not have.
func (m *source) check() error {
	f := &failure{kind: kindInvalidManifest}
	if err := topology.ValidateAccountID(m.GetAccount().GetId()); err != nil {
		f.fields = append(f.fields, fieldFault{"account.id", err.Error()})
	}
	section := func(name string, n int, entry func(i int) (id, field string, err error)) {
		seen := make(map[string]int, n)
		for i := range n {
			id, field, err := entry(i)
			at := fmt.Sprintf("%s[%d].%s", name, i, field)
			if err != nil {
				f.fields = append(f.fields, fieldFault{at, err.Error()})
				continue
			}
			if first, ok := seen[id]; ok {
				f.fields = append(f.fields,
					fieldFault{at, fmt.Sprintf("%q is listed twice, first as %s[%d]", id, fieldpath.JSON(name), first)})
				continue
			}
			seen[id] = i
		}
	}
	section("origins", len(m.GetOrigins()), func(i int) (string, string, error) {
		id := m.GetOrigins()[i].GetId()
		return id, "id", topology.ValidateOriginID(id)
	})
	section("url_endpoints", len(m.GetUrlEndpoints()), func(i int) (string, string, error) {
		id := m.GetUrlEndpoints()[i].GetId()
		return id, "id", topology.ValidateEndpointID(id)
	})
	section("custom_domains", len(m.GetCustomDomains()), func(i int) (string, string, error) {
		name, err := topology.CanonicalDomain(m.GetCustomDomains()[i].GetDomain(), "")
		return topology.DomainID(name), "domain", err
	})
	if len(f.fields) == 0 {
		return nil
	}
	f.text = fieldpath.JSON(f.fields[0].field) + ": " + f.fields[0].text
	return f
}

// checkEntryEtag is checkEtag for the entry at a place in a manifest.
func checkEntryEtag(place, given, name string, modRevision int64) error {
	err := checkEtag(given, name, modRevision)
	if f, ok := errors.AsType[*failure](err); ok {
		f.fields = []fieldFault{{place + ".etag", f.text}}
	}
	return err
}

// violations names broken rules by their place in the manifest, and those of resources that it does
// not list by name.
func (m *source) violations(s *topology.AccountState, found []rules.Violation) *failure {
	f := violationsError(s, found, "")
	places := make(map[string]string)
	for i, o := range m.GetOrigins() {
		places[topology.OriginName(s.ID, o.GetId())] = fmt.Sprintf("origins[%d]", i)
	}
	for i, e := range m.GetUrlEndpoints() {
		places[topology.EndpointName(s.ID, e.GetId())] = fmt.Sprintf("url_endpoints[%d]", i)
	}
	for i := range m.GetCustomDomains() {
		places[topology.DomainName(s.ID, m.domainID(i))] = fmt.Sprintf("custom_domains[%d]", i)
	}
	for i := range f.fields {
		v := found[i]
		place, ok := places[v.Resource]
		if !ok {
			place = v.Resource
		}
		f.fields[i].field = strings.TrimSuffix(place+"."+v.Field, ".")
	}
	return f
}

// fieldOf is the field that holds a domain, by its canonical name.
func (m *source) fieldOf(domain string) string {
	i := slices.IndexFunc(m.GetCustomDomains(), func(d *topologyv1.CustomDomain) bool {
		name, err := topology.CanonicalDomain(d.GetDomain(), "")
		return err == nil && name == domain
	})
	return fmt.Sprintf("custom_domains[%d].domain", i)
}
