package origin

import (
	"bytes"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A server of others' making that speaks Google Storage's protocol: fake-gcs-server, built from its
// pinned source. It knows no tokens, and its 404 does not say what is missing.
func TestFakeGCSServer(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	address := listentest.Unused(t)
	host, port, _ := net.SplitHostPort(address)
	startServer(t,
		exec.Command(buildTool(t, "github.com/fsouza/fake-gcs-server"), "-backend", "memory", "-scheme", "http",
			"-host", host, "-port", port,
			"-public-host", host, "-log-level", "error"), address)
	endpoint := "http://" + address
	post := func(path, contentType, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		send(t, req)
	}
	post("/storage/v1/b", "application/json", `{"name":"bucket"}`)
	put := func(key, body, encoding string) {
		t.Helper()
		query := url.Values{"uploadType": {"media"}, "name": {key}, "contentEncoding": {encoding}}
		post("/upload/storage/v1/b/bucket/o?"+query.Encode(), "text/plain", body)
	}
	for _, key := range exactFiles {
		put(key, "body of "+key, "")
	}
	text := strings.Repeat("compressed ", 100)
	put("p/packed.txt", zipped(t, text), "gzip")

	c, o := serverClient(t), gcsOrigin(t, endpoint)
	for path, key := range exactFiles {
		a := c.Get(t.Context(), o, get(path))
		if a.Outcome != Found {
			t.Errorf("%s: %s %q: %s", path, a.Outcome, a.Reason, a.Detail)
			continue
		}
		if body, err := read(t, a); body != "body of "+key || err != nil {
			t.Errorf("%s: read %q, %v", path, body, err)
		}
	}
	for _, test := range []struct {
		name, path, bucket string
		outcome            Outcome
		reason             Reason
	}{
		{"missing object", "/gone.jpg", "bucket", NotHere, ""},
		{"missing bucket", "/plain.jpg", "nobody", Inconclusive, Misconfigured},
	} {
		a := c.Get(t.Context(), gcsOrigin(t, endpoint, func(o *topologyv1.Origin) { o.GetGcs().Bucket = test.bucket }),
			get(test.path))
		if discard(t, a); a.Outcome != test.outcome || a.Reason != test.reason {
			t.Errorf("%s: %s %q: %s", test.name, a.Outcome, a.Reason, a.Detail)
		}
	}
	prefixed := gcsOrigin(t, endpoint, func(o *topologyv1.Origin) { o.GetGcs().Prefix = "p" })
	for accept, want := range map[string]string{"gzip": zipped(t, text), "identity": text} {
		ask := get("/packed.txt")
		ask.Header = header("Accept-Encoding", accept)
		a := c.Get(t.Context(), prefixed, ask)
		if body, err := read(t, a); body != want || err != nil {
			t.Errorf("%s: read %d bytes, %v", accept, len(body), err)
		}
	}
	ask := get("/packed.txt")
	ask.Header, ask.Range = header("Accept-Encoding", "gzip"), "bytes=5-"
	a := c.Get(t.Context(), prefixed, ask)
	if body, err := read(t, a); a.Status != 206 || err != nil ||
		!bytes.HasSuffix([]byte(zipped(t, text)), []byte(body)) {
		t.Errorf("a part of a compressed object: %d, %d bytes, %v", a.Status, len(body), err)
	}
	testConditions(t, c, o, "/plain.jpg", "body of plain.jpg", abilities{ifRange: true})
}
