package topology

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/cachepolicy"
	"github.com/edgewalk/edgewalk/internal/persistent"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// MediaStep names the Media Library in a walk.
const MediaStep = "media"

// MaxOrigins is how many origins an endpoint may list.
const MaxOrigins = 10

// MaxReported is how many origins an edge names in each list of a report: those that it has asked,
// and those that are not well.
const MaxReported = 100

// Defaults of fields that are unset, as their comments in topology.proto say.
const (
	DefaultConnect      = 1500 * time.Millisecond
	DefaultFirstByte    = 10 * time.Second
	DefaultIdle         = 10 * time.Second
	DefaultWalkDeadline = 20 * time.Second
	DefaultS3Region     = "us-east-1"
)

// Compile makes the view that requests see from what is stored. It compiles what can be compiled
// and names the rest in rejected: an endpoint that cannot be used is taken from prev, if it was
// there under the same uid, and is nil in Endpoints otherwise, so that requests for it are refused
// instead of landing in the default endpoint. The set of media files is taken from prev too; prev,
// which may be nil, counts only while it has the account's uid. Compile returns nil for an account
// that does not exist.
func Compile(s *AccountState, prev *Account) (a *Account, rejected []*topologyv1.Rejected) {
	if s.Account.Message == nil {
		return nil, nil
	}
	uid := UID(s.ID, s.Account.CreateRevision)
	if prev == nil || prev.UID != uid {
		prev = &Account{}
	}
	c := &compilation{batch: new(persistent.Batch), state: s, prev: prev, account: newAccount(s.ID, uid)}
	c.account.Deleting, c.account.Media = s.Account.Message.GetState() == topologyv1.Account_DELETING, prev.Media
	limits := s.Account.Message.GetLimits()
	c.account.MaxFills, c.account.MaxRequests = int(limits.GetFills()), int(limits.GetRequests())
	for id := range s.Origins {
		c.origin(id)
	}
	for id := range s.Endpoints {
		c.endpoint(id)
	}
	return c.account, sorted(c.rejected)
}

// Recompile is Compile for a state of which nothing but the resources of changed have changed since
// prev was made of it, with what was rejected then. It compiles those and what refers to them, so
// that an account of many endpoints costs little.
func Recompile(
	s *AccountState, prev *Account, changed map[Key]struct{}, before []*topologyv1.Rejected,
) (a *Account, rejected []*topologyv1.Rejected) {
	if _, ok := changed[Key{KindAccounts, s.ID, ""}]; ok || prev == nil {
		return Compile(s, prev)
	}
	next := *prev
	c := &compilation{batch: new(persistent.Batch), state: s, prev: prev, account: &next}
	origins, endpoints := map[string]struct{}{}, map[string]struct{}{}
	for key := range changed {
		switch key.Kind {
		case KindOrigins, KindOriginSecrets:
			origins[key.ID] = struct{}{}
		case KindURLEndpoints:
			endpoints[key.ID] = struct{}{}
		}
	}
	if len(origins) > 0 {
		for id := range origins {
			next.origins.Drop(c.batch, id)
			c.origin(id)
		}
		for id, stored := range s.Endpoints {
			if slices.ContainsFunc(
				stored.Message.GetOrigins(), func(name string) bool { _, ok := origins[name]; return ok },
			) {
				endpoints[id] = struct{}{}
			}
		}
	}
	for id := range endpoints {
		c.endpoint(id)
	}
	for _, r := range before {
		key, err := ParseKey(r.GetKey())
		_, origin := origins[key.ID]
		_, endpoint := endpoints[key.ID]
		if err == nil && !(key.Kind == KindOrigins && origin) && !(key.Kind == KindURLEndpoints && endpoint) {
			c.rejected = append(c.rejected, r)
		}
	}
	return c.account, sorted(c.rejected)
}

// compilation makes an account's next view.
type compilation struct {
	batch    *persistent.Batch
	state    *AccountState
	prev     *Account
	account  *Account
	rejected []*topologyv1.Rejected
}

func sorted(rejected []*topologyv1.Rejected) []*topologyv1.Rejected {
	slices.SortFunc(rejected, func(x, y *topologyv1.Rejected) int { return strings.Compare(x.Key, y.Key) })
	return rejected
}

func (c *compilation) reject(kind Kind, id string, revision int64, err error) {
	c.rejected = append(c.rejected,
		&topologyv1.Rejected{Key: Key{kind, c.state.ID, id}.String(), Revision: revision, Reason: err.Error()})
}

// origin adds the origin, if there is one.
func (c *compilation) origin(id string) {
	stored, ok := c.state.Origins[id]
	if !ok {
		return
	}
	secrets, err := OpenSecrets(c.state.Ring, c.state.ID, id, stored.Message, c.state.Secrets[id].Message)
	if err != nil {
		c.reject(KindOrigins, id, stored.ModRevision, err)
		return
	}
	o, err := compileOrigin(id, stored, secrets)
	if err != nil {
		c.reject(KindOrigins, id, stored.ModRevision, err)
		return
	}
	limits := c.state.Account.Message.GetLimits()
	for _, text := range limits.GetPrivateCidrs() {
		if p, err := netip.ParsePrefix(text); err == nil { // another form is of a later version
			o.Private = append(o.Private, p)
		}
	}
	longest := duration(limits.GetOriginTimeout(), math.MaxInt64)
	o.Connect, o.FirstByte, o.Idle = min(o.Connect, longest), min(o.FirstByte, longest), min(o.Idle, longest)
	c.account.origins.Put(c.batch, o)
}

// endpoint puts the endpoint in the place of what was there.
func (c *compilation) endpoint(id string) {
	c.name(c.account.Endpoint(id), -1)
	c.account.endpoints.Drop(c.batch, id)
	stored, ok := c.state.Endpoints[id]
	if !ok {
		return
	}
	e, err := compileEndpoint(id, stored, c.account.Origin)
	if err != nil {
		c.reject(KindURLEndpoints, id, stored.ModRevision, err)
		if e = c.prev.Endpoint(id); e != nil && e.UID != UID(id, stored.CreateRevision) {
			e = nil
		}
	}
	if err == nil {
		e.WalkDeadline = min(e.WalkDeadline,
			duration(c.state.Account.Message.GetLimits().GetWalkDeadline(), math.MaxInt64))
	}
	c.account.endpoints.Put(c.batch, heldEndpoint{id, e})
	c.name(e, 1)
}

// name counts the Media Library files that an endpoint refers to.
func (c *compilation) name(e *Endpoint, by int) {
	if e == nil {
		return
	}
	named := []string{e.NotFoundPage}
	if e.DefaultImage != nil {
		named = append(named, e.DefaultImage.Path)
	}
	for _, path := range named {
		if path = strings.TrimPrefix(path, "/"); path == "" {
			continue
		}
		file, _ := c.account.named.Get(path)
		if file = (namedFile{path, file.times + by}); file.times == 0 {
			c.account.named.Drop(c.batch, path)
			continue
		}
		c.account.named.Put(c.batch, file)
	}
}

// WithMedia is the account with another set of media files.
func (a *Account) WithMedia(media *MediaSet) *Account {
	b := *a
	b.Media = media
	return &b
}

// CompileOrigin makes the view of one origin, stored or not, with the given secrets.
func CompileOrigin(id string, o *topologyv1.Origin, secrets map[string]string) (*Origin, error) {
	return compileOrigin(id, Stored[*topologyv1.Origin]{Message: o}, secrets)
}

func compileOrigin(id string, stored Stored[*topologyv1.Origin], secrets map[string]string) (*Origin, error) {
	o := stored.Message
	target, ok := targetOf(o)
	if !ok {
		return nil, fmt.Errorf("the origin's kind is not known here")
	}
	timeouts := o.GetTimeouts()
	return &Origin{
		ID:        id,
		UID:       UID(id, stored.CreateRevision),
		Spec:      o,
		Base:      baseOf(o),
		Secrets:   secrets,
		Target:    target,
		Connect:   duration(timeouts.GetConnect(), DefaultConnect),
		FirstByte: duration(timeouts.GetFirstByte(), DefaultFirstByte),
		Idle:      duration(timeouts.GetIdle(), DefaultIdle),
		Breaker:   breakerOf(o.GetBreaker()),
	}, nil
}

func baseOf(o *topologyv1.Origin) *url.URL {
	u, err := url.Parse(cmp.Or(o.GetWeb().GetBaseUrl(), o.GetAkeneo().GetBaseUrl()))
	if err != nil || u.Host == "" {
		return nil
	}
	return u
}

func breakerOf(b *topologyv1.OriginBreaker) Breaker {
	compiled := Breaker{
		Failures: DefaultBreaker.Failures, MaxOpen: duration(b.GetMaxOpen(), DefaultBreaker.MaxOpen),
		Disabled: b.GetDisabled(),
	}
	if b.GetFailures() > 0 {
		compiled.Failures = int(b.GetFailures())
	}
	return compiled
}

func compileEndpoint(
	id string, stored Stored[*topologyv1.UrlEndpoint], origin func(id string) *Origin,
) (*Endpoint, error) {
	spec := stored.Message
	if n := len(spec.GetOrigins()); n > MaxOrigins {
		return nil, fmt.Errorf("%d origins, at most %d are allowed", n, MaxOrigins)
	}
	e := &Endpoint{
		ID:           id,
		UID:          UID(id, stored.CreateRevision),
		Steps:        []Step{{Version: walkStart}},
		Keyed:        true,
		Cache:        compileCache(spec.GetCache()),
		WalkDeadline: duration(spec.GetWalkDeadline(), DefaultWalkDeadline),

		FailOnInconclusive: spec.GetOnInconclusive() == topologyv1.UrlEndpoint_FAIL,
		Compress:           spec.GetCompress() != topologyv1.UrlEndpoint_OFF,
		DefaultImage:       compileDefaultImage(spec.GetDefaultImage()),
		NotFoundPage:       spec.GetNotFoundPage(),
		AnyOrigin:          spec.GetCors() == nil || slices.Contains(spec.GetCors().GetAllowOrigins(), "*"),
		Origins:            spec.GetCors().GetAllowOrigins(),
		WalkHeader:         spec.GetWalkHeader(),
		ResponseHeaders:    compileResponseHeaders(spec.GetResponseHeaders()),
	}
	for _, name := range spec.GetOrigins() {
		o := origin(name)
		if o == nil {
			return nil, fmt.Errorf("origin %q is missing or cannot be used", name)
		}
		version := nextVersion(e.Steps[len(e.Steps)-1].Version, o.UID, o.Target)
		e.Steps = append(e.Steps, Step{Origin: o, Version: version})
		e.Keyed = e.Keyed && Keyed(o.Spec)
		e.KeyHost = e.KeyHost || o.Spec.GetWeb().GetForwardHostHeader()
		e.ForwardClientIP = e.ForwardClientIP || o.Spec.GetWeb().GetForwardClientIp()
		for _, field := range o.Spec.GetWeb().GetForwardRequestHeaders() {
			e.ForwardRequestHeaders = append(e.ForwardRequestHeaders, strings.ToLower(field))
		}
	}
	slices.Sort(e.ForwardRequestHeaders)
	e.ForwardRequestHeaders = slices.Compact(e.ForwardRequestHeaders)
	return e, nil
}

func compileCache(c *topologyv1.CachePolicy) CachePolicy {
	unset := cachepolicy.Default()
	compiled := CachePolicy{
		Policy: cachepolicy.Policy{
			DefaultTTL:           duration(c.GetDefaultTtl(), unset.DefaultTTL),
			BrowserTTL:           duration(c.GetBrowserTtl(), unset.BrowserTTL),
			NegativeTTL:          duration(c.GetNegativeTtl(), unset.NegativeTTL),
			StaleWhileRevalidate: duration(c.GetStaleWhileRevalidate(), unset.StaleWhileRevalidate),
			StaleIfError:         duration(c.GetStaleIfError(), unset.StaleIfError),
		},
		QueryNames:         c.GetQuery().GetNames(),
		HonorClientNoCache: c.GetHonorClientNoCache(),
	}
	switch c.GetMode() {
	case topologyv1.CachePolicy_OVERRIDE:
		compiled.Mode = cachepolicy.Override
	case topologyv1.CachePolicy_MINIMUM:
		compiled.Mode = cachepolicy.Minimum
	}
	switch c.GetQuery().GetMode() {
	case topologyv1.QueryPolicy_NONE:
		compiled.QueryMode = QueryNone
	case topologyv1.QueryPolicy_LIST:
		compiled.QueryMode = QueryList
	}
	return compiled
}

func compileDefaultImage(image *topologyv1.DefaultImage) *DefaultImage {
	if image.GetPath() == "" {
		return nil
	}
	return &DefaultImage{
		Path: image.GetPath(), Status: int(cmp.Or(image.GetStatus(), 200)), OnFailure: image.GetOnFailure(),
		ForAll: image.GetFor() == topologyv1.DefaultImage_ALL,
	}
}

func compileResponseHeaders(h *topologyv1.ResponseHeaders) *ResponseHeaders {
	if len(h.GetRemove())+len(h.GetSet()) == 0 {
		return nil
	}
	compiled := &ResponseHeaders{}
	for _, name := range h.GetRemove() {
		compiled.Remove = append(compiled.Remove, textproto.CanonicalMIMEHeaderKey(name))
	}
	for name, value := range h.GetSet() {
		compiled.Set = append(compiled.Set, HeaderField{textproto.CanonicalMIMEHeaderKey(name), value})
	}
	slices.SortFunc(compiled.Set, func(a, b HeaderField) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
	return compiled
}

func duration(d *durationpb.Duration, unset time.Duration) time.Duration {
	if d == nil {
		return unset
	}
	return d.AsDuration()
}

// CompileDomain makes the view of a custom domain of an account. It returns nil for one that is not
// ACTIVE.
func CompileDomain(account string, d *topologyv1.CustomDomain) *Domain {
	if d.GetState() != topologyv1.CustomDomain_ACTIVE {
		return nil
	}
	mode := d.GetTls().GetMode()
	return &Domain{
		Name: d.GetDomain(), Account: account, Endpoint: d.GetUrlEndpoint(), HSTS: hsts(d.GetHsts()),
		NoTLS: mode == topologyv1.DomainTls_OFF,
		Unmanaged: mode == topologyv1.DomainTls_OFF ||
			mode == topologyv1.DomainTls_UPLOADED && !d.GetTls().GetFallbackManaged(),
		MinTLS13: d.GetTls().GetMinVersion() == "1.3",
		// A record says of routing that the domain is PROXIED, and else nothing.
		Redirect: d.GetHttps() == topologyv1.CustomDomain_REDIRECT && mode != topologyv1.DomainTls_OFF &&
			d.GetRouting().GetState() != topologyv1.DomainRouting_PROXIED,
	}
}

// hsts is the value of Strict-Transport-Security (RFC 6797 6.1).
func hsts(h *topologyv1.DomainHsts) string {
	if h == nil {
		return ""
	}
	value := "max-age=" + strconv.FormatInt(h.GetMaxAge().GetSeconds(), 10)
	if h.GetIncludeSubdomains() {
		value += "; includeSubDomains"
	}
	if h.GetPreload() {
		value += "; preload"
	}
	return value
}

// View is one account as requests would see it.
type View struct {
	shared  string
	account *Account
	domains map[string]*Domain
}

// View compiles the state. Accounts and domains of others are unknown to it.
func (s *AccountState) View() *View {
	v := &View{domains: make(map[string]*Domain, len(s.Domains))}
	v.shared, _, _ = ParseSharedHost(s.SharedHost)
	v.account, _ = Compile(s, nil)
	for _, stored := range s.Domains {
		if d := CompileDomain(s.ID, stored.Message); d != nil {
			v.domains[d.Name] = d
		}
	}
	return v
}

// SharedHost implements [Lookup].
func (v *View) SharedHost() string { return v.shared }

// Account implements [Lookup].
func (v *View) Account(id string) *Account {
	if v.account == nil || v.account.ID != id {
		return nil
	}
	return v.account
}

// Domain implements [Lookup].
func (v *View) Domain(name string) *Domain { return v.domains[name] }
