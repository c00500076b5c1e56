package media

import (
	"context"
	"errors"
	"io"
)

// seekReader lets [http.ServeContent] choose ranges of an object: the bucket is opened where
// reading begins.
type seekReader struct {
	ctx     context.Context
	library *Library
	sha256  string
	size    int64
	offset  int64
	reader  *Reader // nil until the first read
	// at is where reader stands.
	at  int64
	err error // the first error of the bucket while reading
}

// seekable makes sure that the bytes are there. A look costs a request of its own, which is spared
// where reading begins at the beginning.
func (l *Library) seekable(ctx context.Context, sha256 string, look bool) (*seekReader, error) {
	s := &seekReader{ctx: ctx, library: l, sha256: sha256}
	var err error
	if look {
		s.size, err = l.Size(ctx, sha256)
		return s, err
	}
	if s.reader, err = l.Read(ctx, sha256, 0, -1); err != nil {
		return nil, err
	}
	s.size = s.reader.Size
	return s, nil
}

// Seek implements [io.Seeker].
func (s *seekReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.offset
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	s.offset = offset
	return offset, nil
}

// Read implements [io.Reader].
func (s *seekReader) Read(p []byte) (int, error) {
	if s.offset >= s.size {
		return 0, io.EOF
	}
	if s.reader != nil && s.at != s.offset {
		s.reader.Close()
		s.reader = nil
	}
	if s.reader == nil {
		r, err := s.library.Read(s.ctx, s.sha256, s.offset, -1)
		if err != nil {
			s.err = err
			return 0, err
		}
		s.reader, s.at = r, s.offset
	}
	n, err := s.reader.Read(p)
	s.at += int64(n)
	s.offset = s.at
	switch {
	case err == nil || errors.Is(err, io.EOF) && s.offset == s.size:
		return n, err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	s.err = err
	return n, err
}

// Close implements [io.Closer].
func (s *seekReader) Close() error {
	if s.reader == nil {
		return nil
	}
	return s.reader.Close()
}
