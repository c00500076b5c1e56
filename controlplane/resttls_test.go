package controlplane

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
)

// TestRESTOverTLS holds that REST works over HTTP/2, and asks for a certificate where the admin API
// does.
func TestRESTOverTLS(t *testing.T) {
	cert, key, roots := selfSigned(t)
	cfg := loopbackConfig(t.TempDir())
	cfg.TLSCert, cfg.TLSKey, cfg.ClientCA = cert, key, cert
	r := start(t, cfg)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	client := func(shown ...tls.Certificate) *api {
		transport := &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: shown},
		}
		t.Cleanup(transport.CloseIdleConnections)
		return &api{t: t, base: "https://" + r.Addresses().HTTP, client: &http.Client{Transport: transport}}
	}
	nobody, admin := client(), client(pair)

	if status, text := get(t, nobody.client, nobody.base+"/healthz"); status != 200 {
		t.Errorf("a probe without a certificate: %d %s", status, text)
	}
	nobody.token = apiOf(t, r).token
	if got := nobody.want(403, "GET", "/v1/accounts", ""); got.reason() != "CERTIFICATE_REQUIRED" {
		t.Errorf("a token without a certificate: %s", got.text)
	}
	if status, text := get(t, nobody.client, nobody.base+"/ui/"); status != 403 {
		t.Errorf("the dashboard without a certificate: %d %s", status, text)
	}
	if got := admin.want(200, "GET", "/v1:whoAmI", ""); got.at("credential") != "certificate" {
		t.Errorf("a certificate is %s", got.text)
	}
	admin.want(201, "POST", "/v1/accounts?accountId=acme", `{}`)
	content := bytes.Repeat([]byte("0123456789"), 300_000)
	made := admin.send("PUT", "/v1/accounts/acme/mediaFiles/a.bin", bytes.NewReader(content))
	if made.status != 201 || made.at("mediaFile", "sizeBytes") != "3000000" {
		t.Errorf("an upload: %d %s", made.status, made.text)
	}
	if got := admin.want(
		206, "GET", "/v1/accounts/acme/mediaFiles/a.bin", "", "Range", "bytes=2999995-",
	); got.text != "56789" {
		t.Errorf("a range: %q", got.text)
	}
	resp, err := admin.client.Get(admin.base + "/v1/revision")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.ProtoMajor != 2 {
		t.Errorf("HTTP/%d", resp.ProtoMajor)
	}
	events, stop := admin.watch(t)
	next(t, events, "revision", named("revision"))
	stop()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	trail := admin.want(200, "GET", "/v1/accounts/acme/events", "")
	list, _ := trail.at("events").([]any)
	if len(list) == 0 {
		t.Fatalf("no events: %s", trail.text)
	}
	first, _ := list[len(list)-1].(map[string]any)
	if first["who"] != leaf.Subject.String() {
		t.Errorf("the audit names %v, want %s", first["who"], leaf.Subject)
	}
}
