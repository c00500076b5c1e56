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

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxHeaderBytes bounds the head of an origin's reply. Larger ones are a fault or an attack on
	// our memory.
	maxHeaderBytes = 64 << 10
	// dialStagger is how long the next address of a host waits for the one before (RFC 8305 5).
	dialStagger = 250 * time.Millisecond
	// idlePerHost and idleTotal bound the connections kept open for later, idleFor the time.
	idlePerHost = 64
	idleTotal   = 1024
	idleFor     = 60 * time.Second
	// connFor is for how long a connection begins requests, up to a quarter less so that not all
	// end at once. A host that has moved is then asked where it is now, however many requests there
	// are.
	connFor = 60 * time.Second
)

// A dialer connects to a host by the first of its addresses that network allows and that answers.
type dialer struct {
	network *guard.Network // nil allows every address
	lookups *lookups
	now     func() time.Time
	tls     func() *tls.Config
	strays  *strays
}

// connectKey is the context key of how long connecting may take, because http.Transport knows only
// one value for all.
type connectKey struct{}

// attemptKey is the context key of the attempt that a dial is for.
type attemptKey struct{}

// attemptOf returns nil for a dial of no attempt.
func attemptOf(ctx context.Context) *attempt {
	by, _ := ctx.Value(attemptKey{}).(*attempt)
	return by
}

func connectTimeout(ctx context.Context) time.Duration {
	if d, ok := ctx.Value(connectKey{}).(time.Duration); ok && d > 0 {
		return d
	}
	return topology.DefaultConnect
}

// newTransport returns a transport whose connections d makes. It speaks HTTP/1.1 only: one slow
// reply then holds up no other, and one connection is one request. It neither asks the environment
// for a proxy nor touches the coding of a body.
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
	return &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256),
	}
}

func (d *dialer) dialPlain(ctx context.Context, network, hostport string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout(ctx), errConnectTimeout)
	defer cancel()
	tcp, err := d.dial(ctx, hostport)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	return d.newConn(tcp, tcp, nil, hostport)
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
	attemptOf(ctx).connected(addressOf(tcp))
	records := newRecords(tcp)
	secure := tls.Client(records, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, dialError(ctx, &tlsError{err})
	}
	return d.newConn(secure, tcp, records, hostport)
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
	by := attemptOf(ctx)
	return race(ctx, by.order(host, addrs, prefer), port, by)
}

// allowed resolves host and returns the addresses that may be connected to. What is checked here
// is what is dialled, so a name that resolves otherwise a moment later gains nothing.
func (d *dialer) allowed(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := d.lookups.of(ctx, host)
	if err != nil {
		return nil, err
	}
	if d.network == nil {
		return addrs, nil
	}
	var refused error
	var ok []netip.Addr
	for _, addr := range addrs {
		if err := d.network.Check(addr); err != nil {
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

// race connects to the addresses in order, starting the next when one fails or has not answered for
// dialStagger, and returns the first connection (RFC 8305 5). by may be nil.
func race(ctx context.Context, addrs []netip.Addr, port string, by *attempt) (net.Conn, error) {
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
				by.overtook(addrs[:next], a.addr)
				return a.conn, nil
			}
			by.failedAt(a.addr)
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
		case try && next < len(addrs):
			go start(addrs[next])
			next++
			running++
			stagger.Reset(dialStagger)
		case running == 0:
			return nil, first
		}
	}
}
