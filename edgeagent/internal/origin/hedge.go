package origin

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
)

// hedge returns after how long without an answer a second address of host is asked too. ok is false
// if there is no other address to ask.
func (h *health) hedge(host string) (after time.Duration, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.latency.P95 <= 0 || h.breaker.Opened() {
		return 0, false
	}
	_, second := h.addresses.Good(host, netip.Addr{}, h.now())
	return h.latency.P95, second
}

// second returns the address to hedge with, if there is one and the budget allows a hedge.
func (h *health) second(host string, first netip.Addr) (netip.Addr, bool) {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	addr, ok := h.addresses.Good(host, first, now)
	if !ok || h.breaker.State(now) != guard.Closed || !h.hedges.Spend(now) {
		return netip.Addr{}, false
	}
	h.metrics.hedges.WithLabelValues(h.kind).Inc()
	return addr, true
}

// took records how long an answer took, if the origin has a second address to hedge with.
func (h *health) took(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addresses.Several() {
		h.latency.Add(d)
	}
}

// stillConnecting is the interval at which a request that may be hedged is checked for being
// connected.
const stillConnecting = 10 * time.Millisecond

// maxAsked is how many addresses one request is sent to, one after the other. Connecting is tried
// at all of them, because the origin sees no request then.
const maxAsked = 3

// reach sends a hop's request. If an address of the origin fails before it answers, the next is
// asked.
func (c *Client) reach(ctx context.Context, k *kind.Kind, h *hop) (*exchange, error) {
	first := h.first
	if h.first = nil; first == nil {
		first = new(attempt)
	}
	var tried []netip.Addr
	for asked := 1; ; asked++ {
		x, failed, err := c.hedged(ctx, k, h, first)
		if err == nil || !h.Own || asked == maxAsked || len(failed) == 0 || ctx.Err() != nil || !addressFault(err) {
			return x, err
		}
		tried = append(tried, failed...)
		to, ok := h.health.other(h.Req.URL.Hostname(), tried)
		if !ok {
			return nil, err
		}
		first = &attempt{to: to}
	}
}

func (h *health) other(host string, tried []netip.Addr) (netip.Addr, bool) {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addresses.Other(host, tried, now)
}

// hedged sends a hop's request, and a second time to another address of its host if the answer is
// later than most. The first answer counts; without one, it returns the addresses that failed.
func (c *Client) hedged(ctx context.Context, k *kind.Kind, h *hop, first *attempt) (*exchange, []netip.Addr, error) {
	host := h.Req.URL.Hostname()
	after, ok := h.health.hedge(host)
	if !ok || !h.Own {
		x, err := c.send(ctx, k, h, first)
		if err == nil && h.Own {
			h.health.took(x.headAt.Sub(x.began))
		}
		return x, first.failed(), err
	}
	type sent struct {
		x   *exchange
		err error
		by  *attempt
	}
	results, began := make(chan sent, 2), time.Now()
	start := func(by *attempt) {
		ctx, cancel := context.WithCancel(ctx)
		by.cancel = cancel
		go func() {
			x, err := c.send(ctx, k, h, by)
			if err != nil {
				cancel()
			}
			results <- sent{x, err, by}
		}()
	}
	start(first)
	timer := time.NewTimer(after)
	defer timer.Stop()
	var second *attempt
	for running := 1; ; {
		select {
		case s := <-results:
			running--
			if s.err != nil && running > 0 {
				continue // the other attempt may succeed
			}
			if running > 0 {
				h.health.hedgeWon(first, second, s.by)
				loser := first
				if s.by == first {
					loser = second
				}
				loser.cancel()
				go func() {
					if late := <-results; late.x != nil {
						late.x.end()
					}
				}()
			}
			if s.err == nil {
				h.health.took(time.Since(began))
			}
			failed := first.failed()
			if second != nil {
				failed = append(failed, second.failed()...)
			}
			return s.x, failed, s.err
		case <-timer.C:
			at := first.address()
			if !at.IsValid() { // it is still connecting, and the dialer tries every address
				timer.Reset(max(after, stillConnecting))
				continue
			}
			if addr, ok := h.health.second(host, at); ok {
				second = &attempt{to: addr}
				running++
				start(second)
			}
		}
	}
}

// An attempt is one sending of a request.
type attempt struct {
	to     netip.Addr         // the address to use; the zero value leaves the choice to the dialer
	cancel context.CancelFunc // releases the attempt's own context, if it has one
	health *health            // of the origin, once it is sent

	mu  sync.Mutex
	at  netip.Addr   // where it is connected to
	bad []netip.Addr // the addresses that failed

	exchange exchange // what came of it
}

// failedAt records an address that failed. It does nothing without an attempt or an address.
func (a *attempt) failedAt(addr netip.Addr) {
	if a == nil || !addr.IsValid() {
		return
	}
	a.health.record(addr, false)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bad = append(a.bad, addr)
}

func (a *attempt) failed() []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.bad)
}

// order records a lookup and returns the addresses in the order in which to try them.
func (a *attempt) order(host string, found []netip.Addr, prefer netip.Addr) []netip.Addr {
	if a == nil {
		return guard.Interleave(found)
	}
	h := a.health
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses.Resolved(host, found)
	return h.addresses.Sort(found, prefer, now)
}

// address returns the address that the attempt is connected to, the zero value before.
func (a *attempt) address() netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at
}

func (a *attempt) setAddress(at netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = at
}

// connected records the address that the attempt is connected to.
func (a *attempt) connected(to netip.Addr) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsValid() {
		a.at = to
	}
}

func (a *attempt) release() {
	if a.cancel != nil {
		a.cancel()
	}
}

// overtook records that winner has answered before the addresses of tried that come before it.
func (a *attempt) overtook(tried []netip.Addr, winner netip.Addr) {
	if a == nil {
		return
	}
	for _, addr := range tried[:max(0, slices.Index(tried, winner))] {
		a.health.record(addr, false)
	}
}

// hedgeWon counts a hedge that was answered first, and records a failure of the address that was
// late.
func (h *health) hedgeWon(first, second, winner *attempt) {
	if winner != second {
		return
	}
	h.metrics.hedgeWins.WithLabelValues(h.kind).Inc()
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses.Fail(first.address(), now)
}
