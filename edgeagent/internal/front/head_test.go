package front

import (
	"bufio"
	"bytes"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// What net/http takes for the head of a request as well as we do, it reads alike; and how a head is
// split makes no difference.
func FuzzHead(f *testing.F) {
	for _, c := range framingCases {
		if len(c.sent) < 1000 {
			f.Add([]byte(c.sent), len(c.sent)/2)
		}
	}
	f.Fuzz(func(t *testing.T, sent []byte, split int) {
		h := head{Fields: new(field.Lines)}
		done, refused := h.read(sent)
		other := head{Fields: new(field.Lines)}
		otherDone, otherRefused := other.read(sent[:min(max(split, 0), len(sent))])
		if !otherDone && otherRefused == nil {
			otherDone, otherRefused = other.read(sent)
		}
		if a, b := outcomeOf(&h, done, refused), outcomeOf(&other, otherDone, otherRefused); a != b {
			t.Errorf("%q: %s, split at %d: %s", sent, a, split, b)
		}
		if !done || refused != nil {
			return
		}
		rest := bytes.NewReader(bytes.TrimLeft(sent, "\r\n"))
		from := bufio.NewReaderSize(rest, 16)
		r, err := http.ReadRequest(from)
		if err != nil {
			return
		}
		if behind := rest.Len() + from.Buffered(); !h.content() && behind != len(sent)-h.at {
			t.Errorf("%q: %d bytes are behind it, net/http has %d", sent, len(sent)-h.at, behind)
		}
		if r.Method != h.Method || r.RequestURI != h.Target || (r.ContentLength != 0) != h.content() {
			t.Errorf("%q: %s, net/http: %s %s %d", sent, outcomeOf(&h, done, nil), r.Method, r.RequestURI,
				r.ContentLength)
		}
		if absolute := !strings.HasPrefix(h.Target, "/") && h.Target != "*"; !absolute && r.Host != h.Authority {
			t.Errorf("%q: for %q, net/http: for %q", sent, h.Authority, r.Host)
		}
		if !h.content() && h.Version == HTTP11 && r.ProtoMinor == 1 && r.Close == h.keep() {
			t.Errorf("%q: keep %v, net/http: close %v", sent, h.keep(), r.Close)
		}
		for line := range h.Fields.All() {
			values := r.Header[textproto.CanonicalMIMEHeaderKey(line.Name)]
			switch {
			case line.ID == field.TransferEncoding: // which net/http takes out
			case len(values) == 0 || values[0] != line.Value:
				t.Errorf("%q: %s is %q, net/http has %q", sent, line.Name, line.Value, values)
			default:
				r.Header[textproto.CanonicalMIMEHeaderKey(line.Name)] = values[1:]
			}
		}
		for name, values := range r.Header {
			if len(values) > 0 {
				t.Errorf("%q: net/http has %s too: %q", sent, name, values)
			}
		}
	})
}
