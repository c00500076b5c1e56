// Package topology is the model that both programs share: names of resources, canonical hosts,
// paths and queries, where a URL leads, and what requests see of an account.
//
// It is pure: no I/O, no clock, no goroutines. What it returns to readers is immutable. How the
// model is stored is the store's business, how it is looked up at an edge is route's.
package topology

import (
	"iter"
	"net/netip"
	"net/url"
	"time"

	"github.com/edgewalk/edgewalk/internal/cachepolicy"
	"github.com/edgewalk/edgewalk/internal/persistent"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Account is one account as requests see it. It is immutable; a change makes a new one.
type Account struct {
	// ID and UID name the account; UID differs between an account and its successor under the same
	// ID.
	ID, UID string
	// Deleting says that nothing of the account is served any more.
	Deleting bool
	// Media is the set of paths in the account's Media Library.
	Media *MediaSet
	// MaxFills and MaxRequests bound what the account takes of an edge at once, besides its share.
	// 0: no more than that.
	MaxFills, MaxRequests int

	endpoints persistent.Map[heldEndpoint]
	origins   persistent.Map[*Origin]
	// named counts how many endpoints name a file of the Media Library.
	named persistent.Map[namedFile]
}

// heldEndpoint has nil for an endpoint that exists but cannot be used.
type heldEndpoint struct {
	id       string
	endpoint *Endpoint
}

// MaxNamedFile is how many bytes a default image or a page for 404 has at most: each edge keeps all
// of them.
const MaxNamedFile = 1 << 20

// namedFile is named by an endpoint or more as default image or page for 404.
type namedFile struct {
	path  string // without a leading slash
	times int
}

func newAccount(id, uid string) *Account {
	return &Account{
		ID:        id,
		UID:       uid,
		endpoints: persistent.New(func(h heldEndpoint) string { return h.id }),
		origins:   persistent.New(func(o *Origin) string { return o.ID }),
		named:     persistent.New(func(f namedFile) string { return f.path }),
	}
}

// LookupEndpoint returns the endpoint of an identifier, the default one's is [DefaultEndpointID].
// It returns nil and true for one that exists but cannot be used: requests for it are refused, not
// led to the default endpoint.
func (a *Account) LookupEndpoint(id string) (e *Endpoint, exists bool) {
	held, exists := a.endpoints.Get(id)
	return held.endpoint, exists
}

// Endpoint returns the endpoint of an identifier, nil unless it can be used.
func (a *Account) Endpoint(id string) *Endpoint {
	e, _ := a.LookupEndpoint(id)
	return e
}

// Default returns the default endpoint, nil while an account has none.
func (a *Account) Default() *Endpoint { return a.Endpoint(DefaultEndpointID) }

// Origin returns the origin of an id, nil for none.
func (a *Account) Origin(id string) *Origin {
	o, _ := a.origins.Get(id)
	return o
}

// Named yields the paths of the Media Library that endpoints name as default images and pages for
// 404, without a leading slash, each once.
func (a *Account) Named() iter.Seq[string] {
	return func(yield func(string) bool) {
		for f := range a.named.All() {
			if !yield(f.path) {
				return
			}
		}
	}
}

// Refuse is the account with an endpoint more that exists but cannot be used, unless it knows the
// identifier.
func (a *Account) Refuse(id string) *Account {
	if _, exists := a.LookupEndpoint(id); exists {
		return a
	}
	b := *a
	b.endpoints.Put(new(persistent.Batch), heldEndpoint{id: id})
	return &b
}

// DefaultEndpointID is the id of the endpoint without identifier.
const DefaultEndpointID = "default"

// Origin is one origin as a walk sees it, with its secrets and with defaults filled in. It is
// immutable.
type Origin struct {
	ID, UID string
	// Spec is the stored resource. It holds no secrets.
	Spec *topologyv1.Origin
	// Base is the base URL of a web or an Akeneo origin, nil if that is not one of a host. Nobody
	// changes it.
	Base *url.URL
	// Secrets holds secret values by field path, as in OriginSecrets. It may be nil.
	Secrets map[string]string
	// Target is a hash of everything that decides which bytes a path stands for: kind, URL or
	// bucket or container, prefix, region, endpoint, host, TLS name and escaping flags.
	// Credentials, timeouts and names are not part of it.
	Target uint64
	// Private are the ranges that are not public and open to the account.
	Private []netip.Prefix
	// Connect, FirstByte and Idle are the timeouts of one request.
	Connect, FirstByte, Idle time.Duration
	// Breaker says when edges leave the origin alone.
	Breaker Breaker
}

// Breaker is a [topologyv1.OriginBreaker] with its defaults filled in.
type Breaker struct {
	Failures int
	MaxOpen  time.Duration
	Disabled bool
}

// DefaultBreaker is that of an origin that has no settings of its own, and of the Media Library.
var DefaultBreaker = Breaker{Failures: 5, MaxOpen: 30 * time.Second}

// Step is one step of an endpoint's walk.
type Step struct {
	// Origin is nil for the Media Library.
	Origin *Origin
	// Version is a hash of (origin uid, target) of the steps up to and including this one. A stored
	// reply of this step may be used while it is the same.
	Version uint64
}

// Endpoint is one URL-endpoint as requests see it. It is immutable.
type Endpoint struct {
	ID, UID string
	// Steps is the walk, the Media Library first.
	Steps []Step
	// Cache is the cache policy with defaults filled in.
	Cache CachePolicy
	// WalkDeadline bounds a walk until the head of the file.
	WalkDeadline time.Duration
	// Keyed says that every step of the walk holds its files under object keys.
	Keyed bool
	// KeyHost says that the host is part of the cache key, because a web origin of the walk has
	// forward_host_header.
	KeyHost bool
	// ForwardRequestHeaders holds, in lower case and sorted, the client header fields that some web
	// origin of the walk is sent besides Accept and Accept-Encoding.
	ForwardRequestHeaders []string
	// ForwardClientIP says that some web origin of the walk is sent the client's address and
	// scheme.
	ForwardClientIP bool
	// FailOnInconclusive says that a walk ends at the first step that does not answer.
	FailOnInconclusive bool
	// Compress says that files that get smaller are sent compressed to who takes that.
	Compress bool
	// DefaultImage stands in for files that nobody has; nil for none. See
	// [Endpoint.DefaultImageFor].
	DefaultImage *DefaultImage
	// NotFoundPage is the path in the Media Library of the page that is sent with status 404, empty
	// for none.
	NotFoundPage string
	// AnyOrigin says that pages of every web origin may read replies from scripts, and Origins
	// which ones may otherwise.
	AnyOrigin bool
	Origins   []string
	// WalkHeader says that replies tell of the walk that was made for them.
	WalkHeader bool
	// ResponseHeaders is what is done to the fields of replies; nil for nothing.
	ResponseHeaders *ResponseHeaders
}

// CachePolicy is an endpoint's cache policy with defaults filled in.
type CachePolicy struct {
	cachepolicy.Policy
	QueryMode  QueryMode
	QueryNames []string
	// HonorClientNoCache says that clients may have the origin asked (RFC 9111 5.2.1.4).
	HonorClientNoCache bool
}

// QueryMode says which parameters of a query name a file.
type QueryMode uint8

// All parameters, none, or those of a list.
const (
	QueryAll QueryMode = iota
	QueryNone
	QueryList
)

// DefaultImage is a picture of the Media Library that stands in for files that nobody has.
type DefaultImage struct {
	Path string
	// Status is that of the reply.
	Status int
	// OnFailure says that it also stands in when an origin did not answer.
	OnFailure bool
	// ForAll says that it also stands in for paths that do not look like a picture.
	ForAll bool
}

// ResponseHeaders is what an endpoint does to the fields of replies. Names are in the form of
// [net/textproto.CanonicalMIMEHeaderKey].
type ResponseHeaders struct {
	Remove []string
	Set    []HeaderField // by name
}

// HeaderField is one field of a reply.
type HeaderField struct{ Name, Value string }

// Domain is one custom domain as requests see it. It is immutable. Only ACTIVE ones exist for
// requests.
type Domain struct {
	// Name is the canonical name, `*.example.com` for a wildcard.
	Name string
	// Account is the id of the owner.
	Account string
	// Endpoint is the id of the endpoint of mode URL_ENDPOINT, empty for mode ACCOUNT.
	Endpoint string
	// HSTS is the value of Strict-Transport-Security of replies over TLS, empty for none.
	HSTS string
	// NoTLS says that the domain is served over plain HTTP alone, Unmanaged that edgewalk gets no
	// certificate for it, so that its origin answers challenges of issuers.
	NoTLS, Unmanaged bool
	// MinTLS13 says that clients need TLS 1.3.
	MinTLS13 bool
	// Redirect says that plain HTTP is redirected to HTTPS where there is a certificate. It is not
	// where another CDN is known to forward requests, which may ask in plain HTTP for what its own
	// clients ask for over TLS.
	Redirect bool
}

// Record is one stored resource as it travels: the bytes in etcd and where in history they stand.
type Record struct {
	Key            Key
	CreateRevision int64
	ModRevision    int64
	// Value is nil when the resource is deleted.
	Value []byte
}
