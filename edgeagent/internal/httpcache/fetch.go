package httpcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/coding"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/contenttype"
)

const (
	// capped is the lifetime of a reply that a later origin supplied while an earlier one did not
	// answer, so that the file of the earlier one is used soon after it is back.
	capped = 15 * time.Second

	// missTTL is how long requests do not wait for each other for a key whose reply could not be
	// stored.
	missTTL = time.Minute

	// failureTTL is how long a failed walk is not repeated. The time doubles with each further
	// failure for the same file, up to maxFailureTTL.
	failureTTL    = time.Second
	maxFailureTTL = 30 * time.Second

	// cutsEvery is the least time between two lines of the log about bodies that were cut.
	cutsEvery = 10 * time.Second

	// copyBytes is how much is carried at once.
	copyBytes = 64 << 10
)

var copyBuffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

// find makes the walk and publishes what it found. It reports whether something is left to do then,
// which is rest.
func (f *fill) find() (more bool) {
	growStack(false)
	var stored walk.Stored
	if f.stored.ok {
		stored = walk.Stored{
			Supplier: f.stored.supplier, ETag: f.stored.vals.ETag, LastModified: f.stored.vals.LastModified,
			Library: f.stored.library, UseOnError: f.stored.use.OnError,
		}
	}
	res := f.c.cfg.Walker.Find(f.ctx, &f.first.Request.Request, stored)
	if res.Kind == walk.NotModified && !f.confirms(res) {
		// A 304 about another reply (RFC 9111 4.3.4): ask for the file itself.
		res.Response.Body.Close()
		stored = walk.Stored{UseOnError: stored.UseOnError}
		res = f.c.cfg.Walker.Find(f.ctx, &f.first.Request.Request, stored)
	}
	switch res.Kind {
	case walk.NotModified:
		res.Response.Body.Close()
		return f.confirmed(res)
	case walk.Found:
		return f.found(res)
	}
	f.ended(res)
	return false
}

// rest does what is left to do when the result is published.
func (f *fill) rest() {
	switch f.result.kind {
	case resultBody:
		f.restOfBody()
	case resultPass:
		f.restOfPass()
	case resultConfirmed:
		f.waiting.Wait() // they may still use it, nobody after them
		f.c.cfg.Store.Drop(f.stored.Entry)
	}
}

// confirms reports whether a 304 is about what is stored.
func (f *fill) confirms(res *walk.Result) bool {
	if !f.stored.ok {
		return false
	}
	h := field.Map(res.Response.Header)
	fresh := rfc9111.Validators{ETag: h.Get("Etag"), LastModified: h.Get("Last-Modified")}
	return fresh.Confirms(f.stored.vals)
}

// judgeResponse applies the caching rules to a reply. Its times are put on the cache's own clock.
func (f *fill) judgeResponse(
	status int, h field.Map, control *rfc9111.Directives, res *walk.Result,
) (fresh rfc9111.Freshness, asked, came time.Time) {
	came = f.c.cfg.Now()
	asked = came.Add(-max(res.Response.ResponseTime.Sub(res.Response.RequestTime), 0))
	fresh = rfc9111.Evaluate(rfc9111.Response{
		Status: status, Header: h.Values, CacheControl: control, RequestTime: asked, ResponseTime: came,
		Library:    res.Supplier.UID == walk.LibraryUID,
		Authorized: len(f.first.Header["Authorization"]) > 0 && slices.Contains(res.Forwarded, "Authorization"),
	}, *f.first.policy)
	if res.EarlierInconclusive {
		fresh = fresh.Cap(capped)
	}
	// A reply that may not be stored keeps the origin's own Cache-Control.
	fresh.SetByUs = fresh.SetByUs && fresh.Storable()
	return fresh, asked, came
}

// confirmed brings the stored reply up to date with a 304.
func (f *fill) confirmed(res *walk.Result) (more bool) {
	old := f.stored.Head()
	header := f.stored.origin()
	// They are about the moment at which the old reply was made.
	header.Del("Age")
	header.Del("Date")
	varies, _ := rfc9111.ParseVary(header["Vary"])
	rfc9111.Update(header, res.Response.Header)
	for _, name := range varies { // these selected the bytes
		rfc9111.AddVary(header, field.Canonical(name))
	}
	tags := rfc9111.Tags(header.Values)
	control := rfc9111.ParseCacheControl(header["Cache-Control"])
	fresh, asked, came := f.judgeResponse(old.Status, header, &control, res)
	private := dependsOnCredentials(header, res)
	f.clean(header, &control, res, came)
	head := *old
	head.RequestTime, head.ResponseTime, head.Asof = asked, came, f.first.Revision
	if len(tags) > 0 {
		head.Scope.Tags = tags
	}
	// What Vary newly names selects the stored reply by the request that it was confirmed for.
	names, _ := rfc9111.ParseVary(header["Vary"])
	names = append(names, f.stored.vary...)
	if private {
		names = append(names, "authorization")
	}
	head.Selecting = f.selecting(names)
	m := metaOf(res, fresh)
	own := fieldsOf(header, fresh)
	head.Fields, head.Meta = m.encode(own)
	head.Decoded = nil
	f.result = result{kind: resultConfirmed, head: head, decoded: f.kept.decode(head.Status, head.Selecting, m, own),
		entry: f.stored.Entry, walk: res}
	if !fresh.Storable() {
		f.result.detail = fresh.Refusal.String()
	} else if err := f.c.cfg.Store.Freshen(f.stored.Entry, head); err != nil && !errors.Is(err, objects.ErrGone) {
		f.c.cfg.Logger.Warn("stored reply keeps its old header", "path", head.Scope.Path, "err", err)
	}
	f.c.endings.drop(f.key)
	f.c.metrics.fills.WithLabelValues("confirmed").Inc()
	f.publish()
	return f.result.detail != ""
}

// selecting returns the selecting values of a reply to the fill's request, for the names by which
// it was selected.
func (f *fill) selecting(names []string) []byte {
	slices.Sort(names)
	return appendSelecting(nil, slices.Compact(names), f.first.field)
}

// clean removes from an origin's header what is not true of what is kept, and sets what it lacks.
func (f *fill) clean(h field.Map, control *rfc9111.Directives, res *walk.Result, came time.Time) {
	rfc9111.StripNamed(h, control)
	if len(h["Date"]) == 0 {
		h["Date"] = []string{string(rfc9111.AppendDate(nil, came))} // RFC 9110 6.6.1
	}
	if rfc9111.Codings(h.Values) == nil {
		h.Del("Content-Encoding") // identity, or nothing at all
	}
	if o := f.first.Target.Endpoint.Steps[res.Step].Origin; o != nil && origin.Keyed(o) {
		setType(h, f.first.Target.Path)
		dropChunked(h)
	}
}

// dropChunked drops aws-chunked from an object's Content-Encoding, which was about its upload.
func dropChunked(h field.Map) {
	codings := rfc9111.Codings(h.Values)
	kept := slices.DeleteFunc(slices.Clone(codings), func(coding string) bool { return coding == "aws-chunked" })
	switch {
	case len(kept) == 0:
		h.Del("Content-Encoding")
	case len(kept) < len(codings):
		h.Set("Content-Encoding", strings.Join(kept, ", "))
	}
}

// setType gives a type to a file of an object store that has none, or the store's default, which is
// binary/octet-stream for S3: then the extension of its path decides.
func setType(h field.Map, path string) {
	switch strings.ToLower(h.Get("Content-Type")) {
	case "", "application/octet-stream", "binary/octet-stream":
		if t, ok := contenttype.Of(path); ok {
			h["Content-Type"] = []string{t}
		}
	}
}

func metaOf(res *walk.Result, fresh rfc9111.Freshness) meta {
	return meta{fresh: fresh, supplier: res.Supplier, step: res.Step, version: res.Version, library: res.Library}
}

// ended publishes that a walk found nothing.
func (f *fill) ended(res *walk.Result) {
	e := endingOf(f, res)
	f.result = result{kind: resultEnding, ending: e, walk: res}
	if res.Kind == walk.NotFound {
		if f.stored.ok {
			f.c.cfg.Store.Drop(f.stored.Entry)
		}
		f.c.endings.put(f.key, e, e.at, f.first.policy.NegativeTTL)
		f.c.metrics.fills.WithLabelValues("not_found").Inc()
	} else {
		if f.ctx.Err() == nil { // else it was ended before any step had answered
			e.failure = f.failureFor(res, e)
			f.c.endings.put(f.key, e, e.at, e.failure+maxFailureTTL)
		}
		f.c.metrics.fills.WithLabelValues("failed").Inc()
	}
	f.publish()
}

// failureFor returns how long a failure is remembered. Repeated failures make it longer only if the
// origins answered for this file, because one that was not asked or not reached may be back at any
// time.
func (f *fill) failureFor(res *walk.Result, e *ending) time.Duration {
	about := func(s walk.StepReport) bool {
		return s.Outcome != origin.Inconclusive ||
			!s.Unreached && s.Request != "" &&
				(s.Reason == origin.Failed || s.Reason == origin.Timeout || s.Reason == origin.Busy)
	}
	for _, s := range res.Steps {
		if !about(s) {
			return failureTTL
		}
	}
	last, _, ok := f.c.endings.get(f.key, e.at)
	if !ok || last.definite || last.asked != e.asked || !f.c.holds(&f.first, last) {
		return failureTTL
	}
	return min(2*last.failure, maxFailureTTL)
}

// choseType reports whether an origin has chosen the type of the reply by Accept, whatever its Vary
// says: the client names the type, so that others may not take it, and the extension of the path is
// of another type or missing.
func (f *fill) choseType(h field.Map, res *walk.Result) bool {
	o := f.first.Target.Endpoint.Steps[res.Step].Origin
	if o == nil || origin.Keyed(o) {
		return false // they do not look at Accept
	}
	accept := f.first.Header.Get("Accept")
	if accept == anyType[0] {
		return false
	}
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	media = strings.ToLower(strings.TrimSpace(media))
	if !rfc9111.Named(accept, media) {
		return false
	}
	byPath, _ := contenttype.Of(f.first.Target.Path)
	return byPath != media
}

// found publishes a file.
func (f *fill) found(res *walk.Result) (more bool) {
	resp := res.Response
	header := field.Map(resp.Header)
	control := rfc9111.ParseCacheControl(header["Cache-Control"])
	fresh, asked, came := f.judgeResponse(resp.Status, header, &control, res)
	tags := rfc9111.Tags(header.Values)
	private := dependsOnCredentials(header, res)
	f.clean(header, &control, res, came)
	if f.choseCoding(header) {
		rfc9111.AddVary(header, "Accept-Encoding")
	}
	if f.choseType(header, res) {
		rfc9111.AddVary(header, "Accept")
	}
	names, _ := rfc9111.ParseVary(header["Vary"])
	if f.mayCodeForOthers(header, res) {
		names = append(names, "accept-encoding")
	}
	if private {
		names = append(names, "authorization")
	}

	m := metaOf(res, fresh)
	own := fieldsOf(header, fresh)
	r := &f.result
	r.kind, r.walk, r.detail = resultBody, res, f.unstorable(res, fresh)
	r.head = objects.Head{
		Status: resp.Status, Selecting: f.selecting(names),
		RequestTime: asked, ResponseTime: came,
		Length: resp.Length, Scope: f.first.scope(), Asof: f.first.Revision,
	}
	r.head.Scope.Tags = tags
	r.head.Fields, r.head.Meta = m.encode(own)
	r.decoded = f.kept.decode(r.head.Status, r.head.Selecting, m, own)
	f.c.endings.drop(f.key)
	if r.detail != "" {
		return f.pass(res.EarlierInconclusive)
	}
	return f.store()
}

// choseCoding reports whether the origin has chosen the reply by Accept-Encoding, even if its Vary
// does not name that: this reply, or another stored one of the file, has a content coding.
func (f *fill) choseCoding(h field.Map) bool {
	if len(rfc9111.Codings(h.Values)) > 0 {
		return true
	}
	for _, e := range f.c.cfg.Store.Lookup(f.key) {
		if _, coded := field.Get(e.Head().Fields, "Content-Encoding"); coded {
			return true
		}
	}
	return false
}

// mayCodeForOthers reports whether the origin may send another reply to clients that accept a
// coding, so that this one is only for clients that accept none. It may not if the file does not
// get smaller, if the edge compresses it, or if the store keeps files as they were uploaded.
func (f *fill) mayCodeForOthers(h field.Map, res *walk.Result) bool {
	o := f.first.Target.Endpoint.Steps[res.Step].Origin
	return o != nil && !origin.Keyed(o) && !f.first.mayCompress(res.Response.Length) &&
		f.first.Header.Get("Accept-Encoding") == identity[0] && coding.Compressible(h.Get("Content-Type"))
}

// dependsOnCredentials reports whether a reply that was fetched without credentials may not be used
// for clients that send some: the origin gets them, and has not said that all clients may share the
// reply (RFC 9111 3.5). It need not say so in Vary, and what it says there is passed on as it is
// (RFC 9110 12.5.5).
func dependsOnCredentials(h field.Map, res *walk.Result) bool {
	return slices.Contains(res.Forwarded, "Authorization") && !rfc9111.SharedByAll(h.Values)
}

// unstorable says why a file may not be stored, or "".
func (f *fill) unstorable(res *walk.Result, fresh rfc9111.Freshness) string {
	switch {
	case !fresh.Storable():
		return fresh.Refusal.String()
	case !res.Response.Framed:
		return "no-length" // a cut cannot be told from the end
	case res.EarlierInconclusive && f.holdsEarlier(res.Step):
		return "earlier-copy"
	}
	return ""
}

// holdsEarlier reports whether there is a copy from an origin that comes before a step.
func (f *fill) holdsEarlier(step int) bool {
	if !f.stored.ok {
		return false
	}
	i := suppliedBy(&f.first, f.stored.supplier)
	return i >= 0 && i < step
}

// pass publishes a reply that is not stored: one request takes it, and the others, later ones too,
// ask for themselves.
func (f *fill) pass(soon bool) (more bool) {
	f.result.kind, f.result.pass = resultPass, f.result.walk.Response
	ttl := missTTL
	if soon {
		ttl = capped
	}
	f.c.misses.put(f.key, struct{}{}, f.c.cfg.Now(), ttl)
	f.c.metrics.fills.WithLabelValues("passed").Inc()
	f.passed = make(chan struct{})
	f.publish()
	return true
}

// restOfPass waits until the body was read, if a request has taken it.
func (f *fill) restOfPass() {
	f.waiting.Wait()
	f.mu.Lock()
	claimed := f.claimed
	f.claimed = true
	f.mu.Unlock()
	if !claimed {
		f.result.pass.Body.Close()
		return
	}
	defer f.keepPace()()
	select { // until then the body needs the fill's context
	case <-f.passed:
	case <-f.ctx.Done():
	}
}

// store publishes a reply that is stored, with what of its body has come.
func (f *fill) store() (more bool) {
	f.c.misses.drop(f.key)
	r := &f.result
	r.object = f.c.cfg.Store.Begin(f.key, f.first.Revision)
	if err := r.object.Head(r.head); err != nil {
		f.c.cfg.Logger.Error("reply cannot be stored", "path", r.head.Scope.Path, "err", err)
		r.object, r.detail = nil, "head"
		return f.pass(false)
	}
	if r.object.Keeping() { // What has come with the head is there when the requests wake up.
		f.carryErr = f.carryFirst()
	}
	f.publish()
	return true
}

// restOfBody carries what of the body has not come with the head, and stores it.
func (f *fill) restOfBody() {
	r := &f.result
	// It also ends a wait for a slow reader, which knows nothing of the context.
	defer context.AfterFunc(f.ctx, func() { r.object.Abort(context.Cause(f.ctx)) })()
	defer r.walk.Response.Body.Close()
	buf := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buf)
	f.waiting.Wait() // a reader that is there before bytes are dropped misses none
	f.settle(f.carryRest(buf[:], f.carryErr))
}

// carryFirst carries what of the body has come with the head, without a copy. Of a body that is
// made of what the origin sends, such as a decoded one, that is nothing.
func (f *fill) carryFirst() error {
	r := &f.result
	body, ok := r.walk.Response.Body.(interface {
		WriteFirst(w io.Writer) (int, error)
	})
	if !ok {
		return nil
	}
	n, err := body.WriteFirst(r.object)
	f.c.metrics.bytes.Add(float64(n))
	f.carried.Add(int64(n))
	if err == nil && int64(n) == r.head.Length {
		_, err = f.carryPiece(f.last[:]) // The end has come too.
	}
	return err
}

// carryRest carries what of the body has not come when the last piece came with err. It returns
// io.EOF if the body is whole.
func (f *fill) carryRest(buf []byte, err error) error {
	if err != nil {
		return err
	}
	f.giveUp()
	defer f.keepPace()()
	for err == nil {
		var n int
		if n, err = f.carryPiece(buf); n > 0 && !f.carry(n) {
			err = errAbandoned
		}
	}
	return err
}

// settle stores a body, or drops it if it has ended with another error than io.EOF.
func (f *fill) settle(err error) {
	r := &f.result
	if err == io.EOF {
		_, err = r.object.Commit()
		if err == nil && f.stored.ok && bytes.Equal(f.stored.Head().Selecting, r.head.Selecting) {
			// The store takes it for another variant if a 304 has changed what it is selected by.
			f.c.cfg.Store.Drop(f.stored.Entry)
		}
	}
	label := "stored"
	switch {
	case errors.Is(err, objects.ErrNotStored):
		label = "not_stored"
	case err != nil:
		label = "aborted"
		if cause := context.Cause(f.ctx); cause != nil {
			err = cause
		}
		// There are no readers left, or the cache is closed: neither is the origin's fault.
		unwanted := errors.Is(err, errAbandoned) || errors.Is(err, errClosed) || errors.Is(err, objects.ErrUnread)
		r.object.Abort(err)
		f.cancel(err)
		if !unwanted {
			f.c.tellCut(&r.head, err)
		}
	}
	f.c.metrics.fills.WithLabelValues(label).Inc()
	f.unregister()
}

// tellCut logs that a body was cut, at most once in each cutsEvery: whoever has an origin could
// fill the log else.
func (c *Cache) tellCut(h *objects.Head, err error) {
	c.untold.Add(1)
	c.cuts.Do(func() {
		c.cfg.Logger.Warn("body cut", "endpoint", h.Scope.Endpoint, "path", h.Scope.Path, "err", err, "not_logged",
			c.untold.Swap(0)-1)
	})
}

// carryPiece copies the next piece of the body into the fill, and returns how long it was, and
// io.EOF at the end. Where the body was cut and could be continued, origin has done that.
func (f *fill) carryPiece(buf []byte) (int, error) {
	n, err := f.result.walk.Response.Body.Read(buf)
	if n > 0 {
		if _, err := f.result.object.Write(buf[:n]); err != nil {
			return n, err
		}
		f.c.metrics.bytes.Add(float64(n))
	}
	return n, err
}

// contentRange returns which part a 206 holds.
func contentRange(resp *origin.Response) (part rfc9111.ByteRange, size int64, ok bool) {
	if resp.Status != http.StatusPartialContent {
		return part, 0, false
	}
	return rfc9111.ParseContentRange(resp.Header.Get("Content-Range"))
}

func sameHeader(a, b field.Map) bool {
	return maps.EqualFunc(a, b, func(x, y []string) bool { return slices.Equal(x, y) })
}
