package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// MediaStep names the Media Library in a walk.
const MediaStep = "media"

// MaxOrigins is how many origins an endpoint may list.
const MaxOrigins = 10

// Defaults of fields that are unset, as their comments in topology.proto say.
const (
	DefaultConnect      = 1500 * time.Millisecond
	DefaultFirstByte    = 10 * time.Second
	DefaultIdle         = 10 * time.Second
	DefaultWalkDeadline = 20 * time.Second
	DefaultTTL          = time.Hour
	DefaultNegativeTTL  = 30 * time.Second
	DefaultStaleIfError = 24 * time.Hour
	DefaultS3Region     = "us-east-1"
)

// Compile makes the view that requests see from what is stored. It compiles what can be compiled and names the rest in
// rejected: an endpoint that cannot be used is taken from prev, if it was there under the same uid, and is nil in Endpoints
// otherwise, so that requests for it are refused instead of landing in the default endpoint. The set of media files is
// taken from prev too; prev, which may be nil, counts only while it has the account's uid. Compile returns nil for an
// account that does not exist.
func Compile(s *AccountState, prev *Account) (a *Account, rejected []*topologyv1.Rejected) {
	if s.Account.Message == nil {
		return nil, nil
	}
	a = &Account{
		ID:        s.ID,
		UID:       UID(s.ID, s.Account.CreateRevision),
		Deleting:  s.Account.Message.GetState() == topologyv1.Account_DELETING,
		Endpoints: make(map[string]*Endpoint, len(s.Endpoints)),
		Origins:   make(map[string]*Origin, len(s.Origins)),
	}
	if prev == nil || prev.UID != a.UID {
		prev = &Account{}
	}
	a.Media = prev.Media
	reject := func(kind Kind, id string, revision int64, err error) {
		rejected = append(rejected, &topologyv1.Rejected{
			Key: Key{kind, s.ID, id}.String(), Revision: revision, Reason: err.Error(),
		})
	}
	for id, stored := range s.Origins {
		o, err := compileOrigin(id, stored, s.Secrets[id].Message.GetValues())
		if err != nil {
			reject(KindOrigins, id, stored.ModRevision, err)
			continue
		}
		a.Origins[id] = o
	}
	for id, stored := range s.Endpoints {
		e, err := compileEndpoint(id, stored, a.Origins)
		if err != nil {
			reject(KindURLEndpoints, id, stored.ModRevision, err)
			if e = prev.Endpoints[id]; e != nil && e.UID != UID(id, stored.CreateRevision) {
				e = nil
			}
		}
		a.Endpoints[id] = e
	}
	slices.SortFunc(rejected, func(x, y *topologyv1.Rejected) int { return strings.Compare(x.Key, y.Key) })
	return a, rejected
}

// WithMedia is the account with another set of media files.
func (a *Account) WithMedia(media *MediaSet) *Account {
	b := *a
	b.Media = media
	return &b
}

// CompileOrigin makes the view of one origin, stored or not, with the secrets it would have.
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
		Secrets:   secrets,
		Target:    target,
		Connect:   duration(timeouts.GetConnect(), DefaultConnect),
		FirstByte: duration(timeouts.GetFirstByte(), DefaultFirstByte),
		Idle:      duration(timeouts.GetIdle(), DefaultIdle),
		Breaker:   breakerOf(o.GetBreaker()),
	}, nil
}

func breakerOf(b *topologyv1.OriginBreaker) Breaker {
	compiled := Breaker{Failures: DefaultBreaker.Failures, MaxOpen: duration(b.GetMaxOpen(), DefaultBreaker.MaxOpen), Disabled: b.GetDisabled()}
	if b.GetFailures() > 0 {
		compiled.Failures = int(b.GetFailures())
	}
	return compiled
}

func compileEndpoint(id string, stored Stored[*topologyv1.UrlEndpoint], origins map[string]*Origin) (*Endpoint, error) {
	spec := stored.Message
	if n := len(spec.GetOrigins()); n > MaxOrigins {
		return nil, fmt.Errorf("%d origins, at most %d are allowed", n, MaxOrigins)
	}
	e := &Endpoint{
		ID:           id,
		UID:          UID(id, stored.CreateRevision),
		Spec:         spec,
		Steps:        []Step{{Version: walkStart}},
		Keyed:        true,
		Cache:        compileCache(spec.GetCache()),
		WalkDeadline: duration(spec.GetWalkDeadline(), DefaultWalkDeadline),
	}
	for _, name := range spec.GetOrigins() {
		o := origins[name]
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
	return CachePolicy{
		Mode:                 cmp.Or(c.GetMode(), topologyv1.CachePolicy_RESPECT),
		DefaultTTL:           duration(c.GetDefaultTtl(), DefaultTTL),
		BrowserTTL:           duration(c.GetBrowserTtl(), -1),
		NegativeTTL:          duration(c.GetNegativeTtl(), DefaultNegativeTTL),
		StaleWhileRevalidate: duration(c.GetStaleWhileRevalidate(), 0),
		StaleIfError:         duration(c.GetStaleIfError(), DefaultStaleIfError),
		QueryMode:            cmp.Or(c.GetQuery().GetMode(), topologyv1.QueryPolicy_ALL),
		QueryNames:           c.GetQuery().GetNames(),
		HonorClientNoCache:   c.GetHonorClientNoCache(),
	}
}

func duration(d *durationpb.Duration, unset time.Duration) time.Duration {
	if d == nil {
		return unset
	}
	return d.AsDuration()
}

// CompileDomain makes the view of a custom domain of an account. It returns nil for one that is not ACTIVE.
func CompileDomain(account string, d *topologyv1.CustomDomain) *Domain {
	if d.GetState() != topologyv1.CustomDomain_ACTIVE {
		return nil
	}
	return &Domain{Name: d.GetDomain(), Account: account, Endpoint: d.GetUrlEndpoint()}
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
