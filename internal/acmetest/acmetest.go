// Package acmetest is a certificate authority on loopback for tests: Pebble, Let's Encrypt's own
// for tests, in this process, and what makes it fail.
package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Goroutine is the function of Pebble that runs on when a test has ended, for goleak.
const Goroutine = "github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"

// CAA is the name by which the authority knows itself in CAA records.
const CAA = "ca.test"

// Config says whom the authority asks.
type Config struct {
	// DNS is the resolver that it asks, over TCP.
	DNS netip.AddrPort
	// HTTPPort is where it expects the answers to HTTP challenges.
	HTTPPort int
	// EAB are the keys of external accounts, base64url, by id. Not empty: an account needs one.
	EAB map[string]string
	// Life is how long certificates are good for. Default: 90 days.
	Life time.Duration
	// Now is the clock that certificates are dated by. Default: time.Now.
	Now func() time.Time
	// NoRenewalInfo leaves renewal information (RFC 9773) out.
	NoRenewalInfo bool
	// NoKeyChange leaves the change of an account's key (RFC 8555 7.3.5) out.
	NoKeyChange bool
}

// Authority is a certificate authority. Its methods may be called at the same time.
type Authority struct {
	// Directory is the URL of its directory, and CAFile a file with the certificate that its server
	// is known by, PEM.
	Directory, CAFile string
	// TLS trusts that certificate.
	TLS *x509.CertPool

	cfg    Config
	db     *db.MemoryStore
	ca     *ca.CAImpl
	front  http.Handler
	server *httptest.Server

	// serial keeps requests apart: Pebble's handlers write what they share without a lock. It
	// guards db, ca and front, which Wipe exchanges.
	serial sync.Mutex

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request, what string) bool
	around func(what string, after bool) (lost bool)
	orders map[string]int // by name
	asked  map[string]int // requests, by what they are for
}

var quick = sync.OnceFunc(func() {
	// Pebble reads these when it is made: it waits 5 s before each validation without the first.
	os.Setenv("PEBBLE_VA_NOSLEEP", "1")
	os.Setenv("PEBBLE_AUTHZREUSE", "0")
})

// New starts an authority. It ends with the test.
func New(tb testing.TB, cfg Config) *Authority {
	tb.Helper()
	quick()
	if cfg.Life == 0 {
		cfg.Life = 90 * 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authority{cfg: cfg, orders: map[string]int{}, asked: map[string]int{}}
	if err := a.begin(cfg.EAB); err != nil {
		tb.Fatal(err)
	}
	a.server = httptest.NewTLSServer(http.HandlerFunc(a.serve))
	tb.Cleanup(a.server.Close)
	a.Directory = a.server.URL + wfe.DirectoryPath
	a.CAFile = filepath.Join(tb.TempDir(), "acme-ca.pem")
	a.TLS = x509.NewCertPool()
	a.TLS.AddCert(a.server.Certificate())
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	if err := os.WriteFile(a.CAFile, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	return a
}

// begin starts with an empty database, but for keys of external accounts. The caller has the lock
// of requests, or there are none yet.
func (a *Authority) begin(keys map[string]string) error {
	a.db = db.NewMemoryStore()
	quiet := log.New(io.Discard, "", 0)
	a.ca = ca.New(quiet, a.db, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "the default", ValidityPeriod: uint64(a.cfg.Life / time.Second)},
	})
	for id, key := range keys {
		if err := a.db.AddExternalAccountKeyByID(id, key); err != nil {
			return err
		}
	}
	checker := va.New(quiet, a.cfg.HTTPPort, 1, false, a.cfg.DNS.String(), a.db)
	pebble := wfe.New(quiet, a.db, checker, a.ca, []string{CAA}, false, len(a.cfg.EAB) > 0, 1, 1)
	a.front = pebble.Handler()
	return nil
}

// Wipe loses the database: accounts, orders, and what certificates are signed with. It knows the
// keys of external accounts that it is given, base64url, by id.
func (a *Authority) Wipe(keys map[string]string) error {
	a.serial.Lock()
	defer a.serial.Unlock()
	return a.begin(keys)
}

// Before has a function see each request first, with what it is for: `directory`, `nonce`,
// `account`, `order`, `order-state`, `authorization`, `challenge`, `finalize`, `certificate`,
// `renewal-info` or `key-change`. It returns whether it has answered; if not, header fields that it
// has set go with the authority's answer.
func (a *Authority) Before(f func(w http.ResponseWriter, r *http.Request, what string) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.before = f
}

// Around has a function hear of each request before the authority does, and again before its answer
// leaves. It returns whether the request, or the answer, gets lost. It does not hear of an answer
// that refuses a nonce, as Pebble does at random (RFC 8555 6.5): that request comes again.
func (a *Authority) Around(f func(what string, after bool) (lost bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.around = f
}

// Replaces reports whether an order says which certificate it replaces (RFC 9773 5). The request
// can be read afterwards.
func Replaces(r *http.Request) bool {
	var order struct{ Replaces string }
	return payload(r, &order) == nil && order.Replaces != ""
}

// Name returns the name that an order is for, empty if it cannot be read. The request can be read
// afterwards.
func Name(r *http.Request) string {
	var order struct{ Identifiers []struct{ Value string } }
	if payload(r, &order) != nil || len(order.Identifiers) == 0 {
		return ""
	}
	return order.Identifiers[0].Value
}

// payload decodes what a request has signed, which can be read afterwards.
func payload(r *http.Request, to any) error {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var signed struct{ Payload string }
	if err := errors.Join(err, json.Unmarshal(body, &signed)); err != nil {
		return err
	}
	decoded, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return err
	}
	return json.Unmarshal(decoded, to)
}

// Problem answers with a problem document (RFC 8555 6.7).
func Problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// Who asked does not care when it is gone.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status,
	})
}

// paths are Pebble's.
var paths = []struct{ prefix, what string }{
	{"/dir", "directory"}, {"/nonce-plz", "nonce"}, {"/sign-me-up", "account"}, {"/order-plz", "order"},
	{"/my-order/", "order-state"}, {"/authZ/", "authorization"}, {"/chalZ/", "challenge"},
	{"/finalize-order/", "finalize"}, {"/certZ/", "certificate"},
	{"/draft-ietf-acme-ari-03/renewalInfo", "renewal-info"}, {"/rollover-account-key", "key-change"},
}

func (a *Authority) serve(w http.ResponseWriter, r *http.Request) {
	what := ""
	for _, p := range paths {
		if strings.HasPrefix(r.URL.Path, p.prefix) {
			what = p.what
		}
	}
	a.mu.Lock()
	before, around := a.before, a.around
	a.asked[what]++
	a.mu.Unlock()
	if before != nil && before(w, r, what) {
		return
	}
	if around != nil && around(what, false) {
		panic(http.ErrAbortHandler)
	}
	recorder := httptest.NewRecorder()
	a.serial.Lock()
	a.front.ServeHTTP(recorder, r)
	if what == "order" && recorder.Code == http.StatusCreated {
		a.ordered(recorder.Header().Get("Location"))
	}
	a.serial.Unlock()
	answer := recorder.Body.Bytes()
	if what == "directory" {
		answer = a.without(answer)
	}
	refused := recorder.Code == http.StatusBadRequest && bytes.Contains(answer, []byte("error:badNonce"))
	if around != nil && !refused && around(what, true) {
		panic(http.ErrAbortHandler)
	}
	for name, values := range recorder.Header() {
		w.Header()[name] = append(w.Header()[name], values...)
	}
	w.WriteHeader(recorder.Code)
	_, _ = w.Write(answer)
}

// without is a directory without what the authority does not offer.
func (a *Authority) without(directory []byte) []byte {
	var all map[string]any
	if json.Unmarshal(directory, &all) != nil {
		return directory
	}
	for field, left := range map[string]bool{"renewalInfo": a.cfg.NoRenewalInfo, "keyChange": a.cfg.NoKeyChange} {
		if left {
			delete(all, field)
		}
	}
	rest, err := json.Marshal(all)
	if err != nil {
		return directory
	}
	return rest
}

// ordered dates an order, and counts it.
func (a *Authority) ordered(location string) {
	o := a.db.GetOrderByID(location[strings.LastIndexByte(location, '/')+1:])
	now := a.cfg.Now().UTC().Truncate(time.Second)
	o.Lock()
	o.NotBefore, o.NotAfter = now.Format(time.RFC3339), now.Add(a.cfg.Life).Format(time.RFC3339)
	name := o.Identifiers[0].Value
	o.Unlock()
	a.mu.Lock()
	a.orders[name]++
	a.mu.Unlock()
}

// Orders is how many orders there were for a name.
func (a *Authority) Orders(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.orders[name]
}

// AllOrders is how many orders there were by name.
func (a *Authority) AllOrders() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.orders)
}

// Requests is how many requests there were for something; see [Authority.Before].
func (a *Authority) Requests(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[what]
}

// Client reaches the authority.
func (a *Authority) Client() *http.Client { return a.server.Client() }

// Server is the certificate that its server is known by.
func (a *Authority) Server() *x509.Certificate { return a.server.Certificate() }

// Intermediate is the certificate that certificates are signed with.
func (a *Authority) Intermediate() *x509.Certificate {
	a.serial.Lock()
	defer a.serial.Unlock()
	return a.ca.GetIntermediateCert(0).Cert
}

// Root is the certificate of the authority that clients of edges are to trust.
func (a *Authority) Root() *x509.Certificate {
	a.serial.Lock()
	defer a.serial.Unlock()
	return a.ca.GetRootCert(0).Cert
}

// SetWindow makes the authority say when to renew a certificate.
func (a *Authority) SetWindow(serial *big.Int, start, end time.Time) error {
	a.serial.Lock()
	defer a.serial.Unlock()
	return a.db.SetARIResponse(serial, fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`,
		start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339)))
}

// Replaced is whether the authority has replaced a certificate. It never knows that of one whose
// serial begins with a set bit: DER puts a zero before it, and Pebble looks for that zero too.
func (a *Authority) Replaced(serial *big.Int) bool {
	a.serial.Lock()
	defer a.serial.Unlock()
	o, err := a.db.GetOrderByIssuedSerial(hex.EncodeToString(serial.Bytes()))
	if err != nil {
		return false
	}
	o.RLock()
	defer o.RUnlock()
	return o.IsReplaced
}

// MACKey is a key for an external account, base64url.
func MACKey(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
