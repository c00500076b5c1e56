package edgehttp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What one HTTP/2 connection may have under way, and how long the head of a request may take.
const (
	maxStreams        = 128
	readHeaderTimeout = 5 * time.Second
)

// mostFlood is how much an attacker may send on one connection before it is ended, of which the
// kernel's buffers hold a part. A small frame counts for more than its bytes.
const mostFlood = 32 << 20

// A flood of frames on one connection ends that connection, or is worked off, before it costs
// memory; it starts no more requests than one connection may have, and others are served.
//
// It counts what the whole process has, so no other test runs beside it.
func TestFloodsOfFrames(t *testing.T) {
	var held, most atomic.Int64
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		now := held.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		defer held.Add(-1)
		stuck(w, r)
	})))
	e.get("shared.test", "/acme/a.txt")
	e.awaitStored(1)
	var heads bytes.Buffer
	encoder := hpack.NewEncoder(&heads)
	head := func(path string) []byte {
		heads.Reset()
		for _, f := range [][2]string{
			{":method", "GET"}, {":scheme", "https"}, {":authority", "img.acme.test"}, {":path", path},
		} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return heads.Bytes()
	}
	piece := make([]byte, 16<<10)
	for _, flood := range []struct {
		name string
		ends bool // the connection
		send func(f *http2.Framer, i uint32) (bytes int, err error)
	}{
		{"rapid reset", false, func(f *http2.Framer, i uint32) (int, error) {
			err := f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 2*i + 1, BlockFragment: head("/slow"), EndStream: true, EndHeaders: true,
			})
			return 1 << 13, errors.Join(err, f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)) // 4,096 times
		}},
		{"endless head", true, func(f *http2.Framer, i uint32) (int, error) {
			if i == 0 {
				return len(piece),
					f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head("/a.txt"), EndStream: true})
			}
			return len(piece), f.WriteContinuation(1, false, piece)
		}},
		// Each costs its nine bytes and nothing is kept of it: what ends such a head is time.
		{"empty continuations", false, func(f *http2.Framer, i uint32) (int, error) {
			if i == 0 {
				return 9,
					f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head("/a.txt"), EndStream: true})
			}
			return 256, f.WriteContinuation(1, false, nil)
		}},
		{"pings whose answers nobody reads", false, func(f *http2.Framer, i uint32) (int, error) {
			return 512, f.WritePing(false, [8]byte{byte(i)})
		}},
		{"settings", false, func(f *http2.Framer, i uint32) (int, error) {
			return 512, f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: i & 0xffff})
		}},
	} {
		t.Run(flood.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			most.Store(0)
			framer := e.windowless("img.acme.test")
			var err error
			sent, peak := 0, 0
			live := func() uint64 {
				var memory runtime.MemStats
				if runtime.ReadMemStats(&memory); memory.HeapAlloc > mostFlood {
					runtime.GC() // which keeps what is allocated meanwhile
					runtime.GC()
					runtime.ReadMemStats(&memory)
				}
				return memory.HeapAlloc
			}
			heap := live()
			for i := uint32(0); sent < mostFlood && err == nil; i++ {
				var n int
				n, err = flood.send(framer, i)
				sent += n
				if i%1000 == 0 {
					peak = max(peak, runtime.NumGoroutine())
					if now := live(); now > heap+mostFlood {
						t.Fatalf("the heap grew by %d bytes", now-heap)
					}
				}
			}
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				err = nil // Nothing is read any more, and the connection is kept.
			}
			if flood.ends && err == nil {
				t.Errorf("the connection was not ended after %d bytes", sent)
			}
			if n := most.Load(); n > maxStreams {
				t.Errorf("%d requests at once", n)
			}
			if peak > before+12*maxStreams { // of which a request has some here, and some at its origin
				t.Errorf("%d goroutines, %d before", peak, before)
			}
			if response, body := e.get("shared.test", "/acme/a.txt"); response == nil || response.StatusCode != 200 ||
				body != fileText {
				t.Errorf("another client got %v %q", response, body)
			}
			e.await("nothing is left of it",
				func() bool { return held.Load() == 0 && e.metric("edgewalk_edge_requests_in_flight") == 0 })
		})
	}
}

// A head that comes byte by byte has readHeaderTimeout, however lively it is.
func TestSlowHeadsAreEnded(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for readHeaderTimeout")
	}
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	conn := e.dial()
	began := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(io.Discard, conn)
	}()
	io.WriteString(conn, "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nX-Slow: ")
	drip := time.NewTicker(200 * time.Millisecond)
	defer drip.Stop()
	for lives := true; lives; {
		select {
		case <-ended:
			lives = false
		case <-drip.C:
			io.WriteString(conn, "x")
			if time.Since(began) > 3*readHeaderTimeout {
				t.Fatal("the connection lives on")
			}
		}
	}
	if took := time.Since(began); took < readHeaderTimeout-time.Second {
		t.Errorf("ended after %v", took)
	}
}
