package httpcache

import (
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// Reply is what a client is to be sent. Its caller writes the head, copies Body, and closes it.
type Reply struct {
	Status int
	// Fields is the header, a field list as objects has them, without Content-Length, Connection, and what the front adds
	// (Date where it is missing, CORS, the endpoint's response_headers).
	Fields []byte
	// Body is nil if none is sent. One that ends with an error was cut: the client must be able to see it, so close its
	// connection (HTTP/1.1) or reset its stream. If it is a [Section], sendfile can send it.
	Body io.ReadCloser
	// Length is the Content-Length, of a HEAD too; -1 if the head has none.
	Length int64
	// Outcome is for logs and metrics.
	Outcome Outcome
	// Supplier is the id of the origin that supplied the file, "media" for the Media Library, "" for none.
	Supplier string
	// Steps says what the walk did that this request waited for, if it did.
	Steps []walk.StepReport
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
	DefaultImage                // nobody has the file, the default image stands in
	NotFound                    // nobody has the file
	Failed                      // nobody knows: some origin did not answer
	Refused                     // only-if-cached and not stored, or too much to do
	Canceled                    // the client went away
	outcomes
)

var outcomeNames = [outcomes]string{
	"hit", "stale", "revalidated", "miss", "coalesced", "passed", "default_image", "not_found", "error", "refused", "canceled",
}

func (o Outcome) String() string { return outcomeNames[o] }

// Section is a body that lies in a file. Read gives the same bytes.
type Section interface {
	io.ReadCloser
	// Section returns the file, whose position belongs to this body alone, and where in it the rest of the body lies. The
	// file is nil if the body has to be read.
	Section() (file *os.File, offset, length int64)
	// Sent says that the first n bytes of the rest were sent from the file. Read goes on behind them, and finds out what is
	// wrong with a file that cannot be sent to its end.
	Sent(n int64)
}

// source is where the bytes of a file come from: the store, or a fill.
type source interface {
	// open returns length bytes from offset, all from there on if length is negative.
	open(offset, length int64) (io.ReadCloser, error)
}

// answer is what a reply to a GET or HEAD is made from.
type answer struct {
	status  int
	fields  []byte // stored ones, of which clients see shown bytes
	meta    *meta
	vals    rfc9111.Validators // only if the request has conditions or a range
	length  int64
	arrived int64 // of a body whose length is not known yet, how much there is
	from    source
	verdict rfc9111.Verdict
	cache   rfc9111.CacheStatus
	withAge bool
	// fleeting: unless the client reads the body, it will not be stored.
	fleeting bool
	// varies: whether the file is compressed depends on Accept-Encoding. coding is what it is sent in and not stored in, "" for
	// none.
	varies  bool
	coding  string
	outcome Outcome
	steps   []walk.StepReport
}

// respond makes the reply to q: 200 or a part of it, or 304, 412 or 416. Its error is the source's.
func (q *query) respond(a *answer) (*Reply, error) {
	r := &Reply{Status: a.status, Length: a.length, Outcome: a.outcome, Steps: a.steps}
	r.Supplier = supplierID(q, a.meta.supplier)
	conditions := q.cond.Evaluate(a.vals, q.now)
	parts, ranged := q.parts(a)
	if a.fleeting && (q.Method == http.MethodHead || conditions != rfc9111.Proceed || ranged == rfc9111.RangeUnsatisfiable) {
		a.cache.Stored = false
	}
	switch conditions {
	case rfc9111.NotModified:
		r.Status, r.Length = http.StatusNotModified, -1
		r.Fields = q.head(a, noContent)
		return r, nil
	case rfc9111.PreconditionFailed:
		return q.plain(&Reply{Status: http.StatusPreconditionFailed, Outcome: a.outcome, Supplier: r.Supplier}, a.cache), nil
	}
	if ranged == rfc9111.RangeUnsatisfiable {
		refused := &Reply{Status: http.StatusRequestedRangeNotSatisfiable, Outcome: a.outcome, Supplier: r.Supplier, Steps: a.steps}
		refused.Fields = field.AppendFunc(nil, "Content-Range", func(b []byte) []byte { return rfc9111.AppendUnsatisfied(b, a.length) })
		return q.plain(refused, a.cache), nil
	}
	if len(parts) > 1 {
		return q.multipart(a, r, parts)
	}
	offset, length := int64(0), a.length
	if len(parts) == 0 {
		r.Fields = q.head(a, wholeContent)
	} else {
		offset, length = parts[0].Start, parts[0].Length
		r.Status, r.Length = http.StatusPartialContent, length
		r.Fields = q.head(a, partialContent)
		r.Fields = field.AppendFunc(r.Fields, "Content-Range", func(b []byte) []byte { return parts[0].AppendContentRange(b, a.length) })
	}
	if q.Method == http.MethodHead {
		return r, nil
	}
	body, err := a.from.open(offset, length)
	r.Body = body
	return r, err
}

// ranges are what q asks for of a file, as it says it.
func (q *query) ranges(a *answer) []rfc9111.RangeSpec {
	if q.rang == "" || a.status != http.StatusOK || !q.cond.RangeApplies(a.vals, q.now) {
		return nil
	}
	return rfc9111.ParseRange(q.rang)
}

// parts are the ranges of the file that q asks for. Of a file whose length is not known yet, that
// is one that has arrived.
func (q *query) parts(a *answer) ([]rfc9111.ByteRange, rfc9111.RangeResult) {
	specs := q.ranges(a)
	if a.length >= 0 {
		return rfc9111.Resolve(specs, a.length)
	}
	if last, ok := lastOf(specs); ok && last < a.arrived {
		return rfc9111.Resolve(specs, a.arrived)
	}
	return nil, rfc9111.RangeIgnored
}

// lastOf is the last byte of the only range there is, if it names one.
func lastOf(specs []rfc9111.RangeSpec) (last int64, ok bool) {
	if len(specs) != 1 || specs[0].First < 0 || specs[0].Last < 0 {
		return 0, false
	}
	return specs[0].Last, true
}

// needsValidators reports whether the reply depends on the validators of what is stored.
func (q *query) needsValidators() bool { return q.rang != "" || q.cond.Any() }

// content is how much of a file a reply has.
type content uint8

const (
	noContent content = iota
	partialContent
	wholeContent
)

// describes reports whether a stored field is true of a reply with that much of the file. A 304
// describes no content (RFC 9110 15.4.5), and of a part, what was said of the bytes of the whole
// reply does not hold.
func (c content) describes(name string) bool {
	switch c {
	case noContent:
		return !strings.HasPrefix(name, "Content-") || name == "Content-Location" || strings.HasPrefix(name, "Content-Security-Policy")
	case partialContent:
		return name != "Content-Range" && name != "Content-Digest" && name != "Content-Md5"
	}
	return true
}

// head makes the header of a reply.
func (q *query) head(a *answer, has content) []byte {
	b := a.appendShown(make([]byte, 0, a.meta.shown+256), has)
	switch {
	case a.meta.fresh.ClientsTold():
		b = field.AppendFunc(b, "Cache-Control", func(b []byte) []byte { return a.meta.fresh.AppendCacheControl(b, q.policy) })
	case a.withAge || a.verdict.Age >= time.Second:
		b = field.AppendFunc(b, "Age", func(b []byte) []byte { return rfc9111.AppendSeconds(b, a.verdict.Age) })
	}
	if has != noContent && a.length >= 0 && a.coding == "" { // parts are of the file as it is
		b = field.Append(b, "Accept-Ranges", "bytes")
	}
	return appendStatus(b, a.cache)
}

func appendStatus(b []byte, s rfc9111.CacheStatus) []byte {
	return field.AppendFunc(b, "Cache-Status", s.Append)
}
