package front

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// A client that goes on reading keeps its download however slow it is; one that takes next to
// nothing does not.
func TestDownloadsEndOnlyForThoseWhoTakeNothing(t *testing.T) {
	t.Parallel()
	const stall = 30 * time.Second
	for _, test := range []struct {
		name  string
		piece int
		every time.Duration
		kept  bool
	}{
		{"quick", 64 << 10, time.Second, true},
		{"1 KiB a second", 1 << 10, time.Second, true},
		{"a pause", 64 << 10, 25 * time.Second, true},
		{"100 bytes a second", 100, time.Second, false},
		{"a byte in each 10 s", 1, 10 * time.Second, false},
		{"nothing", 0, time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				ctx, stop := context.WithCancel(t.Context())
				go func() {
					defer client.Close()
					tick := time.NewTicker(test.every)
					defer tick.Stop()
					for {
						if _, err := io.CopyN(io.Discard, client, int64(test.piece)); err != nil {
							return
						}
						select {
						case <-tick.C:
						case <-ctx.Done():
							return
						}
					}
				}()
				conn := newWire(server, stall)
				n, err := conn.Write(make([]byte, 256<<10))
				if kept := err == nil && n == 256<<10; kept != test.kept ||
					!kept && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%d bytes, %v", n, err)
				}
				conn.Close()
				stop()
			})
		})
	}
}

// The rest of a file that sendfile cannot send is read by the handler, which finds out what is
// wrong with it. What can be read is sent, and the client sees it if the body is cut.
func TestFileThatCannotBeSent(t *testing.T) {
	t.Parallel()
	const length = smallFile + 1
	fault, err := os.Open("/proc/self/mem") // Nothing is at its beginning: reading there is EIO.
	if err != nil {
		t.Skipf("a file whose reading fails is missing, which Linux has in /proc: %v", err)
	}
	defer fault.Close()
	short, err := os.Create(filepath.Join(t.TempDir(), "short"))
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if _, err := short.WriteString("short"); err != nil {
		t.Fatal(err)
	}
	found := errors.New("found out")
	for _, test := range []struct {
		name   string
		file   *os.File
		behind int64     // which Unsent is asked
		rest   io.Reader // nil for no Unsent
		sent   int64
		err    error
	}{
		{"fault", fault, 0, iotest.ErrReader(found), 0, found},
		{"short", short, 5, iotest.ErrReader(found), 5, found},
		{"fault, known to nobody", fault, -1, nil, 0, errFile},
		{"the store has the rest", short, 5, strings.NewReader(strings.Repeat("x", length-5)), length, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			behind, n, got := int64(-1), int64(0), error(nil)
			r := newRig(t, func(x *Exchange) {
				reply := &Reply{Status: 200, File: test.file, Length: length}
				if test.rest != nil {
					reply.Unsent = func(sent int64) io.Reader { behind = sent; return test.rest }
				}
				n, got = x.Reply(reply)
			}, nil)
			answer := r.exchange(nil, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
			r.stop() // and so the handler has ended
			if !errors.Is(got, test.err) || n != test.sent || behind != test.behind {
				t.Errorf("%d bytes, %v; read on behind %d", n, got, behind)
			}
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			if int64(len(body)) != test.sent {
				t.Errorf("the client got %d bytes", len(body))
			}
		})
	}
}
