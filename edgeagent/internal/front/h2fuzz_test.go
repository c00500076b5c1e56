package front

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// decodeAll decodes header blocks that follow each other, as "name: value" lines.
func decodeAll(blocks ...[]byte) (lines []string, err error) {
	var d decoder
	d.table.max = tableBytes
	for _, block := range blocks {
		d.begin(block)
		for {
			f, more, err := d.next()
			if err != nil {
				return nil, err
			}
			if !more {
				break
			}
			lines = append(lines, strings.Clone(f.name+": "+f.value))
		}
		d.text.b = d.text.b[:0]
	}
	return lines, nil
}

// FuzzHPACK holds the decoder to that of golang.org/x/net: what it takes, that takes too and reads
// alike.
func FuzzHPACK(f *testing.F) {
	w := &h2peer{t: f}
	w.encoder = hpack.NewEncoder(&w.encoded)
	f.Add(bytes.Clone(w.block("accept: a/b", "x-long: "+strings.Repeat("b", 300))),
		bytes.Clone(w.block("accept: a/b", "x: y")))
	w.encoder.SetMaxDynamicTableSize(100)
	f.Add(bytes.Clone(w.block("accept: a/b", "x: y")), bytes.Clone(w.block("x: y")))
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, []byte{0x40, 0x01, 'a', 0x01, 'b', 0xbe})
	f.Add([]byte{0x0f, 0x2f, 0x03, 'a', 'b', 'c', 0x10, 0x00, 0x00}, []byte{0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		got, err := decodeAll(first, second)
		if err != nil {
			return
		}
		var want []string
		oracle := hpack.NewDecoder(tableBytes, func(f hpack.HeaderField) { want = append(want, f.Name+": "+f.Value) })
		for _, block := range [][]byte{first, second} {
			if _, err := oracle.Write(block); err != nil {
				if strings.Contains(err.Error(), "size update MUST") {
					t.Skip("it takes one such update, and RFC 7541 4.2 allows two")
				}
				t.Fatalf("%q is taken: %v", block, err)
			}
			if err := oracle.Close(); err != nil {
				t.Fatalf("%q is taken: %v", block, err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// talk serves one connection on which bytes come and then its end. It returns what was asked, and
// what was answered.
func talk(t *testing.T, sent []byte) (asked []string, answered []byte) {
	requests := make(chan string, len(sent)/frameHead+1)
	s := New(Config{Handler: func(x *Exchange) {
		said := fmt.Sprintf("%s %s %s", x.Method, x.Target, x.Authority)
		cookie := ""
		for line := range x.Fields.All() {
			if line.Name == "cookie" {
				cookie = "\ncookie: " + line.Value
			} else {
				said += "\n" + line.Name + ": " + line.Value
			}
		}
		said += cookie
		requests <- said
		x.Reply(&Reply{Status: 200, Mem: []byte("hello")})
	}, Panicked: func(fault any, stack []byte) { t.Errorf("panic: %v\n%s", fault, stack) }})
	defer s.Close()
	l := &recorded{looped: looped{hello: sent}}
	serveLoop(s, l)
	s.serving.Wait()
	close(requests)
	for r := range requests {
		asked = append(asked, r)
	}
	return asked, l.out.Bytes()
}

// recorded keeps what is sent.
type recorded struct {
	looped
	out bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error) { return r.out.Write(p) }

// askedOf is what the frames of a client could ask for, as the Framer and the decoder of
// golang.org/x/net read them up to an error.
func askedOf(sent []byte) (all []string) {
	framer := http2.NewFramer(nil, bytes.NewReader(withoutPriorities(sent)))
	framer.SetMaxReadFrameSize(frameBytes)
	var fields []hpack.HeaderField
	decoder := hpack.NewDecoder(tableBytes, func(f hpack.HeaderField) { fields = append(fields, f) })
	var block []byte
	for {
		frame, err := framer.ReadFrame()
		if broken := (http2.StreamError{}); err != nil && !errors.As(err, &broken) {
			return all
		}
		ends := false
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			block, ends = bytes.Clone(f.HeaderBlockFragment()), f.HeadersEnded()
		case *http2.ContinuationFrame:
			block, ends = append(block, f.HeaderBlockFragment()...), f.HeadersEnded()
		}
		if !ends {
			continue
		}
		fields = nil
		if _, err := decoder.Write(block); err != nil || decoder.Close() != nil {
			return all
		}
		all = append(all, requestOf(fields))
	}
}

// withoutPriorities leaves out PRIORITY frames: the Framer ends the connection for one of another
// length, where RFC 9113 6.3 has the stream end.
func withoutPriorities(frames []byte) (rest []byte) {
	for len(frames) >= frameHead {
		n := min(frameHead+int(frames[0])<<16+int(frames[1])<<8+int(frames[2]), len(frames))
		if frames[3] != framePriority {
			rest = append(rest, frames[:n]...)
		}
		frames = frames[n:]
	}
	return append(rest, frames...)
}

// requestOf is the request that fields make, in the words of talk.
func requestOf(fields []hpack.HeaderField) string {
	pseudo, said, cookies := map[string]string{}, "", []string(nil)
	for _, f := range fields {
		switch {
		case f.Name == "host" || f.IsPseudo():
			pseudo[f.Name] = f.Value
		case f.Name == "cookie":
			cookies = append(cookies, f.Value)
		default:
			said += "\n" + f.Name + ": " + f.Value
		}
	}
	if len(cookies) > 0 {
		said += "\ncookie: " + strings.Join(cookies, "; ")
	}
	authority := cmp.Or(pseudo[":authority"], pseudo["host"])
	target := pseudo[":path"]
	if pseudo[":method"] == "CONNECT" {
		target = authority
	}
	return fmt.Sprintf("%s %s %s", pseudo[":method"], target, authority) + said
}

// FuzzH2 holds the server to the Framer of golang.org/x/net: what it takes for requests, that reads
// alike and in that order, and what it sends are frames in an order that a client takes.
func FuzzH2(f *testing.F) {
	var session bytes.Buffer
	w := &h2peer{Framer: http2.NewFramer(&session, nil), t: f}
	w.encoder = hpack.NewEncoder(&w.encoded)
	w.ask(1, "accept: a/b", "cookie: a=b")
	w.begin(3, append(get("/b"), "content-length: 3")...)
	w.must(w.WriteData(3, true, []byte("abc")))
	w.must(w.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 5, BlockFragment: w.block()[:3], EndStream: true, PadLength: 4,
	}))
	w.must(w.WriteContinuation(5, true, w.block()[3:]))
	w.must(w.WriteSettings(windows(3)))
	w.ask(7, get("/c")...)
	w.must(w.WriteWindowUpdate(7, 100))
	w.must(w.WritePing(false, [8]byte{1}))
	f.Add(session.Bytes())
	session = bytes.Buffer{}
	w.begin(1)
	w.trailers(1, "x: y")
	w.must(w.WriteRSTStream(1, http2.ErrCodeCancel))
	w.must(w.WritePriority(3, http2.PriorityParam{StreamDep: 1}))
	w.ask(3, ":method: CONNECT", ":authority: a.test:443")
	w.must(w.WriteGoAway(0, http2.ErrCodeNo, nil))
	w.ask(5, "host: A.test")
	f.Add(session.Bytes())
	session = bytes.Buffer{}
	w.must(w.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
	hello := append([]byte(http2.ClientPreface), session.Bytes()...)
	f.Fuzz(func(t *testing.T, frames []byte) {
		asked, answered := talk(t, append(slices.Clip(hello), frames...))
		could := askedOf(append(slices.Clip(hello[len(http2.ClientPreface):]), frames...))
		for _, request := range asked {
			i := slices.Index(could, request)
			if i < 0 {
				t.Fatalf("took %q for a request, of %q", request, could)
			}
			could = could[i+1:]
		}
		ended := map[uint32]bool{}
		framer := http2.NewFramer(nil, bytes.NewReader(answered))
		framer.ReadMetaHeaders = hpack.NewDecoder(0, nil)
		for {
			frame, err := framer.ReadFrame()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatalf("sent no frame: %v", err)
			}
			id := frame.Header().StreamID
			switch f := frame.(type) {
			case *http2.MetaHeadersFrame:
				if ended[id] {
					t.Fatalf("%v follows the end of its stream", f)
				}
				ended[id] = f.StreamEnded()
			case *http2.DataFrame:
				if end, begun := ended[id]; end || !begun {
					t.Fatalf("%v is not between the head and the end of its stream", f)
				}
				ended[id] = f.StreamEnded()
			}
		}
	})
}
