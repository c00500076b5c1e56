package controlplane

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// boundAt is a listener that says it is at an address.
type boundAt struct {
	net.Listener
	address string
}

func (b boundAt) Addr() net.Addr {
	at, err := net.ResolveTCPAddr("tcp", b.address)
	if err != nil {
		panic(err)
	}
	return at
}

// TestHosts holds who may call --http-addr by which name.
func TestHosts(t *testing.T) {
	for _, test := range []struct {
		bound        string
		known        []string
		host         string
		admins, open int // what those of REST and the dashboard get; what metrics of `dev` do
	}{
		{"127.0.0.1:7072", nil, "127.0.0.1:7072", 200, 200},
		{"127.0.0.1:7072", nil, "127.0.0.1", 200, 200},
		{"127.0.0.1:7072", nil, "localhost:7072", 200, 200},
		{"127.0.0.1:7072", nil, "LOCALHOST:9000", 200, 200}, // a forwarded port
		{"127.0.0.1:7072", nil, "[::1]:7072", 200, 200},
		{"[::1]:7072", nil, "[::1]:7072", 200, 200},
		{"127.0.0.1:7072", nil, "attacker.example:7072", 421, 421},
		{"127.0.0.1:7072", nil, "localhost.attacker.example", 421, 421},
		{"127.0.0.1:7072", nil, "127.0.0.1.attacker.example", 421, 421},
		{"127.0.0.1:7072", nil, "10.0.0.5:7072", 421, 421},
		{"10.0.0.5:7072", nil, "10.0.0.5:7072", 200, 200},
		{"10.0.0.5:7072", nil, "localhost:7072", 421, 421},
		{"10.0.0.5:7072", nil, "10.0.0.6:7072", 421, 421},
		{"0.0.0.0:7072", nil, "10.0.0.5:7072", 200, 200},
		{"[::]:7072", nil, "[2001:db8::1]:7072", 200, 200},
		{"[::]:7072", nil, "localhost", 200, 200},
		{"[::]:7072", nil, "cp.example.com", 421, 421},
		{"[::]:7072", []string{"cp.example.com"}, "CP.example.com:443", 200, 200},
		{"[::]:7072", []string{"other.example.com", "cp.example.com:7072"}, "cp.example.com", 200, 200},
		{"127.0.0.1:7072", []string{"cp.example.com"}, "sub.cp.example.com", 421, 421},
	} {
		t.Run(fmt.Sprintf("%s as %s", test.bound, test.host), func(t *testing.T) {
			ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
			for _, open := range []bool{false, true} {
				c := &ControlPlane{rest: ok, dashboard: ok, registry: prometheus.NewRegistry()}
				c.cfg.DashboardHosts, c.cfg.Open = test.known, open
				c.listeners.http = boundAt{address: test.bound}
				handler := c.httpHandler()
				for path, want := range map[string]int{
					"/v1/accounts": test.admins, "/v1:explain": test.admins, "/v1/a//b": test.admins,
					"/ui/": test.admins, "/healthz": 200,
				} {
					if open && path == "/healthz" {
						want = test.open
					}
					r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
					r.Host = test.host
					w := httptest.NewRecorder()
					if handler.ServeHTTP(w, r); w.Code != want {
						t.Errorf("open %t: %s: %d, want %d", open, path, w.Code, want)
					}
				}
			}
		})
	}
}

// TestOtherSites holds that pages of other sites change nothing.
func TestOtherSites(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	c := &ControlPlane{rest: ok, dashboard: ok, registry: prometheus.NewRegistry()}
	c.listeners.http = boundAt{address: "127.0.0.1:7072"}
	handler := c.httpHandler()
	for _, test := range []struct {
		method       string
		field, value string
		want         int
	}{
		{"POST", "Sec-Fetch-Site", "cross-site", 403},
		{"DELETE", "Sec-Fetch-Site", "same-site", 403},
		{"PUT", "Origin", "http://attacker.example", 403},
		{"PATCH", "Origin", "null", 403},
		{"POST", "Sec-Fetch-Site", "same-origin", 200},
		{"POST", "Origin", "http://127.0.0.1:7072", 200},
		{"POST", "User-Agent", "curl", 200},
		{"GET", "Sec-Fetch-Site", "cross-site", 200},
	} {
		for _, path := range []string{"/v1/accounts", "/v1:explain", "/ui/sign-in"} {
			r := httptest.NewRequestWithContext(t.Context(), test.method, path, nil)
			r.Host = "127.0.0.1:7072"
			r.Header.Set(test.field, test.value)
			w := httptest.NewRecorder()
			if handler.ServeHTTP(w, r); w.Code != test.want {
				t.Errorf("%s %s with %s: %s: %d, want %d", test.method, path, test.field, test.value, w.Code, test.want)
			}
		}
	}
}
