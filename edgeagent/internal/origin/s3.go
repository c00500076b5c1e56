package origin

import (
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxKeyBytes is the longest key of S3.
	maxKeyBytes = 1024
	// unsignedPayload says that the signature does not cover the body. A GET has none.
	unsignedPayload = "UNSIGNED-PAYLOAD"
)

// errNoKey says that what is asked for cannot be a key of the storage.
var errNoKey = errors.New("the key would be longer than 1024 bytes")

// buildS3 asks for a key in path or virtual-host style. Its bytes are percent-encoded once, as SigV4 does, whatever they were in
// the client's URL, so that what is signed is what is sent.
func buildS3(c *Client, o *topology.Origin, a *Ask) (*http.Request, error) {
	spec := o.Spec.GetS3()
	object := a.Object
	if spec.GetPercentEncodeKeys() {
		object = escape(object, unreservedOrSlash)
	}
	key := underPrefix(spec.GetPrefix(), object)
	if len(key) > maxKeyBytes {
		return nil, errNoKey
	}
	region := spec.GetRegion()
	if region == "" {
		region = topology.DefaultS3Region
	}
	base, err := url.Parse(s3Endpoint(spec.GetEndpoint(), region))
	if err != nil || base.Host == "" {
		return nil, &configError{"endpoint is not a URL", "correct s3.endpoint"}
	}
	host, path := base.Host, strings.TrimSuffix(base.EscapedPath(), "/")
	if pathStyle(spec.GetForcePathStyle(), spec.GetEndpoint() == "", spec.GetBucket(), base.Hostname()) {
		path += "/" + escape(spec.GetBucket(), unreserved)
	} else {
		host = spec.GetBucket() + "." + host
	}
	req := newRequest(exactURL(base.Scheme, host, path+"/"+escape(key, unreservedOrSlash), ""))
	return req, c.finishS3(req, o, region)
}

// finishS3 sets the header and signs it. Of the origin's request_headers only the store's own are signed, which it insists on;
// what a proxy on the way may rewrite is not.
func (c *Client) finishS3(req *http.Request, o *topology.Origin, region string) error {
	others := make(http.Header)
	setRequestHeaders(others, o)
	for name, values := range others {
		if strings.HasPrefix(name, "X-Amz-") {
			req.Header[name] = values
		}
	}
	if err := signS3(req, o, region); err != nil {
		return err
	}
	for name, values := range others {
		if name != "Authorization" && !strings.HasPrefix(name, "X-Amz-") {
			req.Header[name] = values
		}
	}
	req.Header.Set("User-Agent", c.userAgent)
	return nil
}

// underPrefix puts prefix before key, with a "/" between.
func underPrefix(prefix, key string) string {
	if prefix == "" || strings.HasSuffix(prefix, "/") {
		return prefix + key
	}
	return prefix + "/" + key
}

func s3Endpoint(endpoint, region string) string {
	if endpoint != "" {
		return endpoint
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain += ".cn"
	}
	return "https://s3." + region + "." + domain
}

// pathStyle reports whether the bucket goes into the path. It has to where no host name can hold it: at an IP address, and at
// Amazon, whose certificate covers one label, when its name has a dot.
func pathStyle(forced, amazon bool, bucket, host string) bool {
	_, err := netip.ParseAddr(host)
	return forced || err == nil || amazon && strings.Contains(bucket, ".")
}

func signS3(req *http.Request, o *topology.Origin, region string) error {
	credentials, signed, err := s3Credentials(o)
	if err != nil || !signed {
		return err
	}
	req.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	req.Host = req.URL.Host
	// A signer of its own for each request: one keeps the key that it derived by the key id alone, and would sign for whoever
	// names another's key id with that other's secret.
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(context.Background(), credentials, req, unsignedPayload, "s3", region, time.Now().UTC()); err != nil {
		return &configError{"the request cannot be signed", "check s3.access_key_id and s3.secret_access_key"}
	}
	return nil
}

// s3Credentials returns what to sign with. Ambient credentials are those of the environment: AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
func s3Credentials(o *topology.Origin) (credentials aws.Credentials, signed bool, err error) {
	spec := o.Spec.GetS3()
	credentials = aws.Credentials{AccessKeyID: spec.GetAccessKeyId(), SecretAccessKey: o.Secrets["s3.secret_access_key"]}
	if spec.GetUseAmbientCredentials() {
		credentials = aws.Credentials{
			AccessKeyID:     os.Getenv("AWS_ACCESS_KEY_ID"),
			SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken:    os.Getenv("AWS_SESSION_TOKEN"),
		}
		if !credentials.HasKeys() {
			return credentials, false, &configError{"the edge has no ambient credentials",
				"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the edge's environment, or give the origin its own"}
		}
		return credentials, true, nil
	}
	switch {
	case credentials.AccessKeyID == "" && credentials.SecretAccessKey == "":
		return credentials, false, nil
	case !credentials.HasKeys():
		return credentials, false, &configError{"only one of access_key_id and secret_access_key is set", "set both, or neither"}
	}
	return credentials, true, nil
}

// s3Code reads the code of an S3 error: <Error><Code>NoSuchKey</Code>...</Error>.
func s3Code(_ http.Header, body []byte) string {
	var e struct {
		XMLName xml.Name `xml:"Error"`
		Code    string   `xml:"Code"`
	}
	if xml.Unmarshal(body, &e) != nil || len(e.Code) > 64 {
		return ""
	}
	return strings.TrimSpace(e.Code)
}

// elaborateS3 names the region that the bucket is in.
func elaborateS3(r *reply, a *Answer) {
	region := r.header.Get("X-Amz-Bucket-Region")
	if a.Reason == Misconfigured && region != "" && region != r.origin.Spec.GetS3().GetRegion() {
		a.Detail += ", the bucket is in " + escape(region, unreserved)
	}
}
