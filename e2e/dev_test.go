package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The lines that `edgewalk dev` prints do what they say, typed as they are.
func TestDevPrintsLinesThatWork(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	tool(t, "curl", "curl")
	args := []string{"dev", "--acme", "--state-dir", filepath.Join(shortDir(t), "dev")}
	for _, flag := range []string{"http", "https", "metrics", "admin", "edge", "status", "media"} {
		args = append(args, "--"+flag+"-addr", "127.0.0.1:0")
	}
	p := start(t, "dev", binary, args...)
	eventually(t, startWithin, "dev prints its tour", func() bool {
		if !p.running() {
			t.Fatalf("dev ended with %s", p.cmd.ProcessState)
		}
		return strings.Contains(p.stdout.String(), "Ctrl-C stops everything")
	})
	expected := []struct{ shows, first, again string }{
		{"the first origin", "HTTP/1.1 200 OK", "Cache-Status: edgewalk; hit"},
		{"the second origin", "HTTP/1.1 200 OK", "Cache-Status: edgewalk; hit"},
		{"the Media Library comes first", "HTTP/1.1 200 OK", "Cache-Status: edgewalk; hit"},
		{"the default image", "detail=default-image", "detail=default-image"},
		{"another endpoint", "HTTP/1.1 200 OK", "Cache-Status: edgewalk; hit"},
		{"no default image there", "HTTP/1.1 404 Not Found", "HTTP/1.1 404 Not Found"},
		{"a domain for the whole account", "Cache-Status: edgewalk; hit", "Cache-Status: edgewalk; hit"},
		{"... with an identifier", "HTTP/1.1 200 OK", "Cache-Status: edgewalk; hit"},
		{"a domain for one endpoint", "Cache-Status: edgewalk; hit", "Cache-Status: edgewalk; hit"},
		{"a part of a file", "HTTP/1.1 206 Partial Content", "Content-Range: bytes 0-99/"},
		{"what an edge does with a URL", "200: found at legacy", "legacy"},
		{"forget what was stored", "applied by 1 of 1 edges", "applied by 1 of 1 edges"},
		{"the edge's figures", "edgewalk_", "edgewalk_"},
		{"the domain over HTTPS", "HTTP/2 200", "cache-status: edgewalk; hit"},
	}
	shows, n := "", 0
	for line := range strings.Lines(p.stdout.String()) {
		line = strings.TrimRight(line, "\n")
		if text, ok := strings.CutPrefix(line, "  # "); ok {
			shows = text
			continue
		}
		command, ok := strings.CutPrefix(line, "  ")
		if !ok || shows == "" {
			continue
		}
		if n == len(expected) || !strings.Contains(shows, expected[n].shows) {
			t.Fatalf("line %d of the tour is %q: %s; the test does not know it", n, shows, command)
		}
		has(t, command, shell(t, command), expected[n].first)
		has(t, command+", again", shell(t, command), expected[n].again)
		shows, n = "", n+1
	}
	eventually(t, soon, "each request is a line", func() bool {
		return strings.Contains(p.stdout.String(), "GET  /bag.png  200  demo/default at localhost  hit from legacy")
	})
	link := regexp.MustCompile(`Dashboard: (http://\S+/ui/sign-in/\S+)`).FindStringSubmatch(p.stdout.String())
	if link == nil {
		t.Fatal("dev prints no link to the dashboard")
	}
	has(t, "the link", shell(t, "curl -sS -L -c "+filepath.Join(t.TempDir(), "cookies")+" "+link[1]), "URL-endpoints",
		"open: no token needed")
	has(t, "the link, again", shell(t, "curl -sS "+link[1]), "This link was used")
	if n != len(expected) {
		t.Errorf("the tour has %d lines, want %d", n, len(expected))
	}
	secure := regexp.MustCompile(`HTTPS: (https://images\.localhost:\d+)/shoes\.png , once the browser trusts (\S+)`).
		FindStringSubmatch(p.stdout.String())
	if secure == nil {
		t.Fatal("dev does not say what to trust")
	}
	seesPicture(t, secure[1], secure[2])
}

// seesPicture opens the picture with an authority that is trusted, and looks at it in a browser.
func seesPicture(t *testing.T, site, authority string) {
	t.Helper()
	pem, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Timeout: soon, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address) // names below .localhost are this machine
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(site + "/shoes.png")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
		t.Errorf("%s/shoes.png: %s %s", site, resp.Proto, resp.Status)
	}
	program, err := findChromium()
	needChromium(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), commandWithin)
	defer cancel()
	// The browser trusts the certificate that has just been checked, and no other.
	hash := sha256.Sum256(resp.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=10000",
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(hash[:]),
		"--dump-dom", site+"/shoes.png")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	page, err := cmd.Output()
	// The title of a picture that a browser shows by itself has its size.
	if shown := regexp.MustCompile(`<title>shoes\.png \(\d+×\d+\)</title>`); err != nil || !shown.Match(page) {
		t.Errorf("the browser: %v, it sees no picture in\n%s\n%s", err, page, stderr.String())
	}
}

// shell types a line into a shell.
func shell(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", line)
	cmd.Env, cmd.SysProcAttr = cleanEnvironment(), childAttributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}
