package origin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A real S3 server, so that what is sent and what is read is not only what we believe of S3:
// versitygw, built from its pinned source.
func TestVersityGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	endpoint := startVersity(t)
	putS3(t, endpoint, "", "")
	putS3(t, endpoint, "p/under.jpg", "body of p/under.jpg")
	for _, key := range exactFiles {
		putS3(t, endpoint, key, "body of "+key)
	}
	at := func(change func(*topologyv1.S3Origin)) *topology.Origin {
		o := s3Origin(t, endpoint, func(o *topologyv1.Origin) {
			o.Timeouts = nil
			o.GetS3().Region = ""
			if change != nil {
				change(o.GetS3())
			}
		})
		return o
	}
	c := serverClient(t)
	for path, key := range exactFiles {
		a := c.Get(t.Context(), at(nil), get(path))
		if a.Outcome != Found {
			t.Errorf("%s: %s %s: %s", path, a.Outcome, a.Reason, a.Detail)
			continue
		}
		if body, err := read(t, a); body != "body of "+key || err != nil {
			t.Errorf("%s: read %q, %v", path, body, err)
		}
	}
	for _, test := range []struct {
		name    string
		path    string
		change  func(*topologyv1.S3Origin)
		secret  string
		outcome Outcome
		reason  Reason
	}{
		{"prefix", "/under.jpg", func(s *topologyv1.S3Origin) { s.Prefix = "p" }, theSecret, Found, ""},
		{"percent-encoded keys", "/a%20b.jpg", func(s *topologyv1.S3Origin) { s.PercentEncodeKeys = true }, theSecret,
			Found, ""},
		{"missing key", "/gone.jpg", nil, theSecret, NotHere, ""},
		{"missing folder", "/no/such/folder.jpg", nil, theSecret, NotHere, ""},
		{"missing bucket", "/plain.jpg", func(s *topologyv1.S3Origin) { s.Bucket = "nobody" }, theSecret, Inconclusive,
			Misconfigured},
		{"wrong secret", "/plain.jpg", nil, "other", Inconclusive, Misconfigured},
		{"wrong key id", "/plain.jpg", func(s *topologyv1.S3Origin) { s.AccessKeyId = "OTHER" }, theSecret,
			Inconclusive, Misconfigured},
		{"wrong region", "/plain.jpg", func(s *topologyv1.S3Origin) { s.Region = "eu-north-1" }, theSecret,
			Inconclusive, Misconfigured},
		{"no credentials at a private bucket", "/plain.jpg", func(s *topologyv1.S3Origin) { s.AccessKeyId = "" }, "",
			Inconclusive, Misconfigured},
	} {
		o := at(test.change)
		o.Secrets = map[string]string{"s3.secret_access_key": test.secret}
		a := c.Get(t.Context(), o, get(test.path))
		discard(t, a)
		if a.Outcome != test.outcome || a.Reason != test.reason {
			t.Errorf("%s: %s %q: %s", test.name, a.Outcome, a.Reason, a.Detail)
		}
	}
	testConditions(t, c, at(nil), "/plain.jpg", "body of plain.jpg", abilities{ifRange: true, tag: true})
}

// abilities are the conditions that a real store heeds.
type abilities struct{ ifRange, tag, date bool }

// testConditions asks for parts and confirmations of a file of a real store.
func testConditions(t *testing.T, c *Client, o *topology.Origin, path, body string, able abilities) {
	t.Helper()
	a := c.Get(t.Context(), o, get(path))
	discard(t, a)
	if a.Outcome != Found {
		t.Fatalf("%s: %s %q: %s", path, a.Outcome, a.Reason, a.Detail)
	}
	tag, date := a.Response.Header.Get("ETag"), a.Response.Header.Get("Last-Modified")
	last := Conditions{Range: "bytes=8-"}
	if able.ifRange {
		last.IfRange = tag
	}
	confirmed := func(able bool) (status int, want string) {
		if able {
			return http.StatusNotModified, ""
		}
		return http.StatusOK, body
	}
	byTag, tagBody := confirmed(able.tag)
	byDate, dateBody := confirmed(able.date)
	for _, test := range []struct {
		conditions Conditions
		status     int
		body       string
	}{
		{Conditions{Range: "bytes=8-12"}, 206, body[8:13]},
		{last, 206, body[8:]},
		{Conditions{Range: "bytes=-3"}, 206, body[len(body)-3:]},
		{Conditions{Range: "bytes=100-"}, 416, ""},
		{Conditions{IfNoneMatch: tag}, byTag, tagBody},
		{Conditions{IfNoneMatch: `"other"`}, 200, body},
		{Conditions{IfModifiedSince: date}, byDate, dateBody},
	} {
		ask := get(path)
		ask.Conditions = test.conditions
		a := c.Get(t.Context(), o, ask)
		if a.Outcome != Found || a.Status != test.status {
			t.Errorf("%+v: %s %s: %s", test.conditions, a.Outcome, a.Reason, a.Detail)
			continue
		}
		if got, err := read(t, a); got != test.body || err != nil {
			t.Errorf("%+v: read %q, %v", test.conditions, got, err)
		}
	}
}

// startVersity builds and starts a gateway over an empty folder, and returns its URL.
func startVersity(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary := buildTool(t, "github.com/versity/versitygw/cmd/versitygw")
	for _, folder := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	address := listentest.Unused(t)
	run := exec.Command(binary, "--access", "AKID", "--secret", theSecret, "--port", address, "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	run.Dir = dir
	startServer(t, run, address)
	return "http://" + address
}

// putS3 stores an object in the bucket, or makes the bucket if key is empty.
func putS3(t *testing.T, endpoint, key, body string) {
	t.Helper()
	path := "/bucket"
	if key != "" {
		path += "/" + kind.Escape(key, kind.UnreservedOrSlash)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	credentials := aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: theSecret}
	if err := signer.SignHTTP(
		t.Context(), credentials, req, hash, "s3", topology.DefaultS3Region, time.Now(),
	); err != nil {
		t.Fatal(err)
	}
	send(t, req)
}
