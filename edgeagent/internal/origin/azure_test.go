package origin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/azureblob"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An azureStore is a blob store that checks signatures by the book: learn.microsoft.com, "Authorize
// with Shared Key". It shares no code with the signer.
type azureStore struct {
	account string
	key     []byte
	sas     string // what the query has to be, instead of a signature
	blobs   map[string]string

	mu   sync.Mutex
	seen []string // path and range of each request
}

func (s *azureStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	s.mu.Lock()
	s.seen = append(s.seen, path+" "+r.Header.Get("Range"))
	s.mu.Unlock()
	switch {
	case r.Header.Get("x-ms-version") == "":
		refuse(400, "MissingRequiredHeader")
		return
	case s.sas != "" && query != s.sas,
		s.sas == "" && r.Header.Get("Authorization") != "SharedKey "+s.account+":"+s.sign(r, path):
		refuse(403, "AuthenticationFailed")
		return
	}
	name, err := url.PathUnescape(strings.TrimPrefix(path, "/container/"))
	body, ok := s.blobs[name]
	if err != nil || !ok {
		refuse(404, "BlobNotFound")
		return
	}
	if strings.HasPrefix(r.Header.Get("Range"), "bytes=-") {
		refuse(400, "InvalidHeaderValue") // blobs know no range from the end
		return
	}
	w.Header().Set("ETag", `"0x8D"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
}

func (s *azureStore) sign(r *http.Request, path string) string {
	text := r.Method + "\n"
	for _, name := range []string{"Content-Encoding", "Content-Language", "", "Content-MD5", "Content-Type", "",
		"If-Modified-Since", "If-Match", "If-None-Match",
		"If-Unmodified-Since", "Range"} {
		text += r.Header.Get(name) + "\n"
	}
	var own []string
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Ms-") {
			own = append(own, strings.ToLower(name)+":"+r.Header.Get(name))
		}
	}
	slices.Sort(own)
	text += strings.Join(own, "\n") + "\n/" + s.account + path
	return hmacBase64(string(s.key), text)
}

func hmacBase64(key, text string) string {
	mac := hmac.New(sha256.New, []byte(key))
	io.WriteString(mac, text)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func newAzureStore(t testing.TB) (*azureStore, string) {
	store := &azureStore{
		account: "account", key: []byte(theSecret), blobs: map[string]string{"a b/ü+c.jpg": "0123456789", "empty": ""},
	}
	server := httptest.NewServer(store)
	t.Cleanup(server.Close)
	return store, server.URL
}

const sas = "sv=2021-12-02&ss=b&srt=o&sp=r&se=2999-01-01T00%3A00%3A00Z&sig=" + theSecret + "%2Fx%3D"

func TestAzureCredentials(t *testing.T) {
	t.Parallel()
	key := base64.StdEncoding.EncodeToString([]byte(theSecret))
	other := base64.StdEncoding.EncodeToString([]byte("other"))
	expired := strings.Replace(sas, "2999", "2020", 1)
	for _, test := range []struct {
		name, key, sas string
		outcome        Outcome
		detail         string
	}{
		{name: "key", key: key, outcome: Found, detail: "HTTP 200"},
		{name: "key with an end of line", key: key + "\n", outcome: Found, detail: "HTTP 200"},
		{name: "another key", key: other, detail: "HTTP 403 AuthenticationFailed"},
		{name: "no base64", key: "!" + theSecret, detail: "accountKey is not base64"},
		{name: "none", detail: "HTTP 403 AuthenticationFailed"},
		{name: "both", key: key, sas: sas, detail: "both sasToken and accountKey are set"},
		{name: "signature", sas: sas, outcome: Found, detail: "HTTP 200"},
		{name: "signature with its ?", sas: "?" + sas, outcome: Found, detail: "HTTP 200"},
		{name: "expired", sas: expired, detail: "HTTP 403 AuthenticationFailed, sasToken expired on 2020-01-01T00:00:00Z"},
		{name: "to write", sas: strings.Replace(sas, "sp=r", "sp=w", 1), detail: "HTTP 403 AuthenticationFailed, sasToken does not allow to read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			store, endpoint := newAzureStore(t)
			if test.sas != "" {
				store.sas = sas
			}
			o := azureOrigin(t, endpoint, func(o *topologyv1.Origin) {
				o.RequestHeaders = []*topologyv1.RequestHeader{
					{Name: "x-ms-client-request-id", Value: "edge"}, {Name: "X-Shop", Value: "acme"},
				}
			})
			o.Secrets = map[string]string{"azure_blob.account_key": test.key, "azure_blob.sas_token": test.sas}
			a := localClient(t).Get(t.Context(), o, get("/a%20b/%C3%BC+c.jpg"))
			discard(t, a)
			if a.Outcome != test.outcome || a.Detail != test.detail {
				t.Errorf("got %s %s: %s", a.Outcome, a.Reason, a.Detail)
			}
			if a.Outcome == Inconclusive && (a.Reason != Misconfigured || a.Advice == "") {
				t.Errorf("got %s, advice %q", a.Reason, a.Advice)
			}
			if strings.Contains(a.Request, "sig=") || strings.Contains(a.Request, "?") {
				t.Errorf("request %q", a.Request)
			}
		})
	}
}

// A range from the end becomes one from the start, of a file whose length is asked for first; the
// signature covers it.
func TestAzureRanges(t *testing.T) {
	t.Parallel()
	const blob, empty, gone = "/a%20b/%C3%BC+c.jpg", "/empty", "/gone"
	for _, test := range []struct {
		path, asked string
		sent        []string
		status      int
		body        string
	}{
		{blob, "bytes=2-5", []string{"bytes=2-5"}, 206, "2345"},
		{blob, "bytes=7-", []string{"bytes=7-"}, 206, "789"},
		{blob, "bytes=-3", []string{"bytes=0-0", "bytes=7-9"}, 206, "789"},
		{blob, "bytes=-30", []string{"bytes=0-0", "bytes=0-9"}, 206, "0123456789"},
		{blob, "bytes=10-", []string{"bytes=10-"}, 416, ""},
		{empty, "bytes=-3", []string{"bytes=0-0", "bytes=0-0"}, 200, ""},
		{gone, "bytes=-3", []string{"bytes=0-0", "bytes=0-0"}, 404, ""},
	} {
		t.Run(test.path+" "+test.asked, func(t *testing.T) {
			t.Parallel()
			store, endpoint := newAzureStore(t)
			ask := get(test.path)
			ask.Range, ask.IfNoneMatch = test.asked, `"other"`
			a := localClient(t).Get(t.Context(), azureOrigin(t, endpoint), ask)
			if a.Status != test.status {
				t.Fatalf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
			if test.status == 206 {
				if body, err := read(t, a); body != test.body || err != nil {
					t.Errorf("read %q, %v", body, err)
				}
			}
			var sent []string
			for _, line := range store.seen {
				_, r, _ := strings.Cut(line, " ")
				sent = append(sent, r)
			}
			if !slices.Equal(sent, test.sent) {
				t.Errorf("sent %q, want %q", sent, test.sent)
			}
		})
	}
}

// Where a container is asked, without asking.
func TestAzureAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ endpoint, container, want string }{
		{"", "c", "https://account.blob.core.windows.net/c/a.jpg"},
		{"", "$root", "https://account.blob.core.windows.net/$root/a.jpg"},
		{"http://127.0.0.1:10000/account/", "c", "http://127.0.0.1:10000/account/c/a.jpg"},
	} {
		o := azureOrigin(t, test.endpoint, func(o *topologyv1.Origin) { o.GetAzureBlob().Container = test.container })
		ask := get("/a.jpg")
		req, err := azureblob.Kind.Build(&kind.Edge{}, o, &ask)
		if err != nil || kind.Shown(req.URL, true) != test.want {
			t.Errorf("%v, %v; want %s", req, err, test.want)
		}
	}
}

// The signature of a shared access signature goes into nothing that anybody reads, whatever becomes
// of the request.
func TestAzureKeepsTheSignatureToItself(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]faultorigin.Answer{
		"refused": azureError(403, "AuthenticationFailed"), "cut": faultorigin.Hangup(),
		"redirected": faultorigin.Redirect(302, "/b"), "echoed": azureError(400, sas),
		"endless": faultorigin.EndlessHead(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, answer)
			o := azureOrigin(t, fault.URL())
			o.Secrets = map[string]string{"azure_blob.sas_token": sas}
			a := localClient(t).Get(t.Context(), o, get("/a.jpg"))
			if discard(t, a); a.Outcome != Inconclusive || strings.Contains(fmt.Sprint(a), "sig") {
				t.Errorf("got %+v", a)
			}
			if got := fault.Requests()[0].Target; got != "/container/a.jpg?"+sas {
				t.Errorf("asked for %q", got)
			}
		})
	}
}

func FuzzAzureCode(f *testing.F) {
	f.Add("BlobNotFound", []byte("<Error><Code>BlobNotFound</Code></Error>"))
	f.Add("", []byte("<Error><Code>BlobNotFound</Code></Error>"))
	f.Add("a b\r\n", []byte(nil))
	f.Fuzz(func(t *testing.T, field string, body []byte) {
		if code := azureblob.Kind.Code(http.Header{"X-Ms-Error-Code": {field}}, body); len(code) > 64 ||
			code != kind.Escape(code, kind.Unreserved) {
			t.Errorf("read %q", code)
		}
	})
}
