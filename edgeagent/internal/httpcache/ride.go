package httpcache

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// waitAhead is how far past what has arrived a range may start and still wait for it; others ask the supplier.
const waitAhead = 8 << 20

// ride waits for the flight that q has boarded and answers with what it brings. again says that this was not for q, which
// has to start over.
func (c *Cache) ride(ctx context.Context, q *query, at seat) (r *Reply, again bool) {
	t := trip{c: c, ctx: ctx, q: q, seat: at}
	defer t.f.leave()
	defer t.settle()
	if !t.wait() {
		return q.canceled(), false
	}
	q.now = c.cfg.Now()
	q.reloaded = true
	if q.vary == nil {
		q.vary = t.f.result.vary
	}
	r, again = t.answer()
	if again && ctx.Err() != nil {
		return q.canceled(), false
	}
	return r, again
}

func (q *query) canceled() *Reply {
	return q.plain(&Reply{Status: http.StatusServiceUnavailable, Outcome: Canceled}, rfc9111.CacheStatus{})
}

// wait waits for the landing, and reports whether the client did so too. Who has the walk made is
// told what comes meanwhile. A client that may be gone no longer rides, but is there when the
// flight lands.
func (t *trip) wait() bool {
	var interim <-chan interim
	if t.q.Interim != nil && !t.joined {
		interim = t.f.interim
	}
	leaving := t.q.Leaving
	for {
		select {
		case i := <-interim:
			t.q.Interim(i.status, i.header)
		case <-leaving:
			leaving = nil
			t.f.stepBack()
			defer t.f.stay()
		case <-t.f.landed:
			for len(interim) > 0 {
				i := <-interim
				t.q.Interim(i.status, i.header)
			}
			return true
		case <-t.ctx.Done():
			return false
		}
	}
}

// trip is one request's part in a flight that has landed.
type trip struct {
	c   *Cache
	ctx context.Context
	q   *query
	seat
}

// settle lets the flight go on: the request has its reader, or needs none.
func (t *trip) settle() {
	if t.waits {
		t.waits = false
		t.f.boarding.Done()
	}
}

func (t *trip) answer() (r *Reply, again bool) {
	switch t.f.result.kind {
	case resultBody:
		return t.body()
	case resultPass:
		return t.pass()
	case resultConfirmed:
		return t.confirmed()
	default:
		return t.ending()
	}
}

// fits reports whether the reply is one that q may be given: its variant, of a walk that is still the same and that no
// purge covers which q knows of.
func (t *trip) fits() bool {
	q, res := t.q, &t.f.result
	if !q.selects(res.head.Selecting) {
		q.vary = res.vary
		return false
	}
	return !t.joined || t.f.current(q, &res.head, &res.meta)
}

// status is the Cache-Status of a request that an origin was asked for.
func (t *trip) status(outcome int) rfc9111.CacheStatus {
	res := &t.f.result
	s := rfc9111.CacheStatus{Forward: t.f.forward, Collapsed: t.joined, Detail: res.detail}
	if outcome != res.head.Status {
		s.ForwardStatus = outcome
	}
	if res.detail == "" {
		v := res.meta.fresh.At(res.head.ResponseTime, t.q.now)
		s.Stored, s.TTL, s.HasTTL = res.fill == nil || res.fill.Keeping(), v.TTL, true
	}
	return s
}

// reply is what is common to the answers from a flight's head.
func (t *trip) reply(from source, length int64, status int, outcome Outcome) *answer {
	res := &t.f.result
	a := &answer{
		status: res.head.Status, fields: res.head.Fields, meta: &res.meta, length: length, from: from,
		verdict: res.meta.fresh.At(res.head.ResponseTime, t.q.now), cache: t.status(status), outcome: outcome,
		steps: res.walk.Steps,
	}
	if t.q.needsValidators() {
		a.vals = validators(&res.head, res.meta.shown)
	}
	return a
}

// confirmed answers from the stored reply that a supplier has confirmed.
func (t *trip) confirmed() (*Reply, bool) {
	// What may no longer be stored is for the client whose request the supplier has seen, and for
	// those just like it.
	if !t.fits() || t.f.result.detail != "" && !sameHeader(t.q.header(), t.f.req.Header) {
		return nil, true
	}
	a := t.reply(&entrySource{Entry: t.f.result.entry}, t.f.result.entry.Head().Length, http.StatusNotModified, Revalidated)
	a.withAge = true
	t.c.compress(t.q, a, original{entry: t.f.result.entry})
	r, err := t.q.respond(a)
	return r, err != nil
}

// body answers from the reply that is being stored.
func (t *trip) body() (*Reply, bool) {
	if !t.fits() {
		return nil, true
	}
	res := &t.f.result
	outcome := Miss
	if t.joined {
		outcome = Coalesced
	}
	a := t.reply(flightSource{t.ctx, t.f}, res.head.Length, res.head.Status, outcome)
	a.fleeting = !t.f.survives()
	if err := t.measure(a); err != nil {
		return nil, true
	}
	if r := t.ahead(a); r != nil {
		return r, false
	}
	t.c.compress(t.q, a, original{flight: t.f})
	r, err := t.q.respond(a)
	return r, err != nil
}

// measure waits until a range can be answered of a file whose length its head did not say: for the
// end, or the range's own, but for no more than may be waited for anyway.
func (t *trip) measure(a *answer) error {
	specs := t.q.ranges(a)
	if a.length >= 0 || len(specs) == 0 || t.q.cond.Evaluate(a.vals, t.q.now) != rfc9111.Proceed {
		return nil
	}
	enough := int64(waitAhead)
	if last, ok := lastOf(specs); ok {
		enough = min(enough, last+1)
	}
	t.settle()
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	if t.q.Leaving != nil {
		go func() {
			select {
			case <-t.q.Leaving:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	size, ended, err := t.f.result.fill.Await(ctx, enough)
	if ended {
		a.length = size
	}
	a.arrived = size
	if ctx.Err() != nil && t.ctx.Err() == nil {
		return nil // with what there is
	}
	return err
}

// ahead answers a range that starts so far past what has arrived that its client would wait for long: it comes straight
// from the supplier and is not stored. nil if there is no need, or the supplier does not give it.
func (t *trip) ahead(a *answer) *Reply {
	q, f := t.q, t.f
	parts, _ := q.parts(a)
	if len(parts) != 1 || q.cond.Evaluate(a.vals, q.now) != rfc9111.Proceed {
		return nil
	}
	if size, _ := f.result.fill.Progress(); parts[0].Start <= size+waitAhead {
		return nil
	}
	return t.fromSupplier(a, parts[0])
}

// fromSupplier asks the supplier for one part of the file; nil if it does not give exactly that.
func (t *trip) fromSupplier(a *answer, part rfc9111.ByteRange) *Reply {
	t.settle() // nobody else waits for this request's round trip
	ask := walk.Ask{Range: "bytes=" + strconv.FormatInt(part.Start, 10) + "-" + strconv.FormatInt(part.Start+part.Length-1, 10)}
	if rfc9111.IsStrong(a.vals.ETag) {
		ask.IfRange = a.vals.ETag
	}
	release, refused := t.c.place(t.q)
	if refused != "" {
		return nil
	}
	req := t.f.req
	req.Header = t.q.header() // with its own credentials, not those of whom the flight was started for
	res := t.c.cfg.Walker.From(t.ctx, req, a.meta.supplier, ask)
	if res.Kind != walk.Found {
		release()
		return nil
	}
	body := &placedBody{res.Response.Body, sync.OnceFunc(release)}
	got, size, ok := contentRange(res.Response)
	same := res.Response.Header.Get("Etag") == a.vals.ETag && res.Response.Header.Get("Last-Modified") == a.vals.LastModified
	if !ok || got != part || size >= 0 && size != a.length || !same {
		body.Close()
		return nil
	}
	a.cache = rfc9111.CacheStatus{Forward: rfc9111.ForwardPartial, ForwardStatus: http.StatusPartialContent}
	r := &Reply{Status: http.StatusPartialContent, Length: part.Length, Outcome: Passed, Steps: a.steps, Body: body}
	r.Supplier = supplierID(t.q, a.meta.supplier)
	r.Fields = t.q.head(a, partialContent)
	r.Fields = appendBytes(r.Fields, "Content-Range", func(b []byte) []byte { return part.AppendContentRange(b, a.length) })
	return r
}

// placedBody gives back the place of a fill that goes to one client alone.
type placedBody struct {
	io.ReadCloser
	release func()
}

func (b *placedBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// pass answers with the body of a reply that is not stored, if q may have it.
func (t *trip) pass() (*Reply, bool) {
	res := &t.f.result
	if !t.fits() || !t.f.claim(t.q) {
		return nil, true
	}
	src := &passSource{t: t, body: res.pass.Body}
	t.settle()
	a := t.reply(src, res.head.Length, res.head.Status, Passed)
	switch parts, _ := t.q.parts(a); {
	case len(parts) > 1:
		t.q.rang = "" // one pass over the body cannot give several parts in any order
	case len(parts) == 1 && parts[0].Start > waitAhead:
		if r := t.fromSupplier(a, parts[0]); r != nil {
			src.finish()
			return r, false
		}
	}
	r, err := t.q.respond(a)
	if !src.opened {
		src.finish()
	}
	return r, err != nil
}

// ending answers when nobody has the file, or nobody knows.
func (t *trip) ending() (*Reply, bool) {
	q, e := t.q, &t.f.result.ending
	if errors.Is(context.Cause(t.f.ctx), errAbandoned) {
		return q.canceled(), false // it may have been gone, and nobody else was there
	}
	if t.joined && !t.c.holds(q, e) {
		return nil, true
	}
	steps := t.f.result.walk.Steps
	if !e.definite && q.best.ok && q.best.use.OnError {
		r := t.c.staleOnError(q, steps)
		return r, r == nil
	}
	r := t.c.endingReply(q, e, e.left(q, t.c.cfg.Now()), rfc9111.CacheStatus{Forward: t.f.forward, Collapsed: t.joined})
	r.Steps = steps
	return r, false
}

// flightSource is the body of a flight.
type flightSource struct {
	ctx context.Context // of whom it is for
	f   *flight
}

func (s flightSource) open(offset, length int64) (io.ReadCloser, error) {
	reader, err := s.f.result.fill.Reader(s.ctx, offset)
	if err != nil {
		return nil, err
	}
	s.f.stay()
	return &flightBody{reader: reader, f: s.f, rest: length}, nil
}

// flightBody reads along with a flight. rest is negative if it reads to the end.
type flightBody struct {
	reader *objects.Reader
	f      *flight
	rest   int64
	closed bool
}

func (b *flightBody) Read(p []byte) (int, error) {
	if b.rest == 0 {
		return 0, io.EOF
	}
	if b.rest > 0 {
		p = p[:min(int64(len(p)), b.rest)]
	}
	n, err := b.reader.Read(p)
	if b.rest > 0 {
		b.rest -= int64(n)
	}
	return n, err
}

func (b *flightBody) Close() error {
	if b.closed {
		return os.ErrClosed
	}
	b.closed = true
	err := b.reader.Close()
	b.f.leave()
	return err
}

// passSource is a body that goes to one client and nowhere else. It is opened once.
type passSource struct {
	t      *trip
	body   io.ReadCloser
	opened bool
	done   bool
}

func (s *passSource) open(offset, length int64) (io.ReadCloser, error) {
	if s.opened {
		return nil, errors.New("body is opened twice")
	}
	if _, err := io.CopyN(io.Discard, s.body, offset); err != nil {
		return nil, err
	}
	s.opened = true
	return &passBody{passSource: s, rest: length}, nil
}

// finish lets the flight go home.
func (s *passSource) finish() {
	if !s.done {
		s.done = true
		s.body.Close()
		close(s.t.f.passed)
	}
}

type passBody struct {
	*passSource
	rest int64
}

func (b *passBody) Read(p []byte) (int, error) {
	if b.rest == 0 {
		return 0, io.EOF
	}
	if b.rest > 0 {
		p = p[:min(int64(len(p)), b.rest)]
	}
	n, err := b.body.Read(p)
	b.t.f.carried.Add(int64(n))
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
