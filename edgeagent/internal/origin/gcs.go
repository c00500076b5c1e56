package origin

import (
	"cmp"
	"compress/gzip"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	googleStorage = "https://storage.googleapis.com"
	googleTokens  = "https://oauth2.googleapis.com/token"
	// googleScope is what a token is asked for: reading, of what the service account may read.
	googleScope = "https://www.googleapis.com/auth/devstorage.read_only"
	// grantLife is the longest that Google allows.
	grantLife = time.Hour
	jwtGrant  = "urn:ietf:params:oauth:grant-type:jwt-bearer" // RFC 7523 2.1

	adviceGCSKey = "check gcs.client_email and gcs.private_key, and the clock of the edge"
)

// buildGCS asks for an object through the XML API, whose errors name what is missing. It asks for gzip always: Google
// Storage would otherwise decompress objects that are stored so, and then knows neither their length nor ranges.
func buildGCS(c *Client, o *topology.Origin, a *Ask) (*http.Request, error) {
	spec := o.Spec.GetGcs()
	key, err := objectKey(spec.GetPrefix(), a.Object)
	if err != nil {
		return nil, err
	}
	base, err := gcsEndpoint(spec)
	if err != nil {
		return nil, err
	}
	path := bucketPath(base, spec.GetBucket()) + "/" + escape(key, unreservedOrSlash)
	req := newRequest(exactURL(base.Scheme, base.Host, path, ""))
	setRequestHeaders(req, o)
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("User-Agent", c.userAgent)
	return req, nil
}

func gcsEndpoint(spec *topologyv1.GcsOrigin) (*url.URL, error) {
	base, err := url.Parse(cmp.Or(spec.GetEndpoint(), googleStorage))
	if err != nil || base.Host == "" {
		return nil, &configError{"endpoint is not a URL", "correct gcs.endpoint"}
	}
	return base, nil
}

func bucketPath(base *url.URL, bucket string) string {
	return strings.TrimSuffix(base.EscapedPath(), "/") + "/" + escape(bucket, unreserved)
}

// bucketGCS lists one object of the bucket.
func bucketGCS(c *Client, o *topology.Origin) (*http.Request, error) {
	base, err := gcsEndpoint(o.Spec.GetGcs())
	if err != nil {
		return nil, err
	}
	req := newRequest(exactURL(base.Scheme, base.Host, bucketPath(base, o.Spec.GetGcs().GetBucket())+"/", "max-keys=1"))
	setRequestHeaders(req, o)
	req.Header.Set("User-Agent", c.userAgent)
	return req, nil
}

// signGCS lets a request in with a token of the service account. Without a key it is anonymous.
func signGCS(ctx context.Context, c *Client, h *hop) error {
	// A decoded file has a weak entity tag, which Google Storage does not know. If-None-Match compares weakly (RFC 9110 13.1.2).
	if tag := h.ask.IfNoneMatch; tag != "" {
		h.req.Header.Set("If-None-Match", strings.TrimPrefix(tag, "W/"))
	}
	spec := h.origin.Spec.GetGcs()
	key := h.origin.Secrets["gcs.private_key"]
	switch {
	case spec.GetClientEmail() == "" && key == "":
		return nil
	case spec.GetClientEmail() == "" || key == "":
		return &configError{"only one of client_email and private_key is set", "set both, or neither"}
	}
	return c.bearer(ctx, h, func(ctx context.Context, _ string) (grant, error) {
		req, err := gcsGrant(spec, key, time.Now())
		if err != nil {
			return grant{}, err
		}
		return c.askToken(ctx, h.origin, req, adviceGCSKey)
	})
}

// tokenURL is where tokens for a store come from: Google's for Google's hosts, and {endpoint}/token for a store of one's own.
func tokenURL(base *url.URL) string {
	if host := strings.ToLower(base.Hostname()); host == "googleapis.com" || strings.HasSuffix(host, ".googleapis.com") {
		return googleTokens
	}
	return base.Scheme + "://" + base.Host + strings.TrimSuffix(base.EscapedPath(), "/") + "/token"
}

// gcsGrant asks for a token with an assertion that the service account's key signs (RFC 7523).
func gcsGrant(spec *topologyv1.GcsOrigin, key string, now time.Time) (*http.Request, error) {
	base, err := gcsEndpoint(spec)
	if err != nil {
		return nil, err
	}
	at := tokenURL(base)
	assertion, err := signedClaims(key, map[string]any{
		"iss": spec.GetClientEmail(), "scope": googleScope, "aud": at, "iat": now.Unix(), "exp": now.Add(grantLife).Unix(),
	})
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {jwtGrant}, "assertion": {assertion}}
	return postRequest(at, "application/x-www-form-urlencoded", form.Encode())
}

// postRequest returns a POST of a short body.
func postRequest(to, contentType, body string) (*http.Request, error) {
	req, err := http.NewRequest(http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		return nil, &configError{"the token endpoint is not a URL", "correct the origin's URL"}
	}
	req.Header.Set("Content-Type", contentType)
	return req, nil
}

// signedClaims is a JWT with RS256 (RFC 7515 3.1, RFC 7518 3.3).
func signedClaims(key string, claims map[string]any) (string, error) {
	private, err := rsaKey(key)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	encoding := base64.RawURLEncoding
	signed := encoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encoding.EncodeToString(text)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
	if err != nil {
		return "", errServiceKey
	}
	return signed + "." + encoding.EncodeToString(signature), nil
}

var errServiceKey = &configError{"private_key is not an RSA key in PEM", "set gcs.private_key to private_key of the service account's JSON key"}

// rsaKey reads a PEM key. It takes the text as it stands in a JSON key file too, with \n for the ends of lines.
func rsaKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(strings.ReplaceAll(text, `\n`, "\n")))
	if block == nil {
		return nil, errServiceKey
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errServiceKey
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errServiceKey
	}
	return key, nil
}

// finishGCS makes a reply what Google Storage would have answered who asked, had it not been asked for gzip: an object that is
// stored compressed goes out as it is to who takes gzip, and decoded to who does not, unless its Cache-Control says
// no-transform. The two are variants, and the decoded one has no strong entity tag.
func finishGCS(ask *Ask, r *Response) error {
	h := r.Header
	if r.Status == http.StatusNotModified {
		if strings.HasPrefix(ask.IfNoneMatch, "W/") {
			weaken(h)
		}
		return nil
	}
	if !strings.EqualFold(h.Get("Content-Encoding"), "gzip") || strings.Contains(strings.ToLower(h.Get("Cache-Control")), "no-transform") {
		return nil
	}
	addVary(h, "Accept-Encoding")
	takes := rfc9111.NormaliseAcceptEncoding(ask.Header["Accept-Encoding"])
	if r.Status == http.StatusPartialContent || r.Status == http.StatusRequestedRangeNotSatisfiable || strings.Contains(takes, "gzip") {
		return nil
	}
	return decode(r)
}

// decode takes gzip off a whole reply. Where its end is missing the checksum tells, so a cut is seen even where framing shows none.
func decode(r *Response) error {
	if r.Length != 0 {
		unzip, err := gzip.NewReader(r.Body)
		if err != nil {
			return errNotGzip
		}
		r.Body = &decodedBody{Reader: unzip, under: r.Body}
		r.Length, r.Framed = -1, true
	}
	for _, name := range []string{"Content-Encoding", "Content-Length", "Accept-Ranges", "Content-Md5", "Digest", "Repr-Digest"} {
		r.Header.Del(name)
	}
	weaken(r.Header)
	return nil
}

var errNotGzip = &configError{"the file is not gzip, although its Content-Encoding says so", "correct the object's Content-Encoding"}

// A decodedBody is a body without its coding.
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
