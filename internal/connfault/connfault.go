// Package connfault reads why a gRPC connection did not come about, or is one to somebody else,
// which gRPC tells in a text alone.
package connfault

import (
	"slices"
	"strings"
)

// Kind is what is wrong with whom a connection was made to, or with how.
type Kind int

const (
	// Away: nobody answers, or the reason is none of the others.
	Away Kind = iota
	// NoTLS: the other side does not speak TLS.
	NoTLS
	// Untrusted: its certificate is of an authority or for a name that is not expected.
	Untrusted
	// NoGRPC: it speaks HTTP, and not gRPC.
	NoGRPC
	// HungUp: it ended the connection, as a server does that misses TLS or a certificate. In TLS
	// 1.3 a client may not even hear why.
	HungUp
	// NoService: it speaks gRPC, and has no such service.
	NoService
	// Silent: it takes the connection, and says nothing in the time that there is.
	Silent
)

// Of returns the cause in the message of a status, without what gRPC puts before it, and its kind.
func Of(message string) (cause string, kind Kind) {
	cause = message
	if _, inner, found := strings.Cut(cause, `connection error: desc = "`); found {
		cause = strings.TrimSuffix(inner, `"`)
	}
	for _, layer := range []string{"transport: ", "Error while dialing: ", "authentication handshake failed: "} {
		cause = strings.TrimPrefix(cause, layer)
	}
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(cause, text) })
	}
	switch {
	case has("use of closed network connection"), // by gRPC, which has given up
		strings.Contains(message, "handshake failed: context deadline exceeded"):
		return "it takes the connection, and says nothing", Silent
	case has("does not look like a TLS handshake"):
		kind = NoTLS
	case has("x509: "):
		kind = Untrusted
	case has("looked like an HTTP", "unexpected HTTP status code", "unexpected content-type"):
		kind = NoGRPC
	case has("server preface", "broken pipe", "connection reset", "certificate required"):
		kind = HungUp
	case has("unknown service"):
		kind = NoService
	}
	return cause, kind
}
