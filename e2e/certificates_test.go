package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/edgewalk/edgewalk/internal/certtest"
)

// domainsHeld is a control plane and an edge that serve images.example.com over TLS by a
// certificate of a test authority, which an admin has uploaded.
type domainsHeld struct {
	*admin
	root, issuer *certtest.Authority
	cp           *controlPlane
	edge         *edge
	dir, https   string
}

const domainManifest = `account: {id: acme}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints: [{id: default, origins: [o]}]
customDomains:
  - {domain: images.example.com, mode: ACCOUNT, https: REDIRECT, hsts: {maxAge: 3600s}}
  - {domain: "*.shots.example.com", mode: ACCOUNT}
  - {domain: later.example.com, mode: ACCOUNT}
`

func startDomains(t *testing.T, origin string) *domainsHeld {
	t.Helper()
	d := &domainsHeld{root: certtest.New(t), dir: shortDir(t)}
	d.issuer = d.root.Intermediate("edgewalk test issuer")
	d.cp = startControlPlane(t, filepath.Join(d.dir, "cp"))
	d.startEdge(t)
	d.edge.waitReady(t)
	d.admin = d.cp.administer(t)
	d.apply(t, fmt.Sprintf(domainManifest, origin))
	d.certify(t, "images.example.com")
	d.certify(t, "*.shots.example.com")
	return d
}

func (d *domainsHeld) startEdge(t *testing.T) {
	t.Helper()
	d.edge = startEdge(t, filepath.Join(d.dir, "edge"), "edge-1", d.cp.edges, "--https-addr", "127.0.0.1:0")
	d.https = d.edge.logged(t, "https")["https"]
}

// certify uploads a certificate for a domain, and returns once the edge has its id.
func (d *domainsHeld) certify(t *testing.T, name string) {
	t.Helper()
	pair := d.issuer.Issue([]string{name})
	cert := d.file(t, "cert.pem", string(certtest.PEM(pair.Leaf, d.issuer.Cert, d.root.Cert)))
	key := d.file(t, "key.pem", string(pair.KeyPEM(t)))
	d.do(t, "domains", "upload", name, "-A", "acme", "--cert", cert, "--key", key, "--allow-untrusted", "--wait")
}

// visits asks for a file over TLS. The client trusts the test authority alone.
func (d *domainsHeld) visits(t *testing.T, host, path string) string {
	t.Helper()
	status, protocol, err := visitTLS(t.Context(), d.https, d.root.Pool(), host, host, path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", status, protocol)
}

const good = "200 HTTP/2.0"

// Uploaded certificates are served by name, renewed without a restart, kept over one, also when no
// control plane is there, and fetched again by an edge whose disk was damaged or wiped. A name that
// is removed is refused.
func TestDomainCertificates(t *testing.T) {
	t.Parallel()
	d := startDomains(t, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	const unknown = "remote error: tls: unrecognized name"
	check := func(when string) {
		t.Helper()
		for host, want := range map[string]string{
			"images.example.com": good, "a.shots.example.com": good, "later.example.com": unknown,
			"nobody.example.com": unknown,
		} {
			if got := d.visits(t, host, "/a.txt"); got != want {
				t.Errorf("%s: %s is answered with %s, want %s", when, host, got, want)
			}
		}
	}
	check("at first")
	r := d.edge.getFrom(t, "images.example.com", "/a.txt?x=1")
	if location := r.header.Get("Location"); r.status != 308 || location != "https://images.example.com/a.txt?x=1" {
		t.Errorf("plain HTTP: %s, Location %q", r, location)
	}
	before := d.serial(t, "images.example.com")
	d.certify(t, "images.example.com")
	if d.serial(t, "images.example.com") == before {
		t.Error("the old certificate is served after an upload")
	}
	eventually(t, soon, "the edge reports its certificates", func() bool {
		return strings.Contains(metricsOf(t, d.edge.metrics), `edgewalk_edge_certificates{state="on_disk"} 2`)
	})

	shown := d.do(t, "get", "domain", "images.example.com", "-A", "acme", "-o", "jsonpath={.customDomain.certificate}")
	for _, want := range []string{`"ISSUED"`, `"edges":{"serving":1,"total":1}`} {
		has(t, "the certificate", strings.ReplaceAll(shown, " ", ""), want)
	}

	for _, again := range []struct {
		when   string
		damage func(file string)
		alone  bool
	}{
		{"after a restart without a control plane", func(string) {}, true},
		{"after its file was damaged", func(file string) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			copy(b[len(b)/2:], bytes.Repeat([]byte("x"), 200))
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"after its disk was wiped", func(file string) {
			if err := os.RemoveAll(filepath.Join(d.dir, "edge")); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		d.edge.kill9(t)
		again.damage(filepath.Join(d.dir, "edge", "state", "certificates", "certificates"))
		home := d.cp.edges
		if again.alone {
			d.cp.edges = unusedAddress(t)
		}
		d.startEdge(t)
		d.edge.waitReady(t)
		d.cp.edges = home
		check(again.when)
	}

	d.do(t, "delete", "domain", "images.example.com", "-A", "acme", "--wait")
	if got := d.visits(t, "images.example.com", "/a.txt"); got != unknown {
		t.Errorf("a removed name is answered with %s", got)
	}
	for _, p := range []*process{d.cp.process, d.edge.process} {
		if strings.Contains(p.stderr.String(), "PRIVATE KEY") {
			t.Errorf("%s logs a key", p.name)
		}
	}
}

// unusedAddress is one where nobody answers: a socket that is bound and does not listen has it.
func unusedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // It answers no call.
	return l.Addr().String()
}

// serial is that of the certificate that the edge shows for a name.
func (d *domainsHeld) serial(t *testing.T, name string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", d.https, &tls.Config{ServerName: name, RootCAs: d.root.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// What upload says to people, and that it exits otherwise when it is typed wrong.
func TestUploadCommand(t *testing.T) {
	t.Parallel()
	d := startDomains(t, newOrigin(t, nil).url)
	pair := d.issuer.Issue([]string{"later.example.com"})
	cert := d.file(t, "later.pem", string(certtest.PEM(d.issuer.Cert, pair.Leaf)))
	key := d.file(t, "later.key", string(pair.KeyPEM(t)))
	binaryCert := d.file(t, "later.der", string(pair.Leaf.Raw))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"later.example.com"}, 2, "--cert FILE --key FILE"},
		{[]string{"later.example.com", "--cert", "none.pem", "--key", key}, 1, "--cert: open none.pem"},
		{[]string{"later.example.com", "--cert", cert, "--key", key}, 1, "allow_untrusted"},
		{[]string{"later.example.com", "--cert", binaryCert, "--key", key}, 1, "openssl x509 -inform der"},
		{[]string{"images.example.com", "--cert", cert, "--key", key}, 1, "it is not good for images.example.com"},
		{[]string{"nobody.example.com", "--cert", cert, "--key", key}, 1, "it is not good for nobody.example.com"},
		{[]string{"later.example.com", "--cert", cert, "--key", key, "--allow-untrusted", "--dry-run"}, 0,
			"good (dry run)"},
		{[]string{"LATER.example.com", "--cert", cert, "--key", key, "--allow-untrusted"}, 0,
			"certificate of later.example.com uploaded"},
	} {
		r := d.try(t, "", append([]string{"domains", "upload", "-A", "acme"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%s: exit code %d, want %d with %q\n%s%s", r.command, r.code, c.code, c.says, r.stdout, r.stderr)
		}
	}
}

// picturePage shows a picture, and says how wide it is and how the page came.
const picturePage = `<!doctype html><title>page</title><img src="/dot.png"><script>
onload = () => document.body.dataset.seen = document.images[0].naturalWidth + " wide over " +
	performance.getEntriesByType("navigation")[0].nextHopProtocol + " at " + location.origin
</script>`

// pictureSite is an origin that has the page, its picture, and a file.
func pictureSite(t *testing.T) (url string) {
	t.Helper()
	var dot bytes.Buffer
	if err := png.Encode(&dot, image.NewGray(image.Rect(0, 0, 7, 5))); err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(http.FileServerFS(fstest.MapFS{
		"page.html": {Data: []byte(picturePage)}, "dot.png": {Data: dot.Bytes()}, "a.txt": {Data: []byte("a")},
	}))
	t.Cleanup(site.Close)
	return site.URL
}

// A browser opens a page on a domain over HTTP/2 and sees the picture that the edge serves.
func TestBrowserOpensADomain(t *testing.T) {
	t.Parallel()
	d := startDomains(t, pictureSite(t))
	public, err := x509.MarshalPKIXPublicKey(d.issuer.Cert.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	seesPage(t, "images.example.com", d.https, public)
}

// seesPage opens the page of a domain, at an address, in a browser that trusts certificates with a
// public key, or signed by it, and no others.
func seesPage(t *testing.T, domain, address string, public []byte) {
	t.Helper()
	program, err := findChromium()
	needChromium(t, err)
	hash := sha256.Sum256(public)
	ctx, cancel := context.WithTimeout(t.Context(), commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu",
		"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP * "+address,
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(hash[:]),
		"--virtual-time-budget=10000", "--dump-dom", "https://"+domain+"/page.html")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	shown, err := cmd.Output()
	if want := `data-seen="7 wide over h2 at https://` + domain + `"`; err != nil ||
		!strings.Contains(string(shown), want) {
		t.Errorf("the browser: %v, it sees no %s in\n%s\n%s", err, want, shown, stderr.String())
	}
}
