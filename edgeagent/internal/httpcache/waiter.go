package httpcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// waitAhead is how far past the bytes that have arrived a range may start for its client to wait.
// Requests for later ranges ask the supplier.
const waitAhead = 8 << 20

// await waits for the fill that q has joined and answers with its result. again reports that the
// result is not for q, which has to start over.
func (c *Cache) await(ctx context.Context, q *query, at slot) (r *Reply, again bool) {
	w := waiter{c: c, ctx: ctx, q: q, slot: at}
	defer w.f.leave()
	if !at.joined {
		defer w.f.interims.end() // only after done: the client may be slow to take them
	}
	defer w.done()
	var comes bool
	if at.leads {
		comes = w.lead()
	} else {
		comes = w.wait()
	}
	if !comes {
		w.f.goOn()
		return q.canceled(), false
	}
	if r := &w.f.result; at.leads && r.kind == resultBody {
		q.now = r.head.ResponseTime // a moment ago
	} else {
		q.now = c.cfg.Now()
	}
	q.reloaded = true
	if d := w.f.result.decoded; d != nil && q.vary == nil {
		q.vary = d.vary
	}
	r, again = w.answer()
	if r == nil || r.Stream == nil || w.f.result.kind == resultConfirmed {
		w.f.goOn() // no read of the reply does it
	}
	if again && ctx.Err() != nil {
		return q.canceled(), false
	}
	return r, again
}

func (q *query) canceled() *Reply {
	r := &Reply{Status: http.StatusServiceUnavailable, Outcome: Canceled}
	q.plain(r, rfc9111.CacheStatus{})
	return r
}

// wait waits for the result. It reports false if the client left before. A client that may be gone
// does not count as a user until the result is there.
func (w *waiter) wait() bool {
	defer w.counted(w.onLeave(w.f.removeUser))
	select {
	case <-w.f.comes():
		return true
	case <-w.ctx.Done():
		return false
	}
}

// lead makes the walk. It reports false if the client left meanwhile: the walk goes on then for as
// long as one that no request waits for may, see startGrace, or as other requests wait for it.
func (w *waiter) lead() bool {
	f := w.f
	defer w.counted(w.onLeave(f.removeUser))
	defer func() {
		if !f.isPublished() { // a fault of this program, which ends no request but this one
			f.ended(&walk.Result{Kind: walk.Failed, Status: http.StatusBadGateway})
			f.finish(false)
		}
	}()
	if f.find() {
		f.putOff()
	} else {
		f.finish(false)
	}
	return w.ctx.Err() == nil
}

// counted counts the client as a user of the fill again, if it was taken for gone before stop.
func (w *waiter) counted(stop func() bool) {
	if !stop() {
		w.f.addUser()
	}
}

func (w *waiter) onLeave(f func()) (stop func() bool) {
	if w.q.OnLeave == nil {
		return context.AfterFunc(w.ctx, f)
	}
	return w.q.OnLeave(f)
}

// waiter is a request that waits for a fill, and answers with its result.
type waiter struct {
	c   *Cache
	ctx context.Context
	q   *query
	slot
}

// done tells the fill that the request has opened its reader, or needs none. The fill continues
// when all its requests have called done.
func (w *waiter) done() {
	if w.waits {
		w.waits = false
		w.f.waiting.Done()
	}
}

func (w *waiter) answer() (r *Reply, again bool) {
	switch w.f.result.kind {
	case resultBody:
		return w.body()
	case resultPass:
		return w.pass()
	case resultConfirmed:
		return w.confirmed()
	default:
		return w.ending()
	}
}

// fits reports whether q may have the reply: it is the variant that q selects, its walk is still
// the same, and no purge that q knows of covers it.
func (w *waiter) fits() bool {
	q, res := w.q, &w.f.result
	if !q.selects(res.head.Selecting) {
		q.vary = res.vary
		return false
	}
	return !w.joined || w.f.current(q, &res.head, &res.decoded.meta)
}

// status is the Cache-Status of a request that an origin was asked for.
func (w *waiter) status() rfc9111.CacheStatus {
	res := &w.f.result
	s := rfc9111.CacheStatus{Forward: w.f.forward, Collapsed: w.joined, Detail: res.detail}
	if res.detail == "" {
		v := res.fresh.At(res.head.ResponseTime, w.q.now)
		s.Stored, s.TTL, s.HasTTL = res.object == nil || res.object.Keeping(), v.TTL, true
	}
	return s
}

// reply returns the common part of the answers from a fill's head.
func (w *waiter) reply(from source, length int64, status int, outcome Outcome) *answer {
	res := &w.f.result
	a := &w.q.answer
	*a = answer{
		decoded: res.decoded, status: res.head.Status, vals: res.vals, length: length, from: from,
		verdict: res.fresh.At(res.head.ResponseTime, w.q.now), cache: w.status(), answered: status,
		outcome: outcome, steps: res.walk.Steps,
	}
	return a
}

// confirmed answers from the stored reply that a supplier has confirmed.
func (w *waiter) confirmed() (r *Reply, again bool) {
	// A reply that may no longer be stored is only for the client whose request the supplier has
	// seen, and for clients with the same fields.
	if !w.fits() || w.f.result.detail != "" && !sameHeader(w.q.header(), w.f.first.Header) {
		return nil, true
	}
	r = new(Reply)
	a := w.reply(r.sourceOf(w.f.result.entry, nil), w.f.result.entry.Head().Length, http.StatusNotModified, Revalidated)
	a.withAge = true
	w.c.compress(w.q, a, r, original{entry: w.f.result.entry})
	return r, w.q.respond(a, r) != nil
}

// body answers from the reply that is being stored.
func (w *waiter) body() (*Reply, bool) {
	if !w.fits() {
		return nil, true
	}
	res := &w.f.result
	outcome := Miss
	if w.joined {
		outcome = Coalesced
	}
	w.q.ofFill = fillSource{w.ctx, w.f}
	a := w.reply(&w.q.ofFill, res.head.Length, res.head.Status, outcome)
	a.fleeting = !w.f.survives()
	start, err := w.measure(a)
	if err != nil {
		return nil, true
	}
	if start != nil {
		defer start.Close() // once the reply has a reader of its own
	}
	parts, _ := w.q.parts(a)
	if r := w.ahead(a, parts); r != nil {
		return r, false
	}
	inOrder := slices.IsSortedFunc(parts, func(a, b rfc9111.ByteRange) int { return cmp.Compare(a.Start, b.Start) })
	if !inOrder && !res.object.Keeping() {
		w.q.rang = "" // what is not stored goes by once
	}
	r := new(Reply)
	w.c.compress(w.q, a, r, original{fill: w.f})
	return r, w.q.respond(a, r) != nil
}

// wholeAhead is how many bytes of a file of unknown length a range waits for that is all of it. It
// can also be answered with 200, and the same bytes.
const wholeAhead = 64 << 10

// measure waits until a range of a file of unknown length can be answered: until the file or the
// range has come, but for no more bytes than any range may wait for. A file that is not stored goes
// on only as far as it is read, so that all of it may have to be sent. start is a reader that keeps
// what has come; nil if it did not wait.
func (w *waiter) measure(a *answer) (start *objects.Reader, err error) {
	specs := w.q.ranges(a)
	if a.length >= 0 || len(specs) == 0 || w.q.cond.Evaluate(a.vals, w.q.now) != rfc9111.Proceed {
		return nil, nil
	}
	if start, err = w.f.result.object.Reader(w.ctx, 0); err != nil {
		return nil, err
	}
	enough := int64(waitAhead)
	if last, ok := lastOf(specs); ok {
		enough = min(enough, last+1)
	} else if len(specs) == 1 && specs[0] == (rfc9111.RangeSpec{First: 0, Last: -1}) {
		enough = wholeAhead
	}
	w.done()
	w.f.goOn()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	defer w.onLeave(cancel)()
	size, ended, err := w.f.result.object.Await(ctx, enough)
	if ended {
		a.length = size
	}
	a.arrived = size
	if ctx.Err() != nil && w.ctx.Err() == nil {
		err = nil // it answers with the bytes that have come
	}
	if err != nil {
		start.Close()
		return nil, err
	}
	return start, nil
}

// ahead answers a range, if it is the only one, that starts so far past what has arrived that its
// client would wait for long. It asks the supplier, and does not store the part. nil if that is not
// needed, or the supplier does not give the part.
func (w *waiter) ahead(a *answer, parts []rfc9111.ByteRange) *Reply {
	if len(parts) != 1 || w.q.cond.Evaluate(a.vals, w.q.now) != rfc9111.Proceed {
		return nil
	}
	if size, _ := w.f.result.object.Progress(); parts[0].Start <= size+waitAhead {
		return nil
	}
	return w.fromSupplier(a, parts[0])
}

// fromSupplier asks the supplier for one part of the file; nil if it does not give exactly that.
func (w *waiter) fromSupplier(a *answer, span rfc9111.ByteRange) *Reply {
	w.done() // other requests do not wait for this round trip
	ask := walk.Conditions{Range: fmt.Sprintf("bytes=%d-%d", span.Start, span.Start+span.Length-1)}
	if rfc9111.IsStrong(a.vals.ETag) {
		ask.IfRange = a.vals.ETag
	}
	places, refused := w.c.place(w.q)
	if refused != "" {
		return nil
	}
	req := w.f.first.Request.Request
	req.Header = w.q.header() // with its own credentials, not those of the request that started the fill
	req.OnInterim = nil
	res := w.c.cfg.Walker.From(w.ctx, &req, a.supplier, ask)
	if res.Kind != walk.Found {
		w.c.release(places)
		return nil
	}
	c := w.c // so that w does not escape to the heap, where most waiters have no need to be
	body := &placedBody{res.Response.Body, sync.OnceFunc(func() { c.release(places) })}
	got, size, ok := contentRange(res.Response)
	same := res.Response.Header.Get("Etag") == a.vals.ETag &&
		res.Response.Header.Get("Last-Modified") == a.vals.LastModified
	if !ok || got != span || size >= 0 && size != a.length || !same {
		body.Close()
		return nil
	}
	a.cache = rfc9111.CacheStatus{Forward: rfc9111.ForwardPartial, ForwardStatus: http.StatusPartialContent}
	r := &Reply{Status: http.StatusPartialContent, Length: span.Length, Outcome: Passed, Steps: a.steps}
	r.setBody(part{stream: body, closer: body})
	r.Supplier = supplierID(w.q, a.supplier)
	r.Fields = w.q.appendHead(nil, a, partialContent)
	r.Fields = field.AppendFunc(r.Fields, "Content-Range",
		func(b []byte) []byte { return span.AppendContentRange(b, a.length) })
	return r
}

// placedBody is the body of a fill for one client; closing it releases the fill's place.
type placedBody struct {
	io.ReadCloser
	release func()
}

func (b *placedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// pass answers with the body of a reply that is not stored, if q may have it.
func (w *waiter) pass() (*Reply, bool) {
	res := &w.f.result
	if !w.fits() || !w.f.claim(w.q) {
		return nil, true
	}
	src := &passSource{f: w.f, body: res.pass.Body}
	w.done()
	a := w.reply(src, res.head.Length, res.head.Status, Passed)
	switch parts, _ := w.q.parts(a); {
	case len(parts) > 1:
		w.q.rang = "" // reading the body once cannot give several parts in any order
	case len(parts) == 1 && parts[0].Start > waitAhead:
		if r := w.fromSupplier(a, parts[0]); r != nil {
			src.finish()
			return r, false
		}
	}
	r := new(Reply)
	err := w.q.respond(a, r)
	if !src.opened {
		src.finish()
	}
	return r, err != nil
}

// ending answers when no step has the file, or some step did not answer.
func (w *waiter) ending() (*Reply, bool) {
	q, e := w.q, w.f.result.ending
	if errors.Is(context.Cause(w.f.ctx), errAbandoned) {
		return q.canceled(), false // the client may be gone, and there were no others
	}
	if w.joined && !w.c.holds(q, e) {
		return nil, true
	}
	steps := w.f.result.walk.Steps
	if !e.definite && q.best.ok && q.best.use.OnError {
		r := w.c.staleOnError(q, steps)
		return r, r == nil
	}
	r := w.c.endingReply(q, e, e.left(q, w.c.cfg.Now()), rfc9111.CacheStatus{
		Forward: w.f.forward, ForwardStatus: answered(steps), Collapsed: w.joined,
	})
	r.Steps = steps
	return r, false
}

// fillSource is the body of a fill.
type fillSource struct {
	ctx context.Context // of the request that reads
	f   *fill
}

func (s *fillSource) open(offset, length int64) (part, error) {
	body := &fillBody{f: s.f, rest: length}
	if err := s.f.result.object.Follow(s.ctx, &body.reader, offset); err != nil {
		return part{}, err
	}
	// Of what has come, the last byte cannot be read before the file is stored.
	if size, _ := s.f.result.object.Progress(); size <= offset+1 {
		s.f.goOn() // so that more comes
	}
	s.f.addUser()
	if length == 0 {
		body.rest = -1 // the reader of an empty body too waits until it is stored
	}
	return part{stream: body, closer: body}, nil
}

// fillBody reads the body of a fill while it comes. rest is negative if it reads to the end.
type fillBody struct {
	reader objects.Reader
	f      *fill
	rest   int64
	begun  bool // something was read
	closed bool
}

func (b *fillBody) Read(p []byte) (int, error) {
	if b.rest == 0 {
		return 0, io.EOF
	}
	if b.rest > 0 {
		p = p[:min(int64(len(p)), b.rest)]
	}
	if b.begun {
		b.f.goOn() // what had come with the head was sent
	}
	b.begun = true
	n, err := b.reader.Read(p)
	if b.rest > 0 {
		b.rest -= int64(n)
	}
	return n, err
}

// Lend returns the beginning of the body, if that has come, and can be sent from where it is until
// the body is closed.
func (b *fillBody) Lend() []byte {
	if b.begun || b.rest < 0 {
		return nil
	}
	p := b.reader.Lend(b.rest)
	b.begun = len(p) > 0
	b.rest -= int64(len(p))
	return p
}

func (b *fillBody) Close() error {
	if b.closed {
		return os.ErrClosed
	}
	b.closed = true
	b.f.goOn()
	err := b.reader.Close()
	b.f.leave()
	return err
}

// passSource is a body that one client gets and that is not stored. It is opened once.
type passSource struct {
	f      *fill
	body   io.ReadCloser
	opened bool
	done   bool
}

func (s *passSource) open(offset, length int64) (part, error) {
	if s.opened {
		return part{}, errors.New("body is opened twice")
	}
	if _, err := io.CopyN(io.Discard, s.body, offset); err != nil {
		return part{}, err
	}
	s.opened = true
	body := &passBody{passSource: s, rest: length}
	return part{stream: body, closer: body}, nil
}

// finish makes the fill end.
func (s *passSource) finish() {
	if !s.done {
		s.done = true
		s.body.Close()
		close(s.f.passed)
		s.f.goOn()
	}
}

type passBody struct {
	*passSource
	rest  int64
	begun bool // something was read
}

func (b *passBody) Read(p []byte) (int, error) {
	if b.rest == 0 {
		return 0, io.EOF
	}
	if b.rest > 0 {
		p = p[:min(int64(len(p)), b.rest)]
	}
	if b.begun {
		b.f.goOn()
	}
	b.begun = true
	n, err := b.body.Read(p)
	b.f.carried.Add(int64(n))
	if b.rest > 0 {
		if b.rest -= int64(n); b.rest > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

func (b *passBody) Close() error {
	if b.done {
		return os.ErrClosed
	}
	b.finish()
	return nil
}
