package kind

import (
	"net/http"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Request is what a request is for, the same for every origin. It never changes, so fills, walks
// and questions share it.
type Request struct {
	topology.Target
	// Revision is the revision of the topology that Target was located in, and Epoch the history
	// of Revision and of the uids in Target.
	Revision int64
	Epoch    string
	// Header is what web origins may see of the client: normalised Accept and Accept-Encoding, the
	// endpoint's ForwardRequestHeaders, and CDN-Loop. Each origin is sent only what it lists.
	Header field.Map
	// OnInterim is called with each interim reply (RFC 9110 15.2) of an origin. Its error ends the
	// request to that origin. Default: they are dropped, up to 5 of them.
	OnInterim func(status int, header map[string][]string) error
}

// Ask is one question to one origin.
type Ask struct {
	*Request
	// Library is the start of the SHA-256 of the file, if a Media Library is asked.
	Library [8]byte
	// Conditions turn a plain GET into a request for a part, or into a conditional one.
	Conditions
	// Deadline ends the wait for the head. The zero value is none.
	Deadline time.Time
	// Test is set for an admin's question. It is asked whatever state the origin is in, and does
	// not change that state.
	Test bool
}

// Conditions are the fields that ask for a part, or for a confirmation of what is stored; "" leaves
// a field out.
type Conditions struct {
	Range, IfRange, IfNoneMatch, IfModifiedSince string
}

// Apply sets the conditions in a request's header.
func (c Conditions) Apply(h http.Header) {
	for _, f := range [...]struct{ name, value string }{
		{"Range", c.Range}, {"If-Range", c.IfRange}, {"If-None-Match", c.IfNoneMatch},
		{"If-Modified-Since", c.IfModifiedSince},
	} {
		if f.value != "" {
			h[f.name] = []string{f.value}
		}
	}
}

// AppendAsked appends what the answer of o may depend on: two requests that append the same get the
// same answer. Accept and Accept-Encoding are part of it, because an origin may answer "no such
// file" where it lacks one form of a file. The client's address is not, because origins get it for
// their logs alone.
func (r *Request) AppendAsked(b []byte, o *topology.Origin) []byte {
	if keyed(o) {
		return appendField(b, r.Object)
	}
	b = appendField(b, r.Path)
	b = appendField(b, r.Query)
	web := o.Spec.GetWeb()
	if web.GetForwardHostHeader() {
		b = appendField(b, r.Host)
	}
	b = appendLines(b, r.Header["Accept"])
	b = appendLines(b, r.Header["Accept-Encoding"])
	b = appendLines(b, r.Header["Cdn-Loop"])
	for _, name := range web.GetForwardRequestHeaders() {
		b = appendLines(b, r.Header[field.Canonical(name)])
	}
	return b
}

func appendLines(b []byte, lines []string) []byte {
	for _, line := range lines {
		b = appendField(b, line)
	}
	return append(b, 1)
}

// appendField is called several times for each miss, and its code is not repeated for each.
//
//go:noinline
func appendField(b []byte, s string) []byte { return append(append(b, s...), 0) }

// keyed reports whether an origin holds its files under object keys; nil is the Media Library.
func keyed(o *topology.Origin) bool { return o == nil || topology.Keyed(o.Spec) }
