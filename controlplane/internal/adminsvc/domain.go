package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type domains struct {
	resource[*topologyv1.CustomDomain]
	adminv1.UnimplementedCustomDomainServiceServer
}

func newDomains(s *Service) domains {
	r := newResource(
		s,
		topology.KindCustomDomains,
		"custom_domain",
		func(d *draft) *table[*topologyv1.CustomDomain] { return &d.domains },
	)
	r.put = func(d *draft, id string, next *topologyv1.CustomDomain, _ func(string) bool) error {
		return d.putDomain(id, next)
	}
	read := r.read
	r.read = func(ctx context.Context, key topology.Key, revision int64) (*topologyv1.CustomDomain, int64, error) {
		c, at, err := read(ctx, key, revision)
		if err == nil {
			err = s.addFacts(ctx, key, c)
		}
		return c, at, err
	}
	return domains{resource: r}
}

// addFacts adds to a domain what is known of it.
func (s *Service) addFacts(ctx context.Context, key topology.Key, c *topologyv1.CustomDomain) error {
	known, err := s.store.Facts(ctx, key)
	if err != nil {
		return err
	}
	about := domaincheck.Known{Facts: known.Facts}
	certificate, _, err := s.store.Get(ctx, certificateKey(key))
	switch {
	case err == nil:
		about.Certificate = readCertificate(certificate)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	account, _, err := s.store.Get(ctx, accountKey(key.Account))
	if err != nil {
		return err
	}
	about.AccountUID = topology.UID(key.Account, account.CreateRevision)
	s.domains.Describe(c, about)
	countServing(c, s.fleet.Edges(), poolsOf(account), certificate.ModRevision)
	return nil
}

// poolsOf are the pools that an account, as stored, names.
func poolsOf(account topology.Record) []string {
	stored, err := decode[*topologyv1.Account](account)
	if err != nil {
		return nil
	}
	return stored.Message.GetPools()
}

// countServing says of a domain's certificate how many of the edges that are sent the account have
// received it, by what they have acknowledged; one that is away has not, because nobody knows what
// it serves. revision is that of its record, 0 without one.
func countServing(c *topologyv1.CustomDomain, edges []*topologyv1.Edge, pools []string, revision int64) {
	if revision == 0 || c.GetCertificate().GetCertificate() == "" ||
		c.GetState() != topologyv1.CustomDomain_ACTIVE || c.GetTls().GetMode() == topologyv1.DomainTls_OFF {
		return
	}
	count := new(topologyv1.DomainCertificate_Edges)
	for _, e := range edges {
		if e.GetPool() != "" && !slices.Contains(pools, e.GetPool()) {
			continue
		}
		count.Total++
		if e.GetConnected() && e.GetAppliedRevision() >= revision {
			count.Serving++
		}
	}
	c.Certificate.Edges = count
}

// wrote is a domain as a write has left it, with what is known of it. That is left out if it cannot
// be read, because the write is done.
func (s *Service) wrote(
	ctx context.Context,
	key topology.Key,
	c *topologyv1.CustomDomain,
	out outcome,
) *topologyv1.CustomDomain {
	if out.draft == nil {
		return c // it was read
	}
	about := domaincheck.Known{AccountUID: topology.UID(key.Account, out.draft.account.before("").CreateRevision)}
	if there(out.draft.domains.before(key.ID)) {
		known, err := s.store.Facts(ctx, key)
		if err != nil {
			s.log.WarnContext(ctx, "adminsvc: read what is known of a domain", "domain", key.Name(), "error", err)
			return c
		}
		about.Facts = known.Facts
	}
	revision := int64(0)
	if item, ok := out.draft.state.Records.Get(topology.KindCertificates, key.ID); ok {
		about.Certificate, revision = readCertificate(item.Record()), item.Record().ModRevision
	}
	s.domains.Describe(c, about)
	countServing(c, s.fleet.Edges(), out.draft.account.before("").Message.GetPools(), revision)
	return c
}

func certificateKey(domain topology.Key) topology.Key {
	return topology.Key{Kind: topology.KindCertificates, Account: domain.Account, ID: domain.ID}
}

// readCertificate returns nil for a record that cannot be read, as edges do without it.
func readCertificate(r topology.Record) *topology.Certificate {
	c, err := topology.CompileCertificate(r)
	if err != nil {
		return nil
	}
	return c
}

// Verification says whose domains are not served before somebody has proven that the name is the
// account's.
type Verification int

const (
	// VerifyTenants is those that somebody makes whose token is for an account.
	VerifyTenants Verification = iota
	// VerifyAll is all.
	VerifyAll
	// VerifyNone is none.
	VerifyNone
)

// ParseVerification reads the value of --domain-verification. Empty means tenants.
func ParseVerification(text string) (Verification, error) {
	switch text {
	case "", "tenants":
		return VerifyTenants, nil
	case "all":
		return VerifyAll, nil
	case "off":
		return VerifyNone, nil
	}
	return 0, fmt.Errorf("%q: want tenants, all or off", text)
}

// believed reports whether domains that a caller makes are served without proof.
func (s *Service) believed(caller *auth.Caller) bool {
	switch s.verify {
	case VerifyAll:
		return false
	case VerifyNone:
		return true
	}
	account, _ := caller.Account()
	return account == ""
}

// reservedFrom are the hosts below which a caller makes no domains: what leads there by the
// operator's own DNS proves nothing.
func (s *Service) reservedFrom(caller *auth.Caller, sharedHost string) []string {
	if account, _ := caller.Account(); account == "" {
		return nil
	}
	if shared, _, err := topology.ParseSharedHost(sharedHost); err == nil {
		return append(slices.Clip(s.reserved), shared)
	}
	return s.reserved
}

// reservedFaults are the domains that the write makes and its caller may not make.
func (d *draft) reservedFaults() (found []rules.Violation) {
	for _, id := range slices.Sorted(maps.Keys(d.domains.next)) {
		c := d.domains.next[id].Message
		if c == nil || there(d.domains.before(id)) {
			continue
		}
		if fault := rules.CheckNewDomain(c.GetDomain(), d.reserved); fault != "" {
			found = append(found, rules.Violation{
				Resource: topology.DomainName(d.id, id), Field: "domain", Description: fault,
			})
		}
	}
	return found
}

func domainKey(account, id string) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}
}

func (s domains) GetCustomDomain(
	ctx context.Context,
	req *adminv1.GetCustomDomainRequest,
) (*adminv1.GetCustomDomainResponse, error) {
	c, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &adminv1.GetCustomDomainResponse{CustomDomain: c, Revision: revision}, nil
}

func (s domains) ListCustomDomains(
	ctx context.Context,
	req *adminv1.ListCustomDomainsRequest,
) (*adminv1.ListCustomDomainsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	filter, err := parseDomainFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	var same []string // Lists without a filter have the same tokens from every version.
	if req.GetFilter() != "" {
		same = []string{req.GetFilter()}
	}
	page, err := list(ctx, s.Service, req, topology.KindCustomDomains, account, "",
		present[*topologyv1.CustomDomain], same...)
	if err != nil {
		return nil, err
	}
	if err := s.addAllFacts(ctx, account, page.items); err != nil {
		return nil, err
	}
	page.fit((*topologyv1.CustomDomain).GetId)
	kept := slices.DeleteFunc(page.items, func(c *topologyv1.CustomDomain) bool { return !filter.matches(c) })
	return &adminv1.ListCustomDomainsResponse{
		CustomDomains: kept,
		NextPageToken: page.next,
		Revision:      page.revision,
	}, nil
}

// addAllFacts adds to domains of an account, in the order of their ids, what is known of them.
func (s domains) addAllFacts(ctx context.Context, account string, all []*topologyv1.CustomDomain) error {
	if len(all) == 0 {
		return nil
	}
	known, err := s.store.ListFacts(ctx, account, all[0].GetId(), all[len(all)-1].GetId())
	if err != nil {
		return err
	}
	record, _, err := s.store.Get(ctx, accountKey(account))
	if err != nil {
		return err
	}
	uid := topology.UID(account, record.CreateRevision)
	edges, pools := s.fleet.Edges(), poolsOf(record)
	for _, c := range all {
		about := domaincheck.Known{AccountUID: uid, Facts: known[c.GetId()].Facts}
		certificate, ok := s.feed.Get(certificateKey(domainKey(account, c.GetId())))
		if ok {
			about.Certificate = readCertificate(certificate)
		}
		s.domains.Describe(c, about)
		countServing(c, edges, pools, certificate.ModRevision)
	}
	return nil
}

func (s domains) CreateCustomDomain(
	ctx context.Context,
	req *adminv1.CreateCustomDomainRequest,
) (*adminv1.CreateCustomDomainResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	id, name, err := newDomainID(req)
	if err != nil {
		return nil, err
	}
	c, out, err := s.make(
		ctx,
		req,
		domainKey(account, id),
		req.GetCustomDomain(),
		func(d *draft, next *topologyv1.CustomDomain) error {
			next.Domain = name
			return d.putDomain(id, next)
		},
	)
	if claimed, ok := errors.AsType[*store.ClaimedError](err); ok {
		return nil, domainClaimed(claimed, "custom_domain.domain")
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateCustomDomainResponse{
		CustomDomain: s.wrote(ctx, domainKey(account, id), c, out), Revision: out.revision,
	}, nil
}

// newDomainID finds the id of a new domain by its name, or its name by its id.
func newDomainID(req *adminv1.CreateCustomDomainRequest) (id, name string, err error) {
	id, given := req.GetCustomDomainId(), req.GetCustomDomain().GetDomain()
	if given == "" {
		if id == "" {
			return "", "", invalid("custom_domain.domain", "give the host name")
		}
		id = canonicalDomainName("/" + id)[1:]
		if name, err = topology.DomainFromID(id); err != nil {
			return "", "", invalid("custom_domain_id", "%v", err)
		}
		return id, name, nil
	}
	if name, err = topology.CanonicalDomain(given, ""); err != nil {
		return "", "", invalid("custom_domain.domain", "%v", err)
	}
	if id != "" && canonicalDomainName("/" + id)[1:] != topology.DomainID(name) {
		return "", "", invalid("custom_domain_id", "the id of %q is %q: leave it out", name, topology.DomainID(name))
	}
	return topology.DomainID(name), name, nil
}

// domainClaimed is the error for a claimed domain in a field of a request. It does not say which
// account has claimed it.
func domainClaimed(claimed *store.ClaimedError, field string) *failure {
	f := fail(
		kindDomainClaimed,
		"domain %q, or a wildcard that goes with it, belongs to another account",
		claimed.Domain,
	)
	f.fields = []fieldFault{{field, f.text}}
	f.facts = map[string]string{"domain": claimed.Domain}
	f.cause = claimed
	return f
}

func (s domains) UpdateCustomDomain(
	ctx context.Context,
	req *adminv1.UpdateCustomDomainRequest,
) (*adminv1.UpdateCustomDomainResponse, error) {
	c, key, out, err := s.update(ctx, req, req.GetCustomDomain(), func(next, stored *topologyv1.CustomDomain) {
		// The domain cannot change, so `*` need not repeat it.
		next.Domain = cmp.Or(next.GetDomain(), stored.GetDomain())
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateCustomDomainResponse{CustomDomain: s.wrote(ctx, key, c, out), Revision: out.revision}, nil
}

func (s domains) DeleteCustomDomain(
	ctx context.Context,
	req *adminv1.DeleteCustomDomainRequest,
) (*adminv1.DeleteCustomDomainResponse, error) {
	revision, err := s.remove(ctx, req, nil)
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteCustomDomainResponse{Revision: revision}, nil
}

func (s domains) CheckCustomDomain(
	ctx context.Context, req *adminv1.CheckCustomDomainRequest,
) (*adminv1.CheckCustomDomainResponse, error) {
	if req.GetName() == "" {
		return s.previewDomain(ctx, req)
	}
	key, err := parseName(s.kind, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.mayCheck(key.Account); err != nil {
		return nil, err
	}
	return s.checkDomain(ctx, key, req.GetWait().AsDuration())
}

// checkDomain looks at a domain now, and again until it is ready or wait has passed.
func (s domains) checkDomain(
	ctx context.Context, key topology.Key, wait time.Duration,
) (*adminv1.CheckCustomDomainResponse, error) {
	until, cancel := context.WithTimeout(ctx, max(wait, oneCheck))
	defer cancel()
	if s.issuer != nil {
		if err := s.issuer.Ask(until, key, false); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	resp := new(adminv1.CheckCustomDomainResponse)
	look := func() (bool, error) {
		var err error
		resp.CustomDomain, resp.Revision, err = s.read(ctx, key, 0)
		resp.Ready = err == nil && s.domains.Ready(resp.CustomDomain)
		return resp.Ready || wait == 0, err
	}
	err := s.domains.Await(until, key, look)
	if err == nil && resp.CustomDomain == nil { // no look came to an end
		_, err = look()
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(key.Name())
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

const (
	// oneCheck bounds one look; its questions have shorter bounds of their own.
	oneCheck = 20 * time.Second
	// checksASecond and checksAtOnce bound what one account has asked of DNS.
	checksASecond = 2
	checksAtOnce  = 20
)

// mayCheck returns an error if an account has domains looked at too often.
func (s *Service) mayCheck(account string) error {
	if s.checkRate.allow(account, s.now()) {
		return nil
	}
	f := fail(
		kindTooManyRequests,
		"%s has domains checked more than %d times a second: wait a moment",
		topology.AccountName(account),
		checksASecond,
	)
	f.resource = topology.AccountName(account)
	return f
}

// previewDomain returns the facts about a name that is perhaps no domain yet.
func (s domains) previewDomain(
	ctx context.Context, req *adminv1.CheckCustomDomainRequest,
) (*adminv1.CheckCustomDomainResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	name, err := topology.CanonicalDomain(req.GetDomain(), "")
	if err != nil {
		return nil, invalid("domain", "%v", err)
	}
	if err := s.mayCheck(account); err != nil {
		return nil, err
	}
	key := domainKey(account, topology.DomainID(name))
	switch _, _, err := s.store.Get(ctx, key); {
	case err == nil:
		return s.checkDomain(ctx, key, req.GetWait().AsDuration())
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	settings, _, err := s.store.Get(ctx, topology.Key{Kind: topology.KindSettings})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	sharedHost, err := sharedHostOf(settings)
	if err != nil {
		return nil, err
	}
	if fault := rules.CheckNewDomain(name, s.reservedFrom(auth.From(ctx), sharedHost)); fault != "" {
		return nil, invalid("domain", "%s", fault)
	}
	record, revision, err := readAt[*topologyv1.Account](ctx, s.Service, accountKey(account), 0)
	if err != nil {
		return nil, err
	}
	c := &topologyv1.CustomDomain{Domain: name, State: topologyv1.CustomDomain_PENDING}
	if s.believed(auth.From(ctx)) {
		c.State = topologyv1.CustomDomain_ACTIVE
	}
	ctx, cancel := context.WithTimeout(ctx, oneCheck)
	defer cancel()
	believed := c.GetState() == topologyv1.CustomDomain_ACTIVE
	uid := topology.UID(account, record.CreateRevision)
	facts, err := s.domains.Preview(ctx, account, uid, name, believed)
	if err != nil {
		return nil, err
	}
	s.domains.Describe(c, domaincheck.Known{AccountUID: uid, Facts: facts})
	return &adminv1.CheckCustomDomainResponse{CustomDomain: c, Revision: revision}, nil
}

func (s domains) RenewCertificate(
	ctx context.Context,
	req *adminv1.RenewCertificateRequest,
) (*adminv1.RenewCertificateResponse, error) {
	c, _, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	if why := s.notRenewed(c); why != "" {
		f := fail(kindNotManaged, "no certificate of %s is managed: %s", c.GetDomain(), why)
		f.resource = c.GetName()
		return nil, f
	}
	key, err := parseName(s.kind, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.issuer.Ask(ctx, key, true); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return nil, notFound(key.Name())
		}
		return nil, err
	}
	c, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &adminv1.RenewCertificateResponse{CustomDomain: c, Revision: revision}, nil
}

// notRenewed says why nobody renews a domain's certificate, and nothing if somebody does.
func (s domains) notRenewed(c *topologyv1.CustomDomain) string {
	tls := c.GetTls()
	switch {
	case s.issuer == nil:
		return "this control plane has no issuer"
	case tls.GetMode() == topologyv1.DomainTls_OFF,
		tls.GetMode() == topologyv1.DomainTls_UPLOADED && !tls.GetFallbackManaged():
		return "tls.mode is " + tls.GetMode().String()
	case c.GetState() != topologyv1.CustomDomain_ACTIVE:
		return "the domain is " + c.GetState().String()
	}
	return ""
}
