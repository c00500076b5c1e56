package origin

import (
	"cmp"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/s3"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An example is one answer of an origin, and what it must be taken for.
type example struct {
	row     string // what the table says, word for word
	name    string
	answer  faultorigin.Answer
	path    string // default /a.jpg
	change  func(*topologyv1.Origin)
	ask     Conditions
	outcome Outcome
	reason  Reason
	after   time.Duration
}

var (
	page      = faultorigin.Reply(200, "<html>not found</html>", "Content-Type: text/html; charset=utf-8")
	part      = Conditions{Range: "bytes=2-5"}
	validator = Conditions{IfNoneMatch: `"v1"`}
	ten       = "0123456789"
)

func webSpec(f func(*topologyv1.WebOrigin)) func(*topologyv1.Origin) {
	return func(o *topologyv1.Origin) { f(o.GetWeb()) }
}

// commonExamples hold for every kind of storage.
var commonExamples = []example{
	{row: "200, 203", name: "200", answer: faultorigin.Reply(200, "x"), outcome: Found},
	{row: "200, 203", name: "203", answer: faultorigin.Reply(203, "x"), outcome: Found},
	{row: "206 to our Range", name: "206", answer: faultorigin.Part(ten, 2, 5), ask: part, outcome: Found},
	{row: "206 to our Range", name: "206 shorter than asked", answer: faultorigin.Part(ten, 2, 3), ask: part,
		outcome: Found},
	{row: "206 to our Range", name: "206 to a suffix", answer: faultorigin.Part(ten, 7, 9),
		ask: Conditions{Range: "bytes=-3"}, outcome: Found},
	{row: "416 to our Range", name: "416", answer: faultorigin.Reply(416, "", "Content-Range: bytes */2"), ask: part,
		outcome: Found},
	{row: "304 to our validator", name: "304 to an entity tag", answer: faultorigin.Reply(304, ""), ask: validator,
		outcome: Found},
	{row: "304 to our validator", name: "304 to a date", answer: faultorigin.Reply(304, ""),
		ask: Conditions{IfModifiedSince: "Sun, 06 Nov 1994 08:49:37 GMT"}, outcome: Found},
	{row: "429, 503", name: "429", answer: faultorigin.Busy(429, ""), reason: Busy},
	{row: "429, 503", name: "503 with patience", answer: faultorigin.Busy(503, "7"), reason: Busy,
		after: 7 * time.Second},
	{row: "unasked 206 or 304", name: "206 without Range", answer: faultorigin.Part(ten, 0, 3), reason: Failed},
	{row: "unasked 206 or 304", name: "206 of another part", answer: faultorigin.Part(ten, 3, 6), ask: part,
		reason: Failed},
	{row: "unasked 206 or 304", name: "206 of more than asked", answer: faultorigin.Part(ten, 2, 6), ask: part,
		reason: Failed},
	{row: "unasked 206 or 304", name: "206 of another length", answer: faultorigin.LyingPart("bytes 2-5/10", "23"),
		ask: part, reason: Failed},
	{row: "unasked 206 or 304", name: "206 without Content-Range", answer: faultorigin.Reply(206, "2345"), ask: part,
		reason: Failed},
	{row: "unasked 206 or 304", name: "206 of several parts", ask: part, reason: Failed,
		answer: faultorigin.Reply(206, "--b", "Content-Type: multipart/byteranges; boundary=b")},
	{row: "unasked 206 or 304", name: "304 without a validator", answer: faultorigin.Reply(304, ""), reason: Failed},
	{row: "unasked 206 or 304", name: "304 to a Range", answer: faultorigin.Reply(304, ""), ask: part, reason: Failed},
	{row: "401, 403", name: "401", answer: faultorigin.Reply(401, ""), reason: Misconfigured},
	{row: "401, 403", name: "403", answer: faultorigin.Reply(403, ""), reason: Misconfigured},
	{row: "any other 4xx", name: "400", answer: faultorigin.Reply(400, ""), reason: Misconfigured},
	{row: "any other 4xx", name: "451", answer: faultorigin.Reply(451, ""), reason: Misconfigured},
	{row: "any other 4xx", name: "416 without Range", answer: faultorigin.Reply(416, ""), reason: Misconfigured},
	{row: "5xx", name: "500", answer: faultorigin.Reply(500, "oh"), reason: Failed},
	{row: "5xx", name: "502", answer: faultorigin.Reply(502, ""), reason: Failed},
	{row: "other 2xx, and what is no final status", name: "204", answer: faultorigin.Reply(204, ""), reason: Failed},
	{row: "other 2xx, and what is no final status", name: "202", answer: faultorigin.Reply(202, "later"),
		reason: Failed},
	{row: "other 2xx, and what is no final status", name: "999", answer: faultorigin.Reply(999, ""), reason: Failed},
}

// strayExamples hold for web servers, those of web proxies included.
var strayExamples = []example{
	{row: "400 of a TLS port to a request in the clear", name: "nginx", reason: Misconfigured,
		answer: faultorigin.Reply(400, "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>")},
	{row: "400 of a TLS port to a request in the clear", name: "Apache httpd", reason: Misconfigured,
		answer: faultorigin.Reply(400, "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />")},
	{row: "400 of a TLS port to a request in the clear", name: "Go", reason: Misconfigured,
		answer: faultorigin.Lengthless(400, "Client sent an HTTP request to an HTTPS server.\n")},
	{row: "421", name: "421", answer: faultorigin.Reply(421, ""), reason: Misconfigured},
	{row: "508", name: "508", answer: faultorigin.Reply(508, "508 the request has been here before\n"),
		reason: Misconfigured},
}

var webExamples = []example{
	{row: "200 text/html for an image, video or font extension", name: "page for an image", answer: page,
		outcome: NotHere, reason: SoftNotFound},
	{row: "200 text/html for an image, video or font extension", name: "page for a font in capitals",
		path: "/f/A.WOFF2", answer: page,
		outcome: NotHere, reason: SoftNotFound},
	{row: "200 text/html for an image, video or font extension", name: "page whose type has odd parameters",
		answer:  faultorigin.Reply(200, "<html>", "Content-Type: text/html ; charset=UTF-8;charset=UTF-8; x"),
		outcome: NotHere, reason: SoftNotFound},
	{row: "200, 203", name: "page for a page", path: "/a.html", answer: page, outcome: Found},
	{row: "200, 203", name: "page for a folder that ends like an image", path: "/a.jpg/", answer: page, outcome: Found},
	{row: "200, 203", name: "page for an image where that is right", answer: page, outcome: Found,
		change: webSpec(func(w *topologyv1.WebOrigin) { w.HtmlIsMissing = new(bool) })},
	{row: "a status in web.notFoundStatuses", name: "404", answer: faultorigin.Reply(404, "no"), outcome: NotHere},
	{row: "a status in web.notFoundStatuses", name: "410", answer: faultorigin.Reply(410, "gone"), outcome: NotHere},
	{row: "a status in web.notFoundStatuses", name: "listed 403", answer: faultorigin.Reply(403, ""), outcome: NotHere,
		change: webSpec(func(w *topologyv1.WebOrigin) { w.NotFoundStatuses = []int32{403} })},
	{row: "any other 4xx", name: "404 that is not listed", answer: faultorigin.Reply(404, ""), reason: Misconfigured,
		change: webSpec(func(w *topologyv1.WebOrigin) { w.NotFoundStatuses = []int32{403} })},
	{row: "3xx, not followed", name: "302 that is not to be followed", answer: faultorigin.Redirect(302, "/b.jpg"),
		reason: Misconfigured,
		change: webSpec(func(w *topologyv1.WebOrigin) { w.FollowRedirects = new(bool) })},
	{row: "3xx, not followed", name: "302 without Location", answer: faultorigin.Reply(302, ""), reason: Misconfigured},
	{row: "3xx, not followed", name: "300", answer: faultorigin.Reply(300, ""), reason: Misconfigured},
}

var s3Examples = []example{
	{row: "404 NoSuchKey", name: "missing key", answer: faultorigin.S3Error(404, "NoSuchKey"), outcome: NotHere},
	{row: "404 NoSuchKey", name: "delete marker",
		answer: faultorigin.S3Error(404, "NoSuchKey", "X-Amz-Delete-Marker: true"), outcome: NotHere},
	{row: "404 for a missing bucket", name: "missing bucket", answer: faultorigin.S3Error(404, "NoSuchBucket"),
		reason: Misconfigured},
	{row: "404 that does not say the key is missing", name: "404 of a proxy",
		answer: faultorigin.Reply(404, "<html>404</html>"), reason: Misconfigured},
	{row: "404 that does not say the key is missing", name: "404 without a body", answer: faultorigin.Reply(404, ""),
		reason: Misconfigured},
	{row: "403 AccessDenied", name: "denied", answer: faultorigin.S3Error(403, "AccessDenied"), reason: Misconfigured},
	{row: "SlowDown, ServerBusy", name: "503 SlowDown", answer: faultorigin.S3Error(503, "SlowDown"), reason: Busy},
	{row: "SlowDown, ServerBusy", name: "500 ServerBusy", answer: faultorigin.S3Error(500, "ServerBusy"), reason: Busy},
	{
		row: "wrong region", name: "301",
		answer: faultorigin.S3Error(301, "PermanentRedirect", "X-Amz-Bucket-Region: eu-north-1"), reason: Misconfigured,
	},
	{row: "wrong region", name: "307",
		answer: faultorigin.S3Error(307, "TemporaryRedirect", "Location: http://elsewhere/"), reason: Misconfigured},
	{row: "wrong region", name: "400", reason: Misconfigured,
		answer: faultorigin.S3Error(400, "AuthorizationHeaderMalformed", "X-Amz-Bucket-Region: eu-north-1")},
	{row: "bad signature", name: "wrong secret", answer: faultorigin.S3Error(403, "SignatureDoesNotMatch"),
		reason: Misconfigured},
	{row: "unknown key id", name: "unknown key id", answer: faultorigin.S3Error(403, "InvalidAccessKeyId"),
		reason: Misconfigured},
	{row: "skewed clock", name: "skewed clock", answer: faultorigin.S3Error(403, "RequestTimeTooSkewed"),
		reason: Misconfigured},
	{row: "expired token", name: "expired token", answer: faultorigin.S3Error(400, "ExpiredToken"),
		reason: Misconfigured},
	{row: "archived object", name: "archived", answer: faultorigin.S3Error(403, "InvalidObjectState"),
		reason: Misconfigured},
	{row: "5xx", name: "500 InternalError", answer: faultorigin.S3Error(500, "InternalError"), reason: Failed},
	{row: "200, 203", name: "page for an image", answer: page, outcome: Found},
}

func TestWebOutcomes(t *testing.T) {
	t.Parallel()
	testOutcomes(t, web.Kind.Rows, slices.Concat(webExamples, strayExamples, commonExamples),
		func(t testing.TB, o *faultorigin.Origin, e example) *topology.Origin {
			change := e.change
			if change == nil {
				change = func(*topologyv1.Origin) {}
			}
			return webOrigin(t, o.URL(), change)
		}, "3xx")
}

func TestS3Outcomes(t *testing.T) {
	t.Parallel()
	testOutcomes(t, s3.New(false).Rows, append(s3Examples, commonExamples...),
		func(t testing.TB, o *faultorigin.Origin, _ example) *topology.Origin {
			return s3Origin(t, o.URL())
		}, "3xx")
}

// testOutcomes plays the examples, and insists that each row of the table has one, but for rows
// that others hide.
func testOutcomes(
	t *testing.T, table []kind.Row, examples []example,
	at func(testing.TB, *faultorigin.Origin, example) *topology.Origin, hidden ...string,
) {
	shown := map[string]bool{}
	for _, row := range hidden {
		shown[row] = true
	}
	for _, e := range examples {
		shown[e.row] = true
		t.Run(e.row+"/"+e.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, e.answer)
			o := at(t, fault, e)
			ask := get(pathAt(o, fault, cmp.Or(e.path, "/a.jpg")))
			ask.Conditions = e.ask
			c := localClient(t)
			checkExample(t, c.Get(t.Context(), o, ask), e)
			a, row := c.try(t.Context(), c.kindOf(o), o, &ask, c.healths.of(c.kindOf(o), o, &ask))
			discard(t, a)
			if row.Says != e.row {
				t.Errorf("judged by row %q", row.Says)
			}
		})
	}
	for _, row := range table {
		if !shown[row.Says] {
			t.Errorf("no example shows the row %q", row.Says)
		}
	}
}

// pathAt is the path by which an origin of any kind is asked for a file.
func pathAt(o *topology.Origin, fault *faultorigin.Origin, path string) string {
	switch KindName(o) {
	case "web_proxy":
		return "/" + fault.URL() + path
	case "akeneo":
		return "/media-files" + path
	}
	return path
}

func checkExample(t *testing.T, a *Answer, e example) {
	t.Helper()
	if a.Outcome != e.outcome || a.Reason != e.reason || a.RetryAfter != e.after {
		t.Errorf("got %s %q after %s (%s), want %s %q after %s", a.Outcome, a.Reason, a.RetryAfter, a.Detail, e.outcome,
			e.reason, e.after)
	}
	if (a.Response != nil) != (e.outcome == Found) {
		t.Errorf("response %v with outcome %s", a.Response, a.Outcome)
	}
	if (a.ProxyError != "") != (a.Outcome == Inconclusive) {
		t.Errorf("proxy error %q with outcome %s", a.ProxyError, a.Outcome)
	}
	if a.Outcome == Inconclusive && a.Advice == "" {
		t.Errorf("no advice for %s", a.Detail)
	}
	if a.Request == "" || a.Detail == "" || a.Kind == "" || a.Duration <= 0 || a.Status == 0 {
		t.Errorf("an answer that tells too little: %+v", a)
	}
	discard(t, a)
}

func TestMediaOutcomes(t *testing.T) {
	t.Parallel()
	ask := get("/a b.jpg")
	ask.Library, ask.Revision = [8]byte{0xab, 1, 2, 3, 4, 5, 6, 0xff}, 42
	etag := `"` + hex.EncodeToString(ask.Library[:]) + `00112233445566778899aabbccddeeff0011223344556677"`
	file := faultorigin.File("the file", etag)
	for _, e := range []example{
		{row: "200, 203", name: "200", answer: file, outcome: Found},
		{row: "206 to our Range", name: "206", answer: file, ask: Conditions{Range: "bytes=4-"}, outcome: Found},
		{row: "304 to our validator", name: "304", answer: file, ask: Conditions{IfNoneMatch: etag}, outcome: Found},
		{row: "a file with another hash", name: "another file", answer: faultorigin.File("other", `"ffff"`),
			reason: Failed},
		{row: "404 for a file in the set", name: "404", answer: faultorigin.Reply(404, ""), reason: Failed},
		{row: "429, 503", name: "replica behind", answer: faultorigin.Busy(503, "1"), reason: Busy, after: time.Second},
		{row: "401, 403", name: "wrong token", answer: faultorigin.Reply(401, ""), reason: Misconfigured},
		{row: "3xx", name: "redirect", answer: faultorigin.Redirect(302, "/"), reason: Misconfigured},
		{row: "5xx", name: "bucket down", answer: faultorigin.Reply(500, ""), reason: Failed},
	} {
		t.Run(e.row+"/"+e.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, e.answer)
			// The media URL is the operator's: it may be on loopback, where an origin may not.
			c := newTestClient(t,
				Config{MediaURL: fault.URL, MediaToken: func() string { return theSecret }, Version: "1.2"})
			ask := ask
			ask.Conditions = e.ask
			a := c.Get(t.Context(), nil, ask)
			checkExample(t, a, e)
			seen := fault.Requests()[0]
			if want := "/media/acme/ab010203040506ff/a%20b.jpg"; seen.Target != want {
				t.Errorf("asked for %q, want %q", seen.Target, want)
			}
			if h := seen.Header; h.Get("Authorization") != "Bearer "+theSecret || h.Get("Edgewalk-Revision") != "42" ||
				h.Get("User-Agent") != "edgewalk/1.2" {
				t.Errorf("sent %v", h)
			}
		})
	}
}

func TestMediaWithoutURL(t *testing.T) {
	t.Parallel()
	a := newTestClient(t, Config{}).Get(t.Context(), nil, get("/a.jpg"))
	if a.Outcome != Inconclusive || a.Reason != Misconfigured ||
		a.Detail != "the control plane has named no media URL" {
		t.Errorf("got %+v", a)
	}
}

// A kind that this edge does not know is a fault of configuration, and not a missing file.
func TestUnknownKind(t *testing.T) {
	t.Parallel()
	a := localClient(t).Get(t.Context(), &topology.Origin{ID: "newer", UID: "1-newer", Spec: &topologyv1.Origin{}},
		get("/a.jpg"))
	if a.Outcome != Inconclusive || a.Reason != Misconfigured ||
		a.Detail != "this edge does not know the origin's kind" {
		t.Errorf("got %s %s %q", a.Outcome, a.Reason, a.Detail)
	}
	if a.Advice == "" || a.Request != "" || a.Kind != "unknown" {
		t.Errorf("got %+v", a)
	}
}
