package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxHeaderBytes bounds the head of an origin's reply. Larger ones are a fault or an attack on our memory.
	maxHeaderBytes = 64 << 10
	// dialStagger is how long the next address of a host waits for the one before (RFC 8305 5).
	dialStagger = 250 * time.Millisecond
	// idlePerHost and idleTotal bound the connections kept open for later, idleFor the time.
	idlePerHost = 64
	idleTotal   = 1024
	idleFor     = 60 * time.Second
)

// A dialer connects to a host by the first of its addresses that the guard allows and that answers.
type dialer struct {
	guard    *guard // nil allows every address
	resolver *net.Resolver
	tls      *tls.Config
	strays   *strays
}

// connectKey is the context key of how long connecting may take, since http.Transport knows only one value for all.
type connectKey struct{}

// healthKey is the context key of the health of the origin that is dialled.
type healthKey struct{}

func healthOf(ctx context.Context) *health {
	h, _ := ctx.Value(healthKey{}).(*health)
	return h
}

func connectTimeout(ctx context.Context) time.Duration {
	if d, ok := ctx.Value(connectKey{}).(time.Duration); ok && d > 0 {
		return d
	}
	return topology.DefaultConnect
}

// newTransport returns a transport whose connections d makes. It speaks HTTP/1.1 only: one slow reply then holds up no other,
// and one connection is one request. It neither asks the environment for a proxy nor touches the coding of a body.
func newTransport(d *dialer) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:              protocols,
		DialContext:            d.dialPlain,
		DialTLSContext:         d.dialTLS,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 2 * maxHeaderBytes, // each conn holds heads to maxHeaderBytes as they are sent
		MaxIdleConns:           idleTotal,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleFor,
	}
}

func newTLSConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256)}
}

func (d *dialer) dialPlain(ctx context.Context, network, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout(ctx), errConnectTimeout)
	defer cancel()
	tcp, err := d.dial(ctx, hostport)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	return newConn(tcp, tcp, nil, hostport, d.strays)
}

func (d *dialer) dialTLS(ctx context.Context, network, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout(ctx), errConnectTimeout)
	defer cancel()
	tcp, err := d.dial(ctx, hostport)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	host, _, _ := net.SplitHostPort(hostport)
	host, _ = cutAddress(host)
	config := d.secureOf(ctx, cutSecure(host))
	records := newRecords(tcp)
	secure := tls.Client(records, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, dialError(ctx, &tlsError{err})
	}
	return newConn(secure, tcp, records, hostport, d.strays)
}

// dialError prefers the reason for which ctx ended to what its end made of the dial.
func dialError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (d *dialer) dial(ctx context.Context, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	host, prefer := cutAddress(host)
	host = cutSecure(host)
	addrs, err := d.allowed(ctx, host)
	if err != nil {
		return nil, err
	}
	h := healthOf(ctx)
	return race(ctx, h.order(host, addrs, prefer), port, h)
}

// allowed resolves host and returns the addresses that may be connected to. What is checked here is what is dialled, so a
// name that resolves otherwise a moment later gains nothing.
func (d *dialer) allowed(ctx context.Context, host string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	if addr, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{addr}
	} else if addrs, err = d.resolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	if d.guard == nil {
		return addrs, nil
	}
	var refused error
	var ok []netip.Addr
	for _, addr := range addrs {
		if err := d.guard.check(addr); err != nil {
			refused = err
			continue
		}
		ok = append(ok, addr)
	}
	if len(ok) == 0 && refused != nil {
		return nil, &refusedError{host: host, err: refused}
	}
	return ok, nil
}

// race connects to the addresses in order, starting the next when one fails or has not answered for dialStagger, as far as the
// retry budget of h allows, and returns the first connection. h may be nil.
func race(ctx context.Context, addrs []netip.Addr, port string, h *health) (net.Conn, error) {
	if len(addrs) == 0 {
		return nil, errors.New("host has no address")
	}
	type dialled struct {
		addr netip.Addr
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan dialled)
	var dialer net.Dialer
	start := func(addr netip.Addr) {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
		select {
		case done <- dialled{addr, conn, err}:
		case <-ctx.Done():
			if err == nil {
				conn.Close()
			}
		}
	}
	stagger := time.NewTimer(dialStagger)
	defer stagger.Stop()
	go start(addrs[0])
	var first error
	for next, running := 1, 1; ; {
		var try bool
		select {
		case a := <-done:
			if a.err == nil {
				h.overtook(addrs[:next], a.addr)
				return a.conn, nil
			}
			h.note(a.addr, failureWeight)
			if first == nil {
				first = a.err
			}
			running--
			try = true
		case <-stagger.C:
			try = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case try && next < len(addrs) && h.again():
			go start(addrs[next])
			next++
			running++
			stagger.Reset(dialStagger)
		case running == 0:
			return nil, first
		}
	}
}
