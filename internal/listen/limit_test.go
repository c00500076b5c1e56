package listen

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestClient(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::1": "::",
		"2001:db8:1:2ff:3::4": "2001:db8:1:200::", "2001:db8:1:300::": "2001:db8:1:300::",
	} {
		if got := Client(netip.MustParseAddr(address)); got != netip.MustParseAddr(want) {
			t.Errorf("%s is of %s, want %s", address, got, want)
		}
	}
	if Client(netip.Addr{}) != (netip.Addr{}) {
		t.Error("no address has a client")
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	proxy := netip.MustParsePrefix("203.0.113.0/24")
	p := Places{Max: 6, PerClient: 2, Exempt: []netip.Prefix{proxy}}
	for _, step := range []struct{ address, refused string }{
		{"192.0.2.1", ""}, {"192.0.2.1", ""}, {"192.0.2.1", "connections_per_client"},
		{"203.0.113.1", ""}, {"203.0.113.1", ""}, {"203.0.113.1", ""},
		{"192.0.2.2", ""}, {"192.0.2.3", "connections"},
	} {
		if got := p.Take(netip.MustParseAddr(step.address)); got != step.refused {
			t.Errorf("%s: %q, want %q", step.address, got, step.refused)
		}
	}
	p.Release(netip.MustParseAddr("192.0.2.1"))
	if got := p.Take(netip.MustParseAddr("192.0.2.1")); got != "" {
		t.Errorf("after one was given back: %q", got)
	}
}

// A connection too many is closed at once; one that ends makes room.
func TestLimit(t *testing.T) {
	t.Parallel()
	bound, err := Open("--http-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan string, 1)
	l := Limit(bound, &Places{Max: 9, PerClient: 1}, func(reason string) { refused <- reason })
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		return conn
	}
	dial()
	first := <-accepted
	if _, err := dial().Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one too many: %v, want the end", err)
	}
	if reason := <-refused; reason != "connections_per_client" {
		t.Errorf("refused for %q", reason)
	}
	first.Close()
	first.Close() // gives back one place
	dial()
	(<-accepted).Close()
	l.Close()
	<-accepted
}
