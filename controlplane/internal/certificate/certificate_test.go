package certificate_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/certificate"
	"github.com/edgewalk/edgewalk/internal/certtest"
)

type edit = func(*x509.Certificate, *crypto.Signer)

// chained is an authority with two intermediates, of which the second signs.
func chained(t testing.TB) (root, upper, lower *certtest.Authority) {
	root = certtest.New(t)
	upper = root.Intermediate("upper")
	return root, upper, upper.Intermediate("lower")
}

// What is stored is what clients need, in the order that TLS wants, however it was given.
func TestCertificatesArePutInOrder(t *testing.T) {
	t.Parallel()
	root, upper, lower := chained(t)
	pair := lower.Issue([]string{"images.example.com"})
	leaf := pair.Leaf
	for name, given := range map[string][]*x509.Certificate{
		"as it should be":       {leaf, lower.Cert, upper.Cert},
		"with the root":         {leaf, lower.Cert, upper.Cert, root.Cert},
		"backwards":             {root.Cert, upper.Cert, lower.Cert, leaf},
		"with the same twice":   {leaf, upper.Cert, lower.Cert, upper.Cert},
		"the leaf in the midst": {upper.Cert, leaf, lower.Cert},
	} {
		c, err := certificate.Parse(certtest.PEM(given...), pair.KeyPEM(t), options(root, "images.example.com"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !c.Leaf.Equal(leaf) || len(c.Chain) != 2 || !c.Chain[0].Equal(lower.Cert) || !c.Chain[1].Equal(upper.Cert) ||
			!c.Trusted {
			t.Errorf("%s: it is in another order", name)
		}
		record := c.Record("images.example.com", "1-images.example.com", false)
		if !bytes.Equal(record.Pair.GetLeaf(), leaf.Raw) || len(record.Pair.GetChain()) > 0 ||
			len(record.Chain.GetCertificates()) != 2 {
			t.Errorf("%s: what is stored is %v", name, record)
		}
	}
}

// Authorities sign each other, so that there are several certificates of one name and key: what is
// kept leads to an authority that is known, whichever stands first.
func TestCrossSigned(t *testing.T) {
	t.Parallel()
	known, other := certtest.New(t), certtest.New(t)
	issuer := other.Intermediate("issuer")
	pair := issuer.Issue([]string{"a.example.com"})
	crossed := known.CrossSign(issuer)
	root := known.CrossSign(other) // of the other authority
	for name, given := range map[string][]*x509.Certificate{
		"the known one first":       {pair.Leaf, crossed, issuer.Cert},
		"the known one last":        {pair.Leaf, issuer.Cert, crossed},
		"with both roots":           {pair.Leaf, issuer.Cert, crossed, other.Cert, known.Cert},
		"a root, signed by another": {pair.Leaf, issuer.Cert, other.Cert, root, known.Cert},
		"the same, shuffled":        {root, other.Cert, pair.Leaf, issuer.Cert},
	} {
		c, err := certificate.Parse(certtest.PEM(given...), pair.KeyPEM(t), options(known, "a.example.com"))
		if err != nil || !c.Trusted {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if last := c.Chain[len(c.Chain)-1]; !bytes.Equal(last.RawIssuer, known.Cert.RawSubject) {
			t.Errorf("%s: the chain of %d ends below %s", name, len(c.Chain), last.Issuer)
		}
	}
}

// Files come from all kinds of editors.
func TestTextAroundPEM(t *testing.T) {
	t.Parallel()
	root := certtest.New(t)
	issuer := root.Intermediate("issuer")
	pair := issuer.Issue([]string{"a.example.com"})
	cert, key := certtest.PEM(pair.Leaf, issuer.Cert), pair.KeyPEM(t)
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	before := func(text string, b []byte) []byte { return append([]byte(text), b...) }
	for name, c := range map[string][2][]byte{
		"CR LF":             {crlf(cert), crlf(key)},
		"text before":       {before("Bag Attributes\n    friendlyName: a\n", cert), before("key:\n", key)},
		"a byte order mark": {before("\ufeff", cert), before("\ufeff", key)},
		"no end of line":    {bytes.TrimSpace(cert), bytes.TrimSpace(key)},
		"joined without one": {
			slices.Concat(bytes.TrimSpace(certtest.PEM(pair.Leaf)), certtest.PEM(issuer.Cert)),
			slices.Concat(bytes.TrimSpace(cert), key),
		},
		"spaces":               {append(cert, "\n\n   \n"...), append(key, "\n\n"...)},
		"all in one file":      {cert, append(append([]byte{}, cert...), key...)},
		"with its parameters":  {cert, before("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n", key)},
		"spaces ends of lines": {bytes.ReplaceAll(cert, []byte("\n"), []byte("  \n")), key},
	} {
		if _, err := certificate.Parse(c[0], c[1], options(root, "a.example.com")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What `openssl req -x509` makes says that it is an authority's. It is taken like other
// certificates that nobody knows: on request.
func TestSelfSigned(t *testing.T) {
	t.Parallel()
	root := certtest.New(t)
	key := certtest.Key(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.example.com"},
		DNSNames: []string{"a.example.com"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	opts := options(root, "a.example.com")
	_, err = certificate.Parse(cert, certtest.Pair{Key: key}.KeyPEM(t), opts)
	if err == nil || !strings.Contains(err.Error(), "allow_untrusted takes it") {
		t.Errorf("without being asked for: %v", err)
	}
	opts.AllowUntrusted = true
	if c, err := certificate.Parse(cert, certtest.Pair{Key: key}.KeyPEM(t), opts); err != nil || c.Trusted ||
		len(c.Chain) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func options(root *certtest.Authority, domain string) certificate.Options {
	return certificate.Options{Domain: domain, Now: time.Now(), Left: certificate.MinLeft, Roots: root.Pool()}
}

func TestKindsOfKeys(t *testing.T) {
	t.Parallel()
	root := certtest.New(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 5, 43, 129, 4, 0, 34}})
	for name, c := range map[string]struct {
		key crypto.Signer
		pem []byte
	}{
		"PKCS #1": {
			rsaKey, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}),
		},
		"SEC 1, as openssl ecparam writes it": {
			p384, append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...),
		},
		"PKCS #8": {p384, certtest.Pair{Key: p384}.KeyPEM(t)},
	} {
		pair := root.Issue([]string{"a.example.com"}, func(_ *x509.Certificate, key *crypto.Signer) { *key = c.key })
		parsed, err := certificate.Parse(certtest.PEM(pair.Leaf), c.pem, options(root, "a.example.com"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		record := parsed.Record("a.example.com", "u", false)
		key, err := x509.ParsePKCS8PrivateKey(record.Pair.GetKey())
		if err != nil ||
			!pair.Key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.(crypto.Signer).Public()) {
			t.Errorf("%s: the stored key is another, %v", name, err)
		}
	}
}

// Which names a certificate is good for.
func TestNames(t *testing.T) {
	t.Parallel()
	root := certtest.New(t)
	for _, c := range []struct {
		names  string
		domain string
		good   bool
	}{
		{"a.example.com", "a.example.com", true},
		{"A.Example.COM", "a.example.com", true},
		{"b.example.com a.example.com", "a.example.com", true},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "*.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "a.b.example.com", false},
		{"a.example.com", "*.example.com", false},
		{"b.example.com", "a.example.com", false},
		{"", "a.example.com", false},
	} {
		pair := root.Issue(strings.Fields(c.names))
		_, err := certificate.Parse(certtest.PEM(pair.Leaf), pair.KeyPEM(t), options(root, c.domain))
		if (err == nil) != c.good {
			t.Errorf("%q for %s: %v", c.names, c.domain, err)
		}
	}
}

// What is refused, and what is said then. Nothing that is said quotes the key.
func TestRefusals(t *testing.T) {
	t.Parallel()
	root, upper, lower := chained(t)
	other := certtest.New(t)
	good := lower.Issue([]string{"a.example.com"})
	stranger := other.Issue([]string{"a.example.com"})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	full := []*x509.Certificate{good.Leaf, lower.Cert, upper.Cert}
	with := func(e edit) (cert, key []byte) {
		pair := lower.Issue([]string{"a.example.com"}, e)
		return certtest.PEM(pair.Leaf, lower.Cert, upper.Cert), pair.KeyPEM(t)
	}
	signed := func(key crypto.Signer, err error) func() (cert, private []byte) {
		return func() ([]byte, []byte) {
			if err != nil {
				t.Fatal(err)
			}
			return with(func(_ *x509.Certificate, k *crypto.Signer) { *k = key })
		}
	}
	weak, weakErr := rsa.GenerateKey(rand.Reader, 1024)
	p224, p224Err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	p521, p521Err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, edwards, edErr := ed25519.GenerateKey(rand.Reader)
	given := func(cert, key []byte) func() ([]byte, []byte) { return func() ([]byte, []byte) { return cert, key } }
	changed := func(e func(*x509.Certificate)) func() ([]byte, []byte) {
		return func() ([]byte, []byte) { return with(func(c *x509.Certificate, _ *crypto.Signer) { e(c) }) }
	}
	stapled := pkix.Extension{Id: []int{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}} // status_request
	now := time.Now()
	for name, c := range map[string]struct {
		upload func() (cert, key []byte)
		field  certificate.Field
		says   string
	}{
		"no PEM": {
			given([]byte("hello"), good.KeyPEM(t)), certificate.FieldCertificate, "no certificate",
		},
		"a key for a certificate": {
			given(good.KeyPEM(t), good.KeyPEM(t)), certificate.FieldCertificate, "private key: give that apart",
		},
		"a request": {
			given(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST"}), good.KeyPEM(t)),
			certificate.FieldCertificate, "no CERTIFICATE",
		},
		"DER within PEM is broken": {
			given(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), good.KeyPEM(t)),
			certificate.FieldCertificate, "certificate 1 cannot be read",
		},
		"cut off": {
			given(certtest.PEM(full...)[:1200], good.KeyPEM(t)), certificate.FieldCertificate, "cut off",
		},
		"too long": {
			given(bytes.Repeat(certtest.PEM(full...), 20), good.KeyPEM(t)), certificate.FieldCertificate,
			"at most 16384",
		},
		"no key": {
			given(certtest.PEM(full...), []byte("-")), certificate.FieldKey, "no private key",
		},
		"a certificate for a key": {
			given(certtest.PEM(full...), certtest.PEM(full...)), certificate.FieldKey, "no private key",
		},
		"an encrypted key": {given(certtest.PEM(full...), encrypted), certificate.FieldKey, "openssl pkey"},
		"a broken key": {
			given(certtest.PEM(full...), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})),
			certificate.FieldKey, "is it whole",
		},
		"a key that is cut off": {
			given(certtest.PEM(full...), good.KeyPEM(t)[:100]), certificate.FieldKey, "is its end cut off",
		},
		"two keys": {
			given(certtest.PEM(full...), append(stranger.KeyPEM(t), good.KeyPEM(t)...)), certificate.FieldKey,
			"more than one private key",
		},
		"another's key": {
			given(certtest.PEM(full...), stranger.KeyPEM(t)), certificate.FieldKey,
			"belongs to none of the certificates",
		},
		"RSA of 1,024 bits": {signed(weak, weakErr), certificate.FieldKey, "1024 bits"},
		"P-224":             {signed(p224, p224Err), certificate.FieldKey, "P-224"},
		"P-521":             {signed(p521, p521Err), certificate.FieldKey, "P-521"},
		"Ed25519":           {signed(edwards, edErr), certificate.FieldKey, "neither RSA nor ECDSA"},
		"another name": {
			changed(func(c *x509.Certificate) { c.DNSNames = []string{"b.example.com"} }), certificate.FieldCertificate,
			`it is for "b.example.com"`,
		},
		"it has ended": {
			changed(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), certificate.FieldCertificate,
			"it has ended",
		},
		"it ends within a day": {
			changed(func(c *x509.Certificate) { c.NotAfter = now.Add(23 * time.Hour) }), certificate.FieldCertificate,
			"another 24h",
		},
		"not good yet": {
			changed(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }), certificate.FieldCertificate,
			"not good before",
		},
		"for clients": {
			changed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			certificate.FieldCertificate, "serverAuth",
		},
		"must-staple": {
			changed(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, stapled) }),
			certificate.FieldCertificate, "stapling",
		},
		"an authority's own": {
			given(certtest.PEM(lower.Cert, upper.Cert), certtest.Pair{Key: lower.Key}.KeyPEM(t)),
			certificate.FieldCertificate, "authority's own",
		},
		"one that belongs to nobody": {
			given(certtest.PEM(append(full, other.Cert)...), good.KeyPEM(t)), certificate.FieldCertificate,
			"leave it out",
		},
		"no intermediates": {
			given(certtest.PEM(good.Leaf), good.KeyPEM(t)), certificate.FieldCertificate, "fullchain",
		},
		"an unknown authority": {
			given(certtest.PEM(stranger.Leaf), stranger.KeyPEM(t)), certificate.FieldCertificate, "allow_untrusted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, key := c.upload()
			_, err := certificate.Parse(cert, key, options(root, "a.example.com"))
			refused, ok := errors.AsType[*certificate.Error](err)
			if !ok || refused.Field != c.field || !strings.Contains(refused.Text, c.says) {
				t.Errorf("%v, want one about %s with %q", err, c.field, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%v quotes the key", err)
			}
		})
	}
}

// A private authority is taken on request. Its chain lies with the certificate: nobody else has it.
func TestUntrustedCertificates(t *testing.T) {
	t.Parallel()
	known := certtest.New(t)
	_, upper, lower := chained(t)
	pair := lower.Issue([]string{"a.example.com"})
	opts := options(known, "a.example.com")
	opts.AllowUntrusted = true
	c, err := certificate.Parse(certtest.PEM(pair.Leaf, lower.Cert, upper.Cert), pair.KeyPEM(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	if record := c.Record("a.example.com", "u", false); c.Trusted || record.Chain != nil ||
		len(record.Pair.GetChain()) != 2 {
		t.Errorf("trusted %v, chain %v", c.Trusted, record.Chain)
	}
	if record := c.Record("a.example.com", "u", true); record.Chain == nil {
		t.Error("the chain of an issuer lies with each certificate")
	}
}

// Whatever is uploaded, it is refused with a reason, or it is a certificate that a server can show.
func FuzzParse(f *testing.F) {
	root, upper, lower := chained(f)
	pair := lower.Issue([]string{"a.example.com"})
	full := certtest.PEM(pair.Leaf, lower.Cert, upper.Cert, root.Cert)
	f.Add(full, pair.KeyPEM(f))
	f.Add(certtest.PEM(lower.Cert, pair.Leaf), append(certtest.PEM(pair.Leaf), pair.KeyPEM(f)...))
	f.Add(append([]byte("text\n"), full...), []byte("-----BEGIN PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		opts := options(root, "a.example.com")
		opts.AllowUntrusted = true
		c, err := certificate.Parse(cert, key, opts)
		var refused *certificate.Error
		switch {
		case err != nil && (!errors.As(err, &refused) || refused.Text == "" || len(refused.Text) > 4000):
			t.Fatalf("refused with %v", err)
		case err != nil:
			return
		}
		record := c.Record("a.example.com", "u", true)
		private, err := x509.ParsePKCS8PrivateKey(record.Pair.GetKey())
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := private.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }); !ok ||
			len(record.Chain.GetCertificates()) > 8 {
			t.Fatalf("stored %v", record)
		}
		if err := c.Leaf.VerifyHostname("a.example.com"); err != nil {
			t.Fatal(err)
		}
	})
}
