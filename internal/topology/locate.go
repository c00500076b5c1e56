package topology

import (
	"strings"
)

// HTTP statuses of refusals. The package knows names, not requests.
const (
	statusBadRequest  = 400
	statusNotFound    = 404
	statusMisdirected = 421
	statusUnavailable = 503
)

// Lookup is a topology as requests see it, at one revision.
type Lookup interface {
	// SharedHost is the canonical shared host, without port. It is empty before the first topology
	// has arrived.
	SharedHost() string
	// Account returns nil for an unknown account.
	Account(id string) *Account
	// Domain returns nil unless there is an ACTIVE custom domain of this canonical name, which may
	// begin with "*.".
	Domain(name string) *Domain
}

// Request is what decides where a request leads.
type Request struct {
	// Host is the Host field or the authority of an absolute-form target, as sent.
	Host string
	// RawPath and RawQuery are the parts of the request target, as sent; see [SplitTarget].
	RawPath, RawQuery string
	TLS               bool
	// AccountHosts says that accounts also have the host `{account}.{shared host}`.
	AccountHosts bool
	// SNI is the name in the TLS handshake, empty without one.
	SNI string
}

// Target is where a request leads.
type Target struct {
	Account  *Account
	Endpoint *Endpoint
	// Domain is the custom domain that matched, nil on the shared host.
	Domain *Domain
	// Host is the canonical host.
	Host string
	// Path is the canonical path of the file within the endpoint: empty, or beginning with "/".
	Path string
	// Query is the kept query without "?".
	Query string
	// Object is the object key of Path. Without ObjectOK, object stores and the Media Library say
	// NOT_HERE unasked.
	Object   string
	ObjectOK bool
}

// File is a canonical path that identifies the file within the endpoint. Where each step holds its
// files under object keys it is the same for every spelling of a key. A web origin may treat "("
// and "%28" as different (RFC 3986 6.2.2.2), so with one in the walk it is Path.
func (t *Target) File() string {
	if !t.ObjectOK || !t.Endpoint.Keyed || strings.IndexByte(t.Path, '%') < 0 {
		return t.Path
	}
	return objectPath(t.Object)
}

// AccountAlone reports whether the URL is an account's on the shared host, without a path. No file
// is served there: a service worker at `/{account}` would have the whole host as its scope. Where
// the account has a file at `/{account}/`, it leads there.
func (t *Target) AccountAlone() bool {
	return t.Domain == nil && t.Path == "" && t.Endpoint.ID == DefaultEndpointID
}

// Refusal is why a request leads nowhere.
type Refusal struct {
	// Status is 400, 404, 421 or 503.
	Status int
	// Reason is for people. It holds nothing of the request but its canonical host.
	Reason string
	// Account is what the URL names as its account, if it is that which is not there.
	Account string
}

// Locate finds the endpoint that a request is for, and what is asked of it.
func Locate(l Lookup, r Request) (Target, *Refusal) {
	shared := ""
	if l != nil {
		shared = l.SharedHost()
	}
	if shared == "" {
		return Target{}, &Refusal{Status: statusUnavailable, Reason: "no topology has arrived yet"}
	}
	host, err := CanonicalHost(r.Host)
	if err != nil {
		return Target{}, &Refusal{Status: statusBadRequest, Reason: err.Error()}
	}
	path, err := CanonicalPath(r.RawPath)
	if err != nil {
		return Target{}, &Refusal{Status: statusBadRequest, Reason: err.Error()}
	}
	if !validQuery(r.RawQuery) {
		return Target{}, &Refusal{Status: statusBadRequest, Reason: "the query has a space or a control character"}
	}

	domain := findDomain(l, host, shared, r.AccountHosts)
	if domain == nil && host != shared {
		if r.TLS {
			return Target{}, &Refusal{Status: statusMisdirected, Reason: "no account has the host " + host}
		}
		return Target{}, &Refusal{Status: statusNotFound, Reason: "no account has the host " + host}
	}
	if r.TLS && !sameOwner(l, &r, host, domain, shared) {
		return Target{}, &Refusal{
			Status: statusMisdirected, Reason: "the connection was opened for another host than " + host,
		}
	}

	t := Target{Host: host, Domain: domain, Path: path}
	if refusal := t.findEndpoint(l); refusal != nil {
		return Target{}, refusal
	}
	t.Query = KeepQuery(&t.Endpoint.Cache, r.RawQuery)
	t.Object, t.ObjectOK = ObjectKey(t.Path)
	return t, nil
}

// findDomain returns nil for the shared host, which no wildcard takes away. The host of an account
// counts as a domain of it.
func findDomain(l Lookup, host, shared string, accountHosts bool) *Domain {
	if host == shared {
		return nil
	}
	if d := l.Domain(host); d != nil {
		return d
	}
	if id := accountOf(host, shared); accountHosts && id != "" && l.Account(id) != nil {
		return &Domain{Name: host, Account: id}
	}
	if wildcard, ok := WildcardOf(host); ok {
		return l.Domain(wildcard)
	}
	return nil
}

// accountOf is the account whose host is `{account}.{shared host}`, empty if host is none. An id
// that is no label of a host name (RFC 1123 2.1), because it has a "_" or ends with a "-", has no
// such host: browsers and certificates refuse it.
func accountOf(host, shared string) string {
	n := len(host) - len(shared) - 1
	if n <= 0 || host[n] != '.' || host[n+1:] != shared || host[n-1] == '-' || strings.IndexByte(host[:n], '_') >= 0 {
		return ""
	}
	return host[:n]
}

// sameOwner says whether a connection opened for the name of r.SNI may carry a request for host. A
// client that named no host got the default certificate and is judged by Host alone.
func sameOwner(l Lookup, r *Request, host string, domain *Domain, shared string) bool {
	if r.SNI == "" || r.SNI == host {
		return true
	}
	name, err := CanonicalHost(r.SNI)
	if err != nil {
		return false
	}
	if name == host {
		return true
	}
	named := findDomain(l, name, shared, r.AccountHosts)
	return named != nil && domain != nil && named.Account == domain.Account
}

// findEndpoint sets Account and Endpoint, and cuts from Path what stands for them.
func (t *Target) findEndpoint(l Lookup) *Refusal {
	var id string
	if t.Domain != nil {
		id = t.Domain.Account
	} else {
		id, t.Path = cutSegment(t.Path)
	}
	if id != "" {
		t.Account = l.Account(id)
	}
	if id == "" {
		return &Refusal{Status: statusNotFound, Reason: "this is edgewalk; files are at /{account}/{path} and /{account}/{identifier}/{path}"}
	}
	if t.Account == nil || t.Account.Deleting {
		return &Refusal{Status: statusNotFound, Reason: "no such account", Account: id}
	}
	switch {
	case t.Domain != nil && t.Domain.Endpoint != "":
		t.Endpoint = t.Account.Endpoint(t.Domain.Endpoint)
	default:
		t.Endpoint, t.Path = t.Account.enter(t.Path)
	}
	if t.Endpoint == nil {
		return &Refusal{Status: statusUnavailable, Reason: "the endpoint cannot be used at this edge"}
	}
	return nil
}

// enter finds the endpoint by the first segment of a path and returns the rest, or the default
// endpoint and the whole path.
func (a *Account) enter(path string) (*Endpoint, string) {
	first, rest := cutSegment(path)
	if first != "" && first != DefaultEndpointID {
		if e, ok := a.LookupEndpoint(first); ok {
			return e, rest
		}
	}
	return a.Default(), path
}

// cutSegment splits the first segment off a canonical path. The rest is empty or begins with "/".
func cutSegment(path string) (first, rest string) {
	if path == "" {
		return "", ""
	}
	end := strings.IndexByte(path[1:], '/')
	if end < 0 {
		return path[1:], ""
	}
	return path[1 : 1+end], path[1+end:]
}
