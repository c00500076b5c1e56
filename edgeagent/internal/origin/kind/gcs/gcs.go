// Package gcs is the kind of storage that Google Cloud Storage is.
package gcs

import (
	"cmp"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/token"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"
)

const (
	googleStorage = "https://storage.googleapis.com"
	googleTokens  = "https://oauth2.googleapis.com/token"
	// googleScope is the scope of tokens: to read what the service account may read.
	googleScope = "https://www.googleapis.com/auth/devstorage.read_only"

	adviceKey = "check gcs.clientEmail and gcs.privateKey, and the clock of the edge"
)

// New returns the kind.
func New(tokens *token.Cache) *kind.Kind {
	return &kind.Kind{
		Name: "gcs", Keyed: true, Build: build, Code: kind.XMLCode, Finish: finish, Rows: rows, Bucket: bucket,
		Sign:         func(ctx context.Context, h *kind.Hop) error { return sign(ctx, tokens, h) },
		DeniedAdvice: "grant storage.objects.list, or accept that missing files answer 403",
	}
}

// build asks for an object through the XML API, whose errors name what is missing. It always asks
// for gzip, because Google Storage otherwise decompresses objects that are stored so, and then
// knows neither their length nor ranges.
func build(e *kind.Edge, o *topology.Origin, a *kind.Ask) (*http.Request, error) {
	spec := o.Spec.GetGcs()
	key, err := kind.ObjectKey(spec.GetPrefix(), a.Object)
	if err != nil {
		return nil, err
	}
	base, err := endpointOf(spec)
	if err != nil {
		return nil, err
	}
	path := bucketPath(base, spec.GetBucket()) + "/" + kind.Escape(key, kind.UnreservedOrSlash)
	req := kind.NewRequest(kind.ExactURL(base.Scheme, base.Host, path, ""))
	kind.SetRequestHeaders(req, o)
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("User-Agent", e.UserAgent)
	return req, nil
}

func endpointOf(spec *topologyv1.GcsOrigin) (*url.URL, error) {
	base, err := url.Parse(cmp.Or(spec.GetEndpoint(), googleStorage))
	if err != nil || base.Host == "" {
		return nil, kind.WrongConfig("endpoint is not a URL", "correct gcs.endpoint")
	}
	return base, nil
}

func bucketPath(base *url.URL, bucket string) string {
	return strings.TrimSuffix(base.EscapedPath(), "/") + "/" + kind.Escape(bucket, kind.Unreserved)
}

// bucket lists one object of the bucket.
func bucket(e *kind.Edge, o *topology.Origin) (*http.Request, error) {
	base, err := endpointOf(o.Spec.GetGcs())
	if err != nil {
		return nil, err
	}
	req := kind.NewRequest(kind.ExactURL(base.Scheme, base.Host, bucketPath(base, o.Spec.GetGcs().GetBucket())+"/",
		"max-keys=1"))
	kind.SetRequestHeaders(req, o)
	req.Header.Set("User-Agent", e.UserAgent)
	return req, nil
}

// sign adds a token of the service account. A request without a key is anonymous.
func sign(ctx context.Context, tokens *token.Cache, h *kind.Hop) error {
	// A decoded file has a weak entity tag, which Google Storage does not know. If-None-Match
	// compares weakly (RFC 9110 13.1.2).
	if tag := h.Ask.IfNoneMatch; tag != "" {
		h.Req.Header.Set("If-None-Match", strings.TrimPrefix(tag, "W/"))
	}
	spec := h.Origin.Spec.GetGcs()
	key := h.Origin.Secrets[topology.SecretGCSKey]
	switch {
	case spec.GetClientEmail() == "" && key == "":
		return nil
	case spec.GetClientEmail() == "" || key == "":
		return kind.WrongConfig("only one of clientEmail and privateKey is set", "set both, or neither")
	}
	base, err := endpointOf(spec)
	if err != nil {
		return err
	}
	config := jwt.Config{
		Email: spec.GetClientEmail(), Scopes: []string{googleScope}, TokenURL: tokenURL(base),
		// Line ends are written as \n in a JSON key file, from which the text may be copied.
		PrivateKey: []byte(strings.ReplaceAll(key, `\n`, "\n")),
	}
	return tokens.Bearer(ctx, h, token.Source{
		Get: func(ctx context.Context, _ *oauth2.Token) (*oauth2.Token, error) {
			return config.TokenSource(ctx).Token()
		},
		Advice: adviceKey,
		Unsent: kind.WrongConfig("privateKey is not an RSA key in PEM",
			"set gcs.privateKey to private_key of the service account's JSON key"),
	})
}

// tokenURL returns where tokens for a store come from: Google's URL for Google's hosts, and
// {endpoint}/token for any other store.
func tokenURL(base *url.URL) string {
	if host := strings.ToLower(base.Hostname()); host == "googleapis.com" ||
		strings.HasSuffix(host, ".googleapis.com") {
		return googleTokens
	}
	return base.Scheme + "://" + base.Host + strings.TrimSuffix(base.EscapedPath(), "/") + "/token"
}

// finish turns the reply to a request for gzip into the reply to the client's own request, as
// Google Storage would have sent it: an object that is stored compressed is sent as it is to a
// client that accepts gzip. For others it is decoded, unless its Cache-Control says no-transform.
// The two are variants, and the decoded one has no strong entity tag.
func finish(ask *kind.Ask, r *kind.Response) error {
	h := r.Header
	if r.Status == http.StatusNotModified {
		if strings.HasPrefix(ask.IfNoneMatch, "W/") {
			weaken(h)
		}
		return nil
	}
	if !strings.EqualFold(h.Get("Content-Encoding"), "gzip") ||
		strings.Contains(strings.ToLower(h.Get("Cache-Control")), "no-transform") {
		return nil
	}
	addVary(h, "Accept-Encoding")
	takes := rfc9111.NormaliseAcceptEncoding(ask.Header["Accept-Encoding"])
	if r.Status == http.StatusPartialContent || r.Status == http.StatusRequestedRangeNotSatisfiable ||
		strings.Contains(takes, "gzip") {
		return nil
	}
	return decode(r)
}

// decode decompresses a whole reply. A body that was cut ends with an error even where its framing
// does not show the cut, because gzip has a checksum at the end.
func decode(r *kind.Response) error {
	if r.Length != 0 {
		unzip, err := gzip.NewReader(r.Body)
		if err != nil {
			return errNotGzip
		}
		r.Body = &decodedBody{Reader: unzip, under: r.Body}
		r.Length, r.Framed = -1, true
	}
	for _, name := range []string{
		"Content-Encoding", "Content-Length", "Accept-Ranges", "Content-Md5", "Digest", "Repr-Digest",
	} {
		r.Header.Del(name)
	}
	weaken(r.Header)
	return nil
}

var errNotGzip = kind.WrongConfig("the file is not gzip, although its Content-Encoding says so", "correct the object's Content-Encoding")

// A decodedBody is the body of a reply, decompressed.
type decodedBody struct {
	io.Reader
	under io.Closer
}

func (b *decodedBody) Close() error { return b.under.Close() }

func weaken(h http.Header) {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		h.Set("ETag", "W/"+tag)
	}
}

func addVary(h http.Header, name string) {
	names, star := rfc9111.ParseVary(h["Vary"])
	for _, known := range names {
		star = star || strings.EqualFold(known, name)
	}
	if !star {
		h.Add("Vary", name)
	}
}

// rows say what the answers of Google Cloud Storage's XML API mean.
var rows = kind.Table(kind.Usable, []kind.Row{
	{Says: "404 NoSuchKey", When: kind.Coded(404, "NoSuchKey"), Outcome: kind.NotHere},
	kind.Wrong("404 for a missing bucket", kind.Coded(404, "NoSuchBucket"), "check gcs.bucket"),
	{Says: "404 that does not say what is missing", When: kind.Status(404), Reason: kind.Misconfigured,
		Proxy:  "proxy_configuration_error",
		Advice: "check gcs.bucket and that the endpoint is a Cloud Storage", Vague: true},
	kind.Patience("SlowDown, ServiceUnavailable", kind.Coded(0, "SlowDown", "ServiceUnavailable", "TooManyRequests")),
	kind.Wrong("requester pays", kind.Coded(400, "UserProjectMissing"),
		"add a request header x-goog-user-project with the project to bill"),
	kind.DeniedKey("403 AccessDenied", kind.Coded(403, "AccessDenied"),
		"grant storage.objects.get; if files are merely missing, grant storage.objects.list or set "+
			"probeKey to an object that exists"),
	kind.Wrong("401 for a token or for none", kind.Status(401), adviceKey),
}, kind.Rest)
