package front

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// smallFile is the length up to which a file is copied and not sent by the kernel, so that it and
// its head are sent in one packet.
const smallFile = 16 << 10

var (
	errReplied = errors.New("the request was answered already")
	errTooLong = errors.New("the body is longer than its head said")
)

// reply implements stream.
func (h *h1) reply(r *Reply) (int64, error) {
	if h.replied {
		return 0, errReplied
	}
	h.replied = true
	length := r.Length
	if r.Mem != nil {
		length = int64(len(r.Mem))
	}
	may := r.Status != 204 && r.Status != 304 // a body may follow
	sends := may && h.x.Method != "HEAD"
	chunked := sends && length < 0 && h.x.Version >= HTTP11
	untilClose := sends && length < 0 && !chunked
	asked := h.keep // by the client
	h.keep = h.keep && !r.Close && !untilClose && !h.c.server.stopping.Load()
	h.linger = h.head.content() || asked && !untilClose

	b := appendStatusLine(h.out[:0], h.x.Version, r.Status)
	common := r.common()
	b, dated := appendFields(append(b, common.lines...), r.Fields)
	if !dated && !common.dated {
		b = append(h.c.server.appendDate(append(b, "Date: "...), h.x.Now), "\r\n"...)
	}
	switch {
	case length >= 0 && r.Status != 204:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, length, 10), "\r\n"...)
	case chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case !h.keep:
		b = append(b, "Connection: close\r\n"...)
	case h.x.Version < HTTP11:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	h.out = append(b, "\r\n"...)
	if !sends {
		length = 0
	}
	sent, err := h.send(r, sends, length, chunked)
	h.whole = err == nil
	if untilClose && err != nil {
		h.c.detach()
		h.c.wire.reset()
	}
	return sent, err
}

// send sends the head, and the body if one is sent.
func (h *h1) send(r *Reply, body bool, length int64, chunked bool) (int64, error) {
	switch {
	case !body:
		return h.writeWhole(nil)
	case r.Mem != nil:
		return h.writeWhole(r.Mem)
	case r.File != nil:
		return h.sendFile(r, length)
	case r.Stream != nil:
		return h.sendStream(r.Stream, length, chunked)
	case length > 0:
		return 0, io.ErrUnexpectedEOF
	case chunked:
		_, err := h.writeHead([]byte(lastChunk))
		return 0, err
	}
	return h.writeWhole(nil)
}

// maxUnsent is how much of a reply is left for flush at most. A socket has room for it, unless its
// client has not taken the replies before.
const maxUnsent = 16 << 10

// writeWhole writes the head and the whole body. On a connection of a loop it leaves a short reply
// for flush, unless it is the last one.
func (h *h1) writeWhole(body []byte) (int64, error) {
	if h.c.fd >= 0 && h.keep && len(h.out)+len(body) <= maxUnsent {
		h.unsent, h.body = true, body
		return int64(len(body)), nil
	}
	return h.writeHead(body)
}

// writeHead writes the head and what follows it, and returns how much of that was sent.
func (h *h1) writeHead(p []byte) (int64, error) {
	n, err := h.c.writeBoth(h.out, p)
	return max(0, n-int64(len(h.out))), err
}

// flush sends the reply that writeWhole has left. It reports false if that failed.
func (h *h1) flush() bool {
	if !h.unsent {
		return true
	}
	body := h.body
	h.unsent, h.body = false, nil
	_, err := h.c.writeBoth(h.out, body)
	return err == nil
}

// sendFile sends the head and a part of a file: by the kernel if it can, else by copying it.
func (h *h1) sendFile(r *Reply, length int64) (sent int64, err error) {
	c := h.c
	if length > smallFile {
		h.slow()
	}
	if c.secure == nil && c.wire.raw != nil && length > smallFile {
		n, err := c.wire.writeFile(h.out, r.File, r.Offset, length)
		sent = max(0, n-int64(len(h.out)))
		if err != errFile {
			return sent, err
		}
		h.out = h.out[:0]
	}
	buffer := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buffer)
	for sent < length {
		// Together with the head, pieces fill whole records.
		piece := buffer[:min(length-sent, int64(max(len(buffer)-len(h.out), recordBytes)))]
		if c.readFile(r.File, piece, r.Offset+sent) != nil {
			if r.Unsent == nil {
				return sent, errFile
			}
			n, err := h.sendStream(r.Unsent(sent), length-sent, false)
			return sent + n, err
		}
		n, err := h.writeNext(piece)
		sent += n
		if err != nil {
			return sent, err
		}
	}
	if length == 0 {
		return h.writeHead(nil)
	}
	return sent, nil
}

// writeNext writes a piece of the body, behind the head if that was not sent yet.
func (h *h1) writeNext(piece []byte) (int64, error) {
	if len(h.out) == 0 {
		n, err := h.c.Write(piece)
		return int64(n), err
	}
	n, err := h.writeHead(piece)
	h.out = h.out[:0]
	return n, err
}

// The parts of a chunk (RFC 9112 7.1) beside its data.
const (
	chunkHead = len("8000\r\n")
	lastChunk = "0\r\n\r\n"
)

// sendStream sends the head if that was not sent yet, and a body as it comes, without delay.
func (h *h1) sendStream(from io.Reader, length int64, chunked bool) (sent int64, err error) {
	h.slow()
	if from, ok := from.(interface{ Lend() []byte }); ok && length > 0 {
		if p := from.Lend(); len(p) > 0 {
			if sent, err = h.writeNext(p[:min(int64(len(p)), length)]); err != nil {
				return sent, err
			}
		}
	}
	buffer := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buffer)
	for {
		n, err := from.Read(buffer[chunkHead : copyBytes-len("\r\n")])
		if length >= 0 && int64(n) > length-sent {
			n, err = int(length-sent), errTooLong
		}
		if n > 0 {
			written, failed := h.writePiece(buffer, n, chunked)
			sent += written
			if failed != nil {
				return sent, failed
			}
		}
		switch {
		case err == io.EOF && sent < length:
			return sent, io.ErrUnexpectedEOF
		case err == io.EOF:
			return sent, h.endStream(chunked)
		case err != nil:
			return sent, err
		}
	}
}

// writePiece writes n bytes of a body, which lie in buffer behind room for the head of a chunk.
func (h *h1) writePiece(buffer *[copyBytes]byte, n int, chunked bool) (int64, error) {
	if !chunked {
		return h.writeNext(buffer[chunkHead : chunkHead+n])
	}
	size := strconv.AppendUint(make([]byte, 0, chunkHead), uint64(n), 16)
	begin := chunkHead - len(size) - len("\r\n")
	copy(buffer[begin:], size)
	copy(buffer[chunkHead-len("\r\n"):], "\r\n")
	end := chunkHead + n + copy(buffer[chunkHead+n:], "\r\n")
	written, err := h.writeNext(buffer[begin:end])
	return max(0, min(written-int64(chunkHead-begin), int64(n))), err
}

// endStream ends a body that is whole.
func (h *h1) endStream(chunked bool) (err error) {
	switch {
	case chunked:
		_, err = h.writeNext([]byte(lastChunk))
	case len(h.out) > 0:
		_, err = h.writeHead(nil)
	}
	return err
}

// interim implements stream.
func (h *h1) interim(status int, fields []byte) error {
	if h.x.Version < HTTP11 || h.replied {
		return nil
	}
	b := appendStatusLine(h.out[:0], h.x.Version, status)
	b, _ = appendFields(b, fields)
	h.out = append(b, "\r\n"...)
	_, err := h.c.Write(h.out)
	return err
}

// refuse answers what is no valid request, and ends the connection.
func (h *h1) refuse(why *refusal) {
	text := why.text()
	b := appendStatusLine(h.out[:0], HTTP11, why.status)
	b = append(b, "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(text)), 10)
	h.out = append(append(b, "\r\n\r\n"...), text...)
	if _, err := h.c.Write(h.out); err == nil {
		h.c.finish(true)
	}
}

// appendStatusLine appends a status line. Clients of HTTP/1.0 get HTTP/1.0, because more of them
// understand that.
func appendStatusLine(b []byte, v Version, status int) []byte {
	switch {
	case v < HTTP11:
		b = append(b, "HTTP/1.0 "...)
	case status == 200:
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	case status == 304:
		return append(b, "HTTP/1.1 304 Not Modified\r\n"...)
	default:
		b = append(b, "HTTP/1.1 "...)
	}
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	return append(append(b, reason(status)...), "\r\n"...)
}

// appendFields appends the field lines of a list, without those about the connection and the
// framing, which this package sets. It reports whether Date is among them. No value can end its
// line early.
func appendFields(b []byte, list []byte) (_ []byte, dated bool) {
	begin, lines := len(b), 0
	for name, value := range field.Fields(list) {
		switch len(name) {
		case len("Date"):
			dated = dated || strings.EqualFold(name, "Date")
		case len("Connection"), len("Content-Length"), len("Transfer-Encoding"):
			if framing(name) {
				continue
			}
		}
		lines++
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	if block := b[begin:]; bytes.Count(block, []byte("\n")) != lines || bytes.Count(block, []byte("\r")) != lines {
		b = b[:begin]
		for name, value := range field.Fields(list) {
			if !framing(name) {
				b = append(append(append(b, oneLine.Replace(name)...), ": "...), oneLine.Replace(value)...)
				b = append(b, "\r\n"...)
			}
		}
	}
	return b, dated
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

func framing(name string) bool {
	return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Content-Length") ||
		strings.EqualFold(name, "Transfer-Encoding")
}
