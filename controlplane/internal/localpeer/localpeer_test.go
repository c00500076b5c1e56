package localpeer

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
)

// The client's end of a connection within this machine belongs to the user of the process that
// opened it: here, to the user who runs the test.
func TestUser(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux lists connections with their users: run it there")
	}
	for _, network := range []struct{ listen, dial string }{
		{"127.0.0.1:0", "tcp4"}, {"[::1]:0", "tcp6"}, {":0", "tcp4"}, {":0", "tcp6"},
	} {
		l, err := net.Listen("tcp", network.listen)
		if err != nil {
			t.Logf("%s: %v", network.listen, err) // a machine without IPv6
			continue
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		host := map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"}[network.dial]
		client, err := net.Dial(network.dial, net.JoinHostPort(host, port))
		if err != nil {
			t.Logf("%s: %v", network.dial, err)
			continue
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		at, to := addrPort(server.RemoteAddr()), addrPort(server.LocalAddr())
		if id, ok := User(at, to); !ok || id != uint32(os.Getuid()) {
			t.Errorf("%v: the user is %d, %v, want %d", network, id, ok, os.Getuid())
		}
		if id, ok := User(netip.AddrPortFrom(at.Addr(), at.Port()^1), to); ok {
			t.Errorf("%v: a connection that there is not belongs to %d", network, id)
		}
	}
}

func TestOnlyLoopback(t *testing.T) {
	t.Parallel()
	if id, ok := User(netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("192.0.2.2:7070")); ok {
		t.Errorf("another machine's end belongs to %d", id)
	}
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
