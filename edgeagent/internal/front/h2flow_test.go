package front

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// windows are settings that leave no stream without a window, or each with so much.
func windows(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}
}

// data reads DATA frames until so many bytes have come, and returns whose they were.
func (p *h2peer) data(bytes int) (byStream map[uint32]int) {
	p.t.Helper()
	byStream = map[uint32]int{}
	for bytes > 0 {
		switch f := p.next().(type) {
		case nil:
			p.t.Fatal("the connection has ended")
		case *http2.DataFrame:
			byStream[f.StreamID] += len(f.Data())
			bytes -= len(f.Data())
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			p.t.Fatalf("got %v", f)
		}
	}
	return byStream
}

// quiet checks that nothing comes but the answer to a PING.
func (p *h2peer) quiet() {
	p.t.Helper()
	p.must(p.WritePing(false, [8]byte{1}))
	for {
		switch f := p.next().(type) {
		case *http2.PingFrame:
			return
		case *http2.MetaHeadersFrame:
		default:
			p.t.Fatalf("got %v", f)
		}
	}
}

func sendBig(x *Exchange) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	switch x.Target {
	case "/small":
		x.Reply(&Reply{Status: 200, Mem: []byte("small")})
	case "/stream":
		x.Reply(&Reply{Status: 200, Length: -1, Stream: bytes.NewReader(big)})
	default:
		x.Reply(&Reply{Status: 200, Mem: big})
	}
}

// No more is sent than the windows of a stream and of the connection allow, however they change
// (RFC 9113 6.9).
func TestH2Windows(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/memory", "/stream"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sendBig, nil)
			p := r.peer(windows(0))
			p.t = t
			p.ask(1, get(path)...)
			p.quiet()
			p.must(p.WriteWindowUpdate(1, 1000))
			p.data(1000)
			p.quiet()
			p.must(p.WriteSettings(windows(10)))
			p.data(10)
			p.must(p.WriteWindowUpdate(1, 1000))
			p.data(1000)
			p.must(p.WriteSettings(windows(0))) // 10 below nothing
			p.must(p.WriteWindowUpdate(1, 10))
			p.quiet()
			p.must(p.WriteWindowUpdate(1, 1))
			p.data(1)
			p.must(p.WriteWindowUpdate(1, 1<<20)) // The connection's window ends it.
			p.data(firstWindow - 2011)
			p.quiet()
			p.must(p.WriteWindowUpdate(0, 100))
			p.data(100)
			p.quiet()
			p.ask(3, get("/small")...) // waits too, and does not go first
			p.quiet()
			p.must(p.WriteWindowUpdate(3, 100))
			p.must(p.WriteWindowUpdate(0, 1<<20))
			all, _ := p.answers(1, 3)
			if !all[1].whole || all[3].body != "small" {
				t.Errorf("got %v and %v", all[1], all[3])
			}
		})
	}
}

// Streams take turns by frames, and one whose client gives it no window holds up no other.
func TestH2StreamsTakeTurns(t *testing.T) {
	t.Parallel()
	r := newRig(t, sendBig, nil)
	p := r.peer(windows(0))
	const streams, body = 4, 320 << 10
	for i := range uint32(streams) {
		p.ask(2*i+1, get("/memory")...)
	}
	p.ask(99, get("/memory")...)
	for range streams + 1 { // Each body follows its head as soon as it may.
		if f, ok := p.next().(*http2.MetaHeadersFrame); !ok {
			t.Fatalf("got %v", f)
		}
	}
	for i := range uint32(streams) {
		p.must(p.WriteWindowUpdate(2*i+1, 1<<20))
	}
	p.data(firstWindow) // of the connection
	p.quiet()
	p.must(p.WriteWindowUpdate(0, 1<<24))
	byStream := p.data(streams * body / 2)
	for i := range uint32(streams) {
		if n := byStream[2*i+1]; n < body/4 {
			t.Errorf("stream %d got %d bytes while others got %v", 2*i+1, n, byStream)
		}
	}
}

// A request that waits, for whatever, holds up no other on its connection.
func TestH2RequestsThatWait(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	reader, writer := io.Pipe()
	r := newRig(t, func(x *Exchange) {
		switch x.Target {
		case "/own":
			x.Own()
			<-release
		case "/context":
			x.Context()
			<-release
		case "/content":
			if !x.HasContent() {
				<-release
			}
		case "/stream":
			x.Reply(&Reply{Status: 200, Length: -1, Stream: reader})
			return
		}
		x.Reply(&Reply{Status: 200, Mem: []byte(strings.Clone(x.Target))})
	}, nil)
	p := r.peer()
	p.ask(1, get("/own")...)
	p.ask(3, get("/context")...)
	p.begin(5, get("/content")...)
	p.ask(7, get("/stream")...)
	for id := uint32(9); id < 21; id += 2 {
		p.ask(id, get("/quick")...)
		if got := p.answer(id).String(); got != "200 /quick" {
			t.Fatal(got)
		}
	}
	for range 3 { // What has come of a stream is sent at once.
		writer.Write([]byte("abc"))
		p.data(3)
	}
	writer.Close()
	p.must(p.WriteData(5, true, nil))
	close(release)
	all, _ := p.answers(1, 3, 5, 7)
	for id, want := range map[uint32]string{1: "200 /own", 3: "200 /context", 5: "200 /content", 7: " "} {
		if got := all[id].String(); got != want {
			t.Errorf("stream %d: %s, want %s", id, got, want)
		}
	}
}

// A stream whose client takes too little of it is reset, while the connection goes on. One that is
// taken slowly is not.
func TestH2StreamThatStalls(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 2)
	r := newRig(t, func(x *Exchange) {
		if x.Target != "/quick" {
			_, err := x.Reply(&Reply{Status: 200, Mem: make([]byte, 1<<20)})
			failed <- err
			return
		}
		x.Reply(&Reply{Status: 200, Mem: []byte("quick")})
	}, func(c *Config) { c.WriteStall = 300 * time.Millisecond })
	p := r.peer(windows(1000))
	p.must(p.WriteWindowUpdate(0, 1<<24))
	p.ask(1, get("/slow")...)
	p.data(1000)
	p.ask(3, get("/quick")...)
	if a := p.answer(3); a.body != "quick" {
		t.Errorf("got %v", a)
	}
	for { // Less than 16 KiB in each time is too little.
		f, reset := p.next().(*http2.RSTStreamFrame)
		if reset {
			if f.StreamID != 1 || f.ErrCode != http2.ErrCodeCancel {
				t.Errorf("got %v", f)
			}
			break
		}
		p.must(p.WriteWindowUpdate(1, 100))
	}
	if err := <-failed; err == nil {
		t.Error("the handler was told that all was sent")
	}
	p.must(p.WriteSettings(windows(1 << 20)))
	p.ask(5, get("/all")...)
	if a := p.answer(5); len(a.body) != 1<<20 {
		t.Errorf("got %v", a)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// A connection whose client reads nothing ends, and so do its handlers.
func TestH2ConnectionThatStalls(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 3)
	r := newRig(t, func(x *Exchange) {
		_, err := x.Reply(&Reply{Status: 200, Mem: make([]byte, 16<<20)})
		failed <- err
	}, func(c *Config) { c.WriteStall = 200 * time.Millisecond })
	p := r.peer(windows(1 << 30))
	p.must(p.WriteWindowUpdate(0, 1<<30))
	for id := uint32(1); id < 7; id += 2 {
		p.ask(id)
	}
	for range 3 {
		if err := <-failed; err == nil {
			t.Error("the handler was told that all was sent")
		}
	}
}

// The context of a request ends when its stream is reset or the connection ends, and not before.
func TestH2ContextEnds(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(p *h2peer){
		"reset":    func(p *h2peer) { p.must(p.WriteRSTStream(1, http2.ErrCodeCancel)) },
		"cut":      func(p *h2peer) { p.conn.Close() },
		"error":    func(p *h2peer) { p.must(p.WriteRawFrame(http2.FrameData, 0, 0, nil)) },
		"too much": func(p *h2peer) { p.must(p.WriteWindowUpdate(1, maxWindow)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began, ended := make(chan error), make(chan error, 1)
			r := newRig(t, func(x *Exchange) {
				ctx := x.Context()
				left := make(chan struct{})
				x.OnLeave(func() { close(left) })
				began <- ctx.Err()
				<-ctx.Done()
				<-left
				_, err := x.Reply(&Reply{Status: 200, Mem: []byte("too late")})
				ended <- err
			}, nil)
			p := r.peer()
			p.t = t
			p.ask(1)
			if err := <-began; err != nil {
				t.Error(err)
			}
			leave(p)
			if err := <-ended; err == nil {
				t.Error("a reply was sent")
			}
		})
	}
}

// A body follows its head also when another stream's file is being read meanwhile, which takes
// long.
func TestH2HeadsComeFirst(t *testing.T) {
	t.Parallel()
	// Linux makes this file anew from its beginning for each read elsewhere, which takes
	// milliseconds.
	slow, offset := "/proc/kallsyms", int64(4<<20)
	file, err := os.Open(slow)
	if err == nil {
		defer file.Close()
		_, err = file.ReadAt(make([]byte, frameBytes), offset)
	}
	if err != nil { // Then the others are seldom quick enough to find a fault.
		offset, slow = 0, filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(slow, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		if file, err = os.Open(slow); err != nil {
			t.Fatal(err)
		}
		defer file.Close()
	}
	r := newRig(t, func(x *Exchange) {
		if x.Target == "/slow" {
			x.Reply(&Reply{Status: 200, File: file, Offset: offset, Length: 4 * frameBytes})
			return
		}
		x.MayWait()
		x.Reply(&Reply{Status: 200, Mem: []byte("quick")})
	}, nil)
	p := r.peer(windows(1 << 20))
	p.must(p.WriteWindowUpdate(0, 1<<20))
	for stream := uint32(1); stream < 64; {
		p.ask(stream, get("/slow")...)
		ends := 1
		for ; ends <= 4; ends++ {
			p.ask(stream+2*uint32(ends), get("/quick")...)
		}
		headed := map[uint32]bool{}
		for ends > 0 {
			switch f := p.next().(type) {
			case *http2.MetaHeadersFrame:
				headed[f.StreamID] = true
			case *http2.DataFrame:
				if !headed[f.StreamID] {
					t.Fatalf("DATA of stream %d comes before its head", f.StreamID)
				}
				p.must(p.WriteWindowUpdate(0, uint32(max(1, f.Length))))
				if f.StreamEnded() {
					ends--
				}
			default:
				t.Fatalf("got %v", f)
			}
		}
		stream += 10
	}
}
