package httpcache

import (
	"io"
	"os"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// entrySource is a stored body for one reply. All its parts are of one open body, as the object may be replaced or evicted
// between two of them.
type entrySource struct {
	objects.Entry
	body  *objects.Body
	parts int // that are open
}

func (s *entrySource) open(offset, length int64) (io.ReadCloser, error) {
	if s.parts == 0 {
		body, err := s.Open()
		if err != nil {
			return nil, err
		}
		s.body = body
	}
	s.parts++
	return &storedBody{from: s, offset: offset, rest: length}, nil
}

// storedBody is a section of a stored body.
type storedBody struct {
	from         *entrySource
	offset, rest int64
	closed       bool
}

func (b *storedBody) Read(p []byte) (int, error) {
	if b.rest <= 0 {
		return 0, io.EOF
	}
	n, err := b.from.body.ReadAt(p[:min(int64(len(p)), b.rest)], b.offset)
	b.offset += int64(n)
	b.rest -= int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// WriteTo implements [io.WriterTo]. What is in memory is written without being copied.
func (b *storedBody) WriteTo(w io.Writer) (int64, error) {
	mem := b.from.body.Bytes()
	if mem == nil {
		return io.Copy(w, struct{ io.Reader }{b})
	}
	n, err := w.Write(mem[b.offset : b.offset+b.rest])
	b.offset += int64(n)
	b.rest -= int64(n)
	return int64(n), err
}

// Section implements [Section].
func (b *storedBody) Section() (file *os.File, offset, length int64) {
	return b.from.body.File(), b.offset, b.rest
}

// Sent implements [Section].
func (b *storedBody) Sent(n int64) {
	b.offset += n
	b.rest -= n
}

// Close implements [io.Closer].
func (b *storedBody) Close() error {
	if b.closed {
		return os.ErrClosed
	}
	b.closed = true
	if b.from.parts--; b.from.parts > 0 {
		return nil
	}
	return b.from.body.Close()
}
