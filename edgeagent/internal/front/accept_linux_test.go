package front

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOptionsOfConnections: a connection that came before the server began, such as at a restart,
// is as quick as one that came later: what is written to it in two parts does not wait for the
// client's delayed acknowledgement. Nor does either stay for ever when its client is gone.
func TestOptionsOfConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func() {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
	}
	connect()
	a := newAcceptor(l.(*net.TCPListener))
	defer a.Close()
	connect()
	for _, which := range []string{"before", "after"} {
		fd, _, err := a.next()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for name, o := range map[string]struct{ level, name int }{
			"TCP_NODELAY": {unix.IPPROTO_TCP, unix.TCP_NODELAY}, "SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		} {
			if value, err := unix.GetsockoptInt(fd, o.level, o.name); value != 1 || err != nil {
				t.Errorf("connection that came %s: %s = %d, %v", which, name, value, err)
			}
		}
	}
}
