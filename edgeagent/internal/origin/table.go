package origin

import (
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// A reply is the head of an origin's answer, with what its table looks at.
type reply struct {
	origin *topology.Origin // nil for the Media Library
	ask    *Ask
	status int
	header http.Header
	length int64 // of the body, -1 if unknown
	// code is the error code that an object store's body or header names; "" for other kinds and where there is none.
	code string
}

// A row is one line of the table of outcomes: what an origin says, and what that means.
type row struct {
	says    string
	when    func(*reply) bool
	outcome Outcome
	reason  Reason
	// proxy is the RFC 9209 error type of an Inconclusive row.
	proxy  string
	advice string
	// deniable marks an answer that means NotHere if the storage says it of every missing key.
	deniable bool
	// vague marks a 404 that means NotHere if the bucket is there.
	vague bool
}

// judge returns the first row that knows the reply. The last row of each table knows every reply.
func judge(rows []row, r *reply) *row {
	for i := range rows {
		if rows[i].when(r) {
			return &rows[i]
		}
	}
	panic("origin: a table of outcomes without an end")
}

func table(parts ...[]row) []row { return slices.Concat(parts...) }

// usable are the answers that carry the file, or confirm it.
var usable = []row{
	{says: "200, 203", when: status(200, 203), outcome: Found},
	{says: "206 to our Range", when: partAsked, outcome: Found},
	{says: "416 to our Range", when: unsatisfiedAsked, outcome: Found},
	{says: "304 to our validator", when: confirmationAsked, outcome: Found},
}

// rest are the answers that say nothing about the file, whatever the kind of storage.
var rest = []row{
	{says: "429, 503", when: status(429, 503), reason: Busy, proxy: "destination_unavailable", advice: adviceBusy},
	{says: "unasked 206 or 304", when: status(206, 304), reason: Failed, proxy: "http_protocol_error",
		advice: "correct the origin: it was not asked for a part, or not for that one, nor whether a copy is still good"},
	{says: "3xx", when: between(300, 399), reason: Misconfigured, proxy: "proxy_configuration_error", advice: "point the origin at where the files are"},
	{says: "401, 403", when: status(401, 403), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check the credentials and what they may read"},
	{says: "any other 4xx", when: between(400, 499), reason: Misconfigured, proxy: "proxy_configuration_error", advice: adviceLog},
	{says: "5xx", when: between(500, 599), reason: Failed, proxy: "destination_unavailable", advice: adviceLog},
	{says: "other 2xx, and what is no final status", when: always, reason: Failed, proxy: "http_protocol_error",
		advice: "correct the origin: this status does not carry a file"},
}

const adviceBusy = "raise the origin's limits, or keep its files cached for longer"

// strayRows are the answers of a web server that was not to be asked, or not like this.
func strayRows(unknown string) []row {
	return []row{
		{says: "400 of a TLS port to a request in the clear", when: coded(400, clearToTLS), reason: Misconfigured, proxy: "proxy_configuration_error",
			advice: adviceTLS},
		{says: "421", when: status(421), reason: Misconfigured, proxy: "proxy_configuration_error", advice: unknown},
		{says: "508", when: status(508), reason: Misconfigured, proxy: "proxy_configuration_error",
			advice: "ask the server that has the files: the request went in a circle, as it does if this URL leads back to edgewalk"},
	}
}

// webTable says what the answers of a web server mean.
var webTable = table([]row{
	{says: "200 text/html for an image, video or font extension", when: pageForFile, outcome: NotHere, reason: SoftNotFound,
		advice: "if the page is what clients should get, set web.html_is_missing to false"},
}, usable, []row{
	{says: "a status in web.not_found_statuses", when: missingStatus, outcome: NotHere},
	{says: "3xx, not followed", when: redirects, reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "point web.base_url at where the files are"},
	{says: "401, 403", when: status(401, 403), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "send what the server wants in request_headers; if it says so of files that are missing, list the status in web.not_found_statuses"},
}, strayRows("the server does not serve the Host, or the TLS name, that it was sent: set web.host_header to a name that "+
	"it serves, and web.tls_server_name if its certificate is for another"), rest)

// s3Table says what the answers of Amazon S3 and compatible stores mean.
var s3Table = table(usable, []row{
	{says: "404 NoSuchKey", when: coded(404, "NoSuchKey", "NoSuchVersion"), outcome: NotHere},
	{says: "404 for a missing bucket", when: coded(404, "NoSuchBucket"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check the bucket's name, the endpoint and force_path_style"},
	{says: "404 that does not say the key is missing", when: status(404), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check that the endpoint is an S3 store"},
	{says: "403 AccessDenied", when: coded(403, "AccessDenied"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice:   "allow s3:GetObject; if files are merely missing, grant s3:ListBucket or set probe_key to a key that exists",
		deniable: true},
	{says: "SlowDown, ServerBusy", when: coded(0, "SlowDown", "SlowDownRead", "ServerBusy"), reason: Busy, proxy: "destination_unavailable", advice: adviceBusy},
	{says: "wrong region", when: wrongRegion, reason: Misconfigured, proxy: "proxy_configuration_error", advice: "set s3.region to the bucket's region"},
	{says: "skewed clock", when: coded(0, "RequestTimeTooSkewed"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "set the clock of the edge"},
	{says: "unknown key id", when: coded(0, "InvalidAccessKeyId"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check s3.access_key_id, and that it belongs to the store at s3.endpoint"},
	{says: "expired token", when: coded(0, "InvalidToken", "ExpiredToken"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "set credentials that still hold"},
	{says: "bad signature", when: coded(0, "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "check s3.secret_access_key and s3.region"},
	{says: "archived object", when: coded(403, "InvalidObjectState"), reason: Misconfigured, proxy: "proxy_configuration_error",
		advice: "restore the object from its archive"},
}, rest)

// mediaTable says what the answers of the Media Library mean. It is asked only for files that it holds at the revision the edge
// has applied, so a 404 is a fault and not an answer.
var mediaTable = table([]row{
	{says: "a file with another hash", when: otherFile, reason: Failed, proxy: "http_protocol_error",
		advice: "check that all control planes have the same media bucket"},
}, usable, []row{
	{says: "404 for a file in the set", when: status(404), reason: Failed, proxy: "destination_unavailable",
		advice: "check that the media bucket is the one that the control plane wrote to"},
}, rest)

func always(*reply) bool { return true }

func status(of ...int) func(*reply) bool {
	return func(r *reply) bool { return slices.Contains(of, r.status) }
}

func between(low, high int) func(*reply) bool {
	return func(r *reply) bool { return low <= r.status && r.status <= high }
}

// coded holds for an object store's error of the status, 0 for any, and one of the codes.
func coded(status int, codes ...string) func(*reply) bool {
	return func(r *reply) bool { return (status == 0 || r.status == status) && slices.Contains(codes, r.code) }
}

func partAsked(r *reply) bool {
	return r.status == http.StatusPartialContent && r.ask.Range != "" && partFits(r.ask.Range, r.header, r.length)
}

// partFits reports whether a 206 holds a part that begins where the Range asked for it. A shorter part is right (RFC 9110
// 15.3.7); another start would put bytes in the wrong place, another length leave bytes out.
func partFits(asked string, header http.Header, length int64) bool {
	specs := rfc9111.ParseRange(asked)
	part, size, ok := rfc9111.ParseContentRange(header.Get("Content-Range"))
	if !ok || len(specs) != 1 || length >= 0 && length != part.Length {
		return false
	}
	spec := specs[0]
	if spec.First < 0 {
		return size >= 0 && part.Start == max(0, size-spec.Last)
	}
	return part.Start == spec.First && (spec.Last < 0 || part.Start+part.Length-1 <= spec.Last)
}

func unsatisfiedAsked(r *reply) bool {
	return r.status == http.StatusRequestedRangeNotSatisfiable && r.ask.Range != ""
}

func confirmationAsked(r *reply) bool {
	return r.status == http.StatusNotModified && (r.ask.IfNoneMatch != "" || r.ask.IfModifiedSince != "")
}

func missingStatus(r *reply) bool {
	if listed := r.origin.Spec.GetWeb().GetNotFoundStatuses(); len(listed) > 0 {
		return slices.Contains(listed, int32(r.status))
	}
	return r.status == http.StatusNotFound || r.status == http.StatusGone
}

func redirects(r *reply) bool { return 300 <= r.status && r.status <= 399 && r.status != 304 }

// pageForFile finds the "soft 404": a page for people, with status 200, where an image, video or font was asked for.
func pageForFile(r *reply) bool {
	if r.status != http.StatusOK || !htmlIsMissing(r.origin) || !neverPage(r.ask.Path) {
		return false
	}
	return isPage(r.header)
}

func isPage(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "text/html"
}

func htmlIsMissing(o *topology.Origin) bool {
	web := o.Spec.GetWeb()
	return web == nil || web.HtmlIsMissing == nil || *web.HtmlIsMissing
}

// fileExtensions are those of images, videos and fonts, which no server sends as text/html.
var fileExtensions = map[string]bool{
	"apng": true, "avif": true, "bmp": true, "cur": true, "gif": true, "heic": true, "heif": true, "ico": true, "jfif": true,
	"jp2": true, "jpe": true, "jpeg": true, "jpg": true, "jxl": true, "pjp": true, "pjpeg": true, "png": true, "svg": true, "svgz": true,
	"tif": true, "tiff": true, "webp": true,
	"3gp": true, "avi": true, "m4v": true, "mkv": true, "mov": true, "mp4": true, "mpeg": true, "mpg": true, "ogv": true, "webm": true, "wmv": true,
	"eot": true, "otf": true, "ttc": true, "ttf": true, "woff": true, "woff2": true,
}

func neverPage(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	_, extension, _ := cutLast(name, '.')
	return fileExtensions[strings.ToLower(extension)]
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func wrongRegion(r *reply) bool {
	switch r.code {
	case "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException":
		return true
	case "AuthorizationHeaderMalformed":
		return r.header.Get("X-Amz-Bucket-Region") != ""
	}
	return redirects(r)
}
