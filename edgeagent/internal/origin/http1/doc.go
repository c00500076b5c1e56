// Package http1 sends requests to servers over HTTP/1.1 (RFC 9112), in the caller's goroutine. It
// owns connections, idle ones too, and the framing of replies. Where a connection may lead and how
// long anything may take is the caller's business: its context can end a request at any time.
//
// What always holds: a connection carries one request at a time, and none after a reply that did
// not end exactly where its framing says. Bytes that no request has asked for are never taken for a
// reply. A read of a body returns io.EOF only if the framing shows that the body is whole, or
// cannot show it (RFC 9112 8). A request is sent a second time only if it changes nothing at the
// server, its connection had been used before, and no byte of a reply had come. Nothing runs on
// after a request, and no connection outlives its client.
package http1
