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
	// While DNS gives no answer for a host, the last one serves, for at most lastGoodFor: an address
	// may be another's by then. The next look-up is made after lookupAgain (RFC 8767 5). One for
	// which there is a last answer gets lookupPatience, so that time is left to connect.
	lastGoodFor    = 3 * 24 * time.Hour
	lookupPatience = 500 * time.Millisecond
	lookupAgain    = 30 * time.Second
	// maxHosts bounds the hosts whose last answer is known. Beyond, all are forgotten.
	maxHosts = 1 << 14
)

// A lookups resolves hosts, and remembers what it found for when DNS fails. That a host does not
// exist is an answer too, and ends what is known of it.
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
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		l.mu.Lock()
		delete(l.known, host)
		l.mu.Unlock()
		return nil, err
	case last.addrs == nil || ctx.Err() != nil:
		return nil, err
	}
	last.failed = l.now()
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
