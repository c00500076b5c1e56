package devca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an authority, an edge that answers the challenges of its token, and a client with an
// account.
type world struct {
	*Authority
	client  *acme.Client
	account acme.Account
	answer  func(token string) string
	http    *http.Client
}

func start(t *testing.T, dir string) *world {
	t.Helper()
	w := new(world)
	edge := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, token, _ := strings.Cut(r.URL.Path, "/acme-challenge/")
		_, _ = out.Write([]byte(w.answer(token)))
	}))
	t.Cleanup(edge.Close)
	var err error
	if w.Authority, err = New(Config{Dir: dir, Edge: edge.Listener.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(w.root)
	w.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	t.Cleanup(w.http.CloseIdleConnections)
	w.client = &acme.Client{Directory: w.Directory, HTTPClient: w.http}
	w.account = w.register(t)
	thumbprint, err := w.account.Thumbprint()
	if err != nil {
		t.Fatal(err)
	}
	w.answer = func(token string) string { return token + "." + thumbprint }
	return w
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) register(t *testing.T) acme.Account {
	t.Helper()
	a, err := w.client.NewAccount(t.Context(), acme.Account{PrivateKey: newKey(t), TermsOfServiceAgreed: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// order orders a certificate for a name with a request for others.
func (w *world) order(t *testing.T, name string, requested ...string) ([]*x509.Certificate, error) {
	t.Helper()
	o, err := w.client.NewOrder(t.Context(), w.account, acme.Order{
		Identifiers: []acme.Identifier{{Type: "dns", Value: name}},
	})
	if err != nil {
		return nil, err
	}
	authz, err := w.client.GetAuthorization(t.Context(), w.account, o.Authorizations[0])
	if err != nil {
		return nil, err
	}
	if _, err := w.client.InitiateChallenge(t.Context(), w.account, authz.Challenges[0]); err != nil {
		return nil, err
	}
	if _, err := w.client.PollAuthorization(t.Context(), w.account, authz); err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: requested}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if o, err = w.client.FinalizeOrder(t.Context(), w.account, o, csr); err != nil {
		return nil, err
	}
	chains, err := w.client.GetCertificateChain(t.Context(), w.account, o.Certificate)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for rest := chains[0].ChainPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
}

// An ACME client gets a certificate that leads to the root, which stays over restarts.
func TestOrders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := start(t, dir)
	certs, err := w.order(t, "images.localhost", "images.localhost")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(start(t, dir).root)
	if _, err := certs[0].Verify(x509.VerifyOptions{DNSName: "images.localhost", Roots: roots}); err != nil {
		t.Error(err)
	}
}

// Nothing is issued for names that are others', nor without the edge's answer.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir())
	good := w.answer
	for _, test := range []struct {
		name, requested, want string
		answer                func(string) string
	}{
		{"images.example.com", "images.example.com", "rejectedIdentifier", good},
		{"*.localhost", "*.localhost", "rejectedIdentifier", good},
		{"localhost", "localhost", "rejectedIdentifier", good},
		{"a.localhost", "b.localhost", "badCSR", good},
		{"a.localhost", "a.localhost", "unauthorized", func(token string) string { return token }},
	} {
		w.answer = test.answer
		_, err := w.order(t, test.name, test.requested)
		problem, ok := errors.AsType[acme.Problem](err)
		if !ok || !strings.HasSuffix(problem.Type, ":"+test.want) {
			t.Errorf("%s with a request for %s: %v, want %s", test.name, test.requested, err, test.want)
		}
	}
	w.answer = good
	o, err := w.client.NewOrder(t.Context(), w.account, acme.Order{
		Identifiers: []acme.Identifier{{Type: "dns", Value: "a.localhost"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.GetOrder(t.Context(), w.register(t), o); err == nil {
		t.Error("another account sees the order")
	}
	// An order that is not validated has no certificate.
	csr, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{DNSNames: []string{"a.localhost"}}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.FinalizeOrder(t.Context(), w.account, o, csr); err == nil {
		t.Error("a certificate without a validation")
	}
}

// A request is signed, for its URL, and comes once.
func TestRequestsAreSigned(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir())
	for _, body := range []string{"", "{}", `{"protected":"e30","payload":"","signature":""}`, "\x00"} {
		resp, err := w.http.Post(w.base+"/order", "application/jose+json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", body, resp.Status)
		}
	}
}

// Who trusts the root trusts it for names below .localhost alone.
func TestRootIsConstrained(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir())
	key := newKey(t)
	request := &x509.CertificateRequest{PublicKey: &key.PublicKey}
	text, err := w.issue(request, "www.example.com")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.root)
	_, err = cert.Verify(x509.VerifyOptions{DNSName: "www.example.com", Roots: roots})
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || invalid.Reason != x509.CANotAuthorizedForThisName {
		t.Errorf("another name: %v", err)
	}
}
