package origin

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// While DNS gives no answer for a host, the last one serves, for at most lastGoodFor: an
	// address may be another's by then. The next look-up is made after lookupAgain (RFC 8767 5).
	// One for which there is a last answer gets lookupPatience, so that time is left to connect.
	lastGoodFor    = 3 * 24 * time.Hour
	lookupPatience = 500 * time.Millisecond
	lookupAgain    = 30 * time.Second
	// goneFor is how long the last answer serves once DNS says that the host does not exist: a zone
	// that is being repaired, or a resolver that leads nowhere, says so too.
	goneFor = 5 * time.Minute
	// maxHosts bounds the hosts whose last answer is known. Beyond, all are forgotten.
	maxHosts = 1 << 14
)

// A lookups resolves hosts, and remembers what it found for when DNS fails. That a host does not
// exist is an answer too, which ends what is known of it unless it is taken back soon.
type lookups struct {
	resolver *net.Resolver
	now      func() time.Time

	mu    sync.Mutex
	known map[string]lookup
}

type lookup struct {
	addrs  []netip.Addr
	at     time.Time // when DNS gave them
	failed time.Time // when it last gave no answer since
	gone   time.Time // since when it says that there is no such host
}

func newLookups(r *net.Resolver, now func() time.Time) *lookups {
	return &lookups{resolver: r, now: now, known: make(map[string]lookup)}
}

// of returns the addresses of host, IPv4 ones always as such.
func (l *lookups) of(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	now := l.now()
	l.mu.Lock()
	last := l.known[host]
	l.mu.Unlock()
	asking := ctx
	if !last.at.IsZero() && now.Sub(last.at) < lastGoodFor {
		if !last.failed.IsZero() && now.Sub(last.failed) < lookupAgain {
			return last.addrs, nil
		}
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, lookupPatience)
		defer cancel()
	} else {
		last = lookup{}
	}
	found, err := l.resolver.LookupNetIP(asking, "ip", host)
	if err != nil {
		return l.failed(ctx, host, last, err)
	}
	var addrs []netip.Addr
	for _, addr := range found {
		if addr = addr.Unmap(); !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	l.keep(host, lookup{addrs: addrs, at: now})
	return addrs, nil
}

// failed returns the last answer in place of one that did not come, if there is one.
func (l *lookups) failed(ctx context.Context, host string, last lookup, err error) ([]netip.Addr, error) {
	var dns *net.DNSError
	absent, now := errors.As(err, &dns) && dns.IsNotFound, l.now()
	switch {
	case last.addrs == nil || ctx.Err() != nil:
		return nil, err
	case absent && last.gone.IsZero():
		last.gone = now
	case absent && now.Sub(last.gone) >= goneFor:
		l.mu.Lock()
		delete(l.known, host)
		l.mu.Unlock()
		return nil, err
	}
	last.failed = now
	l.keep(host, last)
	return last.addrs, nil
}

func (l *lookups) keep(host string, found lookup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) >= maxHosts {
		clear(l.known)
	}
	l.known[host] = found
}
