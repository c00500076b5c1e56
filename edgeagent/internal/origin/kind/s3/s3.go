// Package s3 is the kind of storage that Amazon S3 and compatible stores are.
package s3

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// New returns the kind. lend allows origins that ask for it to use the credentials of the machine
// that the edge runs on.
func New(lend bool) *kind.Kind {
	m := &ambient{allowed: lend}
	return &kind.Kind{
		Name: "s3", Keyed: true, Build: build, Sign: m.sign, Code: kind.XMLCode, Elaborate: elaborate, Rows: rows,
		DeniedAdvice: "grant s3:ListBucket, or accept that missing files answer 403",
	}
}

// unsignedPayload says that the signature does not cover the body, which a GET does not have.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// build asks for a key in path or virtual-host style. The key's bytes are percent-encoded exactly
// once, as SigV4 requires, however the client's URL has spelled them, so that what is signed is
// what is sent.
func build(e *kind.Edge, o *topology.Origin, a *kind.Ask) (*http.Request, error) {
	spec := o.Spec.GetS3()
	object := a.Object
	if spec.GetPercentEncodeKeys() {
		object = kind.Escape(object, kind.UnreservedOrSlash)
	}
	key, err := kind.ObjectKey(spec.GetPrefix(), object)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(endpointOf(spec.GetEndpoint(), regionOf(spec)))
	if err != nil || base.Host == "" {
		return nil, kind.WrongConfig("endpoint is not a URL", "correct s3.endpoint")
	}
	host, path := base.Host, strings.TrimSuffix(base.EscapedPath(), "/")
	if pathStyle(spec.GetForcePathStyle(), spec.GetEndpoint() == "", spec.GetBucket(), base.Hostname()) {
		path += "/" + kind.Escape(spec.GetBucket(), kind.Unreserved)
	} else {
		host = spec.GetBucket() + "." + host
	}
	req := kind.NewRequest(kind.ExactURL(base.Scheme, host, path+"/"+kind.Escape(key, kind.UnreservedOrSlash), ""))
	kind.SetRequestHeaders(req, o)
	delete(req.Header, "Authorization")
	req.Header.Set("User-Agent", e.UserAgent)
	return req, nil
}

func regionOf(spec *topologyv1.S3Origin) string {
	return cmp.Or(spec.GetRegion(), topology.DefaultS3Region)
}

func endpointOf(endpoint, region string) string {
	if endpoint != "" {
		return endpoint
	}
	return "https://s3." + region + "." + domainOf(region)
}

// domainOf returns the domain of a region's partition.
func domainOf(region string) string {
	for _, partition := range [...]struct{ prefix, domain string }{
		{"cn-", "amazonaws.com.cn"}, {"eusc-", "amazonaws.eu"}, {"us-iso-", "c2s.ic.gov"},
		{"us-isob-", "sc2s.sgov.gov"},
	} {
		if strings.HasPrefix(region, partition.prefix) {
			return partition.domain
		}
	}
	return "amazonaws.com"
}

// pathStyle reports whether the bucket's name belongs into the path because it cannot be part of
// the host: at an IP address, for old names that are no DNS labels, and at Amazon for names with a
// dot, because its certificate covers one label.
func pathStyle(forced, amazon bool, bucket, host string) bool {
	_, err := netip.ParseAddr(host)
	return forced || err == nil || strings.Trim(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" ||
		amazon && strings.Contains(bucket, ".")
}

// sign signs the host and the fields that the store requires, and no others, because a proxy on the
// way may rewrite those.
func (m *ambient) sign(ctx context.Context, h *kind.Hop) error {
	spec := h.Origin.Spec.GetS3()
	credentials, signed, err := m.credentialsFor(ctx, h.Origin)
	if err != nil || !signed {
		return err
	}
	part := &http.Request{Method: h.Req.Method, URL: h.Req.URL, Host: h.Req.URL.Host, Header: make(http.Header)}
	for name, values := range h.Req.Header {
		if strings.HasPrefix(name, "X-Amz-") {
			part.Header[name] = values
		}
	}
	part.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	// Each request has its own signer. A signer caches the derived key by key id alone, so an
	// origin that names another's key id would be signed for with the other's secret.
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(
		ctx, credentials, part, unsignedPayload, "s3", regionOf(spec), time.Now().UTC(),
	); err != nil {
		return kind.WrongConfig("the request cannot be signed", "check s3.accessKeyId and s3.secretAccessKey")
	}
	maps.Copy(h.Req.Header, part.Header)
	return nil
}

// credentialsFor returns what to sign with, if anything.
func (m *ambient) credentialsFor(
	ctx context.Context, o *topology.Origin,
) (credentials aws.Credentials, signed bool, err error) {
	spec := o.Spec.GetS3()
	if spec.GetUseAmbientCredentials() {
		credentials, err = m.credentials(ctx)
		return credentials, true, err
	}
	credentials = aws.Credentials{AccessKeyID: spec.GetAccessKeyId(), SecretAccessKey: o.Secrets[topology.SecretS3Key]}
	switch {
	case credentials.AccessKeyID == "" && credentials.SecretAccessKey == "":
		return credentials, false, nil
	case !credentials.HasKeys():
		return credentials, false, kind.WrongConfig("only one of accessKeyId and secretAccessKey is set",
			"set both, or neither")
	}
	return credentials, true, nil
}

// elaborate returns the region that the bucket is in.
func elaborate(r *kind.Reply, row *kind.Row) (detail, advice string) {
	region := r.Header.Get("X-Amz-Bucket-Region")
	if row.Reason == kind.Misconfigured && region != "" && region != r.Origin.Spec.GetS3().GetRegion() {
		return ", the bucket is in " + kind.Escape(region, kind.Unreserved), ""
	}
	return "", ""
}

// rows say what the answers of Amazon S3 and compatible stores mean.
var rows = kind.Table(kind.Usable, []kind.Row{
	{Says: "404 NoSuchKey", When: kind.Coded(404, "NoSuchKey", "NoSuchVersion"), Outcome: kind.NotHere},
	kind.Wrong("404 for a missing bucket", kind.Coded(404, "NoSuchBucket"),
		"check the bucket's name, the endpoint and forcePathStyle"),
	kind.Wrong("404 that does not say the key is missing", kind.Status(404), "check that the endpoint is an S3 store"),
	kind.DeniedKey("403 AccessDenied", kind.Coded(403, "AccessDenied"),
		"allow s3:GetObject; if files are merely missing, grant s3:ListBucket or set probeKey to a key that exists"),
	kind.Patience("SlowDown, ServerBusy", kind.Coded(0, "SlowDown", "SlowDownRead", "ServerBusy")),
	kind.Wrong("wrong region", wrongRegion, "set s3.region to the bucket's region"),
	kind.Wrong("skewed clock", kind.Coded(0, "RequestTimeTooSkewed"), "set the clock of the edge"),
	kind.Wrong("unknown key id", kind.Coded(0, "InvalidAccessKeyId"),
		"check s3.accessKeyId, and that it belongs to the store at s3.endpoint"),
	kind.Wrong("expired token", kind.Coded(0, "InvalidToken", "ExpiredToken"), "set credentials that still hold"),
	kind.Wrong("bad signature", kind.Coded(0, "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"),
		"check s3.secretAccessKey and s3.region"),
	kind.Wrong("archived object", kind.Coded(403, "InvalidObjectState"), "restore the object from its archive"),
}, kind.Rest)

func wrongRegion(r *kind.Reply) bool {
	switch r.Code {
	case "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException":
		return true
	case "AuthorizationHeaderMalformed":
		return r.Header.Get("X-Amz-Bucket-Region") != ""
	}
	return kind.Redirects(r)
}
