package edgesvc

import "testing"

func TestReachable(t *testing.T) {
	for _, c := range []struct{ address, peer, want string }{
		{"10.0.0.7:8081", "10.0.0.7:40000", "10.0.0.7:8081"},
		{"edge-1.internal:8081", "10.0.0.7:40000", "edge-1.internal:8081"},
		{"0.0.0.0:8081", "10.0.0.7:40000", "10.0.0.7:8081"},
		{"[::]:8081", "[2001:db8::7]:40000", "[2001:db8::7]:8081"},
		{"[::]:8081", "[::ffff:10.0.0.7]:40000", "10.0.0.7:8081"},
		{":8081", "10.0.0.7:40000", "10.0.0.7:8081"},
		{"[::]:8081", "@", ""}, // over a pipe
		{"127.0.0.1:8081", "127.0.0.1:40000", "127.0.0.1:8081"},
		{"127.0.0.1:8081", "10.0.0.7:40000", ""}, // another machine's loopback
		{"localhost:8081", "10.0.0.7:40000", ""},
		{"", "10.0.0.7:40000", ""},
		{"no port", "10.0.0.7:40000", ""},
	} {
		if got := reachable(c.address, c.peer); got != c.want {
			t.Errorf("%q of an agent at %s: %q, want %q", c.address, c.peer, got, c.want)
		}
	}
}
