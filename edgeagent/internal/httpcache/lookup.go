package httpcache

import (
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// use says what may be done with a stored reply, or with one that is being fetched, for one request
// at one moment.
type use struct {
	rfc9111.Verdict
	// Why the reply cannot be used at all, or "".
	refused string
	// Why the origin has to be asked first, or "".
	ask string
	// background: it may be used at once if it is refreshed.
	background bool
}

// The reasons of a use, as explain shows them.
const (
	usePurged   = "purged"
	useReplaced = "replaced in the library"
	useWalk     = "walk changed"
	useStale    = "stale"
	useReload   = "client asks for it anew"
)

// judge decides what q may do with a reply. verdict is the answer of the table of purges.
func judge(q *query, h *objects.Head, m *meta, verdict purges.Verdict) use {
	if verdict == purges.Hard {
		return use{refused: usePurged}
	}
	if sha, in := q.library(); in != m.fromLibrary() || in && sha != m.library {
		return use{refused: useReplaced}
	}
	u := use{Verdict: m.fresh.At(h.ResponseTime, q.now)}
	if verdict == purges.Soft {
		// It counts as stale, whatever its age.
		u.ask = usePurged
		u.OnError = u.OnError && !m.fresh.NoStale && m.fresh.StaleIfError > 0
	}
	if !sameWalk(q, m) {
		u.ask = useWalk
		u.OnError = u.OnError && suppliedBy(q, m.supplier) >= 0
	}
	switch {
	case u.ask != "":
	case !u.Fresh:
		u.ask, u.background = useStale, u.WhileRevalidating && !q.wantsNewer(u.Age)
	case q.reloaded || m.fresh.Immutable:
	case q.wantsNewer(u.Age):
		u.ask = useReload
	}
	return u
}

// sameWalk reports whether the steps up to the supplier are those of the walk that brought the
// reply.
func sameWalk(q *query, m *meta) bool {
	steps := q.Target.Endpoint.Steps
	return m.step < len(steps) && steps[m.step].Version == m.version
}

// supplierStep returns which step of the walk a supplier is, -1 if it has left.
func supplierStep(q *query, s walk.Supplier) int {
	for i, step := range q.Target.Endpoint.Steps {
		if walk.SupplierOf(step.Origin).UID == s.UID {
			return i
		}
	}
	return -1
}

// suppliedBy returns the step of the walk that is still the supplier s, at the same target; -1 for
// none.
func suppliedBy(q *query, s walk.Supplier) int {
	i := supplierStep(q, s)
	if i >= 0 && walk.SupplierOf(q.Target.Endpoint.Steps[i].Origin) != s {
		return -1
	}
	return i
}

// supplierID is the id by which an admin knows a supplier, "" if it has left.
func supplierID(q *query, s walk.Supplier) string {
	switch i := supplierStep(q, s); {
	case i < 0:
		return ""
	case q.Target.Endpoint.Steps[i].Origin == nil:
		return walk.LibraryUID
	default:
		return q.Target.Endpoint.Steps[i].Origin.ID
	}
}

// candidate is the stored reply that a request selects, if there is one.
type candidate struct {
	objects.Entry
	*decoded
	use use
	ok  bool
}

// verdict returns the verdict of the purges on a reply.
func (c *Cache) verdict(h *objects.Head, now time.Time) purges.Verdict {
	return c.cfg.Purges.CheckAsked(&h.Scope, h.Asof, h.RequestTime, now)
}

// find fills in q.best and why an origin would have to be asked.
func (c *Cache) find(q *query) {
	q.best, q.forward = candidate{}, rfc9111.ForwardURIMiss
	q.entries = c.cfg.Store.AppendLookup(q.entries[:0], q.key, q.BeforeDisk)
	for _, e := range q.entries {
		h := e.Head()
		verdict := c.verdict(h, q.now)
		if verdict == purges.Hard {
			c.cfg.Store.Drop(e)
			continue
		}
		if !sameFile(q, h) {
			continue
		}
		d, ok := h.Decoded.(*decoded)
		if !ok {
			c.cfg.Store.Drop(e) // of another version of edgewalk
			continue
		}
		if q.vary == nil {
			q.vary = d.vary
		}
		if !q.selects(h.Selecting) {
			q.forward = rfc9111.ForwardVaryMiss
			continue
		}
		u := judge(q, h, &d.meta, verdict)
		if u.refused != "" {
			q.forward = rfc9111.ForwardURIMiss
			continue
		}
		q.best, q.forward = candidate{Entry: e, decoded: d, use: u, ok: true}, rfc9111.ForwardStale
		if u.ask == useReload {
			q.forward = rfc9111.ForwardRequest
		}
		return
	}
}

// sameFile guards against two files whose keys are equal.
func sameFile(q *query, h *objects.Head) bool {
	t := &q.Target
	return h.Scope.Path == t.File() && h.Scope.Query == t.Query && h.Scope.Endpoint == t.Endpoint.UID &&
		h.Scope.Account == t.Account.UID
}
