package origin

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// maxHealths bounds how many healths are kept, of at most 1 KiB each, or 4 KiB for an origin
	// with several addresses. One that was not used for forgetAfter is dropped.
	maxHealths  = 1 << 14
	forgetAfter = 20 * time.Minute

	// The last error is shown until a success follows, for at most showFor, and for showAnyway even
	// after a success.
	showFor    = 15 * time.Minute
	showAnyway = time.Minute
	maxSummary = 200 // bytes
)

// A health is what the edge knows of the state of one origin: whether it may be asked, how often,
// and at which addresses.
type health struct {
	kind, account, origin string
	now                   func() time.Time
	metrics               *metrics
	duration              func() prometheus.Observer // of its kind
	seed                  maphash.Seed

	mu        sync.Mutex
	asked     time.Time // last
	breaker   guard.Breaker
	failures  guard.Failures
	known     []known
	turns     int // how many probes there were
	retries   guard.Budget
	hedges    guard.Budget
	caps      guard.Caps
	latency   guard.Latency
	addresses guard.Addresses
	failing   bool // the last result was a failure
	failed    time.Time
	failure   string
}

// A healthKey names what a health is about: one target of an origin. The Media Library has one for
// each account, so that no account can open the breaker for others.
type healthKey struct {
	uid, account string
	target       uint64
	site         string // of an origin that asks several
}

// healths holds the healths of the origins that were asked recently.
type healths struct {
	now     func() time.Time
	metrics *metrics
	known   *lru.Cache[healthKey, *health]
	mu      sync.Mutex // held to add one
}

func newHealths(now func() time.Time, m *metrics) *healths {
	known, _ := lru.New[healthKey, *health](maxHealths) // it fails only for a size that is not positive
	return &healths{now: now, metrics: m, known: known}
}

// of returns the health of an origin. An admin's test gets a new one, which is not kept.
func (hs *healths) of(k *kind.Kind, o *topology.Origin, ask *Ask) *health {
	now := hs.now()
	h := hs.find(k, o, ask, now)
	limits := topology.DefaultBreaker
	if o != nil {
		limits = o.Breaker
	}
	h.mu.Lock()
	h.asked = now
	h.breaker.Configure(limits)
	h.mu.Unlock()
	return h
}

func (hs *healths) find(k *kind.Kind, o *topology.Origin, ask *Ask, now time.Time) *health {
	if ask.Test {
		return newHealth(k, o, ask.Account.ID, hs.now, hs.metrics)
	}
	p := healthKey{uid: MediaKind, account: ask.Account.ID}
	if o != nil {
		p = healthKey{uid: o.UID, target: o.Target}
		if k.Site != nil {
			p.site = k.Site(o, ask)
		}
	}
	if found, ok := hs.known.Get(p); ok && !found.unasked(now) {
		return found
	}
	hs.mu.Lock() // of several callers, one adds it
	defer hs.mu.Unlock()
	if found, ok := hs.known.Get(p); ok && !found.unasked(now) {
		return found
	}
	added := newHealth(k, o, ask.Account.ID, hs.now, hs.metrics)
	hs.known.Add(p, added)
	return added
}

// unasked reports whether the origin was not asked for so long that its health can be dropped.
func (h *health) unasked(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Sub(h.asked) >= forgetAfter
}

func newHealth(k *kind.Kind, o *topology.Origin, account string, now func() time.Time, m *metrics) *health {
	h := &health{
		kind: k.Name, account: account, origin: MediaKind, now: now, metrics: m, seed: maphash.MakeSeed(), asked: now(),
		duration: sync.OnceValue(func() prometheus.Observer { return m.duration.WithLabelValues(k.Name) }),
		retries:  guard.RetryBudget(now()), hedges: guard.HedgeBudget(now()),
	}
	if o != nil {
		h.origin = o.ID
	}
	return h
}

// all returns the healths of the origins that were asked recently.
func (hs *healths) all() map[healthKey]*health {
	all, now := make(map[healthKey]*health), hs.now()
	for _, p := range hs.known.Keys() {
		if h, ok := hs.known.Peek(p); ok && !h.unasked(now) {
			all[p] = h
		}
	}
	return all
}

// count returns how many breakers are in a state.
func (hs *healths) count(s guard.State) (n float64) {
	for _, h := range hs.all() {
		h.mu.Lock()
		if h.breaker.State(h.now()) == s {
			n++
		}
		h.mu.Unlock()
	}
	return n
}

// admit returns why the origin may not be asked, nil if it may.
func (h *health) admit() (refusal *Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.breaker.Opened() {
		h.retries.Earn()
		h.hedges.Earn()
		return nil
	}
	now := h.now()
	h.metrics.refusals.WithLabelValues(h.kind, "breaker").Inc()
	left := h.breaker.Left(now)
	detail := fmt.Sprintf("not asked for another %s, the last failure: %s", left.Round(time.Second), h.failure)
	if left == 0 {
		detail = "not asked while the edge finds out whether it is well again; the last failure: " + h.failure
	}
	return &Answer{
		Outcome: Inconclusive, Reason: BreakerOpen, ProxyError: "destination_unavailable", Detail: detail,
		RetryAfter: left,
		Advice:     "repair the origin; the edge asks it again by itself",
	}
}

// A verdict is what an answer says about the health of its origin.
type verdict uint8

const (
	noVerdict verdict = iota // the origin was not asked, or not for long enough
	reached                  // the origin answers, but an admin has something to correct
	begun                    // the head of a file has come; the end of the body shows whether the file does
	healthy
	busy
	broken
)

// patience is how long an origin must have been waited for before a failure counts against it, if
// the caller's deadline has ended the request early because steps before have used the time up.
const patience = time.Second

func verdictOf(k *kind.Kind, o *topology.Origin, a *Answer, took time.Duration) verdict {
	_, firstByte, _ := timeouts(o)
	switch {
	case a.Reason == Unasked, a.Reason == Canceled:
		return noVerdict
	case a.unfinished():
		return begun
	case a.Outcome != Inconclusive:
		return healthy
	case a.Reason == Misconfigured:
		if a.Status != 0 {
			return reached
		}
		return noVerdict
	case k.Operator && a.Status != 0:
		return reached // about one file, or a replica that is behind; neither says that the Media Library is down
	case a.Reason == Busy:
		if a.Status != 0 {
			return busy
		}
		return noVerdict
	case a.hurried && took < min(firstByte, patience):
		return noVerdict
	}
	return broken
}

// report records what came of a client's request that was admitted.
func (h *health) report(k *kind.Kind, o *topology.Origin, ask *Ask, a *Answer, v verdict) {
	var now time.Time
	if v != begun { // what has only begun is counted when it ends
		now = h.now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	failed := v == busy || v == broken
	if failed {
		h.failing, h.failed, h.failure = true, now, summary(a)
	}
	switch {
	case v == noVerdict:
		return
	case a.Unreached:
		h.moved(h.breaker.Unreached(now), guard.Open)
		return
	}
	h.breaker.Reached()
	switch {
	case a.elsewhere: // caused by another host
	case failed:
		if h.failures.Fail(now, h.path(k, ask)) {
			h.breaker.Suspect()
		}
	case v != begun:
		h.failures.Succeed(now)
	}
	if a.hasFile() && !a.elsewhere {
		h.remember(o, ask)
	}
}

// path returns a hash of the file that is asked for, without its query.
func (h *health) path(k *kind.Kind, ask *Ask) uint64 {
	if k.Keyed {
		return maphash.String(h.seed, ask.Object)
	}
	return maphash.String(h.seed, ask.Path)
}

// conclude records the final result of a question.
func (h *health) conclude(a *Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case a.Reason == Unasked, a.unfinished():
	case a.Outcome != Inconclusive:
		h.failing = false
	case a.Reason == Misconfigured, a.Status != 0:
		h.failing, h.failed, h.failure = true, h.now(), summary(a)
	}
}

// finished records that a body has ended well, or was read as far as its reader wanted.
func (h *health) finished() {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = false
	h.failures.Succeed(now)
}

func (h *health) moved(yes bool, to guard.State) {
	if yes {
		h.metrics.transitions.WithLabelValues(h.kind, string(to)).Inc()
	}
}

// summary returns an answer as one line for people.
func summary(a *Answer) string {
	text := string(a.Reason) + ": " + a.Detail
	if len(text) > maxSummary {
		text = strings.ToValidUTF8(text[:maxSummary], "")
	}
	return text
}

// retry reports whether the retry budget allows one more request. cause is a label of the metric.
func (h *health) retry(cause string) bool {
	h.mu.Lock()
	ok := h.retries.Spend(h.now())
	h.mu.Unlock()
	result := "made"
	if !ok {
		result = "over_budget"
	}
	h.metrics.retries.WithLabelValues(h.kind, cause, result).Inc()
	return ok
}

// enter takes a place for a request of a path within the origin's caps. answered and leave release
// it.
func (h *health) enter(path uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	full := h.caps.Enter(path)
	if full == "" {
		return nil
	}
	h.metrics.refusals.WithLabelValues(h.kind, string(full)).Inc()
	if full == guard.PendingCap {
		return errPending
	}
	return errOpen
}

func (h *health) answered(path uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.caps.Answered(path)
}

func (h *health) leave(path uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.caps.Leave(path)
}

// state returns what an admin should know, nil if the origin is well.
func (h *health) state() *topologyv1.OriginState {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	open := h.breaker.State(now) != guard.Closed
	since := now.Sub(h.failed)
	if !open && (h.failed.IsZero() || since >= showAnyway && (!h.failing || since >= showFor)) {
		return nil
	}
	return &topologyv1.OriginState{
		Account: h.account, Origin: h.origin, LastError: h.failure, LastErrorTime: timestamppb.New(h.failed),
		BreakerOpen: open,
	}
}

// Asked returns the origins that were asked, as `{account}/{origin}`, the last asked first, at most
// [topology.MaxReported]. current is as for [Client.States].
func (c *Client) Asked(current func(account, id string) *topology.Origin) []string {
	type asked struct {
		name string
		last time.Time
	}
	var all []asked
	for p, h := range c.healths.all() {
		o := current(h.account, h.origin)
		if h.kind == MediaKind || o == nil || o.UID != p.uid || o.Target != p.target {
			continue
		}
		h.mu.Lock()
		all = append(all, asked{h.account + "/" + h.origin, h.asked})
		h.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b asked) int { return cmp.Or(b.last.Compare(a.last), cmp.Compare(a.name, b.name)) })
	var names []string
	for _, one := range all {
		if len(names) < topology.MaxReported && !slices.Contains(names, one.name) { // once for several sites
			names = append(names, one.name)
		}
	}
	return names
}

// States returns the origins that are not well: first those that are not asked at all, then the
// others, the last failure first. current returns the origin of an account with an id, nil if there
// no longer is one; such are left out.
func (c *Client) States(current func(account, id string) *topology.Origin) []*topologyv1.OriginState {
	var states []*topologyv1.OriginState
	for p, h := range c.healths.all() {
		o := current(h.account, h.origin)
		if h.kind != MediaKind && (o == nil || o.UID != p.uid || o.Target != p.target) {
			continue
		}
		if s := h.state(); s != nil {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b *topologyv1.OriginState) int {
		if a.BreakerOpen != b.BreakerOpen {
			if a.BreakerOpen {
				return -1
			}
			return 1
		}
		return cmp.Or(b.LastErrorTime.AsTime().Compare(a.LastErrorTime.AsTime()),
			cmp.Compare(a.Account, b.Account), cmp.Compare(a.Origin, b.Origin))
	})
	return states[:min(len(states), topology.MaxReported)]
}
