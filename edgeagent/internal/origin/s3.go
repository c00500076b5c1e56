package origin

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// unsignedPayload says that the signature does not cover the body. A GET has none.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// objectKey puts the object under the prefix, with a "/" between. A key that no store can have is not there. One that
// software on the way could take for another is never asked for; a client cannot ask for it, but prefix and probe_key can.
func objectKey(prefix, object string) (string, error) {
	key := prefix + object
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		key = prefix + "/" + object
	}
	if len(key) > topology.MaxKeyBytes {
		return "", &unaskedError{detail: fmt.Sprintf("the key would be longer than %d bytes", topology.MaxKeyBytes)}
	}
	for segment := range strings.SplitSeq(strings.ReplaceAll(key, `\`, "/"), "/") {
		if segment == "." || segment == ".." {
			return "", &configError{"the key would have a . or .. segment", "take . and .. segments out of prefix and probe_key"}
		}
	}
	return key, nil
}

// buildS3 asks for a key in path or virtual-host style. Its bytes are percent-encoded once, as SigV4 does, whatever they were in
// the client's URL, so that what is signed is what is sent.
func buildS3(c *Client, o *topology.Origin, a *Ask) (*http.Request, error) {
	spec := o.Spec.GetS3()
	object := a.Object
	if spec.GetPercentEncodeKeys() {
		object = escape(object, unreservedOrSlash)
	}
	key, err := objectKey(spec.GetPrefix(), object)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(s3Endpoint(spec.GetEndpoint(), regionOf(spec)))
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
	setRequestHeaders(req, o)
	delete(req.Header, "Authorization")
	req.Header.Set("User-Agent", c.userAgent)
	return req, nil
}

func regionOf(spec *topologyv1.S3Origin) string {
	return cmp.Or(spec.GetRegion(), topology.DefaultS3Region)
}

func s3Endpoint(endpoint, region string) string {
	if endpoint != "" {
		return endpoint
	}
	return "https://s3." + region + "." + domainOf(region)
}

// domainOf is the domain of a region's partition.
func domainOf(region string) string {
	for _, partition := range [...]struct{ prefix, domain string }{
		{"cn-", "amazonaws.com.cn"}, {"eusc-", "amazonaws.eu"}, {"us-iso-", "c2s.ic.gov"}, {"us-isob-", "sc2s.sgov.gov"},
	} {
		if strings.HasPrefix(region, partition.prefix) {
			return partition.domain
		}
	}
	return "amazonaws.com"
}

// pathStyle reports whether the bucket goes into the path. It has to where no host name can hold it: at an IP address, for
// the old names that DNS does not know, and at Amazon, whose certificate covers one label, when its name has a dot.
func pathStyle(forced, amazon bool, bucket, host string) bool {
	_, err := netip.ParseAddr(host)
	return forced || err == nil || strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || amazon && strings.Contains(bucket, ".")
}

// signS3 signs the host and the store's own fields, which the store insists on, and no others: a proxy on the way may rewrite them.
func signS3(ctx context.Context, c *Client, h *hop) error {
	spec := h.origin.Spec.GetS3()
	credentials, signed, err := c.s3Credentials(ctx, h)
	if err != nil || !signed {
		return err
	}
	part := &http.Request{Method: h.req.Method, URL: h.req.URL, Host: h.req.URL.Host, Header: make(http.Header)}
	for name, values := range h.req.Header {
		if strings.HasPrefix(name, "X-Amz-") {
			part.Header[name] = values
		}
	}
	part.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	// A signer of its own for each request: one keeps the key that it derived by the key id alone, and would sign for whoever
	// names another's key id with that other's secret.
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(ctx, credentials, part, unsignedPayload, "s3", regionOf(spec), time.Now().UTC()); err != nil {
		return &configError{"the request cannot be signed", "check s3.access_key_id and s3.secret_access_key"}
	}
	maps.Copy(h.req.Header, part.Header)
	return nil
}

// s3Credentials returns what to sign with, if anything.
func (c *Client) s3Credentials(ctx context.Context, h *hop) (credentials aws.Credentials, signed bool, err error) {
	spec := h.origin.Spec.GetS3()
	if spec.GetUseAmbientCredentials() {
		credentials, err = c.ambient.credentials(ctx, h.ask.Deadline)
		return credentials, true, err
	}
	credentials = aws.Credentials{AccessKeyID: spec.GetAccessKeyId(), SecretAccessKey: h.origin.Secrets["s3.secret_access_key"]}
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
	if xml.Unmarshal(body, &e) != nil {
		return ""
	}
	return errorCode(strings.TrimSpace(e.Code))
}

// errorCode takes the name of an error, which is made of letters. Anything else is none, and not told: it may be what was sent.
func errorCode(text string) string {
	for i := range len(text) {
		if c := text[i] | 0x20; c < 'a' || c > 'z' {
			return ""
		}
	}
	if len(text) > 64 {
		return ""
	}
	return text
}

// elaborateS3 names the region that the bucket is in.
func elaborateS3(r *reply, a *Answer) {
	region := r.header.Get("X-Amz-Bucket-Region")
	if a.Reason == Misconfigured && region != "" && region != r.origin.Spec.GetS3().GetRegion() {
		a.Detail += ", the bucket is in " + escape(region, unreserved)
	}
}
