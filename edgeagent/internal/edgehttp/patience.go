package edgehttp

import (
	"context"
	"net/http"
	"time"
)

// halfClosed is for how long a reply is waited for whose client has closed its side of the
// connection. The client may have nothing more to ask, which RFC 9112 9.6 allows, or be gone: TCP
// does not tell until something is written.
const halfClosed = 2 * time.Second

// patience returns the context of a request while the head of its reply is waited for and its body
// read. net/http ends that of an HTTP/1.1 request as soon as the client has closed its side; this
// one goes on for halfClosed, and once answered has been called until done is: whether the client
// is still there, the write of the reply finds out. A stream of HTTP/2 that ends was reset.
func patience(r *http.Request) (ctx context.Context, answered, done func()) {
	if r.ProtoMajor != 1 {
		return r.Context(), func() {}, func() {}
	}
	ctx, done = context.WithCancel(context.WithoutCancel(r.Context()))
	waiting, answered := context.WithCancel(ctx)
	context.AfterFunc(r.Context(), func() {
		timer := time.NewTimer(halfClosed)
		defer timer.Stop()
		select {
		case <-timer.C:
			if waiting.Err() == nil {
				done()
			}
		case <-waiting.Done():
		}
	})
	return ctx, answered, done
}
