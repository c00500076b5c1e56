// Package route is an edge's routing table: which account, endpoints and custom domain a request is
// for.
//
// It owns the compiled topology. Where a URL leads in it is [topology.Locate]'s business; how it
// came here, and that it is on disk, is control's.
//
// What always holds: a [Root] never changes, and holds one revision whole; a request takes it once.
// Roots share what did not change, so a step costs what it touches, not what the table holds. One
// goroutine applies steps.
package route

import (
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/internal/persistent"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Step is a change of the topology that requests see whole or not at all.
type Step struct {
	// Full says that the records are all there is, instead of what has changed.
	Full bool
	// Epoch is the identity of the history that Revision is a place in. Empty = that of the step
	// before.
	Epoch string
	// Revision is where the topology stands after the step.
	Revision int64
	// SharedHost is `host[:port]`, for a topology that holds no settings of its own. Empty = that
	// of the step before.
	SharedHost string
	// Ring opens sealed secrets. Nil = that of the step before.
	Ring *seal.Ring
	// Records are in any order. Of a key that comes twice, the later counts. After an error nothing
	// is applied. Nil = none.
	Records iter.Seq2[topology.Record, error]
}

// Result is what became of a step.
type Result struct {
	// Rejected holds the resources that the step brought or touched and that could not be applied.
	// Of each, the version before is still in effect, if there was one after it was created.
	Rejected []*topologyv1.Rejected
	// Touched holds the ids of accounts whose endpoints, origins or media files may have changed,
	// deleted ones too. Sorted.
	Touched []string
}

// Hooks pass on what a step says to other parts of the agent. All run in the goroutine that
// applies; each may be nil.
type Hooks struct {
	// Epoch is called before anything else of a step that comes from another history than the step
	// before it, and for the first step. Revisions from before it mean nothing any more.
	Epoch func(epoch string)
	// Purge and Floor are called before requests see the step. A full state repeats those that are
	// still kept.
	Purge func(accountUID string, p *topologyv1.Purge, revision int64)
	Floor func(accountUID string, f *topologyv1.PurgeFloor)
	// Applied is called once requests see the step.
	Applied func(root *Root, touched []string)
	// Certificates is called with Applied: with the certificates that the step brought, or with
	// full for a step that brought them all. keys says that it brought keys.
	Certificates func(root *Root, changed []*topology.Certificate, full, keys bool)
	// Gone is called for an account that no longer exists, once requests see that.
	Gone func(accountUID string)
}

// Root is the topology at one revision. It implements [topology.Lookup]. It never changes.
type Root struct {
	epoch    string
	revision int64
	shared   string
	domains  persistent.Map[*topology.Domain]
	accounts persistent.Map[*topology.Account]

	ring         *seal.Ring
	pending      persistent.Map[*waiting]
	certificates persistent.Map[*topology.Certificate]
	chains       persistent.Map[*chain]
}

// waiting is a name that accounts have as a domain that is not served yet.
type waiting struct {
	name     string
	accounts []string
}

type chain struct {
	id           string
	certificates [][]byte
}

func newRoot() *Root {
	return &Root{
		pending:      persistent.New(func(p *waiting) string { return p.name }),
		certificates: persistent.New(func(c *topology.Certificate) string { return c.Domain }),
		chains:       persistent.New(func(c *chain) string { return c.id }),
		domains:      persistent.New(func(d *topology.Domain) string { return d.Name }),
		accounts:     persistent.New(func(a *topology.Account) string { return a.ID }),
	}
}

// Epoch is the identity of the history, empty before the first topology.
func (r *Root) Epoch() string { return r.epoch }

// Revision is the topology's place in history, 0 before the first topology.
func (r *Root) Revision() int64 { return r.revision }

// SharedHost is the canonical shared host, without port. It is empty before the first topology.
func (r *Root) SharedHost() string { return r.shared }

// Account returns nil for an unknown account.
func (r *Root) Account(id string) *topology.Account {
	a, _ := r.accounts.Get(id)
	return a
}

// Domain returns nil unless there is an ACTIVE custom domain of this canonical name, which may
// begin with "*.".
func (r *Root) Domain(name string) *topology.Domain {
	d, _ := r.domains.Get(name)
	return d
}

// Accounts is how many accounts there are.
func (r *Root) Accounts() int { return r.accounts.Len() }

// Domains is how many ACTIVE custom domains there are.
func (r *Root) Domains() int { return r.domains.Len() }

// DomainOf returns the ACTIVE custom domain that a canonical host belongs to: the one of its name,
// or the wildcard over it. It returns nil for none, and for the shared host.
func (r *Root) DomainOf(host string) *topology.Domain {
	if host == r.shared {
		return nil
	}
	if d := r.Domain(host); d != nil {
		return d
	}
	if wildcard, ok := topology.WildcardOf(host); ok {
		return r.Domain(wildcard)
	}
	return nil
}

// Pending reports whether a canonical host belongs to a domain that is not served yet.
func (r *Root) Pending(host string) bool {
	if r.pending.Len() == 0 {
		return false
	}
	if _, is := r.pending.Get(host); is {
		return true
	}
	wildcard, ok := topology.WildcardOf(host)
	if ok {
		_, ok = r.pending.Get(wildcard)
	}
	return ok
}

// Certificate returns the certificate of a domain: its own, or that of the wildcard of its account
// over it. The latter also comes before an own one that has ended, unless it has too. It returns
// nil for none.
func (r *Root) Certificate(d *topology.Domain, now time.Time) *topology.Certificate {
	if d.NoTLS {
		return nil
	}
	own, _ := r.certificates.Get(topology.DomainKey(d.Account, topology.DomainID(d.Name)))
	if own != nil && !own.Expired(now) {
		return own
	}
	wildcard, ok := topology.WildcardOf(d.Name)
	if !ok {
		return own
	}
	if over := r.Domain(wildcard); over == nil || over.Account != d.Account || over.NoTLS {
		return own
	}
	over, _ := r.certificates.Get(topology.DomainKey(d.Account, topology.DomainID(wildcard)))
	if over == nil || own != nil && over.Expired(now) {
		return own
	}
	return over
}

// Certificates yields the certificates of all domains, in no order.
func (r *Root) Certificates() iter.Seq[*topology.Certificate] { return r.certificates.All() }

// CertificateCount is how many certificates there are.
func (r *Root) CertificateCount() int { return r.certificates.Len() }

// Current reports whether a certificate is that of its domain.
func (r *Root) Current(c *topology.Certificate) bool {
	now, _ := r.certificates.Get(c.Domain)
	return now != nil && now.ID == c.ID
}

// Chain returns the certificates of a chain, nil for one that is not known.
func (r *Root) Chain(id topology.ChainID) [][]byte {
	if c, _ := r.chains.Get(id.String()); c != nil {
		return c.certificates
	}
	return nil
}

// Ring opens what is sealed.
func (r *Root) Ring() *seal.Ring { return r.ring }

// Table holds the current root, and what is needed to make the next.
type Table struct {
	hooks Hooks
	root  atomic.Pointer[Root]

	// The fields below are used by the goroutine that applies steps alone.

	holdings map[string]*holding
	// shared is the shared host of the topology's own settings, given the one that the steps have
	// named, which is used when the settings name none.
	shared, given string
	// ring opens the secrets in holdings.
	ring *seal.Ring
	// unusable holds, by account, those with resources that could not be applied; "" stands for the
	// settings.
	unusable map[string][]*topologyv1.Rejected
}

// New returns an empty table. Requests are refused until the first step.
func New(hooks Hooks) *Table {
	t := &Table{hooks: hooks, holdings: make(map[string]*holding), unusable: make(map[string][]*topologyv1.Rejected)}
	t.root.Store(newRoot())
	return t
}

// Root is the topology that a request takes, once.
func (t *Table) Root() *Root { return t.root.Load() }

// Rejected holds every resource that is not in effect as received, by key. It is called by the
// goroutine that applies.
func (t *Table) Rejected() []*topologyv1.Rejected {
	var all []*topologyv1.Rejected
	for _, some := range t.unusable {
		all = append(all, some...)
	}
	slices.SortFunc(all, byKey)
	return all
}

// Apply makes the next root and shows it to requests. Resources that are undecodable or make no
// sense are rejected, and the rest is applied. An error is one of Records; then nothing has
// changed. Apply is called by one goroutine at a time.
func (t *Table) Apply(s Step) (Result, error) {
	b := t.builder(s)
	if s.Records != nil {
		if err := b.takeAll(s.Records, s.Full); err != nil {
			return Result{}, err
		}
	}
	old := t.Root()
	if b.ring != t.ring {
		b.openAgain()
	}
	next, result := b.finish(s)
	t.callHooksBefore(s, old, b)
	t.holdings, t.shared, t.given, t.unusable, t.ring = b.holdings, b.shared, b.given, b.unusable, b.ring
	t.root.Store(next)
	if t.hooks.Applied != nil {
		t.hooks.Applied(next, result.Touched)
	}
	if keys := next.ring != old.ring; t.hooks.Certificates != nil && (s.Full || keys || len(b.certified) > 0) {
		t.hooks.Certificates(next, b.certified, s.Full, keys)
	}
	if t.hooks.Gone != nil {
		for _, uid := range b.gone {
			t.hooks.Gone(uid)
		}
	}
	return result, nil
}

func (t *Table) builder(s Step) *builder {
	b := &builder{
		batch: new(persistent.Batch), full: s.Full, filling: s.Full, fillingCertificates: s.Full, old: t.Root(),
		before: t.holdings, sharedBefore: t.shared, given: t.given, ring: t.ring,
		changed: make(map[string]*holding),
	}
	if s.Ring != nil {
		b.ring = s.Ring
	}
	if s.SharedHost != "" {
		b.given = canonicalSharedHost(s.SharedHost)
	}
	if s.Full {
		fresh := newRoot()
		b.domains, b.accounts = fresh.domains, fresh.accounts
		b.pending, b.certificates, b.chains = fresh.pending, fresh.certificates, fresh.chains
		b.holdings = make(map[string]*holding)
		b.unusable = make(map[string][]*topologyv1.Rejected)
		return b
	}
	b.domains, b.accounts = b.old.domains, b.old.accounts
	b.pending, b.certificates, b.chains = b.old.pending, b.old.certificates, b.old.chains
	b.holdings, b.unusable, b.shared = t.holdings, t.unusable, t.shared
	return b
}

// callHooksBefore calls the hooks that have to run before requests see the step.
func (t *Table) callHooksBefore(s Step, old *Root, b *builder) {
	if t.hooks.Epoch != nil && s.Epoch != "" && s.Epoch != old.epoch {
		t.hooks.Epoch(s.Epoch)
	}
	for _, p := range b.purges {
		h := b.holdings[p.account]
		if h == nil || h.uid == "" {
			continue
		}
		if p.purge != nil && t.hooks.Purge != nil {
			t.hooks.Purge(h.uid, p.purge, p.revision)
		}
		if p.floor != nil && t.hooks.Floor != nil {
			t.hooks.Floor(h.uid, p.floor)
		}
	}
}
