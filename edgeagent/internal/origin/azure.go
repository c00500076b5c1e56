package origin

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// azureVersion is the version of the protocol, which decides what a blob's answers look like.
const azureVersion = "2021-12-02"

// buildAzure asks for a blob.
func buildAzure(c *Client, o *topology.Origin, a *Ask) (*http.Request, error) {
	spec := o.Spec.GetAzureBlob()
	key, err := objectKey(spec.GetPrefix(), a.Object)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(cmp.Or(spec.GetEndpoint(), "https://"+spec.GetAccountName()+".blob.core.windows.net"))
	if err != nil || base.Host == "" {
		return nil, &configError{"endpoint is not a URL", "correct azure_blob.endpoint"}
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + "/" + spec.GetContainer() + "/" + escape(key, unreservedOrSlash)
	req := newRequest(exactURL(base.Scheme, base.Host, path, ""))
	setRequestHeaders(req, o)
	req.Header.Set("X-Ms-Version", azureVersion)
	req.Header.Set("User-Agent", c.userAgent)
	return req, nil
}

// signAzure lets a request in by a shared access signature or by the account's key. With neither it is anonymous.
func signAzure(ctx context.Context, c *Client, h *hop) error {
	if err := c.azureRange(ctx, h); err != nil {
		return err
	}
	sas, key := azureToken(h.origin), h.origin.Secrets["azure_blob.account_key"]
	switch {
	case sas != "" && key != "":
		return &configError{"both sas_token and account_key are set", "clear one of the two"}
	case sas != "":
		h.req.URL.RawQuery = escape(sas, sendable)
	case key != "":
		return signAzureKey(h.req, h.origin.Spec.GetAzureBlob(), key, time.Now())
	}
	return nil
}

func azureToken(o *topology.Origin) string {
	return strings.TrimPrefix(strings.TrimSpace(o.Secrets["azure_blob.sas_token"]), "?")
}

// azureRange puts another range in the place of one that counts from the end, which blobs do not know, by asking for the length
// first. If that cannot be learnt, the answer to the request says why.
func (c *Client) azureRange(ctx context.Context, h *hop) error {
	specs := rfc9111.ParseRange(h.ask.Range)
	if len(specs) != 1 || specs[0].First >= 0 {
		return nil
	}
	first := Conditions{Range: "bytes=0-0"}
	h.req.Header.Set("Range", first.Range)
	ask := *h.ask
	ask.Conditions = first
	a, _ := c.try(ctx, h.kind, h.origin, &ask, h.health)
	if a.Response == nil {
		return ctx.Err()
	}
	a.Response.Body.Close()
	if _, size, ok := rfc9111.ParseContentRange(a.Response.Header.Get("Content-Range")); ok && size > 0 {
		start := max(0, size-specs[0].Last)
		h.req.Header.Set("Range", "bytes="+strconv.FormatInt(start, 10)+"-"+strconv.FormatInt(size-1, 10))
	}
	return nil
}

// signAzureKey signs by "Authorize with Shared Key", learn.microsoft.com, for versions since 2015-02-21.
func signAzureKey(req *http.Request, spec *topologyv1.AzureBlobOrigin, key string, now time.Time) error {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	if err != nil || len(secret) == 0 {
		return &configError{"account_key is not base64", "set azure_blob.account_key to a key of the storage account"}
	}
	req.Header.Set("X-Ms-Date", now.UTC().Format(http.TimeFormat))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(azureText(req, spec.GetAccountName())))
	signature := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	req.Header.Set("Authorization", "SharedKey "+spec.GetAccountName()+":"+signature)
	return nil
}

// azureSigned are the fields that the signature covers, in order, besides the method and the x-ms-* fields. The date is among the
// latter.
var azureSigned = []string{
	"Content-Encoding", "Content-Language", "Content-Length", "Content-Md5", "Content-Type", "", "If-Modified-Since", "If-Match",
	"If-None-Match", "If-Unmodified-Since", "Range",
}

// azureText is what is signed.
func azureText(req *http.Request, account string) string {
	var b strings.Builder
	b.WriteString(req.Method + "\n")
	for _, name := range azureSigned {
		b.WriteString(req.Header.Get(name) + "\n")
	}
	var own []string
	for name, values := range req.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-ms-") {
			own = append(own, lower+":"+strings.Join(values, ",")+"\n")
		}
	}
	slices.Sort(own)
	for _, line := range own {
		b.WriteString(line)
	}
	b.WriteString("/" + account + cmp.Or(req.URL.Opaque, req.URL.EscapedPath()))
	return b.String()
}

// azureCode is the error code of a blob's answer.
func azureCode(header http.Header, body []byte) string {
	if code := errorCode(header.Get("X-Ms-Error-Code")); code != "" {
		return code
	}
	return s3Code(header, body)
}

// elaborateAzure says of a shared access signature what can be seen of it: when it ended, and that it does not allow to read.
func elaborateAzure(r *reply, a *Answer) {
	if r.status != http.StatusForbidden && r.status != http.StatusUnauthorized {
		return
	}
	sas, err := url.ParseQuery(azureToken(r.origin))
	if err != nil {
		return
	}
	if end, err := time.Parse(time.RFC3339, sas.Get("se")); err == nil && time.Now().After(end) {
		a.Detail += ", sas_token expired on " + end.UTC().Format(time.RFC3339)
	}
	if rights := sas.Get("sp"); rights != "" && !strings.Contains(rights, "r") {
		a.Detail += ", sas_token does not allow to read"
	}
}
