package origin

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// maxKnown is how many files an origin is probed with: the first that it had, which no client can
// displace, and the last ones. maxForgiven is how many failures in a row are allowed for one of
// them.
const (
	maxKnown    = 2
	maxForgiven = 4
)

// A known is a file that the edge probes with, because the origin had it.
type known struct {
	file   Request // without the account, which would keep a whole topology in memory
	sha    [8]byte // of a file of the Media Library
	failed int     // probes in a row
}

// is reports whether an ask is for the known file.
func (k *known) is(ask *Ask) bool {
	return k.file.Path == ask.Path && k.file.Query == ask.Query && k.file.Object == ask.Object &&
		k.file.Host == ask.Host
}

// forKey returns the request for an object by its key.
func forKey(a *topology.Account, key string) *Request {
	return &Request{Target: topology.Target{Account: a, Object: key, ObjectOK: true}}
}

// prober runs the probes, which end with the client.
type prober struct {
	life context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	closed bool
	done   sync.WaitGroup
}

func newProber() *prober {
	a := new(prober)
	a.life, a.stop = context.WithCancel(context.Background())
	return a
}

func (a *prober) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.stop()
	a.done.Wait()
}

func (a *prober) run(f func(ctx context.Context)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.done.Go(func() { f(a.life) })
	return true
}

// isPlain reports whether the answer depends on no field of the client that o lists.
func isPlain(a *Ask, o *topology.Origin) bool {
	if o != nil {
		for _, name := range Forwarded(o) {
			if len(a.Header[name]) > 0 {
				return false
			}
		}
	}
	return true
}

// remember keeps a file that the origin had for probes. The caller holds h.mu.
func (h *health) remember(o *topology.Origin, ask *Ask) {
	if !isPlain(ask, o) || slices.ContainsFunc(h.known, func(k known) bool { return k.is(ask) }) {
		return
	}
	if len(h.known) == maxKnown {
		h.known = h.known[:maxKnown-1]
	}
	file := Request{Revision: ask.Revision, Epoch: ask.Epoch, Target: topology.Target{
		Host: ask.Host, Path: ask.Path, Query: ask.Query, Object: ask.Object, ObjectOK: ask.ObjectOK,
	}}
	h.known = append(h.known, known{file: file, sha: ask.Library})
}

// probe returns what to probe with: probe_key, or else a file that the origin had, the last one and
// the first one in turn. If there is none, sure is false: any answer, to its root or a random key,
// shows only that the origin can be reached. The caller holds h.mu.
func (h *health) probe(k *kind.Kind, o *topology.Origin, ask *Ask) (q Ask, sure bool) {
	h.turns++
	probe := ""
	if o != nil && k.Site == nil {
		probe = o.Spec.GetProbeKey()
	}
	path, err := topology.CanonicalPath((&url.URL{Path: "/" + probe}).EscapedPath())
	var r Request
	switch {
	case probe != "" && (k.Keyed || err == nil):
		r.Host, r.Path, r.Object, r.ObjectOK, sure = ask.Host, path, probe, true, true
	case len(h.known) > 0:
		file := &h.known[len(h.known)-1-h.turns%len(h.known)]
		r, q.Library, sure = file.file, file.sha, true
	case k.Site != nil:
		r.Host, r.Path = ask.Host, "/"+k.Site(o, ask)+"/"
	default:
		r.Host, r.Object, r.ObjectOK = ask.Host, randomKey(k), true
	}
	r.Account, q.Request, q.Range = ask.Account, &r, "bytes=0-0"
	return q, sure
}

// startProbe starts a probe if one is due, and reports whether it did. done is closed when the
// probe has ended.
func (c *Client) startProbe(k *kind.Kind, o *topology.Origin, ask *Ask, h *health) (done <-chan struct{}, asked bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ask.Test || !h.breaker.MayBeDue() {
		return nil, false
	}
	now := h.now()
	if !h.breaker.Due(now) {
		return nil, false
	}
	q, sure := h.probe(k, o, ask)
	if !sure && !h.breaker.Opened() {
		h.breaker.ClearSuspicion() // nothing could confirm it
		return nil, false
	}
	ended := make(chan struct{})
	if !c.prober.run(func(ctx context.Context) {
		defer close(ended)
		connect, firstByte, _ := timeouts(o)
		q.Deadline = time.Now().Add(connect + firstByte)
		a, _ := c.try(ctx, k, o, &q, h)
		if a.Response != nil {
			a.Response.Body.Close()
		}
		h.probed(&q, a, sure)
	}) {
		return nil, false
	}
	h.moved(h.breaker.Opened(), guard.HalfOpen)
	h.breaker.Begin(now)
	return ended, true
}

// awaitProbe starts the probe that is due, waits for its end, and reports whether it has ended.
// Requests that come while a probe runs do not wait for it.
func (c *Client) awaitProbe(ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, h *health) bool {
	done, mine := c.startProbe(k, o, ask, h)
	if !mine {
		return false
	}
	var late <-chan time.Time
	if !ask.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(ask.Deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-late:
	}
	return false
}

// probed records the result of a probe.
func (h *health) probed(q *Ask, a *Answer, sure bool) {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &h.breaker
	b.End()
	if a.Reason == Canceled || a.Status == 0 && a.Reason == Busy {
		b.Postpone(now)
		return
	}
	// A breaker that opened because the origin could not be reached closes when the origin answers
	// at all: what it answers is about one file.
	answered := a.Outcome != Inconclusive || a.Reason == Misconfigured || a.elsewhere ||
		!a.Unreached && (!sure || !b.Suspected())
	i := slices.IndexFunc(h.known, func(k known) bool { return k.is(q) })
	if answered {
		if i >= 0 {
			h.known[i].failed = 0
		}
		h.failures = guard.Failures{}
		h.moved(b.Close(now), guard.Closed)
		return
	}
	if i >= 0 && !a.Unreached {
		if h.known[i].failed++; h.known[i].failed >= maxForgiven {
			h.known = slices.Delete(h.known, i, i+1) // perhaps the file is broken, and not the origin
		}
	}
	h.failing, h.failed, h.failure = true, now, summary(a)
	h.moved(b.Confirm(now, a.RetryAfter), guard.Open)
}

// hasFile reports whether an answer is the file itself.
func (a *Answer) hasFile() bool {
	switch a.Status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusPartialContent:
		return a.Outcome == Found
	}
	return false
}
