package front

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

// The end of a body of unknown length needs no window (RFC 9113 6.9.1): neither one of its stream,
// nor one of the connection, which other streams may have used up.
func TestH2EndNeedsNoWindow(t *testing.T) {
	t.Parallel()
	for _, stream := range []uint32{firstWindow, 1 << 20} {
		r := newRig(t, func(x *Exchange) {
			n := firstWindow
			if x.Target == "/empty" {
				n = 0
			}
			x.Reply(&Reply{Status: 200, Length: -1, Stream: bytes.NewReader(make([]byte, n))})
		}, nil)
		p := r.peer(windows(stream))
		p.ask(1, get("/")...)
		p.data(firstWindow)
		// All windows are used up now. The end of the body is not to be waited for.
		p.must(p.WritePing(false, [8]byte{1}))
		p.ask(3, get("/empty")...)
		p.must(p.WritePing(false, [8]byte{2}))
		ended := map[uint32]bool{}
		for pings := 0; len(ended) < 2; {
			switch f := p.next().(type) { // fails the test after a while
			case *http2.DataFrame:
				ended[f.StreamID] = f.StreamEnded()
			case *http2.PingFrame:
				pings++
			case nil:
				t.Fatal("the connection has ended")
			}
		}
	}
}
