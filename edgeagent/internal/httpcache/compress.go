package httpcache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/edgewalk/edgewalk/edgeagent/internal/coding"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
)

const (
	// Files below leastCompressed fit into a packet as they are; those above mostCompressed cost
	// more time than is worth it.
	leastCompressed = 256
	mostCompressed  = 8 << 20

	// maxEncodings bounds the encodings under way, of some 4 MB each. A request beyond gets the
	// file as it is.
	maxEncodings = 16
)

// encodings compresses stored files, and files that are being stored. The result is an object of
// its own. Only the copy that it was made of leads to its key, so it may be used whenever that copy
// may be, and a new copy starts without one.
type encodings struct {
	places *share.Pool[string] // by account
	cpus   chan struct{}       // Compressing takes at most half of the processors.

	mu      sync.Mutex
	running map[objects.Key]*encoding
}

func newEncodings() *encodings {
	return &encodings{
		places:  share.NewPool[string](maxEncodings, maxEncodings/2),
		cpus:    make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1)),
		running: map[objects.Key]*encoding{},
	}
}

// encoding is the compression of one copy of a file. Any number of requests read its output.
type encoding struct {
	place *share.Held
	key   objects.Key
	fill  *objects.Fill
	ready chan struct{} // closed when the copy is open, or cannot be opened and fill is aborted
	// stored: the whole copy was there at the start.
	stored bool

	// Under the mu of encodings.

	// cancel ends the encoding. It is set when ready is closed.
	cancel context.CancelFunc
	// users are the requests that read along. Without any, an encoding ends if its file is still
	// being fetched, because nothing is fetched that no request waits for.
	users int
}

// original is an uncompressed copy of a file: stored, in entry, or being stored, by fill if that is
// not nil.
type original struct {
	entry objects.Entry
	fill  *fill
}

func (o *original) copy() uint64 {
	if o.fill != nil {
		return o.fill.result.object.Copy()
	}
	return o.entry.Copy()
}

func (o *original) head() *objects.Head {
	if o.fill != nil {
		return &o.fill.result.head
	}
	return o.entry.Head()
}

// stored says that the whole copy is here.
func (o *original) stored() bool { return o.fill == nil }

// open opens the copy to be read while ctx lasts.
func (o *original) open(ctx context.Context) (part, error) {
	if o.fill != nil {
		return (&fillSource{ctx, o.fill}).open(0, o.head().Length)
	}
	return (&entrySource{entry: o.entry}).open(0, o.head().Length)
}

// compress makes a an answer with the file compressed, where the endpoint allows it, the file gets
// smaller, and the client takes it. The Vary of every answer then names Accept-Encoding. Ranges are
// always of the file as it is. compress reports false if the file has to be compressed first and
// the query has no context to wait in.
func (c *Cache) compress(q *query, a *answer, r *Reply, o original) bool {
	if a.length < 0 || !a.compressible || !q.mayCompress(a.length) {
		return true
	}
	a.varies = true
	q.lines = slices.AppendSeq(q.lines[:0], q.Fields.Values(field.AcceptEncoding))
	name := coding.Choose(q.lines)
	if name == "" || q.rang != "" || q.cond.IfMatch != "" || noTransform(q.Fields.List(field.CacheControl)) {
		return true
	}
	vals := a.vals
	vals.ETag = a.weak
	key := encodedKey(q.key, o.copy(), name)
	length, from := int64(-1), source(nil)
	q.entries = c.cfg.Store.AppendLookup(q.entries[:0], key, q.BeforeDisk)
	if len(q.entries) > 0 && c.verdict(q.entries[0].Head(), q.now) != purges.Hard {
		length, from = q.entries[0].Head().Length, r.sourceOf(q.entries[0], q.BeforeDisk)
	} else if q.Method == http.MethodGet && q.cond.Evaluate(vals, q.now) == rfc9111.Proceed {
		if q.ctx == nil {
			return false
		}
		copied := o // a copy, so that o does not escape to the heap when nothing is compressed
		body := c.encode(q, key, name, &copied)
		if body == nil {
			return true
		}
		from = &openSource{part{stream: body, closer: body}}
	}
	a.coding, a.vals, a.length, a.from = name, vals, length, from
	return true
}

// mayCompress reports whether files of a length are compressed here; below 0 it is not known yet.
func (q *query) mayCompress(length int64) bool {
	return q.Target.Endpoint.Compress &&
		(length < 0 || length >= leastCompressed && length <= mostCompressed)
}

// noTransform reports whether a Cache-Control field, of either side (RFC 9111 5.2.1.6, 5.2.2.6), or
// one for caches like this (RFC 9213 2.1), forbids to change the file.
func noTransform(cacheControl string) bool {
	return strings.Contains(strings.ToLower(cacheControl), "no-transform")
}

// appendShown appends the stored fields of an answer that clients see, changed where the file is
// compressed.
func (a *answer) appendShown(b []byte, has content) []byte {
	if has == wholeContent && !a.varies {
		return append(b, a.shown...)
	}
	varies := !a.varies
	for name, value := range field.Fields(a.shown) {
		if !has.describes(name) {
			continue
		}
		switch name {
		case "Vary":
			if !varies {
				value, varies = a.varied, true
			}
		case "Etag":
			if a.coding != "" {
				value = a.weak
			}
		case "Last-Modified":
			if has == noContent && a.vals.ETag != "" {
				continue // The client knows by the entity tag which copy it has (RFC 9110 15.4.5).
			}
		case "Content-Encoding", "Content-Md5", "Content-Digest", "Repr-Digest", "Digest": // of other bytes
			if a.coding != "" {
				continue
			}
		}
		b = field.Append(b, name, value)
	}
	if !varies {
		b = field.Append(b, "Vary", "Accept-Encoding")
	}
	if a.coding != "" && has.describes("Content-Encoding") {
		b = field.Append(b, "Content-Encoding", a.coding)
	}
	return b
}

// weak returns an entity tag for other bytes that mean the same (RFC 9110 8.8.1).
func weak(etag string) string {
	if etag == "" || !rfc9111.IsStrong(etag) {
		return etag
	}
	return "W/" + etag
}

// encodedKey returns the key of a compressed copy.
func encodedKey(file objects.Key, copy uint64, name string) objects.Key {
	b := append(make([]byte, 0, 64), file[:]...)
	b = binary.LittleEndian.AppendUint64(b, copy)
	sum := sha256.Sum256(append(b, name...))
	return objects.Key(sum[:16])
}

// encode returns a reader of the encoding of a copy, which it starts if need be; nil if that cannot
// be done now.
func (c *Cache) encode(q *query, key objects.Key, name string, o *original) io.ReadCloser {
	e, started := c.encodings.join(q.Target.Account.UID, key,
		func() *objects.Fill { return c.cfg.Store.Begin(key, o.head().Asof) }, o.stored())
	if e == nil {
		c.metrics.encoded.WithLabelValues("refused").Inc()
		return nil
	}
	if started {
		c.startEncoding(name, e, o)
	}
	body := &encodedBody{s: c.encodings, e: e}
	select {
	case <-e.ready:
	case <-q.ctx.Done():
	}
	reader, err := e.fill.Reader(q.ctx, 0)
	if err != nil {
		body.leave()
		return nil
	}
	body.Reader = reader
	return body
}

// join makes a request a user of the encoding under key, a new one if there is none; nil if there
// is no place for it.
func (s *encodings) join(
	account string, key objects.Key, begin func() *objects.Fill, stored bool,
) (e *encoding, started bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e = s.running[key]; e == nil {
		place, verdict := s.places.Take(account, 0)
		if verdict != share.Taken {
			return nil, false
		}
		e, started = &encoding{place: place, key: key, fill: begin(), ready: make(chan struct{})}, true
		e.stored = stored
		s.running[key] = e
	}
	e.users++
	return e, started
}

// startEncoding opens the copy, and compresses it in the background.
func (c *Cache) startEncoding(name string, e *encoding, o *original) {
	ctx, cancel := context.WithCancel(c.ctx)
	body, err := o.open(ctx)
	if err == nil {
		h := o.head()
		err = e.fill.Head(objects.Head{
			Status: http.StatusOK, RequestTime: h.RequestTime, ResponseTime: h.ResponseTime, Length: -1, Scope: h.Scope,
		})
	}
	if err != nil {
		e.fill.Abort(err)
	}
	c.encodings.mu.Lock()
	e.cancel = cancel
	c.encodings.mu.Unlock()
	close(e.ready)
	c.wg.Go(func() {
		defer cancel()
		defer c.encodings.ended(e)
		if err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { e.fill.Abort(context.Cause(ctx)) }) // it may wait for a reader
		defer stop()
		err := c.encodings.carry(body.reader(o.head().Length), name, e)
		if body.closer != nil {
			body.closer.Close()
		}
		result := "stored"
		switch {
		case err != nil:
			result = "aborted"
			e.fill.Abort(err)
		default:
			if _, err := e.fill.Commit(); err != nil {
				result = "not_stored" // Its readers get it all the same; later requests compress again.
			}
		}
		c.metrics.encoded.WithLabelValues(result).Inc()
	})
}

func (s *encodings) ended(e *encoding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(e)
	s.places.Release(e.place)
}

// forget keeps others from joining e. Callers hold mu.
func (s *encodings) forget(e *encoding) {
	if s.running[e.key] == e {
		delete(s.running, e.key)
	}
}

// carry compresses body into the encoding's fill. What comes slowly is passed on as it comes.
func (s *encodings) carry(body io.Reader, name string, e *encoding) error {
	var out bytes.Buffer
	w := coding.NewWriter(name, &out)
	buf := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buf)
	for {
		n, end := body.Read(buf[:])
		if end != nil && end != io.EOF {
			return end
		}
		s.cpus <- struct{}{}
		_, err := w.Write(buf[:n])
		switch {
		case err != nil:
		case end == io.EOF:
			err = w.Close()
		case !e.stored:
			err = w.Flush()
		}
		<-s.cpus
		if err == nil {
			_, err = e.fill.Write(out.Bytes())
		}
		if err != nil || end == io.EOF {
			return err
		}
		out.Reset()
	}
}

// encodedBody is one request's reader of an encoding.
type encodedBody struct {
	*objects.Reader
	s      *encodings
	e      *encoding
	closed bool
}

func (b *encodedBody) Close() error {
	if b.closed {
		return os.ErrClosed
	}
	b.closed = true
	err := b.Reader.Close()
	b.leave()
	return err
}

func (b *encodedBody) leave() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.e.users--; b.e.users == 0 && !b.e.stored && b.e.cancel != nil {
		b.s.forget(b.e) // later requests start another one
		b.e.cancel()
	}
}

// openSource is a body that is open already, for one reply.
type openSource struct{ body part }

func (s *openSource) open(int64, int64) (part, error) { return s.body, nil }
