package httpcache

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// Image is a default image, ready to be sent.
type Image struct {
	// SHA256 is the hex hash of its bytes.
	SHA256      string
	ContentType string
	// Length is in bytes.
	Length int64
	// Open returns its bytes.
	Open func() (io.ReadCloser, error)
}

// ending is how a walk ends when it finds nothing.
type ending struct {
	definite   bool // every step said no; else some step did not answer
	status     int  // of a failure
	retryAfter time.Duration
	proxyError string
	at         time.Time
	scope      objects.Scope
	asof       int64
	version    uint64 // of the whole walk
	// What the Media Library was known to have for the path.
	library   [8]byte
	inLibrary bool
}

func endingOf(f *flight, res *walk.Result) ending {
	e := ending{
		definite: res.Kind == walk.NotFound, status: res.Status, retryAfter: res.RetryAfter, proxyError: res.ProxyError,
		at: f.c.cfg.Now(), scope: f.first.scope(), asof: f.req.Revision, version: f.first.walkVersion(),
	}
	e.library, e.inLibrary = f.first.library()
	return e
}

// holds reports whether the ending still says something about q: no purge covers it, the walk is the same, and the Media
// Library has nothing new.
func (c *Cache) holds(q *query, e *ending) bool {
	if q.walkVersion() != e.version || c.cfg.Store.Check(e.scope, e.asof) != objects.None {
		return false
	}
	sha, in := q.library()
	return in == e.inLibrary && sha == e.library
}

// endingReply answers with an ending. left is how long it will still be remembered.
func (c *Cache) endingReply(q *query, e *ending, left time.Duration, status rfc9111.CacheStatus) *Reply {
	spec := q.Target.Endpoint.Spec.GetDefaultImage()
	cacheControl := noStore
	if e.definite {
		cacheControl = string(rfc9111.AppendPublic(nil, left))
	}
	if spec.GetPath() != "" && (e.definite || spec.GetOnFailure()) {
		if image, ok := c.defaultImage(q, spec.GetPath()); ok {
			code := http.StatusOK
			if spec.Status != nil {
				code = int(spec.GetStatus())
			}
			return c.imageReply(q, image, code, cacheControl, status)
		}
		cacheControl = noStore // it may be there a moment later
	}
	r := &Reply{Outcome: NotFound}
	r.Status = http.StatusNotFound
	if !e.definite {
		r.Status, r.Outcome = e.status, Failed
		if e.retryAfter > 0 {
			seconds := (e.retryAfter + time.Second - 1) / time.Second
			r.Fields = objects.AppendField(r.Fields, "Retry-After", strconv.FormatInt(int64(seconds), 10))
		}
		if e.proxyError != "" {
			r.Fields = objects.AppendField(r.Fields, "Proxy-Status", "edgewalk; error="+e.proxyError)
		}
	}
	r.Fields = objects.AppendField(r.Fields, "Cache-Control", cacheControl)
	return q.plain(r, status)
}

const noStore = "no-store"

// plain gives a reply without a file a body for people.
func (q *query) plain(r *Reply, status rfc9111.CacheStatus) *Reply {
	text := []byte(strconv.Itoa(r.Status) + " " + http.StatusText(r.Status) + "\n")
	r.Fields = objects.AppendField(r.Fields, "Content-Type", "text/plain; charset=utf-8")
	r.Fields = appendStatus(r.Fields, status)
	r.Length = int64(len(text))
	if q.Method != http.MethodHead {
		r.Body = io.NopCloser(bytes.NewReader(text))
	}
	return r
}

func (c *Cache) defaultImage(q *query, path string) (*Image, bool) {
	if c.cfg.DefaultImage == nil {
		return nil, false
	}
	return c.cfg.DefaultImage(q.Target.Account.UID, path)
}

// imageReply sends the default image. It has no date of its own, so that no client takes it for an older version of the file.
func (c *Cache) imageReply(q *query, image *Image, code int, cacheControl string, status rfc9111.CacheStatus) *Reply {
	etag := `W/"default-` + image.SHA256 + `"`
	status.Detail = "default-image"
	r := &Reply{Status: code, Length: image.Length, Outcome: DefaultImage}
	r.Fields = objects.AppendField(r.Fields, "Etag", etag)
	r.Fields = objects.AppendField(r.Fields, "Cache-Control", cacheControl)
	r.Fields = appendStatus(r.Fields, status)
	if code == http.StatusOK && q.cond.Evaluate(rfc9111.Validators{ETag: etag}, q.now) == rfc9111.NotModified {
		r.Status, r.Length = http.StatusNotModified, -1
		return r
	}
	r.Fields = objects.AppendField(r.Fields, "Content-Type", image.ContentType)
	if q.Method == http.MethodHead {
		return r
	}
	body, err := image.Open()
	if err != nil {
		c.cfg.Logger.Warn("default image cannot be read", "account", q.Target.Account.ID, "err", err)
		return q.plain(&Reply{
			Status: http.StatusNotFound, Outcome: NotFound, Fields: objects.AppendField(nil, "Cache-Control", noStore),
		}, status)
	}
	r.Body = body
	return r
}
