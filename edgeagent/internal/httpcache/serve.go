// Package httpcache does what an HTTP cache does with a request: it looks up what is stored, judges
// whether that may be used, revalidates, coalesces, fills and serves ranges, as RFC 9110, 9111,
// 5861 and 9211 say.
//
// It owns the requests from the moment they are located until their reply is known, the walks they
// cause, and what is remembered of walks that found nothing. The rules are rfc9111's, the bytes are
// in objects, the walk is walk's, and writing to clients is edgehttp's.
//
// What always holds: for one variant of one key at most one walk is under way that requests may
// join, unless its reply turns out not to be storable, is stale before its body is there, or hangs
// with the disk; nothing waits for one client's life or speed; no request is answered by a walk
// that a purge it knows of covers, nor by a reply that the walk or the Media Library no longer
// stand for; "nobody has it" is remembered only where every step said so; a body that was cut is
// never stored, nor ended as if it were whole; no file is read into memory whole.
package httpcache

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// Config of a cache.
type Config struct {
	// Store holds the replies. Required; it must outlive the cache.
	Store *objects.Store
	// Purges says which stored replies may not be used. Required.
	Purges *purges.Table
	// Walker finds files. Required.
	Walker *walk.Walker
	// DefaultImage returns the default image or not-found page at a path of an account's Media
	// Library if it can be sent at once. nil: never.
	DefaultImage func(accountUID, path string) (*Image, bool)
	// MaxFills bounds the walks and bodies under way, each of which takes a goroutine, at most 128
	// KiB, a connection and a file; a request beyond is refused with 503. Accounts share them by
	// the rules of package share. Default 2,048.
	MaxFills int
	// MaxRemembered bounds, each, the files that nobody has and the keys whose replies cannot be
	// stored, of which the latest are remembered. Default 65,536.
	MaxRemembered int
	// Now is the clock, default time.Now.
	Now func() time.Time
	// Logger default slog.Default().
	Logger *slog.Logger
	// Registerer for the metrics; nil for none.
	Registerer prometheus.Registerer
}

const (
	defaultMaxFills      = 2048
	defaultMaxRemembered = 65536
)

// Cache is an HTTP cache. Its methods may be called at any time from any goroutine.
type Cache struct {
	cfg     Config
	metrics *metrics

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	running      fills
	fillPlaces   *share.Pool[string]        // places, by account
	clientPlaces *share.Pool[accountClient] // the same places, by who asked first
	putOffs      putOffs
	endings      *memory[*ending]
	misses       *memory[struct{}]

	encodings *encodings

	cuts   rate.Sometimes // bounds the log of bodies that were cut
	untold atomic.Int64   // of those, since the last line

	unreadTime, paceTime time.Duration // the constants, but for tests
}

// New returns a cache. Close it.
func New(cfg Config) (*Cache, error) {
	if cfg.Store == nil || cfg.Purges == nil || cfg.Walker == nil {
		return nil, errors.New("cache needs a store, a table of purges and a walker")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.MaxFills = cmp.Or(cfg.MaxFills, defaultMaxFills)
	cfg.MaxRemembered = cmp.Or(cfg.MaxRemembered, defaultMaxRemembered)
	c := &Cache{cfg: cfg, encodings: newEncodings()}
	c.endings, c.misses = newMemory[*ending](cfg.MaxRemembered), newMemory[struct{}](cfg.MaxRemembered)
	c.cuts.Interval = cutsEvery
	c.fillPlaces, c.clientPlaces = share.NewAccounts(cfg.MaxFills), share.NewClients[accountClient](cfg.MaxFills)
	c.unreadTime, c.paceTime = unreadTime, paceTime
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.metrics = newMetrics(c)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(c.metrics); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close ends every fill, whose readers get an error, and waits until all have ended. The cache must
// not be used any more; bodies from the store stay readable.
func (c *Cache) Close() {
	c.cancel(errClosed)
	c.putOffs.goOn()
	c.wg.Wait()
	if c.cfg.Registerer != nil {
		c.cfg.Registerer.Unregister(c.metrics)
	}
}

// Hit answers a request from the store if that can be done at once: without an origin, and without
// anything that outlives the call or waits for others. It keeps no string of the request, so those
// may lie in memory that is then used again. If it reports false, the request is for [Cache.Serve],
// which may keep all strings, and has its Key. reply is a zero one, or was reset.
func (c *Cache) Hit(r *Request, reply *Reply) bool {
	if reply.query == nil {
		reply.query = new(query)
	}
	q := reply.query
	defer func() {
		clear(q.lines[:cap(q.lines)])
		clear(q.entries)
		kept := q.scratch
		*q = query{}
		q.scratch = kept
	}()
	c.begin(q, r)
	q.shares = true
	c.find(q)
	if !q.best.ok || q.best.use.ask != "" {
		r.Key = q.key
		return false
	}
	return c.stored(q, reply, Hit, rfc9111.CacheStatus{Hit: true}) == nil
}

// maxAttempts bounds how often a request starts over because the reply that it waited for may not
// be used for it. After that it makes its own fill, which nobody joins.
const maxAttempts = 4

// maxAlone bounds how often a request makes its own fill. If even a reply that was fetched for it
// may not be used for it, that is an error.
const maxAlone = 2

// Serve answers a request. It returns when the head of the reply is known, or when ctx ends; ctx
// also ends reads of the body. A request that Stays and makes the walk returns when that has ended:
// without any request that waits for it, a walk has 2 seconds.
func (c *Cache) Serve(ctx context.Context, r *Request) *Reply {
	q := c.newQuery(r)
	q.ctx = ctx
	admitted := false
	for attempts, retries := 0, 0; ; {
		seen := c.running.shard(q.key).seen()
		if r := c.serveStored(q, seen); r != nil {
			return r
		}
		if q.onlyIfCached {
			return q.refuse(http.StatusGatewayTimeout, 0)
		}
		if r := c.serveRemembered(q); r != nil {
			return r
		}
		if !admitted && q.Admit != nil && !q.Admit() {
			return c.overloaded(q)
		}
		admitted = true
		_, _, bypass := c.misses.get(q.key, q.now)
		at, refused := c.join(q, seen, bypass || attempts >= maxAttempts || retries >= maxRetries)
		switch {
		case refused != "":
			c.metrics.refused.WithLabelValues(refused).Inc()
			return c.overloaded(q)
		case at.f == nil:
			retries++
		default:
			r, again := c.await(ctx, q, at)
			if !again {
				return r
			}
			if attempts++; attempts >= maxAttempts+maxAlone {
				return q.refuse(http.StatusBadGateway, 0)
			}
		}
		q.now = c.cfg.Now()
	}
}

// maxRetries bounds how often a request looks in the store again because a fill was removed while
// it looked.
const maxRetries = 1000

// overloadRetry is the Retry-After of a request that is refused because too many fills are under
// way.
const overloadRetry = time.Second

// serveStored answers from the store, if that may be done without asking an origin.
func (c *Cache) serveStored(q *query, seen uint64) *Reply {
	for range maxAttempts {
		c.find(q)
		u := &q.best.use
		if !q.best.ok || u.ask != "" && !u.background {
			return nil
		}
		outcome := Hit
		if u.background {
			outcome = Stale
			if q.onlyIfCached {
				return nil
			}
		}
		r := new(Reply)
		err := c.stored(q, r, outcome, rfc9111.CacheStatus{Hit: true})
		if err == nil {
			if u.background && !c.failing(q) {
				c.refresh(q, seen)
			}
			return r
		}
		// The object was evicted or found corrupt after the lookup; the store has dropped it.
		q.best.ok = false
	}
	return nil
}

// failing reports whether a walk for q's key has failed recently.
func (c *Cache) failing(q *query) bool {
	e, _, ok := c.endings.get(q.key, q.now)
	return ok && !e.definite && e.left(q, q.now) > 0 && c.holds(q, e)
}

var errNotAtOnce = errors.New("the file has to be compressed first")

// stored makes r the answer from q.best.
func (c *Cache) stored(q *query, r *Reply, outcome Outcome, status rfc9111.CacheStatus) error {
	h := q.best.Head()
	status.TTL, status.HasTTL = q.best.use.TTL, true
	a := &q.answer
	*a = answer{} // then field by field: a composite literal would be made on the stack and copied
	a.decoded, a.vals, a.status, a.length = q.best.decoded, q.best.vals, h.Status, h.Length
	a.from, a.verdict, a.cache = r.sourceOf(q.best.Entry, q.BeforeDisk), q.best.use.Verdict, status
	a.withAge, a.outcome = true, outcome
	if !c.compress(q, a, r, original{entry: q.best.Entry}) {
		return errNotAtOnce
	}
	return q.respond(a, r)
}

// serveRemembered answers with the ending of the last walk, if that is still remembered.
func (c *Cache) serveRemembered(q *query) *Reply {
	e, _, ok := c.endings.get(q.key, q.now)
	if !ok {
		return nil
	}
	left := e.left(q, q.now)
	if left <= 0 || e.definite && q.reload || !c.holds(q, e) {
		return nil
	}
	if !e.definite && q.best.ok && q.best.use.OnError {
		return c.staleOnError(q, nil)
	}
	return c.endingReply(q, e, left, rfc9111.CacheStatus{Hit: true, TTL: left.Round(time.Second), HasTTL: true})
}

// staleOnError answers from q.best because the origins cannot be asked (RFC 5861 4); nil if the
// copy is gone.
func (c *Cache) staleOnError(q *query, steps []walk.StepReport) *Reply {
	r := new(Reply)
	status := rfc9111.CacheStatus{
		Forward: rfc9111.ForwardStale, ForwardStatus: answered(steps), Detail: "stale-if-error",
	}
	if c.stored(q, r, Stale, status) != nil {
		return nil
	}
	r.Steps = steps
	return r
}

// overloaded answers a request that may not wait for an origin: from a stale copy, if that may be
// used when there is an error, else with 503.
func (c *Cache) overloaded(q *query) *Reply {
	if q.best.ok && q.best.use.OnError {
		if r := c.staleOnError(q, nil); r != nil {
			return r
		}
	}
	return q.refuse(http.StatusServiceUnavailable, overloadRetry)
}

// refuse answers without a lookup of the file.
func (q *query) refuse(status int, retryAfter time.Duration) *Reply {
	r := &Reply{Status: status, Outcome: Refused, Fields: field.Append(nil, "Cache-Control", noStore)}
	if retryAfter > 0 {
		r.Fields = field.AppendFunc(r.Fields, "Retry-After",
			func(b []byte) []byte { return rfc9111.AppendSeconds(b, retryAfter) })
	}
	q.plain(r, rfc9111.CacheStatus{})
	return r
}
