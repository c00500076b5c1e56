package route

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unique"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// keepBefore keeps the version before of a resource that cannot be read in effect, unless that was
// another resource of the same name.
func (b *builder) keepBefore(h *holding, r topology.Record) {
	before := &topology.AccountState{}
	if old := b.before[h.id]; old != nil {
		before = old.state
	}
	switch r.Key.Kind {
	case topology.KindAccounts:
		kept := before.Account
		if kept.CreateRevision != r.CreateRevision {
			kept = topology.Stored[*topologyv1.Account]{}
		}
		h.state.Account = kept
	case topology.KindOrigins:
		keep(h.state.Origins, before.Origins, r)
	case topology.KindOriginSecrets:
		keep(h.state.Secrets, before.Secrets, r)
	case topology.KindURLEndpoints:
		keep(h.state.Endpoints, before.Endpoints, r)
	}
}

func keep[M proto.Message](now, before map[string]topology.Stored[M], r topology.Record) {
	was, ok := before[r.Key.ID]
	if ok && was.CreateRevision == r.CreateRevision {
		now[r.Key.ID] = was
		return
	}
	delete(now, r.Key.ID)
}

// takeDomain applies a domain's record, and changes nothing that belongs to another account: a name
// that moves from one account to another in one step may arrive before it leaves.
func (b *builder) takeDomain(r topology.Record) error {
	m, err := b.readDomain(r)
	name := m.GetDomain()
	if m == nil {
		var unknown error
		if name, unknown = topology.DomainFromID(r.Key.ID); unknown != nil {
			return unknown
		}
	}
	if err != nil {
		b.fillDomains()
		if was := b.old.Domain(name); was != nil && was.Account == r.Key.Account && !b.owns(r.Key.Account, name) {
			b.domains.Put(b.batch, was)
		}
		return err
	}
	b.notePending(name, r.Key.Account, m.GetState() == topologyv1.CustomDomain_PENDING)
	var d *topology.Domain
	if m != nil {
		d = topology.CompileDomain(intern(r.Key.Account), m)
	}
	if d != nil {
		d.Endpoint, d.HSTS = intern(d.Endpoint), intern(d.HSTS)
	}
	switch {
	case d != nil && b.filling:
		b.fill = append(b.fill, d)
	case d != nil:
		b.domains.Put(b.batch, d)
	case b.filling:
		b.inactive = append(b.inactive, inactive{name, r.Key.Account, len(b.fill)})
	case b.owns(r.Key.Account, name):
		b.domains.Drop(b.batch, name)
	}
	return nil
}

// notePending records whether an account has a name as a domain that is not served yet.
func (b *builder) notePending(name, account string, waits bool) {
	was, _ := b.pending.Get(name)
	if was == nil && !waits || was != nil && slices.Contains(was.accounts, account) == waits {
		return
	}
	next := &waiting{name: strings.Clone(name)}
	if was != nil {
		next.accounts = slices.DeleteFunc(slices.Clone(was.accounts), func(a string) bool { return a == account })
	}
	if waits {
		next.accounts = append(next.accounts, intern(account))
	}
	if len(next.accounts) == 0 {
		b.pending.Drop(b.batch, name)
		return
	}
	b.pending.Put(b.batch, next)
}

// takeCertificate applies the record of a domain's certificate.
func (b *builder) takeCertificate(r topology.Record) error {
	if r.Value == nil {
		b.fillCertificates()
		b.certificates.Drop(b.batch, topology.DomainKey(r.Key.Account, r.Key.ID))
		return nil
	}
	c, err := topology.CompileCertificate(r)
	if err != nil {
		return err
	}
	if b.fillingCertificates {
		b.fillCertificate = append(b.fillCertificate, c)
		return nil
	}
	b.certificates.Put(b.batch, c)
	if !b.full {
		b.certified = append(b.certified, c)
	}
	return nil
}

// fillCertificates puts what was collected of a full state into the map.
func (b *builder) fillCertificates() {
	if !b.fillingCertificates {
		return
	}
	b.fillingCertificates = false
	b.certificates.Fill(b.batch, b.fillCertificate)
	b.fillCertificate = nil
}

func (b *builder) takeChain(r topology.Record) error {
	if r.Value == nil {
		b.chains.Drop(b.batch, r.Key.ID)
		return nil
	}
	certificates, err := topology.CompileChain(r)
	if err != nil {
		return err
	}
	b.chains.Put(b.batch, &chain{strings.Clone(r.Key.ID), certificates})
	return nil
}

// owns reports whether a name leads to an account by the records that were taken so far.
func (b *builder) owns(account, name string) bool {
	held, _ := b.domains.Get(name)
	return held != nil && held.Account == account
}

// inactive is a domain that is not ACTIVE, with how many others came before it.
type inactive struct {
	name, account string
	after         int
}

// fillDomains puts the domains of a full state into the map. It drops a domain whose name came a
// second time, inactive.
func (b *builder) fillDomains() {
	if !b.filling {
		return
	}
	b.filling = false
	b.domains.Fill(b.batch, b.fill)
	for _, i := range b.inactive {
		if held, _ := b.domains.Get(i.name); held != nil && held.Account == i.account &&
			slices.Contains(b.fill[:i.after], held) {
			b.domains.Drop(b.batch, i.name)
		}
	}
	b.fill, b.inactive = nil, nil
}

// readDomain returns nil for a domain that is deleted or cannot be read. What it returns is valid
// until the next call.
func (b *builder) readDomain(r topology.Record) (*topologyv1.CustomDomain, error) {
	if r.Value == nil {
		return nil, nil
	}
	m := &b.domain
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	if topology.DomainID(m.GetDomain()) != r.Key.ID {
		return nil, fmt.Errorf("decode %s: it is about %q", r.Key, m.GetDomain())
	}
	return m, nil
}

// intern makes equal strings one: a million domains name few accounts and endpoints. It also lets
// go of the bytes that s is a part of.
func intern(s string) string { return unique.Make(s).Value() }

func (b *builder) takeMedia(r topology.Record) error {
	h := b.change(r.Key.Account)
	if h.edit == nil {
		h.edit = h.media.Edit()
	}
	if r.Value == nil {
		h.edit.Delete(r.Key.ID)
		return nil
	}
	sha, err := readMedia(r)
	if err == nil {
		h.edit.Set(r.Key.ID, sha)
		return nil
	}
	if before := b.before[h.id]; before != nil && before != h {
		if sha, ok := before.media.Lookup(r.Key.ID); ok {
			h.edit.Set(r.Key.ID, sha)
		}
	}
	return err
}

func readMedia(r topology.Record) (sha [8]byte, err error) {
	m := new(topologyv1.MediaFile)
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return sha, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	sum, err := hex.DecodeString(m.GetSha256())
	if err != nil || len(sum) != 32 {
		return sha, fmt.Errorf("decode %s: sha256 is not 64 hex digits", r.Key)
	}
	return [8]byte(sum[:8]), nil
}

// takePurge collects purges and floors. A purge that cannot be read may cover anything in the
// account, so everything from before it has to be revalidated. The deletion of a purge changes
// nothing, because the floor that covers it came first.
func (b *builder) takePurge(r topology.Record) error {
	if r.Value == nil {
		return nil
	}
	p := purging{account: r.Key.Account, revision: r.CreateRevision}
	err := p.read(r)
	if err != nil {
		p.purge, p.floor = nil, &topologyv1.PurgeFloor{StaleBefore: r.ModRevision}
	}
	b.purges = append(b.purges, p)
	return err
}

func (p *purging) read(r topology.Record) error {
	m, err := r.Decode()
	if err != nil {
		return err
	}
	if floor, ok := m.(*topologyv1.PurgeFloor); ok {
		p.floor = floor
		return nil
	}
	p.purge = m.(*topologyv1.Purge)
	if p.purge.GetScope() == nil {
		return fmt.Errorf("decode %s: %w", r.Key, errNoScope)
	}
	return nil
}

var errNoScope = errors.New("the scope is of a kind that is not known here")

func (b *builder) takeSettings(r topology.Record) {
	delete(b.unusable, "")
	if r.Value == nil {
		b.shared = ""
		return
	}
	m := new(topologyv1.Settings)
	err := proto.Unmarshal(r.Value, m)
	var host string
	if err == nil && m.GetSharedHost() != "" {
		host, _, err = topology.ParseSharedHost(m.GetSharedHost())
	}
	if err != nil {
		b.unusable[""] = []*topologyv1.Rejected{b.reject(r, err)}
		b.shared = b.sharedBefore
		return
	}
	b.shared = host
}

// canonicalSharedHost returns "" for what is no host.
func canonicalSharedHost(raw string) string {
	host, _, err := topology.ParseSharedHost(raw)
	if err != nil {
		return ""
	}
	return host
}
