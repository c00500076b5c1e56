package kind

import (
	"hash/maphash"
	"net/http"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Ask is what is wanted of an origin.
type Ask struct {
	// Account is the id of the account, which names its Media Library.
	Account string
	// Host is the canonical host of the client's URL, for web origins with forward_host_header.
	Host string
	// Path is the canonical path of the file, "" or beginning with "/"; Query is the kept query
	// without "?".
	Path, Query string
	// Object is the object key below the prefix. Without ObjectOK the path cannot be a key.
	Object   string
	ObjectOK bool
	// Header is what web origins may see of the client. Each is sent Accept, Accept-Encoding, and
	// what its own forward_request_headers list.
	Header http.Header
	// Library is the start of the SHA-256 of a Media Library file, Revision the revision at which
	// the path has it.
	Library  [8]byte
	Revision int64
	// Conditions make the request other than a plain GET.
	Conditions
	// Deadline ends the wait for the head. The zero value is none.
	Deadline time.Time
	// Test is set for an admin's question, which is asked whatever state the origin is in, and
	// changes nothing of it.
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
		{"Range", c.Range}, {"If-Range", c.IfRange}, {"If-None-Match", c.IfNoneMatch}, {"If-Modified-Since", c.IfModifiedSince},
	} {
		if f.value != "" {
			h[f.name] = []string{f.value}
		}
	}
}

// WriteAsked writes to h what makes one question to o differ from another: two asks that write the
// same get the same answer. Accept and Accept-Encoding are part of it: an origin may say that there
// is no file where one of its forms is missing. The client's address is not, which is sent for an
// origin's log.
func (a *Ask) WriteAsked(h *maphash.Hash, o *topology.Origin) {
	if keyed(o) {
		writeField(h, a.Object)
		return
	}
	writeField(h, a.Path)
	writeField(h, a.Query)
	web := o.Spec.GetWeb()
	if web.GetForwardHostHeader() {
		writeField(h, a.Host)
	}
	writeLines(h, a.Header["Accept"])
	writeLines(h, a.Header["Accept-Encoding"])
	writeLines(h, a.Header["Cdn-Loop"])
	for _, name := range web.GetForwardRequestHeaders() {
		writeLines(h, a.Header[http.CanonicalHeaderKey(name)])
	}
}

func writeLines(h *maphash.Hash, lines []string) {
	for _, line := range lines {
		writeField(h, line)
	}
	h.WriteByte(1)
}

func writeField(h *maphash.Hash, s string) {
	h.WriteString(s)
	h.WriteByte(0)
}

// keyed reports whether an origin holds its files under object keys; nil is the Media Library.
func keyed(o *topology.Origin) bool { return o == nil || topology.Keyed(o.Spec) }
