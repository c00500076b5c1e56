package httpcache

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Image is a default image or a not-found page, ready to be sent.
type Image struct {
	// SHA256 is the hex hash of its bytes.
	SHA256      string
	ContentType string
	// Length is in bytes.
	Length int64
	// Open returns its bytes. After an error it is as if there were no image.
	Open func() (io.ReadCloser, error)
}

// ending is how a walk ends when it finds nothing.
type ending struct {
	definite   bool // every step said no; else some step did not answer
	status     int  // of a failure
	retryAfter time.Duration
	proxyError string
	at         time.Time // its time of negative_ttl, or of failure, begins here
	failure    time.Duration
	scope      purges.Scope
	asof       int64
	version    uint64 // of the whole walk
	asked      uint64 // what of the request it may be due to, see query.asked
	// What the Media Library was known to have for the path.
	library   [8]byte
	inLibrary bool
}

func endingOf(f *fill, res *walk.Result) *ending {
	e := &ending{
		definite: res.Kind == walk.NotFound, status: res.Status, retryAfter: res.RetryAfter, proxyError: res.ProxyError,
		at: f.c.cfg.Now(), scope: f.first.scope(), asof: f.first.Revision, version: f.first.walkVersion(),
	}
	if e.definite {
		// A step may have given its answer some time ago, to another request. This request must not
		// make that last longer.
		e.at = e.at.Add(res.Left - f.first.policy.NegativeTTL)
	}
	e.asked = f.first.asked(e.definite)
	e.library, e.inLibrary = f.first.library()
	return e
}

// left returns how long the ending may still be used.
func (e *ending) left(q *query, now time.Time) time.Duration {
	ttl := e.failure
	if e.definite {
		ttl = q.policy.NegativeTTL // it may be shorter by now
	}
	return ttl - max(now.Sub(e.at), now.Round(0).Sub(e.at)) // see memory.get
}

// holds reports whether the ending may be used for q: no purge covers it, the walk is the same, the
// Media Library has no newer file, and the ending does not depend on another client's fields.
func (c *Cache) holds(q *query, e *ending) bool {
	if q.walkVersion() != e.version || c.cfg.Purges.CheckAsked(&e.scope, e.asof, e.at, q.now) != purges.None {
		return false
	}
	if q.asked(e.definite) != e.asked {
		return false
	}
	sha, in := q.library()
	return in == e.inLibrary && sha == e.library
}

// endingReply answers with an ending. left is how long it will still be remembered.
func (c *Cache) endingReply(q *query, e *ending, left time.Duration, status rfc9111.CacheStatus) *Reply {
	left = max(0, left).Round(time.Second) // a client is sent whole seconds
	cacheControl := noStore
	if e.definite {
		cacheControl = string(rfc9111.AppendPublic(nil, left))
	}
	if image := q.Target.Endpoint.DefaultImageFor(q.Target.Path); image != nil && (e.definite || image.OnFailure) {
		if r := c.imageReply(q, image, cacheControl, status); r != nil {
			return r
		}
		cacheControl = noStore // the file may exist a moment later
	}
	if page := q.Target.Endpoint.NotFoundPage; page != "" && e.definite {
		if r := c.pageReply(q, page, cacheControl, status); r != nil {
			return r
		}
		cacheControl = noStore
	}
	r := &Reply{Outcome: NotFound}
	r.Status = http.StatusNotFound
	if !e.definite {
		r.Status, r.Outcome = e.status, Failed
		if e.retryAfter > 0 {
			seconds := (e.retryAfter + time.Second - 1) / time.Second
			r.Fields = field.Append(r.Fields, "Retry-After", strconv.FormatInt(int64(seconds), 10))
		}
		if e.proxyError != "" {
			r.Fields = field.Append(r.Fields, "Proxy-Status", "edgewalk; error="+e.proxyError)
		}
	}
	r.Fields = field.Append(r.Fields, "Cache-Control", cacheControl)
	q.plain(r, status)
	return r
}

// answered returns the status that the last origin that a walk has asked has answered with, and if
// some had no answer to the question, the last of those. It is 0 if that one did not answer at all.
func answered(steps []walk.StepReport) (status int) {
	unclear := false
	for _, s := range steps {
		if s.Skipped || s.Request == "" || unclear && s.Outcome != origin.Inconclusive {
			continue
		}
		status, unclear = s.Status, s.Outcome == origin.Inconclusive
	}
	return status
}

const noStore = "no-store"

// plain gives a reply that has no file a body for people.
func (q *query) plain(r *Reply, status rfc9111.CacheStatus) {
	text := []byte(strconv.Itoa(r.Status) + " " + http.StatusText(r.Status) + "\n")
	r.Fields = field.Append(r.Fields, "Content-Type", "text/plain; charset=utf-8")
	r.appendStatus(status)
	r.Length = int64(len(text))
	if q.Method != http.MethodHead {
		r.setBody(part{mem: text})
	}
}

// imageReply sends the default image, nil if that cannot be done. It has no date of its own, so
// that no client takes it for an older version of the file.
func (c *Cache) imageReply(
	q *query, standIn *topology.DefaultImage, cacheControl string, status rfc9111.CacheStatus,
) *Reply {
	image, body := c.standIn(q, standIn.Path)
	if image == nil {
		return nil
	}
	etag := `W/"default-` + image.SHA256 + `"`
	status.Detail = "default-image"
	r := &Reply{Status: standIn.Status, Length: image.Length, Outcome: DefaultImage}
	conditions := rfc9111.Proceed
	if r.Status == http.StatusOK { // conditions are about what would else be sent with success (RFC 9110 13.2.1)
		conditions = q.cond.Evaluate(rfc9111.Validators{ETag: etag}, q.now)
	}
	if conditions == rfc9111.PreconditionFailed {
		body.Close()
		r.Status = http.StatusPreconditionFailed
		r.Fields = field.Append(r.Fields, "Cache-Control", noStore)
		q.plain(r, status)
		return r
	}
	r.Fields = field.Append(r.Fields, "Etag", etag)
	r.Fields = field.Append(r.Fields, "Cache-Control", cacheControl)
	if conditions == rfc9111.NotModified {
		r.Status, r.Length = http.StatusNotModified, -1
	} else {
		r.Fields = field.Append(r.Fields, "Content-Type", image.ContentType)
	}
	r.appendStatus(status)
	r.setBody(part{stream: body, closer: body})
	if r.Status == http.StatusNotModified || q.Method == http.MethodHead {
		r.Close()
		r.setBody(part{})
	}
	return r
}

// pageReply sends a file of the Media Library with status 404, nil if that cannot be done.
func (c *Cache) pageReply(q *query, path, cacheControl string, status rfc9111.CacheStatus) *Reply {
	page, body := c.standIn(q, path)
	if page == nil {
		return nil
	}
	status.Detail = "not-found-page"
	r := &Reply{Status: http.StatusNotFound, Length: page.Length, Outcome: NotFound}
	r.Fields = field.Append(r.Fields, "Cache-Control", cacheControl)
	r.Fields = field.Append(r.Fields, "Content-Type", page.ContentType)
	r.appendStatus(status)
	r.setBody(part{stream: body, closer: body})
	if q.Method == http.MethodHead {
		r.Close()
		r.setBody(part{})
	}
	return r
}

// standIn opens a file that is kept to stand in for others; nil if it cannot be read now. It is
// opened for replies without a body too, so that none promises what another could not keep.
func (c *Cache) standIn(q *query, path string) (*Image, io.ReadCloser) {
	if c.cfg.DefaultImage == nil {
		return nil, nil
	}
	image, ok := c.cfg.DefaultImage(q.Target.Account.UID, path)
	if !ok {
		return nil, nil
	}
	body, err := image.Open()
	if err != nil {
		return nil, nil
	}
	return image, body
}
