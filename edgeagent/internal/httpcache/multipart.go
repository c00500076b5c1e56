package httpcache

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"os"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
)

// multipart answers several ranges (RFC 9110 14.6).
func (q *query) multipart(a *answer, r *Reply, parts []rfc9111.ByteRange) error {
	contentType := ""
	var fields []byte
	for name, value := range field.Fields(a.shown) {
		if name == "Content-Type" {
			contentType = value
			continue
		}
		fields = field.Append(fields, name, value)
	}
	// It must occur in no part (RFC 2046 5.1.1). It is random, so that the author of a file cannot
	// know it.
	boundary := "edgewalk-" + rand.Text()
	a.sentAs(r, http.StatusPartialContent)
	shown, own := *a.decoded, *a
	shown.shown, own.decoded = fields, &shown
	r.Fields = field.Append(q.appendHead(r.Fields, &own, partialContent), "Content-Type",
		"multipart/byteranges; boundary="+boundary)

	m := &multipartBody{from: a.from}
	r.Length = 0
	for i, part := range parts {
		var head bytes.Buffer
		if i > 0 {
			head.WriteString("\r\n")
		}
		head.WriteString("--" + boundary + "\r\n")
		if contentType != "" {
			head.WriteString("Content-Type: " + contentType + "\r\n")
		}
		head.WriteString("Content-Range: ")
		head.Write(part.AppendContentRange(nil, a.length))
		head.WriteString("\r\n\r\n")
		m.parts = append(m.parts, multipartPart{head: head.Bytes(), span: part})
		r.Length += int64(head.Len()) + part.Length
	}
	m.tail = []byte("\r\n--" + boundary + "--\r\n")
	r.Length += int64(len(m.tail))
	if q.Method == http.MethodHead {
		return nil
	}
	// The first part is opened now, so that a body that is gone is found out before the head is
	// sent.
	if err := m.next(); err != nil {
		return err
	}
	r.setBody(part{stream: m, closer: m})
	return nil
}

type multipartPart struct {
	head []byte
	span rfc9111.ByteRange
}

// multipartBody reads part after part, each with a source's body of its own.
type multipartBody struct {
	from  source
	parts []multipartPart // those to come
	tail  []byte
	text  []byte // to be read before body
	body  io.Reader
	part  part // that body reads
	ended bool
	err   error
}

// next goes on to the next part, or to the end.
func (m *multipartBody) next() error {
	if len(m.parts) == 0 {
		m.text, m.ended = m.tail, true
		return nil
	}
	next := m.parts[0]
	// It is opened before the last one is closed: neither a fill nor a stored body may think that
	// its last reader has left.
	opened, err := m.from.open(next.span.Start, next.span.Length)
	if err != nil {
		return err
	}
	m.closePart()
	m.parts, m.text, m.part, m.body = m.parts[1:], next.head, opened, opened.reader(next.span.Length)
	return nil
}

func (m *multipartBody) closePart() {
	if m.part.closer != nil {
		m.part.closer.Close()
	}
}

func (m *multipartBody) Read(p []byte) (int, error) {
	for m.err == nil {
		if len(m.text) > 0 {
			n := copy(p, m.text)
			m.text = m.text[n:]
			return n, nil
		}
		if m.ended {
			return 0, io.EOF
		}
		n, err := m.body.Read(p)
		if err == io.EOF {
			err = m.next()
		}
		m.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, m.err
}

func (m *multipartBody) Close() error {
	m.closePart()
	m.part, m.err = part{}, os.ErrClosed
	return nil
}
