// Package front speaks HTTP/1.1 and HTTP/2 with clients, over TCP and over TLS. It owns their
// connections, what is read from them and written to them, and how long either may take. What a
// request means, and the answer to it, is its handler's business.
//
// What always holds: replies are sent in the order of the requests of a connection, or each on its
// own stream; bytes behind something that two parties may read differently are never taken for a
// request; a body that is cut is never ended as if it were whole; what a client makes the server
// hold is bounded, in bytes and in time.
package front

import (
	"context"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// Version of HTTP that a request came in.
type Version uint8

// The versions that are spoken.
const (
	HTTP10 Version = iota
	HTTP11
	HTTP2
)

// String returns the version as access logs have it, such as "HTTP/1.1".
func (v Version) String() string { return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2.0"}[v] }

// Conn describes a connection. It does not change while the connection is open.
type Conn struct {
	Remote netip.AddrPort
	// TLS says that the connection is encrypted, and SNI for which host it was opened (RFC 6066 3),
	// empty if the client named none.
	TLS bool
	SNI string
	// TLSVersion is that of package tls.
	TLSVersion uint16
}

// Handler answers one request. It calls [Exchange.Reply] once. If it does not, the connection of
// HTTP/1 ends, and the stream of HTTP/2 is reset.
//
// Other requests, also those of other connections, wait until the handler returns. So the handler
// calls [Exchange.MayWait] or [Exchange.Own] before it waits for an origin, the disk or a lock.
// Methods that wait for the client call MayWait themselves.
type Handler func(x *Exchange)

// Exchange is one request, with the means to reply. It belongs to its handler until that returns.
// Its strings lie in memory that is used again afterwards; a handler copies what it keeps for
// longer, see [Exchange.Own].
type Exchange struct {
	Version Version
	Method  string
	// Target is the request target as it was received (RFC 9112 3.2), and :path of HTTP/2.
	Target string
	// Authority is the Host field, or :authority of HTTP/2, and Host where that has none. HTTP/1.0
	// may have neither.
	Authority string
	// Fields are all other fields.
	Fields field.Lines
	Conn   *Conn
	// Now is when the request had come.
	Now time.Time
	// Kept is the handler's. It stays for later requests in the same memory.
	Kept any

	stream stream
	owned  bool      // see Own
	next   time.Time // when the next request begins, if the clock was just read
}

// stream is what an exchange came over: one request of HTTP/1, or one stream of HTTP/2. It has the
// methods of [Exchange].
type stream interface {
	slow() // the handler may wait from here on
	hasContent() bool
	context() context.Context
	onLeave(f func()) (stop func() bool)
	interim(status int, fields []byte) error
	reply(r *Reply) (sent int64, err error)
}

// HasContent reports whether the request has content, which the server does not read: HTTP/1 ends
// the connection after the reply, HTTP/2 resets the stream. Where only the next frame of HTTP/2
// shows it, HasContent waits for that.
func (x *Exchange) HasContent() bool { return x.stream.hasContent() }

// Context returns a context that ends when the client cannot get the reply any more: the stream was
// reset, or the connection is broken. It calls MayWait, so a handler that has its reply does not
// call Context.
func (x *Exchange) Context() context.Context { return x.stream.context() }

// OnLeave calls f when Context ends, and also when the client of HTTP/1 has closed its side of the
// connection. It may have nothing more to ask, which RFC 9112 9.6 allows, or be gone: TCP does not
// show which until something is written. A client of HTTP/2 that leaves resets its stream. f must
// not wait. The handler calls stop before it calls OnLeave again, and before it returns; stop
// reports whether f is not called.
func (x *Exchange) OnLeave(f func()) (stop func() bool) { return x.stream.onLeave(f) }

// Interim sends an interim reply (RFC 9110 15.2) with a field list. A client of HTTP/1.0 knows none
// and is sent none.
func (x *Exchange) Interim(status int, fields []byte) error { return x.stream.interim(status, fields) }

// Reply sends the reply, and returns how many bytes of its body were sent: the client or the kernel
// has them, or they are in memory and leave when the handler has returned, unless it panics. An
// error says that the client did not get the whole reply; the client can see that.
func (x *Exchange) Reply(r *Reply) (sent int64, err error) { return x.stream.reply(r) }

// Took returns how long the request has taken. The handler calls it when it is done: the next
// request begins then, so that the clock is read once for each request.
func (x *Exchange) Took() time.Duration {
	took := time.Since(x.Now) // which reads one clock, where time.Now reads two
	x.next = x.Now.Add(took)
	return took
}

// MayWait lets other requests be served from now on, because the handler may wait.
func (x *Exchange) MayWait() { x.stream.slow() }

// Own calls MayWait and copies the strings of the request, so that they stay valid after the
// handler has returned.
func (x *Exchange) Own() {
	if x.owned {
		return
	}
	x.owned = true
	x.stream.slow()
	x.Fields = x.Fields.Clone()
	n, m := len(x.Method), len(x.Method)+len(x.Target)
	all := x.Method + x.Target + x.Authority
	x.Method, x.Target, x.Authority = all[:n], all[n:m], all[m:]
}

// Reply is a reply to send. Its memory, but for Mem, belongs to the handler again when
// [Exchange.Reply] returns.
type Reply struct {
	Status int
	// Block is sent before Fields; nil for none.
	Block *Block
	// Fields is a field list without Content-Length, Connection and Transfer-Encoding. Date is
	// added if it is missing.
	Fields []byte
	// Length is that of the body, of a HEAD too; -1 if it is not known.
	Length int64
	// Close ends the connection of HTTP/1 after the reply.
	Close bool

	// The body is one of these. It is not sent where none may be: to HEAD, and with 204 and 304.

	// Mem is the body. Nobody may change it any more.
	Mem []byte
	// File holds the body at Offset. Its position is neither used nor changed. The body is cut
	// where it cannot be read, unless Unsent returns the rest.
	File   *os.File
	Offset int64
	// Unsent returns the rest of the body after the first bytes of a File that could not be read
	// any further; nil if there is no other source.
	Unsent func(sent int64) io.Reader
	// Stream is read until its end, and what has come is sent at once. If it ends with an error, or
	// before Length, the reply is cut. If it has a method Lend() []byte, that may be called first,
	// and what it returns comes before what is read; it does not change until the reply is sent.
	Stream io.Reader
}
