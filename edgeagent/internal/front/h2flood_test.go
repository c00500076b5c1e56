package front

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A client that sends frames without end, none of which asks for something, gets GOAWAY, and
// one that asks for more than may be answered at once is refused it. Each flood has a number that
// ends it, however fast or slow it comes.
func TestH2Floods(t *testing.T) {
	t.Parallel()
	for name, flood := range map[string]struct {
		most int // how many of it may be sent
		send func(p *h2peer, i uint32)
	}{
		"empty continuations": {maxContinuations + 1, func(p *h2peer, i uint32) {
			if i == 0 {
				p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(), EndStream: true})
			}
			p.WriteContinuation(1, false, nil)
		}},
		"continuations": {5, func(p *h2peer, i uint32) {
			if i == 0 {
				p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(), EndStream: true})
			}
			p.WriteContinuation(1, false, make([]byte, frameBytes))
		}},
		"pings":          {40_000, func(p *h2peer, i uint32) { p.WritePing(false, [8]byte{}) }},
		"answered pings": {40_000, func(p *h2peer, i uint32) { p.WritePing(true, [8]byte{}) }},
		"settings":       {40_000, func(p *h2peer, i uint32) { p.WriteSettings() }},
		"long settings": {400, func(p *h2peer, i uint32) {
			p.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, frameBytes/6*6))
		}},
		"priorities":     {40_000, func(p *h2peer, i uint32) { p.WritePriority(1, http2.PriorityParam{}) }},
		"unknown frames": {40_000, func(p *h2peer, i uint32) { p.WriteRawFrame(0x77, 0, 0, nil) }},
		"windows":        {40_000, func(p *h2peer, i uint32) { p.WriteWindowUpdate(0, 1) }},
		"empty data":     {40_000, func(p *h2peer, i uint32) { p.first(i); p.WriteData(1, false, nil) }},
		"padding": {
			40_000, func(p *h2peer, i uint32) { p.first(i); p.WriteDataPadded(1, false, nil, make([]byte, 1)) },
		},
		"resets of old": {
			40_000, func(p *h2peer, i uint32) { p.first(i); p.WriteRSTStream(1, http2.ErrCodeCancel) },
		},
		"long lists of few bytes": {200, func(p *h2peer, i uint32) { p.expand(i, 2*i+1, 60, true) }},
		"long trailers of few bytes": {60, func(p *h2peer, i uint32) {
			p.expand(i, 4*i+1, 0, true)
			block := append([]byte{0x82, 0x87, 0x84, 0x01, 6}, "a.test"...)
			p.WriteHeaders(http2.HeadersFrameParam{StreamID: 4*i + 3, BlockFragment: block, EndHeaders: true})
			p.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 4*i + 3, BlockFragment: bytes.Repeat([]byte{0xbe}, 60), EndHeaders: true, EndStream: true,
			})
		}},
		"malformed lists of few bytes": {200, func(p *h2peer, i uint32) {
			p.expand(i, 2*i+1, 60, false)
		}},
		"a list that fills a frame": {2, func(p *h2peer, i uint32) { p.expand(i, 2*i+1, 10_000*int(i), true) }},
		"malformed":                 {60_000, func(p *h2peer, i uint32) { p.ask(2*i+1, "X: y") }},
		"too many streams":          {3*maxStreams + 1, func(p *h2peer, i uint32) { p.ask(2*i + 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			defer close(release)
			var running, peak atomic.Int64
			r := newRig(t, func(x *Exchange) {
				if n := running.Add(1); n > peak.Load() {
					peak.Store(n)
				}
				x.Own()
				<-release
				running.Add(-1)
			}, nil)
			p := r.peer()
			p.t = t
			code := make(chan http2.ErrCode, 1)
			go func() {
				defer close(code)
				for {
					frame, err := p.ReadFrame()
					if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
						t.Error("the connection lives on")
					}
					if err != nil {
						return
					}
					if f, ok := frame.(*http2.GoAwayFrame); ok {
						code <- f.ErrCode
						return
					}
				}
			}()
			var frames bytes.Buffer
			writer := &h2peer{Framer: http2.NewFramer(&frames, nil), t: t}
			writer.encoder = hpack.NewEncoder(&writer.encoded)
			for i := range uint32(flood.most) {
				flood.send(writer, i)
				if frames.Len() < frameBytes && i+1 < uint32(flood.most) {
					continue
				}
				if _, err := p.conn.Write(frames.Bytes()); err != nil {
					break
				}
				frames.Reset()
			}
			// Who sends on may not get to read why.
			if got, said := <-code; said && got != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("got %v", got)
			}
			if n := peak.Load(); n > maxStreams {
				t.Errorf("%d at once", n)
			}
		})
	}
}

// expand asks for something with a field of 4 KB, which the first request puts into the table,
// and so many more times that field, which takes a byte each. The field may be a good one or not.
func (p *h2peer) expand(i, stream uint32, times int, good bool) {
	block := append([]byte{0x82, 0x87, 0x84, 0x01, 6}, "a.test"...)
	if i == 0 {
		name := bytes.Repeat([]byte("x"), 4000)
		if !good {
			name[len(name)-1] = 'X'
		}
		block = append(append(append(block, 0x40, 0x7f, 0xa1, 0x1e), name...), 0)
	}
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: append(block, bytes.Repeat([]byte{0xbe}, times)...), EndStream: true,
		EndHeaders: true,
	}))
}

// first begins a request whose content follows.
func (p *h2peer) first(i uint32) {
	if i == 0 {
		p.begin(1)
	}
}

// A client that resets what it asked for, or has the server reset it, does not get more answered at
// once, because a handler counts until it has returned; and one that asks for no more than it may
// is not refused (CVE-2023-44487, CVE-2025-8671).
func TestH2RapidReset(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]func(p *h2peer, id uint32){
		"by the client": func(p *h2peer, id uint32) { p.WriteRSTStream(id, http2.ErrCodeCancel) },
		"an empty window": func(p *h2peer, id uint32) {
			p.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
		},
		"too wide a window":     func(p *h2peer, id uint32) { p.WriteWindowUpdate(id, maxWindow) },
		"data behind the end":   func(p *h2peer, id uint32) { p.WriteData(id, false, []byte("x")) },
		"an end behind the end": func(p *h2peer, id uint32) { p.WriteData(id, true, nil) },
		"trailers behind the end": func(p *h2peer, id uint32) {
			p.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: p.fieldBlock("x: y"), EndStream: true, EndHeaders: true,
			})
		},
		"a short priority": func(p *h2peer, id uint32) {
			p.WriteRawFrame(http2.FramePriority, 0, id, make([]byte, 4))
		},
		"a stream that depends on itself": func(p *h2peer, id uint32) {
			p.WritePriority(id, http2.PriorityParam{StreamDep: id})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRapidReset(t, reset)
		})
	}
}

func testRapidReset(t *testing.T, reset func(p *h2peer, id uint32)) {
	var running, peak, begun atomic.Int64
	release := make(chan struct{})
	r := newRig(t, func(x *Exchange) {
		begun.Add(1)
		if n := running.Add(1); n > peak.Load() {
			peak.Store(n)
		}
		defer running.Add(-1)
		x.Own()
		<-release
	}, nil)
	p := r.peer()
	p.AllowIllegalWrites = true
	const asked = maxStreams + 50
	for i := range uint32(asked) {
		p.ask(2*i + 1)
		reset(p, 2*i+1)
	}
	p.must(p.WritePing(false, [8]byte{}))
	refused := map[uint32]bool{}
	for done := false; !done; {
		switch f := p.next().(type) {
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeRefusedStream {
				refused[f.StreamID] = true
			}
		case *http2.PingFrame:
			done = true
		default:
			t.Fatalf("got %v", f)
		}
	}
	if peak.Load() > maxStreams || begun.Load() != maxStreams || len(refused) != asked-maxStreams {
		t.Errorf("%d begun, %d at once, %d refused", begun.Load(), peak.Load(), len(refused))
	}
	close(release)
	await.True(t, "the handlers have returned", func() bool { return running.Load() == 0 })
	for i := range uint32(2 * maxStreams) { // They count no more.
		id := 2*(asked+i) + 1
		p.ask(id)
		// which is that nothing was answered
		if a := p.answer(id); a.reset == nil || *a.reset != http2.ErrCodeInternal {
			t.Fatalf("got %v", a)
		}
	}
}

// inBubble tests HTTP/2, without TLS, where time passes when everything waits.
func inBubble(t *testing.T, handler Handler, test func(t *testing.T, s *Server, p *h2peer, conn net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{
			Handler: handler, MaxConnections: 10, MaxConnectionsPerClient: 10, Refused: func(string) {},
			AcceptFailed: func(net.Addr, error) {},
			Panicked:     func(fault any, stack []byte) { t.Errorf("panic: %v\n%s", fault, stack) },
		})
		server, client := net.Pipe()
		c := newConn(s, server, nil)
		c.release = func() {}
		s.add(c)
		s.serving.Add(1)
		go c.serveH2()
		test(t, s, &h2peer{t: t}, client)
		client.Close()
		s.Close()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// A connection ends when nothing is asked on it for long, whatever else is sent, or when a head is
// not whole in time. It gets GOAWAY, and while something is answered it lives.
func TestH2Times(t *testing.T) {
	t.Parallel()
	slowly := func(x *Exchange) {
		if x.Target == "/slow" {
			x.Own()
			<-time.After(10 * time.Minute)
		}
		x.Reply(&Reply{Status: 200, Mem: []byte("here")})
	}
	for name, test := range map[string]struct {
		send func(p *h2peer)
		want time.Duration // until GOAWAY, or the end
		bare bool          // the client says nothing by itself
	}{
		"nothing said":  {func(p *h2peer) {}, headTime, true},
		"nothing asked": {func(p *h2peer) {}, idleTime, false},
		"pings": {func(p *h2peer) {
			for range 100 {
				if p.WritePing(false, [8]byte{}) != nil {
					return
				}
				<-time.After(time.Second)
			}
		}, idleTime, false},
		"a quick request": {func(p *h2peer) {
			<-time.After(time.Minute)
			p.ask(1)
		}, time.Minute + idleTime, false},
		"a slow request": {func(p *h2peer) { p.ask(1, get("/slow")...) }, 10*time.Minute + idleTime, false},
		"a head that does not end": {func(p *h2peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(), EndStream: true}))
			for range maxContinuations {
				<-time.After(2 * time.Second)
				if p.WriteContinuation(1, false, nil) != nil {
					return
				}
			}
		}, headTime, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, slowly, func(t *testing.T, s *Server, p *h2peer, conn net.Conn) {
				began := time.Now()
				ended := make(chan time.Duration, 1)
				go func() {
					framer := http2.NewFramer(nil, conn)
					for {
						frame, err := framer.ReadFrame()
						if _, away := frame.(*http2.GoAwayFrame); away || err != nil {
							ended <- time.Since(began)
							io.Copy(io.Discard, conn)
							return
						}
					}
				}()
				if !test.bare {
					p = newPeer(t, conn)
				}
				test.send(p)
				if took := <-ended; took < test.want || took > test.want+3*time.Second {
					t.Errorf("ended after %v, want %v", took, test.want)
				}
			})
		})
	}
}

// A server that stops answers what it was asked, sends clients elsewhere, and is gone soon.
func TestH2Drain(t *testing.T) {
	t.Parallel()
	release, asked := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(x *Exchange) {
		if x.Target == "/slow" {
			x.Own()
			close(asked)
			<-release
		}
		x.Reply(&Reply{Status: 200, Mem: []byte("here")})
	}, nil)
	busy, idle := r.peer(), r.peer()
	idle.ask(1)
	idle.answer(1)
	busy.ask(1, get("/slow")...)
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- r.server.Shutdown(t.Context()) }()
	goAway := func(p *h2peer) *http2.GoAwayFrame {
		t.Helper()
		f, ok := p.next().(*http2.GoAwayFrame)
		if !ok || f.ErrCode != http2.ErrCodeNo {
			t.Fatalf("got %v", f)
		}
		return f
	}
	if f := goAway(busy); f.LastStreamID != maxWindow {
		t.Errorf("got %v", f)
	}
	ping, ok := busy.next().(*http2.PingFrame)
	if !ok {
		t.Fatal("no PING")
	}
	busy.ask(3) // It was on its way.
	if a := busy.answer(3); a.body != "here" {
		t.Errorf("got %v", a)
	}
	busy.must(busy.WritePing(true, ping.Data))
	if f := goAway(busy); f.LastStreamID != 3 {
		t.Errorf("got %v", f)
	}
	busy.ask(5) // Nobody answers that.
	close(release)
	if a := busy.answer(1); a.body != "here" {
		t.Errorf("got %v", a)
	}
	for _, p := range []*h2peer{busy, idle} {
		for f := p.next(); f != nil; f = p.next() {
			switch f.(type) {
			case *http2.GoAwayFrame, *http2.PingFrame:
			default:
				t.Errorf("got %v", f)
			}
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// However a connection is cut, at each byte of what a client sends, nothing is left of it.
func TestH2Cuts(t *testing.T) {
	t.Parallel()
	var running atomic.Int64
	r := newRig(t, func(x *Exchange) {
		running.Add(1)
		defer running.Add(-1)
		if x.Target == "/wait" {
			<-x.Context().Done()
		}
		x.Reply(&Reply{Status: 200, Mem: make([]byte, 100<<10)})
	}, nil)
	var session bytes.Buffer
	w := &h2peer{Framer: http2.NewFramer(&session, nil), t: t}
	w.encoder = hpack.NewEncoder(&w.encoded)
	session.WriteString(http2.ClientPreface)
	w.must(w.WriteSettings(windows(1 << 20)))
	w.ask(1)
	w.ask(3, get("/wait")...)
	w.begin(5)
	w.must(w.WriteData(5, true, []byte("content")))
	w.must(w.WriteRSTStream(3, http2.ErrCodeCancel))
	w.ask(7, get("/wait")...)
	all := session.Bytes()
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 0; at <= len(all); at += step {
		for _, reset := range []bool{false, true} {
			conn := r.dial(overH2())
			half := at / 2
			conn.Write(all[:half])
			conn.Write(all[half:at])
			if reset {
				conn.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn).SetLinger(0)
			}
			conn.(interface{ NetConn() net.Conn }).NetConn().Close()
		}
	}
	trickle := r.dial(overH2())
	for i := range all {
		trickle.Write(all[i : i+1])
	}
	trickle.Close()
	await.True(t, "nothing is left", func() bool {
		n := 0
		for i := range r.server.live {
			r.server.live[i].mu.Lock()
			n += len(r.server.live[i].conns)
			r.server.live[i].mu.Unlock()
		}
		return n == 0 && running.Load() == 0
	})
}
