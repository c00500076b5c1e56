package debughttp

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestServe(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, func(w io.Writer) { io.WriteString(w, "serves revision 7\n") }) }()
	for _, c := range []struct {
		host, path string
		status     int
		says       string
	}{
		{"", "/debug/state", 200, "serves revision 7"},
		{"", "/debug/pprof/", 200, "goroutine"},
		{"", "/debug/pprof/goroutine?debug=1", 200, "debughttp.Serve"},
		{"", "/", 404, ""},
		{"evil.example.com", "/debug/state", 421, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = c.host
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s of %q: %d %.200s, %v", c.path, c.host, response.StatusCode, body, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"": true, "127.0.0.1:6060": true, "localhost:6060": true, ":6060": false, "10.0.0.1:6060": false,
	} {
		if err := CheckAddress(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
