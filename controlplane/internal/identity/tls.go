package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/edgewalk/edgewalk/internal/jointoken"
)

// ErrRequest says that a certificate signing request is malformed.
var ErrRequest = errors.New("the certificate signing request")

// requestedKey returns the key that a request is about, once that is proven to have signed it.
func requestedKey(csr []byte) (crypto.PublicKey, [sha256.Size]byte, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, [sha256.Size]byte{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	switch request.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return request.PublicKey, sha256.Sum256(request.RawSubjectPublicKeyInfo), nil
	}
	return nil, [sha256.Size]byte{}, fmt.Errorf("%w: want an ECDSA or Ed25519 key", ErrRequest)
}

// Certificate is what an edge is given.
type Certificate struct {
	// Raw is its certificate, Authorities those that control planes are known by, newest first;
	// DER.
	Raw         []byte
	Authorities [][]byte
}

func (r *Registry) certificate(cert *x509.Certificate) *Certificate {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c := &Certificate{Raw: cert.Raw}
	for _, a := range r.authorities {
		c.Authorities = append(c.Authorities, a.cert.Raw)
	}
	return c
}

// Authenticate returns the edge that a connection comes from. It is false for one that shows no
// certificate of an edge, and then the error is nil. It returns [ErrRefused] for a certificate that
// is not valid, or no longer, and [ErrUnknown] while that is not known.
func (r *Registry) Authenticate(state *tls.ConnectionState) (Edge, bool, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Edge{}, false, nil
	}
	e, ours, err := r.verify(state.PeerCertificates[0])
	if err != nil || !ours {
		return Edge{}, ours, err
	}
	return e, true, r.Check(e)
}

// verify returns the edge that a certificate is about, if an authority has signed it, whether or
// not it is still valid.
func (r *Registry) verify(cert *x509.Certificate) (e Edge, ours bool, err error) {
	hash := sha256.Sum256(cert.Raw)
	r.mu.RLock()
	e, ours = r.verified[hash]
	valid, loaded := r.authorities, r.loaded[authorities]
	r.mu.RUnlock()
	switch {
	case ours:
		return e, true, nil
	case !loaded:
		return Edge{}, true, ErrUnknown
	}
	for _, a := range valid {
		roots := x509.NewCertPool()
		roots.AddCert(a.cert)
		// At its beginning, because what is over is for Check to say.
		options := x509.VerifyOptions{
			Roots: roots, CurrentTime: cert.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if a.cert.NotBefore.After(options.CurrentTime) {
			options.CurrentTime = a.cert.NotBefore
		}
		if _, err := cert.Verify(options); err != nil {
			continue
		}
		if e, err = edgeOf(cert, a.cluster); err != nil {
			return Edge{}, true, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if r.now().Before(cert.NotBefore) {
			return Edge{}, true, fmt.Errorf("%w: the certificate of edge %s begins at %s: compare the clocks", ErrRefused, e.ID, cert.NotBefore.UTC().Format(time.RFC3339))
		}
		r.mu.Lock()
		if len(r.verified) >= maxVerified {
			clear(r.verified)
		}
		r.verified[hash] = e
		r.mu.Unlock()
		return e, true, nil
	}
	return Edge{}, false, nil
}

// shown is what is shown to edges that know an authority.
type shown struct {
	cert *tls.Certificate
	// until is when another one is made, by the clock alone: it ends by what the clock says, also
	// when that is set, and when the machine has slept.
	until time.Time
}

// good reports whether it may be shown at a time: it has begun, and another one is not due.
func (s *shown) good(now time.Time) bool {
	return s != nil && now.Before(s.until) && !now.Before(s.cert.Leaf.NotBefore)
}

// show returns the certificate to show to who asks for a name; nil if that is no authority's.
func (r *Registry) show(name string) (*tls.Certificate, error) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.authorities {
		if jointoken.ServerName(a.hash) != name {
			continue
		}
		if s := r.shown[a.number]; s.good(now) {
			return s.cert, nil
		}
		cert, err := a.serve(now)
		if err != nil {
			return nil, fmt.Errorf("make a certificate for edges: %w", err)
		}
		r.shown[a.number] = &shown{cert, now.Add(serverLife / 2).Round(0)}
		return cert, nil
	}
	return nil, nil
}

// TLS returns how listeners for edges speak TLS. A client that asks for the name of an authority of
// edges is shown a certificate of that authority, any other that of base, which may be nil. Clients
// are asked for a certificate, and none is refused for lack of one, see [Registry.Authenticate];
// but base may demand one of its own authorities from those that ask for no authority of edges.
func (r *Registry) TLS(base *tls.Config) *tls.Config {
	other := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("without --tls-cert there is a certificate for edges that have joined alone")
	}
	if base != nil {
		other = base.GetCertificate
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequestClientCert,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if base == nil || base.ClientAuth == tls.NoClientCert ||
				strings.HasSuffix(hello.ServerName, jointoken.Domain) {
				return nil, nil
			}
			return base, nil
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert, err := r.show(hello.ServerName); cert != nil || err != nil {
				return cert, err
			}
			return other(hello)
		},
	}
}

// Credentials are those of the listener for edges. With clear, who does not speak TLS is served
// too: whether such a caller may do anything is for the service to say.
func (r *Registry) Credentials(base *tls.Config, clear bool) credentials.TransportCredentials {
	return serverCredentials{credentials.NewTLS(r.TLS(base)), clear}
}

type serverCredentials struct {
	credentials.TransportCredentials
	clear bool
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c serverCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if !c.clear {
		return c.TransportCredentials.ServerHandshake(conn)
	}
	conn, secure, err := sniff(conn)
	if err != nil {
		return nil, nil, err
	}
	if secure {
		return c.TransportCredentials.ServerHandshake(conn)
	}
	return conn, clearInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
}

// Clone implements [credentials.TransportCredentials].
func (c serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{c.TransportCredentials.Clone(), c.clear}
}

type clearInfo struct{ credentials.CommonAuthInfo }

// AuthType implements [credentials.AuthInfo].
func (clearInfo) AuthType() string { return "clear" }

// handshakeRecord is the first byte of each TLS connection (RFC 8446 5.1), and of no HTTP request.
const handshakeRecord = 0x16

// sniff reports whether a client begins with TLS. What it read is read again.
func sniff(conn net.Conn) (net.Conn, bool, error) {
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return nil, false, err
	}
	return &begun{Conn: conn, first: first[0]}, first[0] == handshakeRecord, nil
}

// begun is a connection whose first byte was read.
type begun struct {
	net.Conn
	first byte
	given bool
}

// Read implements [net.Conn].
func (c *begun) Read(p []byte) (int, error) {
	if c.given || len(p) == 0 {
		return c.Conn.Read(p)
	}
	c.given = true
	p[0] = c.first
	return 1, nil
}

// sniffTimeout bounds how long a client may take to begin.
const sniffTimeout = 10 * time.Second

// Listen returns a listener whose connections speak TLS if the client begins with that. Serving
// them is for an [http.Server], which knows them by their type.
func (r *Registry) Listen(l net.Listener, base *tls.Config) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sniffing{
		Listener: l, config: r.TLS(base), ready: make(chan net.Conn), done: make(chan struct{}), ctx: ctx,
		cancel: cancel,
	}
	s.config.NextProtos = []string{"h2", "http/1.1"}
	go s.accept()
	return s
}

type sniffing struct {
	net.Listener
	config *tls.Config
	ready  chan net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed with the listener, whose error is err
	err    error
}

func (s *sniffing) accept() {
	defer close(s.done)
	defer s.cancel()
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			s.err = err
			return
		}
		go s.begin(conn)
	}
}

func (s *sniffing) begin(raw net.Conn) {
	// Its error is that the connection is gone, which reading finds out too.
	_ = raw.SetReadDeadline(time.Now().Add(sniffTimeout))
	stop := context.AfterFunc(s.ctx, func() { raw.Close() })
	conn, secure, err := sniff(raw)
	if err != nil || !stop() {
		raw.Close()
		return
	}
	_ = raw.SetReadDeadline(time.Time{})
	if secure {
		conn = tls.Server(conn, s.config)
	}
	select {
	case s.ready <- conn:
	case <-s.ctx.Done():
		raw.Close()
	}
}

// Accept implements [net.Listener].
func (s *sniffing) Accept() (net.Conn, error) {
	select {
	case conn := <-s.ready:
		return conn, nil
	case <-s.ctx.Done():
		<-s.done
		return nil, s.err
	}
}

// Close implements [net.Listener].
func (s *sniffing) Close() error {
	defer s.cancel()
	return s.Listener.Close()
}
