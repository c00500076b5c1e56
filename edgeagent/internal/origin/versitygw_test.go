package origin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A real S3 server, so that what is sent and what is read is not only what we believe of S3: versitygw, built from its pinned
// source.
func TestVersityGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	endpoint := startVersity(t)
	putS3(t, endpoint, "", "")
	for _, key := range []string{
		"plain.jpg", "folder/a b.jpg", "a+b.jpg", "100%.jpg", "a%20b.jpg", "café.jpg", "cafe\u0301.jpg", "a;b&c=d,e@f:g!h$i'j(k)l*m~n.jpg",
		"日本/語.webp", `odd "quotes" <and> {braces}|^.jpg`, "p/under.jpg",
	} {
		putS3(t, endpoint, key, "body of "+key)
	}
	at := func(change func(*topologyv1.S3Origin)) *topology.Origin {
		o := s3(t, endpoint, func(o *topologyv1.Origin) {
			o.Timeouts = nil
			o.GetS3().Region = ""
			if change != nil {
				change(o.GetS3())
			}
		})
		return o
	}
	c := localClient(t)
	for path, key := range map[string]string{
		"/plain.jpg": "plain.jpg", "/folder/a%20b.jpg": "folder/a b.jpg", "/a+b.jpg": "a+b.jpg", "/a%2Bb.jpg": "a+b.jpg", "/100%25.jpg": "100%.jpg",
		"/a%2520b.jpg": "a%20b.jpg", "/caf%C3%A9.jpg": "café.jpg", "/cafe%CC%81.jpg": "cafe\u0301.jpg",
		"/a;b&c=d,e@f:g!h$i'j(k)l*m~n.jpg": "a;b&c=d,e@f:g!h$i'j(k)l*m~n.jpg", "/%E6%97%A5%E6%9C%AC/%E8%AA%9E.webp": "日本/語.webp",
		"/odd%20%22quotes%22%20%3Cand%3E%20%7Bbraces%7D%7C%5E.jpg": `odd "quotes" <and> {braces}|^.jpg`,
	} {
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
		{"percent-encoded keys", "/a%20b.jpg", func(s *topologyv1.S3Origin) { s.PercentEncodeKeys = true }, theSecret, Found, ""},
		{"missing key", "/gone.jpg", nil, theSecret, NotHere, ""},
		{"missing folder", "/no/such/folder.jpg", nil, theSecret, NotHere, ""},
		{"missing bucket", "/plain.jpg", func(s *topologyv1.S3Origin) { s.Bucket = "nobody" }, theSecret, Inconclusive, Misconfigured},
		{"wrong secret", "/plain.jpg", nil, "other", Inconclusive, Misconfigured},
		{"wrong key id", "/plain.jpg", func(s *topologyv1.S3Origin) { s.AccessKeyId = "OTHER" }, theSecret, Inconclusive, Misconfigured},
		{"wrong region", "/plain.jpg", func(s *topologyv1.S3Origin) { s.Region = "eu-north-1" }, theSecret, Inconclusive, Misconfigured},
		{"no credentials at a private bucket", "/plain.jpg", func(s *topologyv1.S3Origin) { s.AccessKeyId = "" }, "", Inconclusive, Misconfigured},
	} {
		o := at(test.change)
		o.Secrets = map[string]string{"s3.secret_access_key": test.secret}
		a := c.Get(t.Context(), o, get(test.path))
		discard(t, a)
		if a.Outcome != test.outcome || a.Reason != test.reason {
			t.Errorf("%s: %s %q: %s", test.name, a.Outcome, a.Reason, a.Detail)
		}
	}
	versityConditions(t, c, at(nil))
}

func versityConditions(t *testing.T, c *Client, o *topology.Origin) {
	a := c.Get(t.Context(), o, get("/plain.jpg"))
	discard(t, a)
	tag := a.Response.Header.Get("ETag")
	ask := get("/plain.jpg")
	for _, test := range []struct {
		conditions Conditions
		status     int
		body       string
	}{
		{Conditions{Range: "bytes=8-12"}, 206, "plain"},
		{Conditions{Range: "bytes=8-", IfRange: tag}, 206, "plain.jpg"},
		{Conditions{Range: "bytes=-3"}, 206, "jpg"},
		{Conditions{Range: "bytes=100-"}, 416, ""},
		{Conditions{IfNoneMatch: tag}, 304, ""},
	} {
		ask.Conditions = test.conditions
		a := c.Get(t.Context(), o, ask)
		if a.Outcome != Found || a.Status != test.status {
			t.Errorf("%+v: %s %s: %s", test.conditions, a.Outcome, a.Reason, a.Detail)
			continue
		}
		if body, err := read(t, a); body != test.body || err != nil {
			t.Errorf("%+v: read %q, %v", test.conditions, body, err)
		}
	}
}

// startVersity builds and starts a gateway over an empty folder, and returns its URL.
func startVersity(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "versitygw")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", binary, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir = filepath.Dir(string(bytes.TrimSpace(root)))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build versitygw: %v\n%s", err, out)
	}
	for _, folder := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	run := exec.CommandContext(ctx, binary, "--access", "AKID", "--secret", theSecret, "--port", address, "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	run.Dir = dir
	var output bytes.Buffer
	run.Stdout, run.Stderr = &output, &output
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { run.Wait(); close(exited) }()
	t.Cleanup(func() { cancel(); <-exited })
	waitForServer(t, address, exited, &output)
	return "http://" + address
}

func waitForServer(t *testing.T, address string, exited <-chan struct{}, output *bytes.Buffer) {
	t.Helper()
	for deadline := time.After(30 * time.Second); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("versitygw ended:\n%s", output)
		case <-deadline:
			t.Fatal("versitygw does not listen")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// putS3 stores an object in the bucket, or makes the bucket if key is empty.
func putS3(t *testing.T, endpoint, key, body string) {
	t.Helper()
	path := "/bucket"
	if key != "" {
		path += "/" + escape(key, unreservedOrSlash)
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
	if err := signer.SignHTTP(t.Context(), credentials, req, hash, "s3", topology.DefaultS3Region, time.Now()); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("store %q: %s: %s", key, resp.Status, text))
	}
}
