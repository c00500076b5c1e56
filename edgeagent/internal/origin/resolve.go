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
	// While DNS gives no answer for a host, the last answer is used for at most lastGoodFor,
	// because an address may belong to somebody else later. DNS is asked again after lookupAgain
	// (RFC 8767 5). If there is a last answer, a lookup may take lookupPatience, so that time is
	// left to connect.
	lastGoodFor    = 3 * 24 * time.Hour
	lookupPatience = 500 * time.Millisecond
	lookupAgain    = 30 * time.Second
	// goneFor is how long the last answer is used after DNS says that the host does not exist,
	// because a zone under repair, or a resolver that cannot reach it, says so too.
	goneFor = 5 * time.Minute
	// maxHosts bounds the hosts whose last answer is kept. When there are more, all are dropped.
	maxHosts = 1 << 14
	// maxOfFamily is how many IPv4 addresses of a host are used, and how many IPv6 ones: each may
	// be connected to for one request.
	maxOfFamily = 16
)

// A lookups resolves hosts, and keeps the answers for when DNS fails. That a host does not exist is
// an answer too: it ends the use of the last one, unless the host soon exists again.
type lookups struct {
	resolver *net.Resolver
	now      func() time.Time

	mu    sync.Mutex
	known map[string]lookup
}

type lookup struct {
	addrs  []netip.Addr
	at     time.Time // when DNS gave them
	failed time.Time // when a lookup failed last since then
	gone   time.Time // since when DNS says that the host does not exist
}

func newLookups(r *net.Resolver, now func() time.Time) *lookups {
	return &lookups{resolver: r, now: now, known: make(map[string]lookup)}
}

// of returns the addresses of host. IPv4 addresses are never in their IPv6-mapped form.
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
	var fours, sixes int
	for _, addr := range found {
		addr = addr.Unmap()
		of := &sixes
		if addr.Is4() {
			of = &fours
		}
		if *of < maxOfFamily && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
			*of++
		}
	}
	l.keep(host, lookup{addrs: addrs, at: now})
	return addrs, nil
}

// failed returns the last answer instead of err, if there is one to use.
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
