package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// firstRead is how much of a body may come with the head. Of one that is no longer than
	// wholeRead all of it may.
	firstRead = 2 << 10
	wholeRead = 16 << 10
	// maxResumes is how often one body is resumed after it broke.
	maxResumes = 3
)

// firsts are the buffers of first pieces that were read whole; the others are left to the garbage
// collector.
var firsts = sync.Pool{New: func() any { return new([wholeRead]byte) }}

// A stream is the body of one exchange. Each wait for a piece of it is bounded.
type stream struct {
	x        *exchange
	buffer   *[wholeRead]byte // of firsts, nil once it is read, or if first was lent
	first    []byte           // what was read together with the head
	err      error
	reported atomic.Bool // the result was recorded for the address
}

// fill reads the first piece. It returns an error if the body breaks before its first byte.
func (s *stream) fill() error {
	size := int64(firstRead)
	if length := s.x.resp.ContentLength; length > 0 && length <= wholeRead {
		size = length
	}
	s.x.watch.phaseFrom(s.x.headAt, s.x.idle, errIdleTimeout)
	var lent bool
	if s.first, lent, s.err = http1.Lend(s.x.resp.Body, int(size)); lent {
		s.err = s.received(s.err)
	} else {
		s.buffer = firsts.Get().(*[wholeRead]byte)
		n := 0
		for n == 0 && s.err == nil {
			n, s.err = s.receive(s.buffer[:size])
		}
		s.first = s.buffer[:n]
	}
	switch {
	case len(s.first) > 0 || s.err == nil || s.err == io.EOF:
		return nil
	case errors.Is(s.err, io.ErrUnexpectedEOF):
		return errEmptyBody
	}
	return s.err
}

func (s *stream) receive(p []byte) (int, error) {
	s.x.watch.phase(s.x.idle, errIdleTimeout)
	n, err := s.x.resp.Body.Read(p)
	return n, s.received(err)
}

// received ends the wait for a piece. It returns why there was an error.
func (s *stream) received(err error) error {
	s.x.watch.stop()
	if err != nil && err != io.EOF {
		err = s.x.causeOf(err)
	}
	return err
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.first) > 0 {
		n := copy(p, s.first)
		s.drop(n)
		return n, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.receive(p)
	if err != nil && err != io.EOF && !s.reported.Swap(true) {
		s.x.health.noteError(s.x.by.address(), err)
	}
	s.err = err
	return n, err
}

// drop removes n bytes from first.
func (s *stream) drop(n int) {
	if s.first = s.first[n:]; len(s.first) > 0 {
		return
	}
	if s.first = nil; s.buffer == nil {
		http1.Return(s.x.resp.Body)
		return
	}
	firsts.Put(s.buffer)
	s.buffer = nil
}

// Close ends the exchange. It may be called again.
func (s *stream) Close() error {
	if !s.reported.Swap(true) {
		s.x.succeeded()
	}
	s.x.end()
	return nil
}

// A BodyError says how a body broke, for people, without any secret.
type BodyError struct{ Origin, Detail, Advice string }

func (e *BodyError) Error() string {
	return fmt.Sprintf("read body from origin %q: %s", e.Origin, e.Detail)
}

// A body is what a caller reads: a stream that is resumed at the same origin when it breaks, if
// that origin can prove that the rest belongs to the same file. It begins as the question.
type body struct {
	c      *Client
	ctx    context.Context // of the whole body
	kind   *kind.Kind
	origin *topology.Origin // nil for the Media Library
	ask    Ask
	health *health
	etag   string // strong; "" if the body cannot be resumed
	next   int64  // position in the file of the next byte
	last   int64  // position of the last byte, -1 if unknown
	tries  int

	// mu guards what follows, because a Close may come while src is read or replaced.
	mu       sync.Mutex
	src      io.ReadCloser
	closed   bool
	reported bool // that its end was recorded, good or bad
}

// wrap makes b the body of the reply.
func (b *body) wrap(r *Response) {
	if r.Body == http.NoBody {
		return
	}
	b.src, b.last, b.tries = r.Body, -1, maxResumes
	if etag := r.Header["Etag"]; len(etag) > 0 && strings.HasPrefix(etag[0], `"`) && r.Framed {
		b.etag = etag[0]
	}
	if r.Length >= 0 {
		b.last = r.Length - 1
	}
	if r.Status == http.StatusPartialContent {
		if part, _, ok := rfc9111.ParseContentRange(r.Header.Get("Content-Range")); ok {
			b.next, b.last = part.Start, part.Start+part.Length-1
		}
	}
	r.Body = b
}

func (b *body) Read(p []byte) (int, error) {
	for {
		n, err := b.src.Read(p)
		if left := b.last + 1 - b.next; b.last >= 0 && int64(n) > left {
			n = int(left) // what follows a part belongs to no reply
			if n == 0 {
				err = io.EOF
			}
		}
		b.next += int64(n)
		if n > 0 {
			return n, nil // an error comes back with the next read
		}
		if err == io.EOF && b.last >= 0 && b.next <= b.last {
			err = io.ErrUnexpectedEOF // the head of a part has announced more
		}
		if err == io.EOF {
			b.ended(true)
		}
		if err == nil || err == io.EOF {
			return 0, err
		}
		f := faultOf(err)
		unwanted := f.reason == Canceled || hurried(err) || b.isClosed() // not the origin's fault
		if !unwanted {
			b.health.report(b.kind, b.origin, &b.ask, faultAnswer(f), broken)
		}
		if unwanted || !b.resume() {
			b.ended(false)
			id := MediaKind
			if b.origin != nil {
				id = b.origin.ID
			}
			return 0, &BodyError{id, f.detail, f.advice}
		}
	}
}

// WriteFirst writes what came together with the head to w, if it was not read yet, without a copy
// for the caller. It returns how much that was.
func (b *body) WriteFirst(w io.Writer) (n int, err error) {
	s, ok := b.src.(*stream)
	if !ok || len(s.first) == 0 {
		return 0, nil
	}
	n, err = w.Write(s.first)
	b.next += int64(n)
	s.drop(n)
	return n, err
}

// ended records the end of the body at the first call only: a success, unless it broke for good.
func (b *body) ended(whole bool) {
	b.mu.Lock()
	first := !b.reported
	b.reported = true
	b.mu.Unlock()
	if first && whole {
		b.health.finished()
	}
}

func (b *body) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// resume asks for the rest of the file, and reports whether it comes.
func (b *body) resume() bool {
	if b.etag == "" || b.tries == 0 || b.last >= 0 && b.next > b.last {
		return false
	}
	b.tries--
	span := "bytes=" + strconv.FormatInt(b.next, 10) + "-"
	if b.last >= 0 {
		span += strconv.FormatInt(b.last, 10)
	}
	ask := b.ask // which a hedge that came too late may still read
	ask.Conditions, ask.Deadline = Conditions{Range: span, IfRange: b.etag}, time.Time{}
	a, _ := b.c.guarded(b.ctx, b.kind, b.origin, &ask, b.health, time.Now())
	resumed := a.Outcome == Found
	if resumed && (!b.continues(a.Response) || !b.replace(a.Response.Body)) {
		a.Response.Body.Close()
		resumed = false
	}
	result := "refused"
	if resumed {
		result = "resumed"
	}
	b.c.metrics.resumes.WithLabelValues(b.kind.Name, result).Inc()
	return resumed
}

// continues reports whether r is the rest of the file, and nothing else. It then sets last, which
// the head of the file may not have told.
func (b *body) continues(r *Response) bool {
	part, size, ok := rfc9111.ParseContentRange(r.Header.Get("Content-Range"))
	if r.Status != http.StatusPartialContent || !ok || r.Header.Get("ETag") != b.etag || part.Start != b.next {
		return false
	}
	last := b.last
	if last < 0 {
		last = size - 1
	}
	if part.Start+part.Length-1 != last {
		return false
	}
	b.last = last
	return true
}

func (b *body) replace(src io.ReadCloser) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.src.Close()
	b.src = src
	return true
}

// Close ends the body. It may be called while another goroutine reads, which then gets an error.
func (b *body) Close() error {
	b.ended(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.src.Close()
}
