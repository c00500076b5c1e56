package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func fleetIsShown(t *testing.T, f *fleet) {
	has(t, "edges", f.do(t, "edges"), "ID", "REGION", "eu-1", "us-1", "yes", f.edges[0].http)
	listed := f.object(t, "edges")
	edges, _ := listed["edges"].([]any)
	if len(edges) != 2 {
		t.Fatalf("edges -o json: %v", listed)
	}
	for i, one := range edges {
		e, _ := one.(map[string]any)
		if e["id"] != f.edges[i].id || e["connected"] != true || e["durable"] != true || e["appliedRevision"] == nil {
			t.Errorf("edges -o json has %v, want %s connected and durable", e, f.edges[i].id)
		}
	}
	has(t, "get edge", f.do(t, "get", "edge", "us-1", "-o", "yaml"), "region: us")
	revision := fmt.Sprint(listed["revision"])
	has(t, "wait", f.do(t, "wait", revision), "applied by 2 of 2 edges")
	has(t, "wait for a region", f.do(t, "wait", revision, "--region", "eu"), "applied by 1 of 1 edges")
	if r := f.try(t, "", "wait", revision, "--min-edges", "3", "--timeout", "200ms"); r.code != 1 ||
		r.took > 10*time.Second {
		t.Errorf("wait for more edges than there are: exit code %d after %s: %s", r.code, r.took, r.stderr)
	}
	if r := f.try(t, "", "wait", "999999999"); r.code != 1 || r.took > 10*time.Second {
		t.Errorf("wait for a revision that does not exist: exit code %d after %s: %s", r.code, r.took, r.stderr)
	}
}

func explained(t *testing.T, f *fleet) {
	o := newOrigin(t, map[string]string{"/a.txt": "a"})
	empty := newOrigin(t, nil)
	f.apply(t, fmt.Sprintf(`
account: {id: why}
origins:
  - {id: empty, web: {baseUrl: "%s"}}
  - {id: o, web: {baseUrl: "%s"}}
urlEndpoints: [{id: default, origins: [empty, o]}, {id: shots, origins: [o]}]
customDomains: [{domain: why.example, mode: ACCOUNT}]
`, empty.url, o.url))
	f.edges[1].serves(t, "/why/a.txt", "a")
	text := f.do(t, "explain", "http://why.example/a.txt", "--edge", "us-1")
	has(t, "explain", text, "us-1", "custom domain why.example", "default", "NOT HERE", "FOUND", "GET "+o.url+"/a.txt",
		"hit", "200: found at o")
	if e := f.object(
		t, "explain", "http://localhost/why/shots/a.txt",
	)["explanation"].(map[string]any); e["urlEndpoint"] != "shots" || e["path"] != "/a.txt" {
		t.Errorf("explain -o json: %v", e)
	}
	has(t, "explain what is nobody's", f.do(t, "explain", "http://nobody.example/a.txt"), "404")
	has(t, "test-origin", f.do(t, "test-origin", "o", "-A", "why", "--path", "/a.txt", "--edge", "eu-1"), "FOUND",
		"200")
	has(t, "get endpoints", f.do(t, "get", "endpoints", "-A", "why"), "media → empty → o",
		"http://localhost/why/ and 1 more")
	has(t, "get origin", f.do(t, "get", "origin", "o", "-A", "why", "-o", "yaml"), "baseUrl: "+o.url)
	e := f.object(t, "get", "endpoint", "shots", "-A", "why")["urlEndpoint"].(map[string]any)
	if urls := fmt.Sprint(e["urls"]); !strings.Contains(urls, "http://localhost/why/shots") ||
		!strings.Contains(urls, "why.example/shots") {
		t.Errorf("get endpoint -o json: urls %s", urls)
	}
}

// What was exported and is applied again changes nothing; a dry run shows what would.
func manifestRoundTrip(t *testing.T, f *fleet) {
	manifest := `
account: {id: round, displayName: Round}
origins:
  - {id: shots, s3: {bucket: shots, endpoint: "http://127.0.0.1:9", accessKeyId: k, secretAccessKey: very-secret}}
  - {id: web, web: {baseUrl: "http://127.0.0.1:9"}, requestHeaders: [{name: X-Key, secretValue: also-secret}]}
urlEndpoints: [{id: default, origins: [shots, web], cache: {mode: OVERRIDE, defaultTtl: 600s}}, {id: extra, origins: [web]}]
`
	f.apply(t, manifest)
	has(t, "apply again", f.apply(t, manifest), "accounts/round unchanged", "accounts/round/origins/shots unchanged")
	exported := f.do(t, "export", "round")
	if strings.Contains(exported, "secret") && strings.Contains(exported, "very-secret") ||
		strings.Contains(exported, "also-secret") {
		t.Errorf("export shows secrets:\n%s", exported)
	}
	again := f.apply(t, exported, "--prune")
	for _, word := range []string{"created", "updated", "deleted"} {
		if strings.Contains(again, word) {
			t.Errorf("applying what was exported: %s", again)
		}
	}
	less := strings.Replace(strings.Replace(manifest, "600s", "60s", 1), ", {id: extra, origins: [web]}", "", 1)
	dry := f.feed(t, less, "apply", "-f", "-", "--dry-run", "--prune")
	has(t, "dry run", dry, "accounts/round/urlEndpoints/default updated (dry run)", "defaultTtl",
		"accounts/round/urlEndpoints/extra deleted (dry run)")
	if now := f.do(t, "export", "round"); now != exported {
		t.Errorf("a dry run changed the account:\n%s", now)
	}
	f.apply(t, less, "--prune")
	if r := f.try(t, "", "get", "endpoint", "extra", "-A", "round"); r.code != 1 {
		t.Errorf("a pruned endpoint is still there: %s", r.stdout)
	}
}

// hostileRequests are written byte by byte, because no browser sends them.
func hostileRequests(t *testing.T, f *fleet) {
	o := newOrigin(t, map[string]string{"/secret.txt": "above the base path", "/base/a.txt": "a"})
	f.apply(t, fmt.Sprintf(`
account: {id: hostile}
origins: [{id: o, web: {baseUrl: "%s/base"}}]
urlEndpoints: [{id: default, origins: [o]}]
`, o.url))
	for _, test := range []struct{ name, head, want string }{
		{"plain", "GET /hostile/a.txt HTTP/1.1\r\nHost: localhost\r\n", "200"},
		{"dots that stay inside", "GET /hostile/x/../a.txt HTTP/1.1\r\nHost: localhost\r\n", "200"},
		{"climbs", "GET /hostile/../../secret.txt HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"climbs encoded", "GET /hostile/%2e%2e/%2E%2E/secret.txt HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"climbs with encoded slash", "GET /hostile/..%2fsecret.txt HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"climbs all encoded", "GET /hostile/%2e%2e%2fsecret.txt HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"climbs with backslash", "GET /hostile/..\\secret.txt HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"climbs with encoded backslash", "GET /hostile/x%5c..%5c..%5csecret.txt HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"NUL", "GET /hostile/a.txt%00.png HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"broken escape", "GET /hostile/%zz HTTP/1.1\r\nHost: localhost\r\n", "400"},
		{"two hosts", "GET /hostile/a.txt HTTP/1.1\r\nHost: localhost\r\nHost: other.example\r\n", "400"},
		{"no host", "GET /hostile/a.txt HTTP/1.1\r\n", "400"},
		{"header of 1 MiB",
			"GET /hostile/a.txt HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("x", 1<<20) + "\r\n", "431"},
		{"method", "DELETE /hostile/a.txt HTTP/1.1\r\nHost: localhost\r\n", "405"},
		{"host nobody owns", "GET /hostile/a.txt HTTP/1.1\r\nHost: nobody.example\r\n", "404"},
	} {
		if got := talk(t, f.edges[0].http, test.head+"Connection: close\r\n\r\n"); got != test.want {
			t.Errorf("%s: status %q, want %s", test.name, got, test.want)
		}
	}
	if n := o.count("/secret.txt"); n != 0 {
		t.Errorf("the origin was asked %d times for a file above its base path", n)
	}
	f.edges[0].serves(t, "/hostile/a.txt", "a")
}

// talk sends raw bytes and returns the status code of the answer.
func talk(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, soon)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(soon))
	go io.WriteString(conn, request) // A server may answer, and close, before it has read all of it.
	line := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(conn, line); err != nil {
		return err.Error()
	}
	if version := string(line[:len("HTTP/1.1")]); version != "HTTP/1.1" {
		return "not HTTP/1.1: " + version
	}
	return string(line[len("HTTP/1.1 "):])
}

// A control plane and an edge say how they are to a monitoring system.
func healthy(t *testing.T, address string, metrics ...string) {
	t.Helper()
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		r, err := visit(t.Context(), address, address, path)
		if err != nil || r.status != http.StatusOK {
			t.Errorf("GET %s%s: %s, %v", address, path, r, err)
		}
		if path == "/metrics" {
			has(t, address+path, r.body, metrics...)
		}
	}
}
