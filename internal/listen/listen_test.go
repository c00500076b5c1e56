package listen

import (
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	l, err := Open("--http-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	if _, err := Open("--http-addr", taken); err == nil ||
		err.Error() != "--http-addr "+taken+" is in use by another program: choose another address" {
		t.Errorf("a port in use: %v", err)
	}
	for _, address := range []string{"127.0.0.1", "foo", "::1"} {
		_, err := Open("--http-addr", address)
		if err == nil ||
			!strings.HasPrefix(err.Error(), "--http-addr "+address+" ") &&
				!strings.HasPrefix(err.Error(), "--http-addr: ") {
			t.Errorf("an address without a port: %v", err)
		}
	}
	if _, err := Open("--http-addr", "foo"); err == nil ||
		!strings.Contains(err.Error(), "foo has no port: write host:port") {
		t.Errorf("a name without a port: %v", err)
	}
}

func TestWithPort(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:7071", "127.0.0.1:80": "127.0.0.1:80", "cp.example.com": "cp.example.com:7071",
		"::1": "[::1]:7071", "[::1]": "[::1]:7071", "[::1]:80": "[::1]:80", "": "",
	} {
		if got := WithPort(address, "7071"); got != want {
			t.Errorf("WithPort(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:80": true, "127.9.9.9:80": true, "[::1]:80": true, "localhost:80": true, "localhost": true,
		"127.0.0.1": true, "::1": true, ":80": false, "0.0.0.0:80": false, "[::]:80": false, "10.0.0.1:80": false,
		"cp.example.com:80": false, "localhost.example.com:80": false, "": false,
	} {
		if got := Loopback(address); got != want {
			t.Errorf("Loopback(%q) = %t", address, got)
		}
	}
}
