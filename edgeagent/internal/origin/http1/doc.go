// Package http1 asks servers over HTTP/1.1 (RFC 9112), in the goroutine of whoever asks. It owns
// connections, those that are kept for later too, and how replies are framed. Where a connection
// may lead, and how long anything may take, is its caller's business: a context ends a request at
// every moment.
//
// What always holds: a connection carries one request at a time, and none behind a reply that did
// not end just where its framing says. Bytes that nobody asked for are taken for no reply. A body
// ends with io.EOF only if its framing shows that it is whole, or cannot show it (RFC 9112 8). A
// request is sent a second time only if it changes nothing at the server, its connection had been
// used before, and no byte of a reply had come. Nothing goes on behind a request, and no
// connection outlives its client.
package http1
