package issuer_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/acmetest"
	"github.com/edgewalk/edgewalk/internal/certtest"
)

// Whatever an issuer sends in place of what was ordered is not served, and what it does is said. It
// is asked again later.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	own := certtest.New(t)
	other := own.Issue([]string{"a.example.com"}) // of another key
	chain := func(body []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/pem-certificate-chain")
			_, _ = w.Write(body) // who asked asks again
		}
	}
	var nonce atomic.Int64
	for name, c := range map[string]struct {
		what   string
		answer func(http.ResponseWriter)
		want   string
		says   string
		wait   time.Duration // at least
	}{
		"a certificate of another key": {
			"certificate", chain(certtest.PEM(other.Leaf, own.Cert)), "FAILED ISSUER_REJECTED",
			"a certificate that edges cannot show: the key belongs to none", 0,
		},
		"no certificate": {
			"certificate", chain([]byte("hello")), "FAILED ISSUER_DOWN", "sent no certificate", 0,
		},
		"a certificate that cannot be read": {
			"certificate", chain([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
			"FAILED ISSUER_DOWN", "invalid first PEM block", 0,
		},
		"a chain that is cut off": {
			"certificate", chain(append(certtest.PEM(other.Leaf), "-----BEGIN CERTIFICATE-----\nMIIB"...)),
			"FAILED ISSUER_DOWN", "cut off", 0,
		},
		"a chain of 1 MB": {
			"certificate", chain(bytes.Repeat(certtest.PEM(other.Leaf), 2000)), "FAILED ISSUER_DOWN",
			"more than 262144 bytes", 0,
		},
		"a page": {
			"order", func(w http.ResponseWriter) {
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, "<html>\n<h1>Down</h1>"+strings.Repeat("x", 10_000))
			}, "FAILED ISSUER_DOWN", "it fails: attempt 3: ", 59 * time.Minute,
		},
		"nonces that are never good": {
			"order", func(w http.ResponseWriter) {
				w.Header().Set("Replay-Nonce", fmt.Sprint("nonce", nonce.Add(1)))
				acmetest.Problem(w, 400, "badNonce", "not a nonce of mine")
			}, "FAILED ISSUER_DOWN", "not a nonce of mine", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, acmetest.Config{})
			var wrong atomic.Bool
			wrong.Store(true)
			r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
				if what != c.what || !wrong.Load() {
					return false
				}
				c.answer(w)
				return true
			})
			r.replica("cp1")
			r.claim("acme", "a.example.com")
			r.awaitState("acme", "a.example.com", c.want)
			fact, held := r.fact("acme", "a.example.com")
			if left := fact.GetNextCheck().AsTime().Sub(r.now()); left < c.wait {
				t.Errorf("it is tried again in %s, want %s", left, c.wait)
			}
			if held != nil || !strings.Contains(fact.GetMessage(), c.says) || len(fact.GetMessage()) > 600 {
				t.Errorf("held %v; it says %q", held, fact.GetMessage())
			}
			wrong.Store(false)
			r.pass(2 * time.Hour)
			r.awaitState("acme", "a.example.com", "ISSUED")
			if err := r.leaf("acme", "a.example.com").CheckSignatureFrom(r.ca.Intermediate()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A certificate that leads to others, in a circle or to many, is taken as it is.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	var asked atomic.Int64
	r.ca.Before(func(w http.ResponseWriter, req *http.Request, what string) bool {
		if what == "certificate" {
			asked.Add(1)
			for _, rel := range []string{"up", "alternate"} {
				w.Header().Add("Link", fmt.Sprintf(`<https://%s%s>;rel=%q`, req.Host, req.URL.Path, rel))
			}
		}
		return false
	})
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	if n := asked.Load(); n > 5 { // a few more than one, because nonces are refused at random
		t.Errorf("%d requests for the certificate", n)
	}
}

// Certificates of some private authorities live for a day. They are served, and renewed when half
// of that is over.
func TestCertificatesOfADay(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{Life: day, NoRenewalInfo: true})
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	r.live("acme", "a.example.com", 3*day)
	if n := r.ca.Orders("a.example.com"); n < 6 || n > 8 {
		t.Errorf("%d orders in three lives", n)
	}
}

// An issuer that wants a certificate renewed after its end is not waited for.
func TestWindowBehindTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{Life: 10 * day})
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	leaf := r.leaf("acme", "a.example.com")
	if err := r.ca.SetWindow(leaf.SerialNumber, leaf.NotAfter.Add(day), leaf.NotAfter.Add(2*day)); err != nil {
		t.Fatal(err)
	}
	r.live("acme", "a.example.com", 10*day)
	if n := r.ca.Orders("a.example.com"); n != 2 {
		t.Errorf("%d orders in a life", n)
	}
}

// CAA records that let one account alone have certificates (RFC 8657 3) count from the first order
// on, before which there is no account; and where they forbid, what is told to add names it.
func TestCAAOfAnAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	const other = `a CAA 0 issue "ca.test; accounturi=https://ca.test/acct/other"`
	r.set("a A "+r.edges[0], other)
	r.replica("cp1")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "WAITING CAA")
	fact, _ := r.fact("acme", "a.example.com")
	if len(fact.GetWant()) != 1 || !strings.Contains(fact.GetWant()[0], "accounturi=https://127.0.0.1") ||
		!strings.Contains(fact.GetMessage(), fact.GetWant()[0]) {
		t.Fatalf("it wants %q, and says %q", fact.GetWant(), fact.GetMessage())
	}
	r.oracle(nil)
	allowing := strings.TrimPrefix(fact.GetWant()[0], "a.example.com")
	r.set("a A "+r.edges[0], other, "a"+allowing)
	r.check("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")

	// Another control plane knows the account from etcd.
	r.replicas[0].stop()
	r.replica("cp2")
	r.issued("acme", "b.example.com")
	r.set("c A "+r.edges[0], "c"+allowing, `d CAA 128 tbs "x"`, "d A "+r.edges[0])
	r.issued("acme", "c.example.com")
	r.claim("acme", "d.example.com")
	r.awaitState("acme", "d.example.com", "WAITING CAA")
	fact, _ = r.fact("acme", "d.example.com")
	if len(fact.GetWant()) > 0 ||
		!strings.Contains(fact.GetMessage(), `128 tbs "x" at d.example.com forbids all issuers`) {
		t.Errorf("it wants %q, and says %q", fact.GetWant(), fact.GetMessage())
	}
}
