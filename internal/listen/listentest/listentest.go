// Package listentest finds addresses for tests that have to name one before anything listens there.
package listentest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
)

// Unused returns a loopback address, `host:port`, where nobody listens, and where nobody else will
// while the test runs: the host is one of the 16 million of 127.0.0.0/8 (RFC 6890, section 2.2.2),
// picked at random, so a port that the kernel hands out on 127.0.0.1 meanwhile is another socket.
// Systems other than Linux only have 127.0.0.1 by themselves; there the port may be taken between
// the call and its use.
func Unused(t testing.TB) string {
	t.Helper()
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}
