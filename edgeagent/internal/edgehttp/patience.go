package edgehttp

import (
	"context"
	"net/http"
)

// patience returns what a request's reply is waited for with. net/http ends the context of an
// HTTP/1.1 request as soon as the client has closed its side of the connection. The client may have
// nothing more to ask, which RFC 9112 9.6 allows, or be gone: TCP does not tell until something is
// written. So ctx does not end, and leaving is closed instead; whoever answers closes what it has
// opened. A stream of HTTP/2 that ends was reset.
func patience(r *http.Request) (ctx context.Context, leaving <-chan struct{}) {
	if r.ProtoMajor != 1 {
		return r.Context(), nil
	}
	return context.WithoutCancel(r.Context()), r.Context().Done()
}
