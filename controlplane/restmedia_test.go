package controlplane

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"
)

// TestRESTMedia holds that files go in and out as they are.
func TestRESTMedia(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	a := apiOf(t, r)
	a.want(201, "POST", "/v1/accounts?accountId=acme", `{}`)
	const file = "/v1/accounts/acme/mediaFiles/photos/shoe.txt"
	const text = "0123456789"

	made := a.want(201, "PUT", file+"?tags=a&tags=b", text, "Content-Type", "text/x-shoe", "If-None-Match", "*")
	if got := made.fields.Get("Location"); got != file {
		t.Errorf("Location %q", got)
	}
	etag := made.fields.Get("ETag")
	a.want(409, "PUT", file, "other", "If-None-Match", "*")
	a.want(200, "PUT", file+"?tags=a&tags=b", text, "Content-Type", "text/x-shoe") // the same again

	for _, test := range []struct {
		name   string
		fields []string
		status int
		text   string
	}{
		{"all", nil, 200, text},
		{"a range", []string{"Range", "bytes=2-4"}, 206, "234"},
		{"the end", []string{"Range", "bytes=-3"}, 206, "789"},
		{"from", []string{"Range", "bytes=8-"}, 206, "89"},
		{"past the end", []string{"Range", "bytes=10-"}, 416, ""},
		{"a range of this version", []string{"Range", "bytes=0-1", "If-Range", etag}, 206, "01"},
		{"a range of another version", []string{"Range", "bytes=0-1", "If-Range", `"1"`}, 200, text},
		{"nothing new", []string{"If-None-Match", etag}, 304, ""},
		{"another version", []string{"If-Match", `"1"`}, 412, ""},
	} {
		got := a.want(test.status, "GET", file, "", test.fields...)
		if reason := map[int]string{416: "RANGE_NOT_SATISFIABLE", 412: "ETAG_MISMATCH"}[test.status]; reason != "" &&
			(!strings.Contains(got.text, reason) || got.fields.Get("Content-Type") != "application/json") {
			t.Errorf("%s: %s %v", test.name, got.text, got.fields)
		}
		if test.status < 400 && got.text != test.text {
			t.Errorf("%s: %q, want %q", test.name, got.text, test.text)
		}
		if test.status == 200 && (got.fields.Get("Content-Type") != "text/x-shoe" || got.fields.Get("ETag") != etag) {
			t.Errorf("%s: %v", test.name, got.fields)
		}
		if policy := got.fields.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "sandbox") ||
			got.fields.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", test.name, got.fields)
		}
	}
	if got := a.want(206, "GET", file, "", "Range", "bytes=0-1,4-5"); !strings.Contains(got.text, "\r\n\r\n01\r\n") ||
		!strings.Contains(got.text, "\r\n\r\n45\r\n") {
		t.Errorf("two ranges: %q", got.text)
	}
	head := a.want(200, "HEAD", file, "")
	if head.fields.Get("Content-Length") != "10" || head.text != "" {
		t.Errorf("HEAD: %v %q", head.fields, head.text)
	}
	for _, known := range []answer{
		a.want(200, "GET", file+"?alt=json", ""), a.want(200, "GET", file, "", "Accept", "application/json"),
	} {
		if known.at("mediaFile", "sizeBytes") != "10" || fmt.Sprint(known.at("mediaFile", "tags")) != "[a b]" {
			t.Errorf("what is known of it: %s", known.text)
		}
	}

	sum := sha256.Sum256([]byte("new"))
	good := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	if got := a.want(400, "PUT", file, "newer", "Repr-Digest", good); got.reason() != "CONTENT_MISMATCH" {
		t.Error(got.text)
	}
	a.want(412, "PUT", file, "new", "If-Match", `"1"`)
	a.want(200, "PUT", file, "new", "If-Match", etag, "Repr-Digest", good)
	a.want(415, "PUT", file, "x", "Content-Encoding", "gzip")
	a.want(400, "PUT", file, "x", "Content-Range", "bytes 0-0/2")
	a.want(400, "PUT", file+"?tag=x", "x")
	a.want(404, "PUT", "/v1/accounts/none/mediaFiles/a", "x")
	a.want(405, "POST", file, "x")
	a.want(412, "DELETE", file, "", "If-Match", etag)
	a.want(200, "DELETE", file, "")
	a.want(400, "PUT", file, "x", "If-Match", "*")
	a.want(404, "GET", file, "")
	a.want(404, "HEAD", file, "")
	empty := a.want(201, "PUT", "/v1/accounts/acme/mediaFiles/empty.txt", "")
	if got := a.want(200, "GET", "/v1/accounts/acme/mediaFiles/empty.txt", ""); got.text != "" ||
		empty.at("mediaFile", "sizeBytes") != nil {
		t.Errorf("an empty file: %q, %s", got.text, empty.text)
	}
}

// TestRESTPaths holds that the path of a file is what its URL says, unescaped once.
func TestRESTPaths(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	a := apiOf(t, r)
	a.want(201, "POST", "/v1/accounts?accountId=acme", `{}`)
	for _, test := range []struct{ path, id, location string }{
		{"a%20b.txt", "a b.txt", ""},
		{"a+b.txt", "a+b.txt", ""},
		{"c%2Bd.txt", "c+d.txt", "c+d.txt"},
		{"e%2Ff.txt", "e/f.txt", "e/f.txt"},
		{"%C3%BC/%E2%82%AC.txt", "ü/€.txt", ""},
		{"100%25.txt", "100%.txt", ""},
		{"g%252Fh.txt", "g%2Fh.txt", ""},
		{"q%3Fa=b%23c.txt", "q?a=b#c.txt", ""},
		{"x:check", "x:check", ""},
		{"accounts/acme/mediaFiles/y", "accounts/acme/mediaFiles/y", ""},
		{"..%20/z", ".. /z", "..%20/z"},
	} {
		base := "/v1/accounts/acme/mediaFiles/"
		made := a.want(201, "PUT", base+test.path, test.id)
		if made.at("mediaFile", "id") != test.id {
			t.Errorf("%s is stored as %v, want %q", test.path, made.at("mediaFile", "id"), test.id)
		}
		want := test.path
		if test.location != "" {
			want = test.location
		}
		if got := made.fields.Get("Location"); got != base+want {
			t.Errorf("%s is said to be at %s", test.path, got)
		}
		if got := a.want(200, "GET", made.fields.Get("Location"), ""); got.text != test.id {
			t.Errorf("%s has %q", test.path, got.text)
		}
		a.want(200, "GET", base+test.path+"?alt=json", "")
		a.want(200, "DELETE", base+test.path, "")
		a.want(404, "GET", base+test.path, "")
	}
	for _, path := range []string{
		"a//b", "/a", "a/", "a/../b", "a/%2E%2E/b", "./a", "a%00b", "%FF", strings.Repeat("x", 1025),
	} {
		for _, method := range []string{"PUT", "GET", "DELETE"} {
			got := a.do(method, "/v1/accounts/acme/mediaFiles/"+path, "")
			// An input may have one slash in front.
			if path == "/a" && method == "PUT" {
				if got.status != 201 || got.at("mediaFile", "id") != "a" {
					t.Errorf("%s %s: %d %s", method, path, got.status, got.text)
				}
				continue
			}
			if got.status != 400 && got.status != 404 && !(path == "/a" && got.status == 200) {
				t.Errorf("%s %s: %d %s", method, path, got.status, got.text)
			}
		}
	}
}

// TestRESTAbortedUpload holds that nothing stays of an upload that breaks off.
func TestRESTAbortedUpload(t *testing.T) {
	dir := t.TempDir()
	r := start(t, loopbackConfig(dir))
	a := apiOf(t, r)
	a.want(201, "POST", "/v1/accounts?accountId=acme", `{}`)
	spool := filepath.Join(dir, "media", "spool")
	for name, framing := range map[string]string{
		"with a length": "Content-Length: 1000000\r\n\r\n",
		"in chunks":     "Transfer-Encoding: chunked\r\n\r\n80000\r\n",
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addresses().HTTP)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT /v1/accounts/acme/mediaFiles/a.bin HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n%s", a.token, framing)
		if _, err := io.Copy(conn, io.LimitReader(zeroes{}, 512<<10)); err != nil {
			t.Fatal(err)
		}
		await.True(t, name+": the upload is under way", func() bool { return files(t, spool) > 0 })
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		await.True(t, name+": its bytes are gone", func() bool { return files(t, spool) == 0 })
		a.want(404, "GET", "/v1/accounts/acme/mediaFiles/a.bin", "")
		if n := files(t, filepath.Join(dir, "media", "sha256")); n != 0 {
			t.Errorf("%s: %d files are in the library", name, n)
		}
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func files(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRESTEarlyRefusal holds that a caller who may not upload is refused before the file is sent.
func TestRESTEarlyRefusal(t *testing.T) {
	r := start(t, loopbackConfig(t.TempDir()))
	a := apiOf(t, r)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.Addresses().HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /v1/accounts/none/mediaFiles/a.bin HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n"+
		"Content-Length: 1000000000\r\n\r\n", a.token)
	go func() { _, _ = io.Copy(conn, io.LimitReader(zeroes{}, 1_000_000_000)) }() // ends with conn
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d, want 404", resp.StatusCode)
	}
}
