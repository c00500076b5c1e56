package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxChunkLine bounds the line that begins a chunk, with its extensions, in bytes.
const maxChunkLine = 4 << 10

var errClosed = errors.New("the body was closed")

// A place is where the reader of a chunked body is.
type place uint8

const (
	// atSize: before the line that begins a chunk.
	atSize place = iota
	// inChunk: within a chunk, of which rest bytes are left.
	inChunk
	// atEnd: before the end of line behind a chunk.
	atEnd
	// inTrailer: in the lines behind the last chunk, which may have rest more bytes.
	inTrailer
)

// A content is the content of a reply, which its framing marks off in what the connection brings.
type content struct {
	r       *bufio.Reader
	framing framing
	at      place
	rest    int64
	err     error // what later reads return
}

// Read implements [io.Reader]. It returns io.EOF along with the last byte, if it can.
func (b *content) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	switch b.framing {
	case counted:
		n, err = b.r.Read(p[:min(int64(len(p)), b.rest)])
		if b.rest -= int64(n); b.rest == 0 {
			err = io.EOF
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	case chunked:
		n, err = b.readChunks(p)
	default:
		n, err = b.r.Read(p)
	}
	b.err = err
	return n, err
}

// A body is the body of a reply. One goroutine reads it; any may close it.
type body struct {
	content
	c       *Client
	cn      *conn
	stop    func() bool // ends what the context does to cn; false if that has begun
	stopper *Stopper
	last    bool // no other reply follows
	lent    bool // the last bytes are still in r

	ended atomic.Bool
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (n int, err error) {
	if b.err == nil && b.ended.Load() {
		return 0, errClosed
	}
	if n, err = b.content.Read(p); err != nil {
		b.finish(err == io.EOF)
	}
	return n, err
}

// Close implements [io.Closer]. It also closes the connection if the body was not read to its end.
func (b *body) Close() error {
	b.finish(false)
	return nil
}

func (b *body) finish(whole bool) {
	if b.ended.CompareAndSwap(false, true) {
		b.end(whole)
	}
}

// end returns the connection to the client, or closes it. It is called once; with false, perhaps
// while another goroutine reads from r.
func (b *body) end(whole bool) {
	if !b.free() || !whole || b.last || b.cn.single {
		b.cn.abort()
	} else {
		b.c.put(b.cn, b.r)
	}
	if whole && !b.lent {
		freeReader(b.r)
	}
}

// Lend reads from a body as Read does, but leaves what has come, up to most bytes, where it is. The
// caller may use it until the next Read. With io.EOF there is none: then it may use it for as long
// as it likes, and [Return] gives the memory back to others. ok is false, and nothing is read, for
// a body whose length is not known.
func Lend(content io.ReadCloser, most int) (piece []byte, ok bool, err error) {
	b, ok := content.(*body)
	if !ok || b.framing != counted || b.err != nil || b.ended.Load() {
		return nil, false, nil
	}
	if _, err = b.r.Peek(1); err == nil {
		piece, _ = b.r.Peek(int(min(int64(most), int64(b.r.Buffered()), b.rest)))
		b.r.Discard(len(piece))
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if b.rest -= int64(len(piece)); b.rest == 0 {
		b.lent, err = true, io.EOF
	}
	if b.err = err; err != nil {
		b.finish(err == io.EOF)
	}
	return piece, true, err
}

// Return gives back the last bytes of a body that were lent, if they were.
func Return(content io.ReadCloser) {
	if b, ok := content.(*body); ok && b.lent {
		b.lent = false
		freeReader(b.r)
	}
}

// free ends what the request's end does to the connection. It returns false if that has begun.
func (b *body) free() bool { return b.stop() && b.stopper.leave(b.cn) }

// Discard lets go of the body of a reply that nobody wants. If no more than most bytes are left of
// it, and they come within a time, the connection is used again. The caller does not wait for that.
func Discard(content io.ReadCloser, most int64, within time.Duration) {
	b, ok := content.(*body)
	if !ok {
		return // it was empty
	}
	n, _ := io.CopyN(io.Discard, (*arrived)(b), most)
	if most -= n; b.ended.Load() {
		return
	}
	if b.last || b.framing == counted && b.rest > most || !b.free() {
		b.Close()
		return
	}
	b.stop, b.stopper = time.AfterFunc(within, b.cn.abort).Stop, nil // and no longer when its request ends
	go func() {
		io.CopyN(io.Discard, b, most)
		b.Close()
	}()
}

// An arrived is what has come of a body.
type arrived body

// Read implements [io.Reader]. It never waits.
func (a *arrived) Read(p []byte) (int, error) {
	b := (*body)(a)
	switch { // what has ended has no reader any more
	case b.ended.Load(), b.framing == chunked && !b.isHere(), b.framing != chunked && b.r.Buffered() == 0:
		return 0, io.EOF
	}
	return b.Read(p)
}

// readChunks reads from the chunks. It returns without waiting for more once it has read something.
func (b *content) readChunks(p []byte) (n int, err error) {
	for {
		switch {
		case n > 0 && (n == len(p) && b.at == inChunk || !b.isHere()):
			return n, nil
		case b.at == inChunk:
			var m int
			m, err = b.r.Read(p[n:min(int64(len(p)), int64(n)+b.rest)])
			n += m
			if b.rest -= int64(m); b.rest == 0 {
				b.at = atEnd
			}
			switch {
			case err == io.EOF:
				err = io.ErrUnexpectedEOF
			case m == 0 && err == nil:
				return n, nil
			}
		default:
			err = b.readLine()
		}
		if err != nil {
			return n, err
		}
	}
}

// isHere reports whether the next bytes can be read without waiting.
func (b *content) isHere() bool {
	here, _ := b.r.Peek(b.r.Buffered())
	return len(here) > 0 && (b.at == inChunk || bytes.IndexByte(here, '\n') >= 0)
}

// readLine reads a line between chunks. Its error is io.EOF for the last one.
func (b *content) readLine() error {
	line, err := b.r.ReadSlice('\n')
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err != nil && err != bufio.ErrBufferFull:
		return err
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	switch b.at {
	case atEnd:
		if !ok || text != "" {
			return &FramingError{"a chunk does not end where its size says"}
		}
		b.at = atSize
		return nil
	case inTrailer:
		b.rest -= int64(len(line))
		switch {
		case err != nil || b.rest < 0:
			return &FramingError{"the trailer is too long"}
		case !ok || unclean(text):
			return &FramingError{"a line of the trailer does not end as lines do"}
		case text == "":
			return io.EOF
		}
		return nil // trailers are ignored: no request asks for them
	}
	if len(line) > maxChunkLine {
		return &FramingError{"a chunk begins with a line that is too long"}
	}
	// The size is hexadecimal, perhaps with extensions behind it (RFC 9112 7.1).
	digits, _, _ := strings.Cut(text, ";")
	size, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 16, 60)
	if !ok || err != nil || unclean(text) {
		return &FramingError{"a chunk does not begin with its size"}
	}
	if b.at, b.rest = inChunk, int64(size); size == 0 {
		b.at, b.rest = inTrailer, MaxHead
	}
	return nil
}
