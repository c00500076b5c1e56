package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// A path that spells a URL is fetched from the host it names, if that is listed.
func webProxy(t *testing.T, f *fleet) {
	o := newOrigin(t, map[string]string{"/a.txt": "a of elsewhere"})
	f.apply(t, fmt.Sprintf(`
account: {id: proxy}
origins: [{id: any, webProxy: {allowedHosts: ["%s"]}}]
urlEndpoints: [{id: default, origins: [any]}]
`, o.url))
	for i, e := range f.edges {
		e.serves(t, "/proxy/"+o.url+"/a.txt", "a of elsewhere")
		e.serves(t, "/proxy/"+url.PathEscape(o.url+"/a.txt"), "a of elsewhere")
		if n := o.count("/a.txt"); n != 2*(i+1) {
			t.Errorf("the host was asked %d times", n)
		}
		e.refuses(t, "/proxy/"+strings.Replace(o.url, "127.0.0.1", "127.0.0.2", 1)+"/a.txt", 404)
		e.refuses(t, "/proxy/no-url.txt", 404)
	}
	has(t, "explain", f.do(t, "explain", "http://localhost/proxy/http://stranger.example/a.txt"),
		"host stranger.example is not in allowedHosts", "add it to webProxy.allowedHosts")
}

// The credentials of the machine that an edge runs on are no account's, unless the operator says
// so.
func ambientCredentials(t *testing.T, f *fleet) {
	bucket := newOrigin(t, map[string]string{"/bucket/a.txt": "a"})
	f.apply(t, fmt.Sprintf(`
account: {id: ambient}
origins: [{id: lent, s3: {bucket: bucket, endpoint: "%s", forcePathStyle: true, useAmbientCredentials: true}}]
urlEndpoints: [{id: default, origins: [lent]}]
`, bucket.url))
	for _, e := range f.edges {
		r := e.refuses(t, "/ambient/a.txt", http.StatusBadGateway)
		has(t, "Proxy-Status", r.header.Get("Proxy-Status"), "proxy_configuration_error")
	}
	const why, advice = "the operator of this edge lends no credentials to origins", "--allow-ambient-credentials"
	has(t, "explain", f.do(t, "explain", "http://localhost/ambient/a.txt"),
		"502: origin lent gives no usable answer (config)", why, advice)
	if r := f.try(t, "", "test-origin", "lent", "-A", "ambient", "--path", "/a.txt"); r.code != 1 ||
		!strings.Contains(r.stdout, why) || !strings.Contains(r.stderr, advice) {
		t.Errorf("test-origin: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if n := bucket.count("/bucket/a.txt"); n != 0 {
		t.Errorf("the bucket was asked %d times", n)
	}
}

// An admin sees at the origin why files do not come: its last error, and at how many edges.
func unwellOrigins(t *testing.T, f *fleet) {
	o := newOrigin(t, map[string]string{"/a.txt": "a"})
	f.apply(t, fmt.Sprintf(`
account: {id: unwell}
origins:
  - {id: down, web: {baseUrl: "http://%s"}}
  - {id: inward, web: {baseUrl: "http://169.254.169.254"}}
  - {id: fine, web: {baseUrl: "%s"}}
urlEndpoints: [{id: default, origins: [down, inward, fine]}]
`, listentest.Unused(t), o.url))
	f.edges[0].serves(t, "/unwell/a.txt", "a")
	var text string
	eventually(t, soon, "get origins tells what is wrong", func() bool {
		text = f.do(t, "get", "origins", "-A", "unwell")
		return strings.Count(text, "unwell at 1 of 2") == 2
	})
	has(t, "get origins", text, "failed: the connection was refused", `config: host "169.254.169.254"`)
	has(t, "explain", f.do(t, "explain", "http://localhost/unwell/a.txt", "--edge", "eu-1"),
		"the connection was refused", "its address is never allowed", "metadata services are never allowed",
		"200: found at fine")
}

// Object stores of others' making, through a whole edge: files to the byte, what is missing and
// what is wrong.
func TestObjectStoresAreServed(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	s3, gcs := startVersity(t), startFakeGCS(t)
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	a := cp.administer(t)
	files := map[string]string{ // by the path that leads to each
		"/plain.txt": "plain.txt", "/folder/a%20b+c.txt": "folder/a b+c.txt", "/caf%C3%A9.txt": "café.txt",
		"/100%25.txt": "100%.txt", "/a%2520b.txt": "a%20b.txt",
	}
	putS3(t, s3, "", "")
	postGCS(t, gcs, "/storage/v1/b", "application/json", `{"name":"bucket"}`)
	for _, key := range files {
		putS3(t, s3, "shop/"+key, "s3 has "+key)
		postGCS(
			t, gcs,
			"/upload/storage/v1/b/bucket/o?"+url.Values{"uploadType": {"media"}, "name": {"shop/" + key}}.Encode(),
			"text/plain", "gcs has "+key,
		)
	}
	putS3(t, s3, "shop/both.txt", "both of s3")
	postGCS(t, gcs, "/upload/storage/v1/b/bucket/o?uploadType=media&name=shop%2Fboth.txt", "text/plain", "both of gcs")
	postGCS(t, gcs, "/upload/storage/v1/b/bucket/o?uploadType=media&name=shop%2Flast.txt", "text/plain", "last of gcs")
	a.apply(t, fmt.Sprintf(`
account: {id: shop}
origins:
  - {id: s3, s3: {bucket: bucket, prefix: shop, endpoint: "%[1]s", forcePathStyle: true, region: us-east-1, accessKeyId: AKID, secretAccessKey: %[3]s}}
  - {id: gcs, gcs: {bucket: bucket, prefix: shop, endpoint: "%[2]s"}}
  - {id: s3-forged, s3: {bucket: bucket, endpoint: "%[1]s", forcePathStyle: true, region: us-east-1, accessKeyId: AKID, secretAccessKey: wrong}}
  - {id: s3-nowhere, s3: {bucket: nowhere, endpoint: "%[1]s", forcePathStyle: true, region: us-east-1, accessKeyId: AKID, secretAccessKey: %[3]s}}
urlEndpoints:
  - {id: default, origins: [s3, gcs]}
  - {id: s3, origins: [s3]}
  - {id: gcs, origins: [gcs]}
  - {id: forged, origins: [s3-forged, gcs]}
  - {id: nowhere, origins: [s3-nowhere]}
`, s3, gcs, storeSecret))
	for path, key := range files {
		for _, store := range []string{"s3", "gcs"} {
			e.serves(t, "/shop/"+store+path, store+" has "+key)
			if r := e.serves(t, "/shop/"+store+path, store+" has "+key); !r.hit() {
				t.Errorf("asked again: %s, want a hit", r)
			}
		}
	}
	e.serves(t, "/shop/both.txt", "both of s3")
	e.serves(t, "/shop/last.txt", "last of gcs")
	e.refuses(t, "/shop/none.txt", 404)
	e.refuses(t, "/shop/folder/", 404)
	e.refuses(t, "/shop/nowhere/plain.txt", 502)
	e.serves(t, "/shop/forged/last.txt", "last of gcs")
	e.refuses(t, "/shop/forged/none.txt", 502)
	has(t, "explain", a.do(t, "explain", "http://localhost/shop/last.txt"), "NOT HERE", "HTTP 404 NoSuchKey",
		"200: found at gcs")
	has(t, "explain", a.do(t, "explain", "http://localhost/shop/nowhere/plain.txt"), "HTTP 404 NoSuchBucket",
		"502: origin s3-nowhere gives no usable answer (config)", "check the bucket's name")
	has(t, "explain", a.do(t, "explain", "http://localhost/shop/forged/none.txt"), "SignatureDoesNotMatch",
		"502: origin s3-forged gives no usable answer (config)", "check s3.secretAccessKey")
	for _, id := range []string{"s3", "gcs"} {
		has(t, "test-origin", a.do(t, "test-origin", id, "-A", "shop", "--path", "/both.txt"), "FOUND", "200")
		has(t, "test-origin", a.do(t, "test-origin", id, "-A", "shop"), "NOT HERE", "404")
	}
	if text := cp.stderr.String() + e.stderr.String() + a.do(t, "export", "shop"); strings.Contains(text, storeSecret) {
		t.Error("a secret is told")
	}
}

// storeSecret is the S3 server's.
const storeSecret = "a-secret-of-the-store"

// pinned builds a program that tools/go.mod pins.
func pinned(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", program, pkg)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// startForeign runs a server that is not ours, and returns the URL that it listens at.
func startForeign(t *testing.T, program, address string, args ...string) string {
	t.Helper()
	p := start(t, filepath.Base(program), program, args...)
	p.foreign = true
	eventually(t, startWithin, p.name+" listens", func() bool {
		if !p.running() {
			t.Fatalf("%s ended: %s", p.name, p.stderr.last())
		}
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return "http://" + address
}

func startVersity(t *testing.T) string {
	t.Helper()
	program, address, dir := pinned(t, "github.com/versity/versitygw/cmd/versitygw"), listentest.Unused(t), t.TempDir()
	for _, folder := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return startForeign(t, program, address, "--access", "AKID", "--secret", storeSecret, "--port", address, "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
}

func startFakeGCS(t *testing.T) string {
	t.Helper()
	program, address := pinned(t, "github.com/fsouza/fake-gcs-server"), listentest.Unused(t)
	host, port, _ := net.SplitHostPort(address)
	return startForeign(t, program, address, "-backend", "memory", "-scheme", "http", "-host", host, "-port", port,
		"-public-host", host, "-log-level", "error")
}

// putS3 stores an object in the bucket, or makes the bucket if key is empty.
func putS3(t *testing.T, endpoint, key, body string) {
	t.Helper()
	u := endpoint + "/bucket"
	if key != "" {
		u += "/" + strings.ReplaceAll(strings.ReplaceAll(url.PathEscape(key), "%2F", "/"), "+", "%2B")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, u, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(
		t.Context(), aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: storeSecret}, req, hash, "s3", "us-east-1",
		time.Now(),
	); err != nil {
		t.Fatal(err)
	}
	send(t, req)
}

func postGCS(t *testing.T, endpoint, path, contentType, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	send(t, req)
}

// send makes a request that sets a store up.
func send(t *testing.T, req *http.Request) {
	t.Helper()
	resp, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		t.Fatalf("%s %s: %s", req.Method, req.URL, resp.Status)
	}
}
