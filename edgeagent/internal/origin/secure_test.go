package origin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// site is a TLS server that serves one name, with a certificate of a CA that nobody knows. It
// answers with the Host and the TLS name that it was asked by, and redirects /to?URL there.
func site(t *testing.T, name string) (base, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/to" {
			w.Header().Set("Location", r.URL.RawQuery)
			w.WriteHeader(http.StatusFound)
			return
		}
		if r.TLS.ServerName != "" && !strings.EqualFold(r.TLS.ServerName, name) {
			w.WriteHeader(http.StatusMisdirectedRequest)
			return
		}
		io.WriteString(w, r.Host+" "+r.TLS.ServerName+" "+r.Header.Get("X-Api-Key"))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// A web server is asked for by the names that its origin sets, and believed by the CAs that it
// sets.
func TestWebSite(t *testing.T) {
	t.Parallel()
	base, ca := site(t, "shop.test")
	_, stranger := site(t, "shop.test")
	host := strings.TrimPrefix(base, "https://")
	off := false
	for _, test := range []struct {
		name   string
		change func(*topologyv1.WebOrigin)
		body   string // without the key
		detail string
	}{
		{"by default", func(w *topologyv1.WebOrigin) {}, "", `the certificate is not for "127.0.0.1"`},
		{"its name only", func(w *topologyv1.WebOrigin) { w.HostHeader = "shop.test" }, "",
			"the certificate is signed by an unknown authority"},
		{"CA only", func(w *topologyv1.WebOrigin) { w.CaPem = ca }, "", `the certificate is not for "127.0.0.1"`},
		{"host", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "shop.test" }, "shop.test shop.test",
			"HTTP 200"},
		{"host with a port", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "Shop.test:8443" },
			"Shop.test:8443 Shop.test", "HTTP 200"},
		{"TLS name", func(w *topologyv1.WebOrigin) { w.CaPem, w.TlsServerName = ca, "shop.test" }, host + " shop.test",
			"HTTP 200"},
		{
			"host and TLS name",
			func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader, w.TlsServerName = ca, "a.test", "shop.test" },
			"a.test shop.test", "HTTP 200",
		},
		{"client's host and TLS name",
			func(w *topologyv1.WebOrigin) { w.CaPem, w.ForwardHostHeader, w.TlsServerName = ca, true, "shop.test" },
			"images.example.com shop.test", "HTTP 200"},
		{"another CA", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = stranger, "shop.test" }, "",
			"the certificate is signed by an unknown authority"},
		{"both CAs", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = stranger+ca, "shop.test" },
			"shop.test shop.test", "HTTP 200"},
		{"another host", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "a.test" }, "",
			`the certificate is not for "a.test"`},
		{"without checking", func(w *topologyv1.WebOrigin) { w.TlsVerify = &off }, host + " ", "HTTP 200"},
		{"without checking, by a name it does not serve",
			func(w *topologyv1.WebOrigin) { w.TlsVerify, w.HostHeader = &off, "a.test" }, "",
			"HTTP 421 for Host a.test and TLS name a.test"},
	} {
		for _, order := range []string{"", " after all others"} {
			t.Run(test.name+order, func(t *testing.T) {
				t.Parallel()
				c := localClient(t)
				if order != "" { // no connection and no session of others' is used
					for _, change := range []func(*topologyv1.WebOrigin){
						func(w *topologyv1.WebOrigin) { w.TlsVerify = &off },
						func(w *topologyv1.WebOrigin) { w.TlsVerify, w.HostHeader = &off, "a.test" },
						func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "shop.test" },
					} {
						discard(t, c.Get(t.Context(), webOrigin(t, base, webSpec(change)), get("/a.jpg")))
					}
				}
				a := c.Get(t.Context(), webOrigin(t, base, webSpec(test.change)), get("/a.jpg"))
				if a.Detail != test.detail || (a.Outcome == Found) != (test.body != "") ||
					a.Outcome != Found && a.Advice == "" {
					t.Errorf("got %s %q, %s", a.Outcome, a.Detail, a.Advice)
				}
				if a.Outcome == Found {
					if body, err := read(t, a); body != test.body+" "+theSecret || err != nil {
						t.Errorf("asked by %q, %v", body, err)
					}
				}
				discard(t, a)
			})
		}
	}
}

// What an origin says of TLS is for its own host: a redirect elsewhere gets what every server gets,
// and no secret.
func TestWebSiteEndsAtItsHost(t *testing.T) {
	t.Parallel()
	base, ca := site(t, "shop.test")
	away, _ := site(t, "away.test")
	off := false
	for _, test := range []struct {
		name, to string
		change   func(*topologyv1.WebOrigin)
		detail   string
	}{
		{"own host", base + "/b.jpg", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "shop.test" },
			"HTTP 200"},
		{"own host by its name", "https://shop.test/b.jpg",
			func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "shop.test" }, "HTTP 200"},
		{"another host", away + "/b.jpg", func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "shop.test" },
			`the certificate is not for "127.0.0.1"`},
		{"another host, without checking", away + "/b.jpg", func(w *topologyv1.WebOrigin) { w.TlsVerify = &off },
			`the certificate is not for "127.0.0.1"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ask := get("/to")
			ask.Query = test.to
			a := localClient(t).Get(t.Context(), webOrigin(t, base, webSpec(test.change)), ask)
			if detail, _, _ := strings.Cut(a.Detail, ", after a redirect"); detail != test.detail {
				t.Errorf("got %s: %s", a.Outcome, a.Detail)
			}
			discard(t, a)
		})
	}
}

// An origin whose URL mixes up http and https gets advice that says so, from a real server's
// answer.
func TestSchemesMixedUp(t *testing.T) {
	t.Parallel()
	handler := http.NotFoundHandler()
	secure, open := httptest.NewUnstartedServer(handler), httptest.NewUnstartedServer(handler)
	secure.Config.ErrorLog, open.Config.ErrorLog = log.New(io.Discard, "", 0), log.New(io.Discard, "", 0)
	secure.StartTLS()
	open.Start()
	defer secure.Close()
	defer open.Close()
	c := localClient(t)
	for _, test := range []struct{ base, detail, advice string }{
		{strings.Replace(secure.URL, "https:", "http:", 1), "HTTP 400 in the clear to a port for TLS", "use https://"},
		{strings.Replace(open.URL, "http:", "https:", 1), "the origin does not speak TLS",
			"use http, or the port at which the origin speaks TLS"},
	} {
		a := c.Get(t.Context(), webOrigin(t, test.base), get("/a.jpg"))
		if discard(t, a); a.Detail != test.detail || a.Advice != test.advice || a.Outcome != Inconclusive {
			t.Errorf("%s: got %s %q: %s; %s", test.base, a.Outcome, a.Reason, a.Detail, a.Advice)
		}
	}
}

// An operator may insist on certificates.
func TestOperatorInsistsOnCertificates(t *testing.T) {
	t.Parallel()
	base, ca := site(t, "shop.test")
	c := newTestClient(t, Config{AllowCIDRs: loopback, VerifyTLS: true})
	off := false
	a := c.Get(t.Context(), webOrigin(t, base, webSpec(func(w *topologyv1.WebOrigin) { w.TlsVerify = &off })),
		get("/a.jpg"))
	discard(t, a)
	if a.Outcome != Inconclusive || a.Reason != Misconfigured || !strings.Contains(a.Detail, "operator") ||
		!strings.Contains(a.Advice, "web.tlsVerify") {
		t.Errorf("got %s %q: %s; %s", a.Outcome, a.Reason, a.Detail, a.Advice)
	}
	a = c.Get(
		t.Context(),
		webOrigin(t, base, webSpec(func(w *topologyv1.WebOrigin) { w.CaPem, w.HostHeader = ca, "shop.test" })),
		get("/a.jpg"),
	)
	if discard(t, a); a.Outcome != Found {
		t.Errorf("with a CA: %s: %s", a.Outcome, a.Detail)
	}
}

// The settings that are kept are bounded.
func TestSecuresAreBounded(t *testing.T) {
	t.Parallel()
	s := newSecures(newTLSConfig(nil), false)
	for i := range maxSecures + 10 {
		o := webOrigin(t, "https://a.test", webSpec(func(w *topologyv1.WebOrigin) {
			w.TlsServerName = strings.Repeat("a", i%60) + ".x" + time.Duration(i).String()
		}))
		if _, err := s.of(o); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.known) > maxSecures {
		t.Errorf("%d are kept", len(s.known))
	}
}

// An object's Content-Encoding names codings of its bytes, and nothing else.
func TestContentEncodingIsCleaned(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fields []string
		want   []string
	}{
		{[]string{"Content-Encoding:"}, nil},
		{[]string{"Content-Encoding: aws-chunked"}, nil},
		{[]string{"Content-Encoding: AWS-Chunked,"}, nil},
		{[]string{"Content-Encoding: identity"}, nil},
		{[]string{"Content-Encoding: gzip,aws-chunked"}, []string{"gzip"}},
		{[]string{"Content-Encoding: aws-chunked, br"}, []string{"br"}},
		{[]string{"Content-Encoding: aws-chunked", "Content-Encoding: gzip"}, []string{"gzip"}},
		{[]string{"Content-Encoding: zstd , br"}, []string{"zstd, br"}},
		{nil, nil},
	} {
		fault := faultorigin.New(t)
		fault.On(faultorigin.Any, faultorigin.Reply(200, "x", test.fields...))
		a := localClient(t).Get(t.Context(), s3Origin(t, fault.URL()), get("/a.css"))
		discard(t, a)
		if a.Outcome != Found {
			t.Fatalf("got %s: %s", a.Outcome, a.Detail)
		}
		if got := a.Response.Header["Content-Encoding"]; strings.Join(got, "|") != strings.Join(test.want, "|") ||
			len(got) != len(test.want) {
			t.Errorf("%q: %q", test.fields, got)
		}
	}
}
