package front

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// overH2 is a client's configuration that chooses HTTP/2.
func overH2() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "a.test", NextProtos: []string{"h2"}}
}

// h2peer is a client of HTTP/2 that sends whatever a test wants, right or wrong.
type h2peer struct {
	*http2.Framer
	t       testing.TB
	conn    net.Conn
	encoded bytes.Buffer
	encoder *hpack.Encoder
}

// peer connects, and says hello with settings.
func (r *rig) peer(settings ...http2.Setting) *h2peer {
	r.t.Helper()
	return newPeer(r.t, r.dial(overH2()), settings...)
}

func newPeer(t testing.TB, conn net.Conn, settings ...http2.Setting) *h2peer {
	t.Helper()
	p := &h2peer{Framer: http2.NewFramer(conn, conn), t: t, conn: conn}
	p.encoder = hpack.NewEncoder(&p.encoded)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, err := io.WriteString(conn, http2.ClientPreface)
	p.must(err)
	p.must(p.WriteSettings(settings...))
	return p
}

func (p *h2peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// block encodes fields. Those of a GET come first, unless the first of them is a pseudo-header
// field.
func (p *h2peer) block(fields ...string) []byte {
	if len(fields) == 0 || fields[0][0] != ':' {
		fields = append(get("/"), fields...)
	}
	return p.fieldBlock(fields...)
}

// fieldBlock encodes fields, "name: value" each.
func (p *h2peer) fieldBlock(fields ...string) []byte {
	p.encoded.Reset()
	for _, f := range fields {
		at := strings.Index(f[1:], ": ") + 1
		if at == 0 {
			p.t.Fatalf("no field: %q", f)
		}
		p.encoder.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]})
	}
	return p.encoded.Bytes()
}

// ask sends a request without content.
func (p *h2peer) ask(stream uint32, fields ...string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: p.block(fields...), EndStream: true, EndHeaders: true,
	}))
}

// begin sends the head of a request with content.
func (p *h2peer) begin(stream uint32, fields ...string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: p.block(fields...), EndHeaders: true,
	}))
}

// get is a request for a path.
func get(path string) []string {
	return []string{":method: GET", ":scheme: https", ":authority: a.test", ":path: " + path}
}

// next returns the next frame but for SETTINGS and WINDOW_UPDATE, nil at the end of the connection.
func (p *h2peer) next() http2.Frame {
	p.t.Helper()
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				p.t.Fatal("no frame comes")
			}
			return nil
		}
		switch frame.(type) {
		case *http2.SettingsFrame, *http2.WindowUpdateFrame:
			continue
		}
		return frame
	}
}

// answer is what came on one stream.
type answer struct {
	status  string
	fields  []hpack.HeaderField
	interim []string
	body    string
	reset   *http2.ErrCode // nil if the stream ended
	whole   bool
}

func (a *answer) get(name string) string {
	for _, f := range a.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// String says what came in short: the status and the body, or the code.
func (a *answer) String() string {
	switch {
	case a == nil:
		return "nothing"
	case a.whole && a.reset != nil:
		return fmt.Sprintf("%s %s, then %v", a.status, a.body, *a.reset)
	case a.reset != nil && len(a.body) > 100:
		return fmt.Sprintf("%s, many bytes, then %v", a.status, *a.reset)
	case a.reset != nil && a.status != "":
		return fmt.Sprintf("%s, %d bytes, then %v", a.status, len(a.body), *a.reset)
	case a.reset != nil:
		return a.reset.String()
	}
	return a.status + " " + a.body
}

// answers reads until streams have ended, each by a whole answer or by RST_STREAM, or the
// connection has, by GOAWAY or otherwise: what came on which stream, and the code of GOAWAY if one
// came.
func (p *h2peer) answers(streams ...uint32) (all map[uint32]*answer, goAway *http2.ErrCode) {
	p.t.Helper()
	all = map[uint32]*answer{}
	waits := map[uint32]bool{}
	for _, id := range streams {
		waits[id] = true
	}
	at := func(id uint32) *answer {
		if all[id] == nil {
			all[id] = &answer{}
		}
		return all[id]
	}
	ended := func(id uint32) {
		at(id).whole = true
		delete(waits, id)
	}
	for len(waits) > 0 {
		switch f := p.next().(type) {
		case nil:
			return all, goAway
		case *http2.MetaHeadersFrame:
			a := at(f.StreamID)
			status := f.PseudoValue("status")
			if status[0] == '1' {
				a.interim = append(a.interim, status)
				continue
			}
			a.status, a.fields = status, f.RegularFields()
			if f.StreamEnded() {
				ended(f.StreamID)
			}
		case *http2.DataFrame:
			at(f.StreamID).body += string(f.Data())
			if f.StreamEnded() {
				ended(f.StreamID)
			}
		case *http2.RSTStreamFrame:
			code := f.ErrCode
			at(f.StreamID).reset = &code
			delete(waits, f.StreamID)
		case *http2.GoAwayFrame:
			code := f.ErrCode
			goAway = &code
			if code != http2.ErrCodeNo {
				return all, goAway
			}
		}
	}
	return all, goAway
}

// answer reads one answer.
func (p *h2peer) answer(stream uint32) *answer {
	p.t.Helper()
	all, goAway := p.answers(stream)
	if all[stream] == nil && goAway != nil {
		return &answer{reset: goAway, status: "GOAWAY"}
	}
	return all[stream]
}
