package httpcache

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/cachepolicy"
)

// Reply is what to send to a client. The caller writes the head, sends the body, and closes the
// reply.
type Reply struct {
	Status int
	// Shared are fields that come before Fields; nil for none. Only [Cache.Hit] gives some.
	Shared *Shared
	// Fields is the header, a field list, without Content-Length, Connection, and what the front
	// adds (Date where it is missing, CORS, the endpoint's response_headers).
	Fields []byte
	// Length is that of the body, of a HEAD too; -1 if it is not known.
	Length int64

	// The body is at most one of these; without any, none is sent.

	// Mem is the body. It is shared: nobody may change it.
	Mem []byte
	// File holds the body at Offset. It is shared, so its position must not be used or changed.
	// Unsent returns the rest of the body after the first bytes, for a front that could not send it
	// all: reading it finds what is wrong with the file, and the store then drops it.
	File   *os.File
	Offset int64
	Unsent func(sent int64) io.Reader
	// Stream is read until its end. If it ends with an error, the body was cut: the client must be
	// able to see that, so close its connection (HTTP/1.1) or reset its stream (HTTP/2).
	Stream io.Reader

	// Outcome is for logs and metrics.
	Outcome Outcome
	// Supplier is the id of the origin that supplied the file, "media" for the Media Library, ""
	// for none.
	Supplier string
	// Steps describes the walk that this request waited for, if it did.
	Steps []walk.StepReport

	rest   func(sent int64) io.Reader // readOn, without a new closure for each reply
	body   part                       // the source of Mem, File and Stream
	source entrySource                // of a body that is stored
	query  *query                     // memory for [Cache.Hit]
}

// Shared are the fields that all replies with the same part of one stored file have, or all of one
// second.
type Shared struct {
	// Fields is a field list. Nobody may change it.
	Fields []byte
	// Derived is for the caller of [Cache.Hit] to keep what it derives from Fields while the file
	// is in memory: one value for each of two kinds of requests.
	Derived [2]atomic.Value
}

// Close releases what the body holds.
func (r *Reply) Close() {
	if closer := r.body.closer; closer != nil {
		r.body.closer = nil
		closer.Close() // It was only read.
	}
}

// sourceOf returns the source of a stored body. It uses memory of the reply.
func (r *Reply) sourceOf(e objects.Entry, beforeDisk func()) *entrySource {
	r.source = entrySource{entry: e, beforeDisk: beforeDisk}
	return &r.source
}

// setBody gives the reply its body.
func (r *Reply) setBody(p part) {
	r.Mem, r.File, r.Offset, r.Stream, r.Unsent, r.body = p.mem, p.file, p.offset, p.stream, nil, p
	if p.file != nil {
		if r.rest == nil {
			r.rest = r.readOn
		}
		r.Unsent = r.rest
	}
}

// readOn implements Unsent.
func (r *Reply) readOn(sent int64) io.Reader {
	return io.NewSectionReader(r.body.at, r.body.offset+sent, r.Length-sent)
}

// Reset makes r a zero Reply, but keeps memory for the next use. r must not have moved.
func (r *Reply) Reset() {
	fields, rest, q := r.Fields[:0], r.rest, r.query
	*r = Reply{}
	r.Fields, r.rest, r.query = fields, rest, q
}

// part is a body, or a part of one: one of mem, file and stream.
type part struct {
	mem    []byte
	file   *os.File
	offset int64       // in file
	at     io.ReaderAt // reads file
	stream io.Reader
	closer io.Closer // nil if there is nothing to close
}

// reader reads the part, of which length is known unless it is a stream.
func (p *part) reader(length int64) io.Reader {
	switch {
	case p.stream != nil:
		return p.stream
	case p.file != nil:
		return io.NewSectionReader(p.at, p.offset, length)
	}
	return bytes.NewReader(p.mem)
}

// Outcome says in a word how a request was answered.
type Outcome uint8

const (
	Hit          Outcome = iota // from the store
	Stale                       // from the store, past its lifetime
	Revalidated                 // from the store, after a supplier confirmed it
	Miss                        // fetched for this request
	Coalesced                   // fetched for another request, which this one joined
	Passed                      // fetched and not stored
	DefaultImage                // no step has the file; the default image is sent
	NotFound                    // no step has the file
	Failed                      // some origin did not answer
	Refused                     // only-if-cached and not stored, or too much to do
	Canceled                    // the client went away
	outcomes
)

var outcomeNames = [outcomes]string{
	"hit", "stale", "revalidated", "miss", "coalesced", "passed", "default_image", "not_found", "error",
	"refused", "canceled",
}

func (o Outcome) String() string { return outcomeNames[o] }

// source provides the bytes of a file: the store, or a fill.
type source interface {
	// open returns length bytes from offset, all from there on if length is negative.
	open(offset, length int64) (part, error)
}

// answer is what the reply to a GET or HEAD is made from.
type answer struct {
	*decoded
	status  int
	vals    rfc9111.Validators // of the file as it is sent
	length  int64
	arrived int64 // bytes that have come of a body of unknown length
	from    source
	verdict rfc9111.Verdict
	cache   rfc9111.CacheStatus
	// answered is the status that an origin has answered this request with, 0 if none was asked.
	answered int
	withAge  bool
	// fleeting: unless the client reads the body, it will not be stored.
	fleeting bool
	// varies: Accept-Encoding decides whether the file is compressed. coding is the coding that it
	// is sent in and not stored in, "" for none.
	varies  bool
	coding  string
	outcome Outcome
	steps   []walk.StepReport
}

// respond makes r the reply to q: 200 or a part of it, or 304, 412 or 416. Its error is the
// source's.
func (q *query) respond(a *answer, r *Reply) error {
	r.Length, r.Outcome, r.Steps = a.length, a.outcome, a.steps
	a.sentAs(r, a.status)
	r.Supplier = supplierID(q, a.supplier)
	conditions := q.cond.Evaluate(a.vals, q.now)
	parts, ranged := q.parts(a)
	if a.fleeting && (q.Method == http.MethodHead || conditions != rfc9111.Proceed ||
		ranged == rfc9111.RangeUnsatisfiable) {
		a.cache.Stored = false
	}
	switch conditions {
	case rfc9111.NotModified:
		r.Length = -1
		a.sentAs(r, http.StatusNotModified)
		q.head(r, a, noContent)
		return nil
	case rfc9111.PreconditionFailed:
		r.Steps = nil
		a.sentAs(r, http.StatusPreconditionFailed)
		q.plain(r, a.cache)
		return nil
	}
	if ranged == rfc9111.RangeUnsatisfiable {
		a.sentAs(r, http.StatusRequestedRangeNotSatisfiable)
		r.Fields = field.AppendFunc(r.Fields, "Content-Range",
			func(b []byte) []byte { return rfc9111.AppendUnsatisfied(b, a.length) })
		q.plain(r, a.cache)
		return nil
	}
	if len(parts) > 1 {
		return q.multipart(a, r, parts)
	}
	offset, length := int64(0), a.length
	if len(parts) == 0 {
		q.head(r, a, wholeContent)
	} else {
		offset, length = parts[0].Start, parts[0].Length
		r.Length = length
		a.sentAs(r, http.StatusPartialContent)
		q.head(r, a, partialContent)
		r.Fields = field.AppendFunc(r.Fields, "Content-Range",
			func(b []byte) []byte { return parts[0].AppendContentRange(b, a.length) })
	}
	if q.Method == http.MethodHead {
		return nil
	}
	body, err := a.from.open(offset, length)
	r.setBody(body)
	return err
}

// sentAs sets the status of the reply. If an origin has answered with another one, Cache-Status
// says which (RFC 9211 2.3).
func (a *answer) sentAs(r *Reply, status int) {
	r.Status = status
	switch a.answered {
	case 0: // What a.cache says stands.
	case status:
		a.cache.ForwardStatus = 0
	default:
		a.cache.ForwardStatus = a.answered
	}
}

// ranges returns the ranges that q names.
func (q *query) ranges(a *answer) []rfc9111.RangeSpec {
	if q.rang == "" || a.status != http.StatusOK || !q.cond.RangeApplies(a.vals, q.now) {
		return nil
	}
	q.specs = rfc9111.ParseRange(q.rang, q.specs)
	return q.specs
}

// parts returns the ranges of the file that q asks for. If the length of the file is not known yet,
// it is a range that has arrived.
func (q *query) parts(a *answer) ([]rfc9111.ByteRange, rfc9111.RangeResult) {
	specs, length := q.ranges(a), a.length
	if length < 0 {
		last, ok := lastOf(specs)
		if !ok || last >= a.arrived {
			return nil, rfc9111.RangeIgnored
		}
		length = a.arrived
	}
	parts, result := rfc9111.Resolve(specs, length, q.spans)
	q.spans = parts
	return parts, result
}

// lastOf returns the last byte of the only range, if it names one.
func lastOf(specs []rfc9111.RangeSpec) (last int64, ok bool) {
	if len(specs) != 1 || specs[0].First < 0 || specs[0].Last < 0 {
		return 0, false
	}
	return specs[0].Last, true
}

// content is how much of a file a reply has.
type content uint8

const (
	noContent content = iota
	partialContent
	wholeContent
	contents
)

// describes reports whether a stored field is true of a reply with that much of the file. A 304
// describes no content (RFC 9110 15.4.5), and fields about the bytes of the whole file are not true
// of a part.
func (c content) describes(name string) bool {
	switch c {
	case noContent:
		return !strings.HasPrefix(name, "Content-") || name == "Content-Location" ||
			strings.HasPrefix(name, "Content-Security-Policy")
	case partialContent:
		return name != "Content-Range" && name != "Content-Digest" && name != "Content-Md5"
	}
	return true
}

// head sets the fields of a reply.
func (q *query) head(r *Reply, a *answer, has content) {
	if !q.shares || a.varies {
		r.Fields = q.appendHead(r.Fields, a, has)
		return
	}
	shared := a.shared.of(a, has)
	if r.Shared = shared.of(q, a); r.Shared == nil {
		r.Shared, r.Fields = &shared.Shared, q.appendOwn(r.Fields, a)
	}
}

// sharedHeads are those of one stored file, made when they are first sent.
type sharedHeads [contents]atomic.Pointer[sharedHead]

func (s *sharedHeads) of(a *answer, has content) *sharedHead {
	shared := s[has].Load()
	if shared == nil {
		shared = &sharedHead{Shared: Shared{Fields: a.appendAcceptRanges(a.appendShown(nil, has), has)}}
		s[has].Store(shared)
	}
	return shared
}

// sharedHead is what all replies have, whenever they are sent.
type sharedHead struct {
	Shared
	now  atomic.Pointer[momentHead]
	hits atomic.Int64 // how many of one age there were that now was not for, behind that age
}

// momentHead is what all replies of one second have, with what [query.appendOwn] appends.
type momentHead struct {
	Shared
	age, ttl int64
	policy   *cachepolicy.Policy
}

// manyHits is how many hits of one second it takes to save the time that a [momentHead] takes to
// make.
const manyHits = 16

// of returns the head of a hit's second, nil for the first manyHits in it.
func (s *sharedHead) of(q *query, a *answer) *Shared {
	age, ttl := rfc9111.Seconds(a.verdict.Age), rfc9111.CeilSeconds(a.cache.TTL)
	now := s.now.Load()
	if now != nil && now.age == age && now.ttl == ttl && now.policy == q.policy {
		return &now.Shared
	}
	hits := s.hits.Load() + 1
	if hits/manyHits != age {
		hits = age * manyHits
	}
	s.hits.Store(hits)
	if hits%manyHits < manyHits-1 {
		return nil
	}
	now = &momentHead{age: age, ttl: ttl, policy: q.policy}
	now.Fields = q.appendOwn(slices.Clone(s.Fields), a)
	s.now.Store(now)
	return &now.Shared
}

// appendHead appends the fields of a reply.
func (q *query) appendHead(b []byte, a *answer, has content) []byte {
	b = a.appendShown(slices.Grow(b, len(a.shown)+256), has)
	return q.appendOwn(a.appendAcceptRanges(b, has), a)
}

func (a *answer) appendAcceptRanges(b []byte, has content) []byte {
	if has != noContent && a.length >= 0 && a.coding == "" { // parts are of the file as it is
		b = field.Append(b, "Accept-Ranges", "bytes")
	}
	return b
}

// appendOwn appends the fields of this reply alone.
func (q *query) appendOwn(b []byte, a *answer) []byte {
	switch {
	case a.fresh.RewritesCacheControl():
		b = field.AppendFunc(b, "Cache-Control",
			func(b []byte) []byte { return a.fresh.AppendCacheControl(b, *q.policy) })
	case a.withAge || a.verdict.Age >= time.Second:
		b = field.AppendFunc(b, "Age", func(b []byte) []byte { return rfc9111.AppendSeconds(b, a.verdict.Age) })
	}
	return appendStatus(b, a.cache)
}

// appendStatus appends the Cache-Status of a reply that was not made from a file.
func (r *Reply) appendStatus(s rfc9111.CacheStatus) {
	if s.ForwardStatus == r.Status {
		s.ForwardStatus = 0 // it is taken for that without a word (RFC 9211 2.3)
	}
	r.Fields = appendStatus(r.Fields, s)
}

func appendStatus(b []byte, s rfc9111.CacheStatus) []byte {
	return field.AppendFunc(b, "Cache-Status", s.Append)
}
