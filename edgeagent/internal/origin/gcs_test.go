package origin

import (
	"bytes"
	"compress/gzip"
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
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/gcs"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var serviceKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// account is a GCS origin with the key of a service account.
func account(t testing.TB, endpoint, key string) *topology.Origin {
	o := gcsOrigin(t, endpoint, func(o *topologyv1.Origin) { o.GetGcs().ClientEmail = "reader@project.example" })
	o.Secrets = map[string]string{"gcs.private_key": key}
	return o
}

// The assertion that a token is asked for with, read by RFC 7523 and Google's "Using OAuth 2.0 for
// Server to Server Applications".
func TestGCSToken(t *testing.T) {
	t.Parallel()
	key := serviceKey()
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	for name, text := range map[string]string{
		"PKCS 8": pkcs8(t, key), "PKCS 1": pkcs1, "as in the JSON key": strings.ReplaceAll(pkcs8(t, key), "\n", `\n`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var claims struct {
				Iss, Scope, Aud string
				Iat, Exp        int64
			}
			var grant string
			store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/base/token":
					grant = r.PostFormValue("grant_type")
					text := verifyJWT(t, r.PostFormValue("assertion"), &key.PublicKey)
					if err := json.Unmarshal([]byte(text), &claims); err != nil {
						t.Errorf("claims %s: %v", text, err)
					}
					io.WriteString(w, `{"access_token":"`+theSecret+`","expires_in":3599,"token_type":"Bearer"}`)
				default:
					if got := r.Header.Get("Authorization"); got != "Bearer "+theSecret {
						t.Errorf("sent %q", got)
					}
				}
			}))
			t.Cleanup(store.Close)
			a := localClient(t).Get(t.Context(), account(t, store.URL+"/base", text), get("/a.jpg"))
			if discard(t, a); a.Outcome != Found {
				t.Fatalf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
			if grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" || claims.Iss != "reader@project.example" ||
				claims.Aud != store.URL+"/base/token" ||
				claims.Scope != "https://www.googleapis.com/auth/devstorage.read_only" ||
				claims.Exp-claims.Iat > 3600 || time.Since(time.Unix(claims.Iat, 0)).Abs() > time.Minute {
				t.Errorf("%s with claims %+v", grant, claims)
			}
		})
	}
}

// verifyJWT returns the claims of a JWT whose signature is right.
func verifyJWT(t *testing.T, token string, key *rsa.PublicKey) string {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a JWT of %d parts", len(parts))
	}
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw[2]); err != nil {
		t.Error(err)
	}
	if !json.Valid(raw[1]) || string(raw[0]) != `{"alg":"RS256","typ":"JWT"}` {
		t.Errorf("header %s, claims %s", raw[0], raw[1])
	}
	return string(raw[1])
}

func TestGCSBadKeys(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	half := gcsOrigin(t, fault.URL(), func(o *topologyv1.Origin) { o.GetGcs().ClientEmail = "a@b.example" })
	bare := gcsOrigin(t, fault.URL())
	bare.Secrets = map[string]string{"gcs.private_key": theSecret}
	for name, o := range map[string]*topology.Origin{
		"no PEM": account(t, fault.URL(), theSecret),
		"no key in it": account(t, fault.URL(), "-----BEGIN PRIVATE KEY-----\n"+
			base64.StdEncoding.EncodeToString([]byte(theSecret))+"\n-----END PRIVATE KEY-----\n"), "no key": half,
		"no address": bare,
	} {
		a := localClient(t).Get(t.Context(), o, get("/a.jpg"))
		if discard(t, a); a.Outcome != Inconclusive || a.Reason != Misconfigured || a.Advice == "" {
			t.Errorf("%s: %s %q: %s", name, a.Outcome, a.Reason, a.Detail)
		}
	}
	saw(t, fault, 0)
}

// Google is asked where no endpoint is named.
func TestGCSAddress(t *testing.T) {
	t.Parallel()
	o := gcsOrigin(t, "")
	ask := get("/a.jpg")
	if req, err := gcs.New(nil).Build(&kind.Edge{}, o, &ask); err != nil ||
		kind.Shown(req.URL, true) != "https://storage.googleapis.com/bucket/a.jpg" {
		t.Errorf("%v, %v", req, err)
	}
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// An object that is stored compressed goes out as Google Storage itself would send it to who asks.
func TestGCSCompressedObjects(t *testing.T) {
	t.Parallel()
	const text = "a text that is stored compressed"
	packed := zipped(t, text)
	for _, test := range []struct {
		name, accept string
		fields       []string
		stored       string
		body, coding string
		etag, vary   string
		length       int64
	}{
		{"taken as it is", "br, gzip", []string{"Content-Encoding: gzip"}, packed, packed, "gzip", `"v1"`,
			"Accept-Encoding", int64(len(packed))},
		{"decoded", "identity", []string{"Content-Encoding: gzip"}, packed, text, "", `W/"v1"`, "Accept-Encoding", -1},
		{"decoded for who says nothing", "", []string{"Content-Encoding: gzip"}, packed, text, "", `W/"v1"`,
			"Accept-Encoding", -1},
		{"varies already", "", []string{"Content-Encoding: gzip", "Vary: Origin, accept-encoding"}, packed, text, "",
			`W/"v1"`, "Origin, accept-encoding", -1},
		{"not to be changed", "identity", []string{"Content-Encoding: gzip", "Cache-Control: no-transform"}, packed,
			packed, "gzip", `"v1"`, "", int64(len(packed))},
		{"not compressed", "identity", nil, text, text, "", `"v1"`, "", int64(len(text))},
		{"compressed twice", "identity", []string{"Content-Encoding: gzip"}, zipped(t, packed), packed, "", `W/"v1"`,
			"Accept-Encoding", -1},
		{"empty", "identity", []string{"Content-Encoding: gzip"}, "", "", "", `W/"v1"`, "Accept-Encoding", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, faultorigin.File(test.stored, `"v1"`, test.fields...))
			ask := get("/a.txt")
			if test.accept != "" {
				ask.Header = header("Accept-Encoding", test.accept)
			}
			a := localClient(t).Get(t.Context(), gcsOrigin(t, fault.URL()), ask)
			if a.Outcome != Found {
				t.Fatalf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
			h, length := a.Response.Header, a.Response.Length
			if body, err := read(t, a); body != test.body || err != nil {
				t.Errorf("read %q, %v", body, err)
			}
			if h.Get("Content-Encoding") != test.coding || h.Get("ETag") != test.etag || h.Get("Vary") != test.vary ||
				length != test.length || !a.Response.Framed {
				t.Errorf("length %d, %v", length, h)
			}
			if got := saw(t, fault, 1)[0].Header.Get("Accept-Encoding"); got != "gzip" {
				t.Errorf("asked for %q", got)
			}
		})
	}
}

// A decoded file is confirmed by the tag of the stored one, and stays apart from it.
func TestGCSRevalidatesDecoded(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.File("x", `"v1"`))
	for _, tag := range []string{`W/"v1"`, `"v1"`} {
		ask := get("/a.txt")
		ask.IfNoneMatch = tag
		a := localClient(t).Get(t.Context(), gcsOrigin(t, fault.URL()), ask)
		if discard(t, a); a.Status != 304 || a.Response.Header.Get("ETag") != tag {
			t.Errorf("%s: %d, %v", tag, a.Status, a.Response)
		}
	}
}

// A compressed object that breaks is not taken for a whole one, and goes on where it can.
func TestGCSCompressedObjectsThatBreak(t *testing.T) {
	t.Parallel()
	const text = "a text that is stored compressed"
	packed := zipped(t, strings.Repeat(text, 100))
	fields := []string{"Content-Encoding: gzip", `ETag: "v1"`}
	at := len(packed) - 9
	for _, test := range []struct {
		name    string
		answers []faultorigin.Answer
		whole   bool
		outcome Outcome
	}{
		{"cut", []faultorigin.Answer{faultorigin.Cut(packed, at, fields[0])}, false, Found},
		{"without length, cut", []faultorigin.Answer{faultorigin.Lengthless(200, packed[:at], fields...)}, false,
			Found},
		{
			"goes on",
			[]faultorigin.Answer{
				faultorigin.Cut(packed, at, fields...), faultorigin.Part(packed, at, len(packed)-1, fields...),
			},
			true, Found,
		},
		{"damaged", []faultorigin.Answer{faultorigin.Reply(200, packed[:at]+"x"+packed[at+1:], fields...)}, false,
			Found},
		{"no gzip at all", []faultorigin.Answer{faultorigin.Reply(200, "plain text", fields...)}, false, Inconclusive},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, test.answers...)
			a := localClient(t).Get(t.Context(), gcsOrigin(t, fault.URL()), get("/a.txt"))
			if a.Outcome != test.outcome {
				t.Fatalf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
			if a.Outcome == Inconclusive {
				if a.Reason != Misconfigured || a.Response != nil || a.Advice == "" {
					t.Errorf("got %+v", a)
				}
				return
			}
			body, err := read(t, a)
			if whole := err == nil; whole != test.whole || whole && body != strings.Repeat(text, 100) {
				t.Errorf("read %d bytes, %v", len(body), err)
			}
		})
	}
}

// "object store, 403 AccessDenied" of Google Storage means the same as Amazon's, and the advice
// names its own right.
func TestGCSDenied(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, denial)
	fault.On("/bucket/there", faultorigin.Reply(200, "x"))
	c, o := localClient(t), gcsOrigin(t, fault.URL())
	discard(t, c.Get(t.Context(), o, get("/there")))
	a := c.Get(t.Context(), o, get("/gone"))
	if a.Outcome != NotHere || a.Reason != Denied || a.Advice != gcs.New(nil).DeniedAdvice {
		t.Errorf("got %s %q: %s; %s", a.Outcome, a.Reason, a.Detail, a.Advice)
	}
}

// A store whose 404 does not say what is missing is asked for its bucket, once.
func TestGCSVagueNotFound(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		bucket  faultorigin.Answer
		outcome Outcome
		reason  Reason
		asked   int // in three requests
	}{
		{"bucket there", faultorigin.Reply(200, "<ListBucketResult/>"), NotHere, "", 1},
		{"no bucket", faultorigin.Reply(404, "Not Found"), Inconclusive, Misconfigured, 1},
		{"bucket may not be listed", faultorigin.S3Error(403, "AccessDenied"), Inconclusive, Misconfigured, 1},
		{"no answer", faultorigin.Reply(500, ""), Inconclusive, Misconfigured, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On("/bucket/a.jpg", faultorigin.Reply(404, "Not Found"))
			fault.On("/bucket/", test.bucket)
			c, o := localClient(t), gcsOrigin(t, fault.URL())
			for range 3 {
				a := c.Get(t.Context(), o, get("/a.jpg"))
				if discard(t, a); a.Outcome != test.outcome || a.Reason != test.reason ||
					(a.ProxyError == "") != (a.Outcome == NotHere) {
					t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
				}
			}
			if n := fault.Count("/bucket/"); n != test.asked {
				t.Errorf("asked for the bucket %d times, want %d", n, test.asked)
			}
			if i := slices.IndexFunc(
				fault.Requests(), func(r faultorigin.Request) bool { return r.Path() == "/bucket/" },
			); fault.Requests()[i].Target != "/bucket/?max-keys=1" {
				t.Errorf("asked for %q", fault.Requests()[i].Target)
			}
		})
	}
}
