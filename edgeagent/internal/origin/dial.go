package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/socket"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// dialStagger is how long the next address of a host waits for the one before (RFC 8305 5).
const dialStagger = 250 * time.Millisecond

// A dialer connects to the first address of a host that network allows and that answers.
type dialer struct {
	network *guard.Network // nil allows every address
	lookups *lookups
	tls     func() *tls.Config
}

// A link describes a connection to make: where to, and for what.
type link struct {
	key    http1.Key
	secure *secure        // the origin's TLS settings, nil for the default ones
	open   []netip.Prefix // what is not public and open to the account
	limit  time.Duration  // how long connecting may take
	by     *attempt       // nil for none
}

// link describes the connection for the hop's request: to one address if by names one, and with the
// TLS settings of the origin.
func (h *hop) link(by *attempt, limit time.Duration) link {
	u := h.Req.URL
	to := newLink(h.Origin, u, limit)
	to.by = by
	if to.key.Address = by.to; !by.to.IsValid() && h.Own {
		to.key.Address = h.health.detour(u)
	}
	if h.secure != nil && h.Own && to.key.TLS {
		to.secure = h.secure
		to.key.Settings += h.secure.key
	}
	return to
}

// newLink is where a request to a URL is to go for an origin, nil for the Media Library. A
// connection to what is open to one account is lent to no other.
func newLink(o *topology.Origin, u *url.URL, limit time.Duration) link {
	to := link{limit: limit, key: keyOf(u)}
	if o != nil && len(o.Private) > 0 {
		to.open, to.key.Settings = o.Private, fmt.Sprint(o.Private)
	}
	return to
}

// keyOf returns the key of connections for a URL.
func keyOf(u *url.URL) http1.Key {
	key := http1.Key{TLS: u.Scheme == "https", Host: u.Host}
	if !isHostAndPort(u.Host) {
		host := u.Hostname()
		if strings.IndexFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
			if ascii, err := idna.Lookup.ToASCII(host); err == nil {
				host = ascii
			}
		}
		key.Host = net.JoinHostPort(host, kind.PortOf(u))
	}
	return key
}

// isHostAndPort reports whether an authority is a host name in ASCII, or an IPv4 address, with a
// port.
func isHostAndPort(authority string) bool {
	port := strings.IndexByte(authority, ':') + 1
	for i := range len(authority) {
		if c := authority[i]; c > unicode.MaxASCII || c == '[' || i >= port && (c < '0' || c > '9') {
			return false
		}
	}
	return 0 < port && port < len(authority)
}

func newTLSConfig(roots *x509.CertPool) *tls.Config {
	return &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256),
	}
}

// connect makes a connection that http1 can use.
func (d *dialer) connect(ctx context.Context, to link) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, to.limit, errConnectTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(to.key.Host)
	if err != nil {
		return nil, err
	}
	tcp, err := d.dial(ctx, host, port, to)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	if !to.key.TLS {
		return tcp, nil
	}
	to.by.connected(http1.AddressOf(tcp))
	secure, err := http1.Handshake(ctx, tcp, d.secureOf(to.secure, host))
	if err != nil {
		tcp.Close()
		return nil, dialError(ctx, &tlsError{err})
	}
	return secure, nil
}

// dialError returns the reason why ctx has ended instead of the error of the dial that this caused.
func dialError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (d *dialer) dial(ctx context.Context, host, port string, to link) (*socket.Conn, error) {
	addrs, err := d.allowed(ctx, host, port, to.open)
	if err != nil {
		return nil, err
	}
	return race(ctx, to.by.order(host, addrs, to.key.Address), port, to.by)
}

// allowed resolves host and returns the addresses that may be connected to. The same addresses are
// then connected to, so that a name that resolves differently a moment later gains nothing.
func (d *dialer) allowed(ctx context.Context, host, port string, open []netip.Prefix) ([]netip.Addr, error) {
	addrs, err := d.lookups.of(ctx, host)
	if err != nil {
		return nil, err
	}
	if d.network == nil {
		return addrs, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q is no number up to 65535", port)
	}
	var refused error
	var ok []netip.Addr
	for _, addr := range addrs {
		if err := d.network.Check(netip.AddrPortFrom(addr, uint16(number)), open); err != nil {
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
func race(ctx context.Context, addrs []netip.Addr, port string, by *attempt) (*socket.Conn, error) {
	if len(addrs) == 0 {
		return nil, errors.New("host has no address")
	}
	type dialled struct {
		addr netip.Addr
		conn *socket.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan dialled)
	start := func(addr netip.Addr) {
		conn, err := socket.Dial(ctx, net.JoinHostPort(addr.String(), port))
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
