package origin

import (
	"slices"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/akeneo"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/azureblob"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/gcs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/webproxy"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func azureError(status int, code string) faultorigin.Answer {
	return faultorigin.Reply(status, `<?xml version="1.0"?><Error><Code>`+code+`</Code></Error>`,
		"x-ms-error-code: "+code)
}

func akeneoError(status int, body string) faultorigin.Answer {
	return faultorigin.Reply(status, body, "Content-Type: application/json")
}

var gcsExamples = []example{
	{row: "404 NoSuchKey", name: "missing object", answer: faultorigin.S3Error(404, "NoSuchKey"), outcome: NotHere},
	{row: "404 for a missing bucket", name: "missing bucket", answer: faultorigin.S3Error(404, "NoSuchBucket"),
		reason: Misconfigured},
	{row: "404 that does not say what is missing", name: "404 of a proxy",
		answer: faultorigin.Reply(404, "<html>404</html>"), reason: Misconfigured},
	{row: "SlowDown, ServiceUnavailable", name: "429", answer: faultorigin.S3Error(429, "SlowDown"), reason: Busy},
	{row: "SlowDown, ServiceUnavailable", name: "503", answer: faultorigin.S3Error(503, "ServiceUnavailable"),
		reason: Busy},
	{row: "requester pays", name: "no project", answer: faultorigin.S3Error(400, "UserProjectMissing"),
		reason: Misconfigured},
	{row: "403 AccessDenied", name: "denied", answer: faultorigin.S3Error(403, "AccessDenied"), reason: Misconfigured},
	{row: "401 for a token or for none", name: "401", answer: faultorigin.S3Error(401, "AuthenticationRequired"),
		reason: Misconfigured},
	{row: "401, 403", name: "disabled project", answer: faultorigin.S3Error(403, "UserProjectAccountProblem"),
		reason: Misconfigured},
	{row: "5xx", name: "InternalError", answer: faultorigin.S3Error(500, "InternalError"), reason: Failed},
	{row: "200, 203", name: "page for an image", answer: page, outcome: Found},
}

var azureExamples = []example{
	{row: "404 BlobNotFound", name: "missing blob", answer: azureError(404, "BlobNotFound"), outcome: NotHere},
	{row: "404 BlobNotFound", name: "code in the body only", answer: faultorigin.S3Error(404, "BlobNotFound"),
		outcome: NotHere},
	{row: "404 for a missing container", name: "missing container", answer: azureError(404, "ContainerNotFound"),
		reason: Misconfigured},
	{row: "404 of a private container", name: "anonymous", answer: azureError(404, "ResourceNotFound"),
		reason: Misconfigured},
	{row: "404 that does not say the blob is missing", name: "404 of a proxy", answer: faultorigin.Reply(404, "no"),
		reason: Misconfigured},
	{row: "ServerBusy", name: "503", answer: azureError(503, "ServerBusy"), reason: Busy},
	{row: "bad signature", name: "wrong key", answer: azureError(403, "AuthenticationFailed"), reason: Misconfigured},
	{row: "bad signature", name: "none", answer: azureError(401, "NoAuthenticationInformation"), reason: Misconfigured},
	{row: "403 Authorization*", name: "no right to read", answer: azureError(403, "AuthorizationPermissionMismatch"),
		reason: Misconfigured},
	{row: "403 Authorization*", name: "firewall", answer: azureError(403, "AuthorizationFailure"),
		reason: Misconfigured},
	{row: "401, 403", name: "disabled account", answer: azureError(403, "AccountIsDisabled"), reason: Misconfigured},
	{row: "public access is off", name: "409", answer: azureError(409, "PublicAccessNotPermitted"),
		reason: Misconfigured},
	{row: "archived blob", name: "archived", answer: azureError(409, "BlobArchived"), reason: Misconfigured},
	{row: "archived blob", name: "coming back", answer: azureError(409, "BlobBeingRehydrated"), reason: Misconfigured},
	{row: "5xx", name: "timed out", answer: azureError(500, "OperationTimedOut"), reason: Failed},
}

var proxyExamples = []example{
	{row: "200 text/html for an image, video or font extension", name: "page for an image", answer: page,
		outcome: NotHere, reason: SoftNotFound},
	{row: "200, 203", name: "page for a page", path: "/a.html", answer: page, outcome: Found},
	{row: "404, 410", name: "404", answer: faultorigin.Reply(404, "no"), outcome: NotHere},
	{row: "404, 410", name: "410", answer: faultorigin.Reply(410, "no"), outcome: NotHere},
	{row: "3xx, not followed", name: "to a host that is not listed",
		answer: faultorigin.Redirect(302, "http://elsewhere.example/a.jpg"), reason: Misconfigured},
	{row: "3xx, not followed", name: "without Location", answer: faultorigin.Reply(302, ""), reason: Misconfigured},
}

var akeneoExamples = []example{
	{row: "404 for a file", name: "missing file", outcome: NotHere,
		answer: akeneoError(404, `{"code":404,"message":"Media file \"a.jpg\" does not exist."}`)},
	{row: "404 that does not name a file", name: "no such API", reason: Misconfigured,
		answer: akeneoError(404, `{"code":404,"message":"No route found for \"GET /api/rest/v1/media-files\""}`)},
	{row: "404 that does not name a file", name: "another server", answer: faultorigin.Reply(404, "<html>404</html>"),
		reason: Misconfigured},
	{row: "401 for a new token", name: "401",
		answer: akeneoError(401, `{"code":401,"message":"Authentication is required"}`), reason: Misconfigured},
	{row: "403", name: "403", answer: akeneoError(403, `{"code":403,"message":"Access forbidden"}`),
		reason: Misconfigured},
	{row: "429, 503", name: "too many requests", answer: faultorigin.Busy(429, "2"), reason: Busy,
		after: 2 * time.Second},
}

// common are the examples for every kind but those that a kind has a row of its own for.
func common(except ...string) []example {
	return slices.DeleteFunc(slices.Clone(commonExamples),
		func(e example) bool { return slices.Contains(except, e.name) })
}

func TestGCSOutcomes(t *testing.T) {
	t.Parallel()
	testOutcomes(t, gcs.New(nil).Rows, append(gcsExamples, common("401")...),
		func(t testing.TB, o *faultorigin.Origin, _ example) *topology.Origin {
			return gcsOrigin(t, o.URL())
		}, "3xx")
}

func TestAzureOutcomes(t *testing.T) {
	t.Parallel()
	testOutcomes(t, azureblob.Kind.Rows, append(azureExamples, commonExamples...),
		func(t testing.TB, o *faultorigin.Origin, e example) *topology.Origin {
			return azureOrigin(t, o.URL())
		}, "3xx")
}

func TestProxyOutcomes(t *testing.T) {
	t.Parallel()
	testOutcomes(t, webproxy.Kind.Rows, slices.Concat(proxyExamples, strayExamples, commonExamples),
		func(t testing.TB, o *faultorigin.Origin, _ example) *topology.Origin {
			return proxyOrigin(t, o.URL())
		}, "3xx")
}

func TestAkeneoOutcomes(t *testing.T) {
	t.Parallel()
	testOutcomes(t, akeneo.New(nil).Rows, append(akeneoExamples, common("401", "403")...),
		func(t testing.TB, o *faultorigin.Origin, _ example) *topology.Origin {
			o.On(akeneo.Tokens, faultorigin.Reply(200, `{"access_token":"`+theSecret+`"}`))
			return akeneoOrigin(t, o.URL())
		}, "3xx", "401, 403")
}

// What is asked for, to the byte, for a path at each kind of object store. "" means that nothing is
// sent.
func TestExactKeys(t *testing.T) {
	t.Parallel()
	long := string(slices.Repeat([]byte("a"), topology.MaxKeyBytes))
	for _, test := range []struct{ name, path, sent string }{
		{"plain", "/a/b.jpg", "/a/b.jpg"},
		{"space", "/a%20b.jpg", "/a%20b.jpg"},
		{"plus", "/a+b.jpg", "/a%2Bb.jpg"},
		{"encoded plus", "/a%2Bb.jpg", "/a%2Bb.jpg"},
		{"percent", "/100%25.jpg", "/100%25.jpg"},
		{"percent twice", "/a%2520b.jpg", "/a%2520b.jpg"},
		{"NFC", "/caf%C3%A9.jpg", "/caf%C3%A9.jpg"},
		{"NFD", "/cafe%CC%81.jpg", "/cafe%CC%81.jpg"},
		{"slashes", "/a//b.jpg", "/a//b.jpg"},
		{"slash in front", "//a.jpg", "//a.jpg"},
		{"encoded slash", "/a%2Fb.jpg", "/a/b.jpg"},
		{"semicolon", "/a;v=1/b.jpg", "/a%3Bv%3D1/b.jpg"},
		{"question mark", "/a%3Fb.jpg", "/a%3Fb.jpg"},
		{"number sign", "/a%23b.jpg", "/a%23b.jpg"},
		{"backslash", "/a%5Cb.jpg", "/a%5Cb.jpg"},
		{"trailing slash", "/a/", ""},
		{"nothing", "", ""},
		{"no UTF-8", "/%FF", ""},
		{"longest", "/" + long[len("under/"):], "/" + long[len("under/"):]},
		{"too long with the prefix", "/" + long[1:], ""},
		{"too long", "/" + long + "a", ""},
	} {
		for _, store := range []struct {
			name string
			at   func(testing.TB, string) *topology.Origin
			sent string
		}{
			{"gcs", func(t testing.TB, url string) *topology.Origin {
				return gcsOrigin(t, url+"/base/", func(o *topologyv1.Origin) { o.GetGcs().Prefix = "under" })
			}, "/base/bucket/under"},
			{"azure_blob", func(t testing.TB, url string) *topology.Origin {
				return azureOrigin(t, url+"/base", func(o *topologyv1.Origin) { o.GetAzureBlob().Prefix = "under/" })
			}, "/base/container/under"},
		} {
			t.Run(test.name+"/"+store.name, func(t *testing.T) {
				t.Parallel()
				fault := faultorigin.New(t)
				fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
				a := localClient(t).Get(t.Context(), store.at(t, fault.URL()), get(test.path))
				discard(t, a)
				if test.sent == "" {
					if saw(t, fault, 0); a.Outcome != NotHere || a.Reason != Unasked || a.Request != "" {
						t.Errorf("got %s %q, request %q", a.Outcome, a.Reason, a.Request)
					}
					return
				}
				if got, want := saw(t, fault, 1)[0].Target, store.sent+test.sent; got != want || a.Outcome != Found {
					t.Errorf("asked for %q, want %q: %s", got, want, a.Detail)
				}
			})
		}
	}
}

// No prefix leads out of the bucket: software on the way could resolve its dot segments.
func TestKeysDoNotClimb(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	for _, prefix := range []string{"..", "../other", "a/../..", ".", `a\..\..`} {
		for _, o := range []*topology.Origin{
			gcsOrigin(t, fault.URL(), func(o *topologyv1.Origin) { o.GetGcs().Prefix = prefix }),
			azureOrigin(t, fault.URL(), func(o *topologyv1.Origin) { o.GetAzureBlob().Prefix = prefix }),
			s3Origin(t, fault.URL(), func(o *topologyv1.Origin) { o.GetS3().Prefix = prefix }),
		} {
			a := localClient(t).Get(t.Context(), o, get("/a.jpg"))
			if discard(t, a); a.Outcome != Inconclusive || a.Reason != Misconfigured || a.Advice == "" {
				t.Errorf("prefix %q at %s: %s %q: %s", prefix, a.Kind, a.Outcome, a.Reason, a.Detail)
			}
		}
	}
	saw(t, fault, 0)
}
