package origin

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// theSecret stands for every credential in these tests. It must never be seen in what a test reads.
const theSecret = "s3cr3t-that-nobody-may-see"

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

func newTestClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

func localClient(t testing.TB) *Client { return newTestClient(t, Config{AllowCIDRs: loopback}) }

// serverClient reaches the servers that tests start at a loopback address of their own.
func serverClient(t testing.TB) *Client {
	return newTestClient(t, Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

func compile(t testing.TB, o *topologyv1.Origin, secrets map[string]string) *topology.Origin {
	t.Helper()
	compiled, err := topology.CompileOrigin("legacy", o, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// web is a web origin whose timeouts no busy machine reaches.
func webOrigin(t testing.TB, baseURL string, change ...func(*topologyv1.Origin)) *topology.Origin {
	t.Helper()
	o := &topologyv1.Origin{
		Kind:     &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: baseURL}},
		Timeouts: patient(),
		RequestHeaders: []*topologyv1.RequestHeader{
			{Name: "X-Api-Key"}, {Name: "X-Shop", Value: "acme"},
		},
	}
	for _, f := range change {
		f(o)
	}
	return compile(t, o, map[string]string{"request_headers[x-api-key].secret_value": theSecret})
}

func patient() *topologyv1.OriginTimeouts {
	d := durationpb.New(30 * time.Second)
	return &topologyv1.OriginTimeouts{Connect: d, FirstByte: d, Idle: d}
}

func s3Origin(t testing.TB, endpoint string, change ...func(*topologyv1.Origin)) *topology.Origin {
	t.Helper()
	o := &topologyv1.Origin{
		Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{
			Bucket: "bucket", Endpoint: endpoint, ForcePathStyle: true, AccessKeyId: "AKID", Region: "eu-west-1",
		}},
		Timeouts: patient(),
	}
	for _, f := range change {
		f(o)
	}
	return compile(t, o, map[string]string{"s3.secret_access_key": theSecret})
}

// An originSpec changes an origin before it is compiled.
type originSpec = func(*topologyv1.Origin)

func build(t testing.TB, o *topologyv1.Origin, secrets map[string]string, change []originSpec) *topology.Origin {
	t.Helper()
	o.Timeouts = patient()
	for _, f := range change {
		f(o)
	}
	return compile(t, o, secrets)
}

// gcs is an anonymous origin unless its spec is changed.
func gcsOrigin(t testing.TB, endpoint string, change ...originSpec) *topology.Origin {
	t.Helper()
	return build(
		t,
		&topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{
			Bucket: "bucket", Endpoint: endpoint,
		}}},
		nil, change,
	)
}

func azureOrigin(t testing.TB, endpoint string, change ...originSpec) *topology.Origin {
	t.Helper()
	return build(t, &topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{AzureBlob: &topologyv1.AzureBlobOrigin{
		AccountName: "account", Container: "container", Endpoint: endpoint,
	}}}, map[string]string{"azure_blob.account_key": base64.StdEncoding.EncodeToString([]byte(theSecret))}, change)
}

func proxyOrigin(t testing.TB, hosts ...string) *topology.Origin {
	t.Helper()
	return build(
		t,
		&topologyv1.Origin{Kind: &topologyv1.Origin_WebProxy{WebProxy: &topologyv1.WebProxyOrigin{
			AllowedHosts: hosts,
		}}},
		nil, nil,
	)
}

func akeneoOrigin(t testing.TB, baseURL string, change ...originSpec) *topology.Origin {
	t.Helper()
	return build(t, &topologyv1.Origin{Kind: &topologyv1.Origin_Akeneo{Akeneo: &topologyv1.AkeneoOrigin{
		BaseUrl: baseURL, ClientId: "client", Username: "user",
	}}}, map[string]string{"akeneo.client_secret": theSecret + "-client", "akeneo.password": theSecret}, change)
}

// get is the question for a path, as topology.Locate would ask it.
func get(path string) Ask {
	r := &Request{Target: topology.Target{
		Account: &topology.Account{ID: "acme"}, Host: "images.example.com", Path: path,
	}}
	r.Object, r.ObjectOK = topology.ObjectKey(path)
	return Ask{Request: r}
}

// newAsk is a question whose path does not matter.
func newAsk() *Ask {
	ask := get("")
	return &ask
}

// read reads the body of an answer and closes it.
func read(t testing.TB, a *Answer) (string, error) {
	t.Helper()
	if a.Response == nil {
		t.Fatalf("no response: %s %s: %s", a.Outcome, a.Reason, a.Detail)
	}
	defer a.Response.Body.Close()
	b, err := io.ReadAll(a.Response.Body)
	return string(b), err
}

// discard closes the body of an answer, if there is one, and checks that the answer tells no
// secret.
func discard(t testing.TB, a *Answer) {
	t.Helper()
	if a.Response != nil {
		a.Response.Body.Close()
	}
	for _, text := range []string{a.Request, a.Detail, a.Advice, a.ProxyError} {
		if strings.Contains(text, theSecret) {
			t.Errorf("an answer tells a secret: %q", text)
		}
	}
}

func saw(t testing.TB, o *faultorigin.Origin, n int) []faultorigin.Request {
	t.Helper()
	seen := o.Requests()
	if len(seen) != n {
		t.Fatalf("the origin saw %d requests, want %d: %v", len(seen), n, seen)
	}
	return seen
}

func header(pairs ...string) map[string][]string {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
