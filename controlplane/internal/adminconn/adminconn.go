// Package adminconn connects the HTTP fronts of a control plane to its admin API, within the
// process. What comes over HTTP is authenticated, validated and audited by the same server code as
// what comes over gRPC.
//
// The server knows who is behind a call: the token, address and certificate of the HTTP client come
// with it, in fields that are believed of this connection alone, which nothing outside of the
// process can reach.
package adminconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"
)

const (
	// addressKey and certificateKey are the fields of a call that say who the HTTP client is.
	addressKey     = "edgewalk-client-address"
	certificateKey = "edgewalk-client-certificate-bin"

	// buffer is how much the connection holds on its way, in bytes.
	buffer = 1 << 20
	// maxMessage bounds an answer. A page of a list has 2 MiB, an exported manifest more.
	maxMessage = 64 << 20
)

// Conn is a connection to a server in this process.
type Conn struct {
	*grpc.ClientConn
	server   *grpc.Server
	listener *bufconn.Listener
}

// New returns a connection to a server, which nobody else is to serve. Calls wait until Serve is
// called.
func New(server *grpc.Server) (*Conn, error) {
	l := bufconn.Listen(buffer)
	client, err := grpc.NewClient("passthrough:///admin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("connect to the admin API in this process: %w", err)
	}
	return &Conn{ClientConn: client, server: server, listener: l}, nil
}

// Serve serves the connection until Close.
func (c *Conn) Serve() error { return c.server.Serve(c.listener) }

// Close ends the calls that are under way.
func (c *Conn) Close() error {
	c.server.Stop()
	return c.ClientConn.Close()
}

type tokenKey struct{}

// WithToken returns a context for a request that presents a token by other means than its
// Authorization field.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// Outgoing is the context of calls that are made to answer a request. They present the request's
// token, and end with it.
func Outgoing(r *http.Request) context.Context {
	return metadata.NewOutgoingContext(r.Context(), Metadata(r))
}

// Metadata is who makes a request, as the fields of calls that are made to answer it.
func Metadata(r *http.Request) metadata.MD {
	fields := metadata.Pairs(addressKey, r.RemoteAddr)
	if token, ok := r.Context().Value(tokenKey{}).(string); ok {
		fields.Set("authorization", "Bearer "+token)
	} else {
		for _, value := range r.Header.Values("Authorization") {
			fields.Append("authorization", sendable(value))
		}
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		fields.Set(certificateKey, string(r.TLS.VerifiedChains[0][0].Raw))
	}
	return fields
}

// maxAuthorization is more than any token has, and as much as gRPC sends besides a certificate.
const maxAuthorization = 4 << 10

// sendable is what can be sent of a value: gRPC refuses a call with other characters or more
// fields, and no token has either.
func sendable(value string) string {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || i >= maxAuthorization {
			return value[:i]
		}
	}
	return value
}

// Direct is the context that the server would have of a call made to answer a request, for what is
// served without one.
func Direct(r *http.Request) context.Context {
	ctx := peer.NewContext(r.Context(), &peer.Peer{Addr: inProcess{}})
	return metadata.NewIncomingContext(ctx, Metadata(r))
}

// inProcess is the address of a caller in this process, as bufconn has it.
type inProcess struct{}

func (inProcess) Network() string { return "bufconn" }
func (inProcess) String() string  { return "bufconn" }

// Incoming is the context of a call as if the HTTP client had made it; that of another connection
// is returned as it is.
func Incoming(ctx context.Context) context.Context {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr.Network() != (inProcess{}).Network() {
		return ctx
	}
	client := &peer.Peer{Addr: p.Addr, LocalAddr: p.LocalAddr, AuthInfo: p.AuthInfo}
	for _, text := range metadata.ValueFromIncomingContext(ctx, addressKey) {
		if at, err := netip.ParseAddrPort(text); err == nil {
			client.Addr = net.TCPAddrFromAddrPort(at)
		}
	}
	for _, der := range metadata.ValueFromIncomingContext(ctx, certificateKey) {
		if leaf, err := x509.ParseCertificate([]byte(der)); err == nil {
			state := tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}
			client.AuthInfo = credentials.TLSInfo{State: state}
		}
	}
	return peer.NewContext(ctx, client)
}
