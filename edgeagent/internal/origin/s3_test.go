package origin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/s3"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An s3Store is an S3 store that checks signatures by the book: docs.aws.amazon.com, "Create a
// signed AWS API request". It shares no code with the signer.
type s3Store struct {
	keyID, secret, region string
	anonymous             bool // serves requests without a signature
	objects               map[string]string
	seen                  []string // keys, in order
	fields                http.Header
}

func (s *s3Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	s.fields = r.Header
	if !s.anonymous || r.Header.Get("Authorization") != "" {
		if code := s.verify(r); code != "" {
			refuse(403, code)
			return
		}
	}
	bucket, rest, _ := strings.Cut(strings.TrimPrefix(r.RequestURI, "/"), "/")
	if name, _, ok := strings.Cut(r.Host, "."); ok && name == "bucket" {
		bucket, rest = name, strings.TrimPrefix(r.RequestURI, "/")
	}
	key, err := url.PathUnescape(rest)
	switch {
	case bucket != "bucket":
		refuse(404, "NoSuchBucket")
	case err != nil:
		refuse(400, "InvalidURI")
	default:
		s.seen = append(s.seen, key)
		if body, ok := s.objects[key]; ok {
			io.WriteString(w, body)
			return
		}
		refuse(404, "NoSuchKey")
	}
}

// verify returns the error code of a request whose signature is wrong.
func (s *s3Store) verify(r *http.Request) string {
	var scope, signed, signature string
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope = value
		case "SignedHeaders":
			signed = value
		case "Signature":
			signature = value
		}
	}
	parts := strings.Split(scope, "/")
	if len(parts) != 5 || parts[0] != s.keyID {
		return "InvalidAccessKeyId"
	}
	if parts[2] != s.region {
		return "AuthorizationHeaderMalformed"
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > 15*time.Minute {
		return "RequestTimeTooSkewed"
	}
	path, query, _ := strings.Cut(r.RequestURI, "?")
	canonical := r.Method + "\n" + path + "\n" + query + "\n"
	for name := range strings.SplitSeq(signed, ";") {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		canonical += name + ":" + strings.TrimSpace(value) + "\n"
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") &&
			!slices.Contains(strings.Split(signed, ";"), lower) {
			return "AccessDenied" // as AWS answers: "There were headers present in the request which were not signed"
		}
	}
	canonical += "\n" + signed + "\n" + r.Header.Get("X-Amz-Content-Sha256")
	sum := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + strings.Join(parts[1:], "/") + "\n" +
		hex.EncodeToString(
			sum[:],
		)
	key := []byte("AWS4" + s.secret)
	for _, part := range append(parts[1:], text) {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	if hex.EncodeToString(key) != signature {
		return "SignatureDoesNotMatch"
	}
	return ""
}

func newS3Store(t testing.TB) (*s3Store, string) {
	store := &s3Store{keyID: "AKID", secret: theSecret, region: "eu-west-1", objects: map[string]string{}}
	server := httptest.NewServer(store)
	t.Cleanup(server.Close)
	return store, server.URL
}

// The key that a store is asked for is the canonical path decoded once, under the prefix, whatever
// is in it; and the signature holds for it.
func TestS3Keys(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, prefix, path, key string }{
		{"plain", "", "/a/b.jpg", "a/b.jpg"},
		{"space", "", "/a%20b.jpg", "a b.jpg"},
		{"plus", "", "/a+b.jpg", "a+b.jpg"},
		{"encoded plus", "", "/a%2Bb.jpg", "a+b.jpg"},
		{"percent", "", "/100%25.jpg", "100%.jpg"},
		{"percent twice", "", "/a%2520b.jpg", "a%20b.jpg"},
		{"NFC", "", "/caf%C3%A9.jpg", "café.jpg"},
		{"NFD", "", "/cafe%CC%81.jpg", "cafe\u0301.jpg"},
		{"slashes", "", "/a//b.jpg", "a//b.jpg"},
		{"slash in front", "", "//a.jpg", "/a.jpg"},
		{"semicolon", "", "/a;v=1/b.jpg", "a;v=1/b.jpg"},
		{"encoded slash", "", "/a%2Fb.jpg", "a/b.jpg"},
		{"delimiters", "", "/!$&'()*,=:@~.jpg", "!$&'()*,=:@~.jpg"},
		{"odd bytes", "", "/%22%3C%3E%5C%5E%60%7B%7C%7D%7F%01.jpg", "\"<>\\^`{|}\x7f\x01.jpg"},
		{"prefix", "img", "/a.jpg", "img/a.jpg"},
		{"prefix with slash", "img/", "/a.jpg", "img/a.jpg"},
		{"odd prefix", "i m%20/ü", "/a.jpg", "i m%20/ü/a.jpg"},
	} {
		for _, style := range []string{"path", "virtual host"} {
			t.Run(test.name+"/"+style, func(t *testing.T) {
				t.Parallel()
				store, endpoint := newS3Store(t)
				store.objects[test.key] = "the object"
				cfg := Config{AllowCIDRs: loopback}
				if style == "virtual host" {
					endpoint = strings.Replace(endpoint, "127.0.0.1", "store.test", 1)
					cfg.Resolver = newDNS(t, map[string][]string{"bucket.store.test.": {"127.0.0.1"}}).resolver()
				}
				o := s3Origin(t, endpoint, func(o *topologyv1.Origin) {
					o.GetS3().Prefix, o.GetS3().ForcePathStyle = test.prefix, style == "path"
				})
				a := newTestClient(t, cfg).Get(t.Context(), o, get(test.path))
				if a.Outcome != Found {
					t.Fatalf("got %s %s: %s; the store saw %q", a.Outcome, a.Reason, a.Detail, store.seen)
				}
				if body, err := read(t, a); body != "the object" || err != nil {
					t.Errorf("read %q, %v", body, err)
				}
			})
		}
	}
}

// Cloudinary's backups hold percent-encoded keys, so their percent signs are encoded once more on
// the wire.
func TestS3PercentEncodedKeys(t *testing.T) {
	t.Parallel()
	store, endpoint := newS3Store(t)
	store.objects["p%20q/a%20b%2B%C3%BC.jpg"] = "x"
	o := s3Origin(t, endpoint,
		func(o *topologyv1.Origin) { o.GetS3().PercentEncodeKeys, o.GetS3().Prefix = true, "p%20q" })
	a := localClient(t).Get(t.Context(), o, get("/a%20b+%C3%BC.jpg"))
	discard(t, a)
	if a.Outcome != Found {
		t.Errorf("got %s: %s; the store saw %q", a.Outcome, a.Detail, store.seen)
	}
}

// What cannot be a key is not there, and the store is not asked.
func TestS3UnaskedKeys(t *testing.T) {
	t.Parallel()
	store, endpoint := newS3Store(t)
	o := s3Origin(t, endpoint, func(o *topologyv1.Origin) { o.GetS3().Prefix = "prefix" })
	for _, path := range []string{
		"", "/", "/folder/", "/%FF", "/" + strings.Repeat("a", 1025), "/" + strings.Repeat("a", 1018),
	} {
		a := localClient(t).Get(t.Context(), o, get(path))
		if a.Outcome != NotHere || a.Reason != Unasked || a.Request != "" {
			t.Errorf("%q: got %s %s", path, a.Outcome, a.Reason)
		}
	}
	if len(store.seen) > 0 {
		t.Errorf("the store was asked for %q", store.seen)
	}
}

func TestS3Credentials(t *testing.T) {
	for _, test := range []struct {
		name      string
		change    func(*topologyv1.S3Origin)
		env       [3]string
		anonymous bool
		secret    string
		outcome   Outcome
		detail    string
	}{
		{name: "right", secret: theSecret, outcome: Found, detail: "HTTP 200"},
		{name: "wrong secret", secret: "other", detail: "HTTP 403 SignatureDoesNotMatch"},
		{name: "wrong key id", secret: theSecret, change: func(s *topologyv1.S3Origin) { s.AccessKeyId = "OTHER" },
			detail: "HTTP 403 InvalidAccessKeyId"},
		{name: "wrong region", secret: theSecret, change: func(s *topologyv1.S3Origin) { s.Region = "us-east-2" },
			detail: "HTTP 403 AuthorizationHeaderMalformed"},
		{name: "none at a public bucket", change: func(s *topologyv1.S3Origin) { s.AccessKeyId = "" }, anonymous: true,
			outcome: Found, detail: "HTTP 200"},
		{name: "half", detail: "only one of accessKeyId and secretAccessKey is set"},
		{name: "ambient", env: [3]string{"AKID", theSecret, "token"}, outcome: Found, detail: "HTTP 200",
			change: func(s *topologyv1.S3Origin) { s.AccessKeyId, s.UseAmbientCredentials = "", true }},
		{name: "no ambient", detail: "the edge has no ambient credentials",
			change: func(s *topologyv1.S3Origin) { s.AccessKeyId, s.UseAmbientCredentials = "", true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			clearAmbient(t)
			for i, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
				t.Setenv(name, test.env[i])
			}
			store, endpoint := newS3Store(t)
			store.objects["a.jpg"], store.anonymous = "x", test.anonymous
			o := s3Origin(t, endpoint, func(o *topologyv1.Origin) {
				if test.change != nil {
					test.change(o.GetS3())
				}
			})
			o.Secrets = map[string]string{"s3.secret_access_key": test.secret}
			a := newTestClient(t, Config{AllowCIDRs: loopback, AllowAmbientCredentials: true}).Get(t.Context(), o,
				get("/a.jpg"))
			discard(t, a)
			if a.Outcome != test.outcome || a.Detail != test.detail {
				t.Errorf("got %s %s: %s", a.Outcome, a.Reason, a.Detail)
			}
			if a.Outcome == Inconclusive && (a.Reason != Misconfigured || a.Advice == "") {
				t.Errorf("got %s, advice %q", a.Reason, a.Advice)
			}
			if got := store.fields.Get("X-Amz-Security-Token"); got != test.env[2] {
				t.Errorf("sent token %q, want %q", got, test.env[2])
			}
		})
	}
}

// Who names another's key id still needs its secret, whatever the client has signed before.
func TestS3SecretsAreNotMixedUp(t *testing.T) {
	t.Parallel()
	store, endpoint := newS3Store(t)
	store.objects["a.jpg"] = "x"
	owner, thief := s3Origin(t, endpoint), s3Origin(t, endpoint)
	thief.Secrets = map[string]string{"s3.secret_access_key": "a guess"}
	c := localClient(t)
	for range 2 {
		a := c.Get(t.Context(), owner, get("/a.jpg"))
		discard(t, a)
		if a.Outcome != Found {
			t.Errorf("the owner: %s %s: %s", a.Outcome, a.Reason, a.Detail)
		}
		if a = c.Get(t.Context(), thief, get("/a.jpg")); a.Outcome != Inconclusive ||
			a.Detail != "HTTP 403 SignatureDoesNotMatch" {
			t.Errorf("the thief: %s %s: %s", a.Outcome, a.Reason, a.Detail)
		}
		discard(t, a)
	}
}

// Of an origin's own fields the store's are signed, which it insists on, and the others are sent
// beside.
func TestS3RequestHeaders(t *testing.T) {
	t.Parallel()
	store, endpoint := newS3Store(t)
	store.objects["a.jpg"] = "x"
	o := s3Origin(t, endpoint, func(o *topologyv1.Origin) {
		o.RequestHeaders = []*topologyv1.RequestHeader{
			{Name: "x-amz-request-payer", Value: "requester"}, {Name: "X-Shop", Value: "acme"},
			{Name: "Authorization", Value: "Basic eA=="},
		}
	})
	ask := get("/a.jpg")
	ask.Header = header("Cookie", "a=1", "Accept", "image/webp")
	a := localClient(t).Get(t.Context(), o, ask)
	discard(t, a)
	if a.Outcome != Found {
		t.Fatalf("got %s %s: %s", a.Outcome, a.Reason, a.Detail)
	}
	h := store.fields
	if h.Get("X-Amz-Request-Payer") != "requester" || h.Get("X-Shop") != "acme" || h.Get("Cookie") != "" ||
		h.Get("Accept") != "" {
		t.Errorf("sent %v", h)
	}
}

// Where a bucket is asked, without asking.
func TestS3Addresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		spec *topologyv1.S3Origin
		want string
	}{
		{&topologyv1.S3Origin{Bucket: "b"}, "https://b.s3.us-east-1.amazonaws.com/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Region: "eu-west-1"}, "https://b.s3.eu-west-1.amazonaws.com/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Region: "cn-north-1"}, "https://b.s3.cn-north-1.amazonaws.com.cn/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Region: "us-gov-west-1"},
			"https://b.s3.us-gov-west-1.amazonaws.com/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Region: "eusc-de-east-1"},
			"https://b.s3.eusc-de-east-1.amazonaws.eu/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "Old_Bucket"}, "https://s3.us-east-1.amazonaws.com/Old_Bucket/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", ForcePathStyle: true}, "https://s3.us-east-1.amazonaws.com/b/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b.c"}, "https://s3.us-east-1.amazonaws.com/b.c/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b.c", Endpoint: "https://store.example"}, "https://b.c.store.example/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Endpoint: "https://store.example:9000/s3/"},
			"https://b.store.example:9000/s3/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Endpoint: "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/b/p/a.jpg"},
		{&topologyv1.S3Origin{Bucket: "b", Endpoint: "http://[::1]:9000"}, "http://[::1]:9000/b/p/a.jpg"},
	} {
		test.spec.Prefix = "p"
		o := compile(t, &topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: test.spec}}, nil)
		ask := get("/a.jpg")
		req, err := s3.New(false).Build(&kind.Edge{}, o, &ask)
		if err != nil {
			t.Fatal(err)
		}
		if got := kind.Shown(req.URL, true); got != test.want {
			t.Errorf("%v: %s, want %s", test.spec, got, test.want)
		}
	}
}
