package httpcache

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// fill is one walk for one variant of one key, and what comes of it. Any number of requests join
// it. A fill belongs to none of its requests, and continues when they leave.
//
// find makes the walk and publishes the result: it sets result, and then published, once. If it
// can, the request that the fill was started for calls it, because that is quicker than to wake
// another goroutine and to be woken by it. What is left to do then has a goroutine of its own: to
// copy a body from the origin to the store, while the requests read what has arrived.
type fill struct {
	c      *Cache
	ctx    context.Context
	cancel context.CancelCauseFunc
	places places

	key     objects.Key
	first   query     // the request it was started for, as it was then
	asked   Request   // of first
	stored  candidate // what is being revalidated, if ok
	forward rfc9111.Forward
	vary    []string // selecting names known at the start
	solo    bool     // nobody else may join
	onDisk  bool     // it began while the disk answered
	// background: the fill refreshes a reply that is in use, whether or not a request waits for it.
	background bool
	interims   interims
	published  atomic.Bool    // the result is set
	passed     chan struct{}  // of a body that is not stored; closed when that was read
	waiting    sync.WaitGroup // requests that waited for the result and have not taken what they need

	// carried are the bytes of the body that have come.
	carried  atomic.Int64
	carryErr error   // how the beginning of the body ended, which came with the head
	last     [1]byte // where the end of a body is read that has come whole

	// result is set before published, and not changed after. Only the walk looks at it before.
	result result
	kept   kept // the memory of result.decoded

	mu sync.Mutex
	// awaited is closed when the result is published; nil while no request has waited for that.
	awaited chan struct{}
	// users are the requests that wait for the fill or read from it.
	users int
	// claimed: a request has taken the body of a reply that is not stored.
	claimed bool
	// spare is how many more bytes may be carried while there are no users.
	spare int64
	// later: what is left to do was put off, see putOff.
	later bool
	// over: nothing is left to do.
	over bool
	// alone runs while there are no users. It has periods left, the last of which began when seen
	// bytes had come.
	alone   *time.Timer
	periods int
	seen    int64
}

type resultKind uint8

const (
	// resultBody: a reply that goes to the store, and to any number of requests while it comes.
	resultBody resultKind = iota
	// resultPass: a reply that may not be stored, for one request.
	resultPass
	// resultConfirmed: the stored reply is still good; head and meta are its new ones.
	resultConfirmed
	// resultEnding: no step has the file, or some step did not answer.
	resultEnding
)

// result is what a fill has brought.
type result struct {
	kind     resultKind
	object   *objects.Fill
	head     objects.Head // of a body, or of a confirmed one
	*decoded              // of the head
	pass     *origin.Response
	entry    objects.Entry
	ending   *ending
	walk     *walk.Result
	detail   string // why a reply is not stored
}

// fills is the register of those that requests may join, in shards.
type fills [64]fillShard

type fillShard struct {
	mu    sync.Mutex
	byKey map[objects.Key][]*fill
	// removals counts the fills that were removed from the register, after what they brought was
	// stored or remembered. A request that looked in the store before, and finds no fill now, has
	// to look there again.
	removals uint64
}

func (f *fills) shard(k objects.Key) *fillShard { return &f[k[15]%64] }

func (s *fillShard) seen() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removals
}

var (
	errAbandoned = errors.New("nobody reads the reply any more")
	errClosed    = errors.New("cache is closed")
)

// slot is one request's place in a fill.
type slot struct {
	f *fill
	// joined: the fill was started for another request.
	joined bool
	// leads: the request has to make the walk.
	leads bool
	// waits: after it has published its result, the fill does not go on until the request has taken
	// what it needs, or has left.
	waits bool
}

// Why a request is refused that needs an origin.
const (
	refusedFills   = "fills"             // as many are under way as may be
	refusedAccount = "fills_per_account" // the account has its share of them
	refusedClient  = "fills_per_client"  // the client has its share of them
	refusedWaiters = "waiters"           // as many wait for the file as may
)

// maxWaiters is how many requests may wait for the result of one fill.
const maxWaiters = 4096

// join adds q to the running fill for its key, or starts one. If neither is possible, refused says
// why; if refused is empty, q should look in the store again.
func (c *Cache) join(q *query, seen uint64, solo bool) (at slot, refused string) {
	s := c.running.shard(q.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !solo {
		for _, f := range s.byKey[q.key] {
			switch waits, crowded, ok := f.accepts(q); {
			case crowded:
				return slot{}, refusedWaiters
			case ok:
				return slot{f: f, joined: true, waits: waits}, ""
			}
		}
		if s.removals != seen {
			return slot{}, ""
		}
	}
	f, refused := c.newFill(q, solo)
	if f == nil {
		return slot{}, refused
	}
	f.users++
	f.waiting.Add(1)
	f.interims.pass = q.Interim
	c.register(f, s)
	if !q.Stays {
		go f.run()
	}
	return slot{f: f, leads: q.Stays, waits: true}, ""
}

// refresh starts a fill that no request waits for, unless one for the same reply is running, or
// ended after q looked in the store.
func (c *Cache) refresh(q *query, seen uint64) {
	s := c.running.shard(q.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removals != seen {
		return
	}
	for _, f := range s.byKey[q.key] {
		if f.matches(q) {
			return
		}
	}
	if f, _ := c.newFill(q, false); f != nil {
		f.background = true
		f.users++ // never abandoned: the reply is in use
		c.register(f, s)
		go f.run()
	}
}

// accountClient is a client as one of an account's.
type accountClient struct {
	account string
	client  netip.Addr
}

// places are what a fill takes of its client's share and of its account's.
type places struct{ client, account *share.Held }

// place takes places for a fill, or says why there are none. The caller releases them.
func (c *Cache) place(q *query) (at places, refused string) {
	by := accountClient{q.Target.Account.UID, q.Holder}
	ofClient, verdict := c.clientPlaces.Take(by, 0)
	switch verdict {
	case share.Full:
		return places{}, refusedFills
	case share.OverShare:
		return places{}, refusedClient
	}
	ofAccount, verdict := c.fillPlaces.Take(by.account, q.Target.Account.MaxFills)
	if verdict != share.Taken {
		c.clientPlaces.Release(ofClient)
		return places{}, refusedAccount
	}
	return places{ofClient, ofAccount}, ""
}

func (c *Cache) release(at places) {
	c.fillPlaces.Release(at.account)
	c.clientPlaces.Release(at.client)
}

// newFill returns nil and why, if no more may run.
func (c *Cache) newFill(q *query, solo bool) (f *fill, refused string) {
	places, refused := c.place(q)
	if refused != "" {
		return nil, refused
	}
	f = &fill{
		c: c, places: places, key: q.key, forward: q.forward, vary: q.vary, solo: solo,
		onDisk: !c.cfg.Store.Hung(),
	}
	// The fill outlives the request, so it shares no memory with it.
	own, asked := &f.first, &f.asked
	asked.Method, asked.Request = http.MethodGet, q.Request.Request
	asked.Header, asked.OnInterim = q.header(), f.interims.add
	own.Request, own.key, own.policy, own.now, own.sent = asked, q.key, q.policy, q.now, asked.Header
	if q.best.ok {
		f.stored = q.best
	}
	f.ctx, f.cancel = context.WithCancelCause(c.ctx)
	if parent := trace.SpanContextFromContext(q.ctx); parent.IsValid() {
		f.ctx = trace.ContextWithRemoteSpanContext(f.ctx, parent)
	}
	return f, ""
}

// register adds a fill to the register. Callers hold the shard's lock, and see to it that find and
// then finish are called.
func (c *Cache) register(f *fill, s *fillShard) {
	c.wg.Add(1)
	if f.solo {
		return
	}
	if s.byKey == nil {
		s.byKey = make(map[objects.Key][]*fill)
	}
	s.byKey[f.key] = append(s.byKey[f.key], f)
}

// run makes the walk and does what is left to do then.
func (f *fill) run() { f.finish(f.find()) }

// finish does what is left to do, if more is, and gives back what the fill holds.
func (f *fill) finish(more bool) {
	if more {
		f.rest()
	}
	f.mu.Lock()
	f.over = true
	if f.alone != nil {
		f.alone.Stop()
	}
	f.mu.Unlock()
	f.cancel(nil)
	f.c.release(f.places)
	f.c.wg.Done()
}

// growStack makes room on a goroutine's stack for a walk or a commit. Otherwise the stack grows
// several times on the way, and what is on it by then is copied each time. What makes the room is
// the size of this function's frame, of which it uses nothing.
//
//go:noinline
func growStack(use bool) { // use is false; the compiler does not know
	if use {
		var room [12 << 10]byte
		runtime.KeepAlive(&room)
	}
}

// unregister removes the fill from the register. By then the store, or a memory, holds what it
// brought.
func (f *fill) unregister() {
	s := f.c.running.shard(f.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removals++
	list := s.byKey[f.key]
	for i, other := range list {
		if other == f {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(s.byKey, f.key)
	} else {
		s.byKey[f.key] = list
	}
}

// matches reports whether the fill may bring what q asks for: no purge covers its walk that q knows
// of, q's walk and its Media Library are the same, and as far as is known it brings q's variant.
// Whether it did is known once its result is published.
func (f *fill) matches(q *query) bool {
	if f.isPublished() {
		h := &f.result.head
		return f.result.kind == resultBody && f.ctx.Err() == nil && q.selects(h.Selecting) &&
			f.current(q, h, &f.result.meta)
	}
	scope := f.first.scope()
	if f.c.cfg.Purges.CheckAsked(&scope, f.first.Revision, f.first.now, f.c.cfg.Now()) != purges.None ||
		f.first.walkVersion() != q.walkVersion() {
		return false
	}
	sha, in := q.library()
	if was, wasIn := f.first.library(); in != wasIn || sha != was {
		return false
	}
	names := q.vary
	if names == nil {
		names = f.vary
	}
	if names == nil && !in {
		names = q.forwarded()
	}
	return sameVariant(names, q.field, f.first.field)
}

// current reports whether what the fill has brought may be used for q, though q may have come when
// it was under way.
func (f *fill) current(q *query, h *objects.Head, m *meta) bool {
	verdict := f.c.verdict(h, f.c.cfg.Now())
	u := judge(q, h, m, verdict)
	return u.refused == "" && verdict == purges.None && u.ask != useWalk
}

// outdated reports whether the fill has brought a reply that may not be used for q from the store
// either, because its body took longer than it is fresh. Requests that waited for it may have it
// (RFC 9111 4).
func (f *fill) outdated(q *query) bool {
	return f.isPublished() && judge(q, &f.result.head, &f.result.meta, purges.None).ask != ""
}

// mayHang reports whether the fill may wait for a disk that does not answer.
func (f *fill) mayHang() bool { return f.onDisk && f.c.cfg.Store.Hung() }

// accepts adds q to the fill if that matches. crowded reports that the fill has as many waiting
// requests as it may have.
func (f *fill) accepts(q *query) (waits, crowded, ok bool) {
	if f.mayHang() || !f.matches(q) || f.outdated(q) {
		return false, false, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users == 0 && f.spare < 0 {
		return false, false, false // being given up
	}
	waits = !f.isPublished()
	if waits && f.users >= maxWaiters {
		return false, true, false
	}
	f.users++
	if f.alone != nil {
		f.alone.Stop()
	}
	if waits {
		f.waiting.Add(1)
	}
	return waits, false, true
}

func (f *fill) isPublished() bool { return f.published.Load() }

// comes returns a channel that is closed when the result is published.
func (f *fill) comes() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaited == nil {
		f.awaited = make(chan struct{})
		if f.isPublished() {
			close(f.awaited)
		}
	}
	return f.awaited
}

// publish wakes the requests that wait for the result. Unless the result is a body, publish first
// removes the fill from the running ones: its result is in the store or in a memory, where later
// requests find it.
func (f *fill) publish() {
	if f.result.kind != resultBody {
		f.unregister()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published.Store(true)
	if f.awaited != nil {
		close(f.awaited)
	}
}

// addUser adds a user to a fill that has one.
func (f *fill) addUser() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
}

// leave removes one request, and gives the fill up if no other one needs it.
func (f *fill) leave() {
	f.removeUser()
	if f.isPublished() && f.result.kind == resultBody {
		f.giveUp()
	}
}

// removeUser removes one request.
func (f *fill) removeUser() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 {
		f.startGrace()
	}
}

// spareBytes is how much of a file is fetched without any reader, once the fetch has started:
// another client is likely to want a small file that one impatient client asked for.
const spareBytes = 2 << 20

// giveUp ends a fill without users, unless so little is missing that it is better finished: at most
// 2 MiB, or no more than has arrived. Otherwise anybody could make the edge fetch large files by
// asking and leaving.
func (f *fill) giveUp() {
	size, ended := f.result.object.Progress()
	spare := max(spareBytes, size)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users > 0 || ended {
		return
	}
	if length := f.result.head.Length; length >= 0 && length-size > spare {
		spare = -1
	}
	if f.spare = spare; spare < 0 {
		f.cancel(errAbandoned)
		return
	}
	f.startGrace() // the time limits of the body begin
}

// survives reports whether the body will be carried to its end although one user leaves.
func (f *fill) survives() bool {
	size, _ := f.result.object.Progress()
	f.mu.Lock()
	defer f.mu.Unlock()
	length := f.result.head.Length
	return f.users > 1 || length >= 0 && length-size <= max(spareBytes, size)
}

// carry accounts for n bytes that were carried and reports whether to go on.
func (f *fill) carry(n int) bool {
	f.carried.Add(int64(n))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users > 0 {
		return true
	}
	f.spare -= int64(n)
	return f.spare >= 0
}

// claim takes the body of a reply that is not stored, for one request that origins would see
// exactly like the first.
func (f *fill) claim(q *query) bool {
	if !sameHeader(q.header(), f.first.Header) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.claimed {
		return false
	}
	f.claimed = true
	return true
}
