// Package azureblob is the kind of storage that Azure Blob Storage is.
package azureblob

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

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Kind asks Azure Blob Storage.
var Kind = &kind.Kind{
	Name: "azure_blob", Keyed: true, Build: build, Sign: sign, Code: code, Elaborate: elaborate, Rows: rows,
}

// Version is the version of the protocol, which decides what a blob's answers look like.
const Version = "2021-12-02"

// build asks for a blob.
func build(e *kind.Edge, o *topology.Origin, a *kind.Ask) (*http.Request, error) {
	spec := o.Spec.GetAzureBlob()
	key, err := kind.ObjectKey(spec.GetPrefix(), a.Object)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(cmp.Or(spec.GetEndpoint(), "https://"+spec.GetAccountName()+".blob.core.windows.net"))
	if err != nil || base.Host == "" {
		return nil, kind.WrongConfig("endpoint is not a URL", "correct azureBlob.endpoint")
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + "/" + spec.GetContainer() + "/" + kind.Escape(key,
		kind.UnreservedOrSlash)
	req := kind.NewRequest(kind.ExactURL(base.Scheme, base.Host, path, ""))
	kind.SetRequestHeaders(req, o)
	req.Header.Set("X-Ms-Version", Version)
	req.Header.Set("User-Agent", e.UserAgent)
	return req, nil
}

// sign adds a shared access signature, or signs with the account's key. A request with neither is
// anonymous.
func sign(ctx context.Context, h *kind.Hop) error {
	if err := fromEnd(ctx, h); err != nil {
		return err
	}
	sas, key := sasToken(h.Origin), h.Origin.Secrets[topology.SecretAccountKey]
	switch {
	case sas != "" && key != "":
		return kind.WrongConfig("both sasToken and accountKey are set", "clear one of the two")
	case sas != "":
		h.Req.URL.RawQuery = kind.Escape(sas, kind.Sendable)
	case key != "":
		return signKey(h.Req, h.Origin.Spec.GetAzureBlob(), key, time.Now())
	}
	return nil
}

func sasToken(o *topology.Origin) string {
	return strings.TrimPrefix(strings.TrimSpace(o.Secrets[topology.SecretSASToken]), "?")
}

// fromEnd replaces a range that counts from the end, which blobs do not support: it asks for the
// length first. If that fails, the answer to the request itself says why.
func fromEnd(ctx context.Context, h *kind.Hop) error {
	specs := rfc9111.ParseRange(h.Ask.Range, nil)
	if len(specs) != 1 || specs[0].First >= 0 {
		return nil
	}
	const first = "bytes=0-0"
	h.Req.Header.Set("Range", first)
	header := h.Head(ctx, kind.Conditions{Range: first})
	if header == nil {
		return ctx.Err()
	}
	if _, size, ok := rfc9111.ParseContentRange(header.Get("Content-Range")); ok && size > 0 {
		start := max(0, size-specs[0].Last)
		h.Req.Header.Set("Range", "bytes="+strconv.FormatInt(start, 10)+"-"+strconv.FormatInt(size-1, 10))
	}
	return nil
}

// signKey signs by "Authorize with Shared Key", learn.microsoft.com, for versions since 2015-02-21.
func signKey(req *http.Request, spec *topologyv1.AzureBlobOrigin, key string, now time.Time) error {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	if err != nil || len(secret) == 0 {
		return kind.WrongConfig("accountKey is not base64", "set azureBlob.accountKey to a key of the storage account")
	}
	req.Header.Set("X-Ms-Date", now.UTC().Format(http.TimeFormat))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signedText(req, spec.GetAccountName())))
	signature := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	req.Header.Set("Authorization", "SharedKey "+spec.GetAccountName()+":"+signature)
	return nil
}

// signed are the fields that the signature covers, in order, besides the method and the x-ms-*
// fields. The date is one of the latter.
var signed = []string{
	"Content-Encoding", "Content-Language", "Content-Length", "Content-Md5", "Content-Type", "", "If-Modified-Since",
	"If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
}

// signedText returns what is signed.
func signedText(req *http.Request, account string) string {
	var b strings.Builder
	b.WriteString(req.Method + "\n")
	for _, name := range signed {
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

// code returns the error code of an answer.
func code(header http.Header, body []byte) string {
	if code := kind.ErrorCode(header.Get("X-Ms-Error-Code")); code != "" {
		return code
	}
	return kind.XMLCode(header, body)
}

// elaborate returns what is visibly wrong with a shared access signature: when it ended, or that it
// does not allow reads.
func elaborate(r *kind.Reply, _ *kind.Row) (detail, advice string) {
	if r.Status != http.StatusForbidden && r.Status != http.StatusUnauthorized {
		return "", ""
	}
	sas, err := url.ParseQuery(sasToken(r.Origin))
	if err != nil {
		return "", ""
	}
	if end, err := time.Parse(time.RFC3339, sas.Get("se")); err == nil && time.Now().After(end) {
		detail += ", sasToken expired on " + end.UTC().Format(time.RFC3339)
	}
	if rights := sas.Get("sp"); rights != "" && !strings.Contains(rights, "r") {
		detail += ", sasToken does not allow to read"
	}
	return detail, ""
}

// rows say what the answers of Azure Blob Storage mean.
var rows = kind.Table(kind.Usable, []kind.Row{
	{Says: "404 BlobNotFound", When: kind.Coded(404, "BlobNotFound"), Outcome: kind.NotHere},
	kind.Wrong("404 for a missing container", kind.Coded(404, "ContainerNotFound"), "check azureBlob.container"),
	kind.Wrong("404 of a private container", kind.Coded(404, "ResourceNotFound"),
		"check azureBlob.container; a private one needs sasToken or accountKey"),
	kind.Wrong("404 that does not say the blob is missing", kind.Status(404),
		"check accountName, container and endpoint"),
	kind.Patience("ServerBusy", kind.Coded(0, "ServerBusy")),
	kind.Wrong("bad signature",
		kind.Coded(0, "AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"),
		"check accountKey, or sasToken and when it expires, and the clock of the edge"),
	kind.Wrong("403 Authorization*", authorization,
		"let sasToken read objects of this container from the edge's address, and check the storage "+
			"account's firewall"),
	kind.Wrong("public access is off", kind.Coded(409, "PublicAccessNotPermitted"), "set sasToken or accountKey"),
	kind.Wrong("archived blob", kind.Coded(409, "BlobArchived", "BlobBeingRehydrated"),
		"move the blob to the hot or cool tier"),
}, kind.Rest)

func authorization(r *kind.Reply) bool {
	return r.Status == 403 && len(r.Code) >= len("Authorization") && r.Code[:len("Authorization")] == "Authorization"
}
