// Package kind holds what the kinds of storage have in common: what describes one ([Kind]), what is
// asked of it ([Ask]), and what its answers mean ([Row]). Each kind is a package below this one,
// and knows nothing of connections, health or retries.
package kind

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Edge is how an edge introduces itself to storages.
type Edge struct {
	UserAgent string
	// LoopID names the deployment in Via and CDN-Loop (RFC 8586).
	LoopID func() string

	names atomic.Pointer[Names] // the last ones
}

// Names are the values of fields in which an edge names itself. Requests share them.
type Names struct {
	UserAgent, Via, CDNLoop []string

	id string
}

// Names returns the names of the edge.
func (e *Edge) Names() *Names {
	id := e.LoopID()
	if known := e.names.Load(); known != nil && known.id == id {
		return known
	}
	names := &Names{
		UserAgent: []string{e.UserAgent}, Via: []string{"1.1 " + id}, CDNLoop: []string{id}, id: id,
	}
	e.names.Store(names)
	return names
}

// Kind is what is particular to one kind of storage.
type Kind struct {
	Name string
	// Keyed says that files have object keys. A path that cannot be a key is answered "no such
	// file", and nothing is sent: an empty key would list the bucket.
	Keyed bool
	// Operator says that the URL is the operator's own, which the rules on addresses do not
	// concern.
	Operator bool
	// Build makes the request without conditions and credentials. Its error is a *ConfigError or an
	// *UnaskedError. It is nil for a kind that this edge does not know.
	Build func(e *Edge, o *topology.Origin, a *Ask) (*http.Request, error)
	// Site returns the host that is asked, for a kind that asks several hosts, because trouble with
	// one must not keep the edge from the others.
	Site func(o *topology.Origin, a *Ask) string
	// Sign adds the credentials. It is called after the conditions are set, which some signatures
	// cover. Its error is like Build's, or that of getting a token. Nil signs nothing.
	Sign func(ctx context.Context, h *Hop) error
	// Follows reports whether redirects are followed, and Next makes the request that one leads to.
	// Both are nil for a kind that follows none.
	Follows func(o *topology.Origin) bool
	Next    func(e *Edge, h *Hop, location string) (*http.Request, error)
	// Code reads the error code from the head and the start of the body of a reply: for an object
	// store if the status is 300 or more, for a web server if it is 400. Nil needs no body.
	Code func(header http.Header, body []byte) string
	// Elaborate returns what to add to the detail of an answer that a row has judged, and advice
	// that replaces the row's unless it is empty. It may be nil.
	Elaborate func(r *Reply, row *Row) (detail, advice string)
	// Finish adapts a reply to what the client asked for. It may be nil.
	Finish func(a *Ask, r *Response) error
	Rows   []Row
	// Bucket makes the request that lists one object, for a kind with vague rows.
	Bucket func(e *Edge, o *topology.Origin) (*http.Request, error)
	// DeniedAdvice is the advice if a missing key is answered with 403.
	DeniedAdvice string
	// Folder is the prefix that a key must have for the storage to be asked for it.
	Folder string
}

// Hop is one request of the chain that redirects make.
type Hop struct {
	Origin *topology.Origin
	Ask    *Ask
	Req    *http.Request
	// Token is the token that Sign added, if it was obtained with the origin's credentials.
	Token string
	// Own says that the request goes to the origin's own host, so it may carry secrets.
	Own bool
	// Count is how many redirects led here.
	Count int
	// Head asks for the same file under other conditions, and returns the header of a reply that
	// has it, nil without one. It is for Sign, and nil for a kind without that.
	Head func(ctx context.Context, conditions Conditions) http.Header
}

// A ConfigError is something an admin has to correct, found before anything was sent.
type ConfigError struct{ Detail, Advice string }

func (e *ConfigError) Error() string { return e.Detail }

// WrongConfig returns a [ConfigError].
func WrongConfig(detail, advice string) error { return &ConfigError{Detail: detail, Advice: advice} }

// An UnaskedError says that the storage cannot have what is asked for, so nothing is sent.
type UnaskedError struct{ Detail, Advice string }

func (e *UnaskedError) Error() string { return e.Detail }
