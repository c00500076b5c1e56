// Package certificate checks certificates before edges show them: what an admin uploads, and what
// an issuer sends.
//
// It is pure, but for the certificates of authorities that this machine trusts.
package certificate

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// MaxBytes bounds a certificate with its chain, and a key, each as PEM.
	MaxBytes = 16 << 10
	// MinLeft is how long a certificate that somebody brings has to be good for at least.
	MinLeft = 24 * time.Hour
	// maxChain is more intermediates than any public authority has.
	maxChain = 8
	// minRSABits is the least that public authorities sign (Baseline Requirements of the CA/Browser
	// Forum, 6.1.5), maxRSABits bounds what a handshake costs.
	minRSABits, maxRSABits = 2048, 4096
)

// Certificate is a certificate that edges may show, with its key.
type Certificate struct {
	Leaf *x509.Certificate
	// Chain is the intermediates, the issuer of the leaf first, without the root.
	Chain []*x509.Certificate
	// Trusted says that the chain leads to an authority that this machine trusts.
	Trusted bool

	key []byte // PKCS #8
}

// Options say what is asked of a certificate.
type Options struct {
	// Domain is the name that it has to be good for, `*.example.com` for a wildcard.
	Domain string
	// Now is the time. Required.
	Now time.Time
	// Left is how long it has to be good for at least.
	Left time.Duration
	// AllowUntrusted takes a certificate whose authority nobody knows.
	AllowUntrusted bool
	// Roots are the authorities that are trusted. Nil: those of this machine.
	Roots *x509.CertPool
}

// Field says which part of an upload is at fault.
type Field string

// The parts of an upload.
const (
	FieldCertificate Field = "certificate_pem"
	FieldKey         Field = "private_key_pem"
)

// Error says what is wrong with a certificate or its key. It never quotes the key.
type Error struct {
	Field Field
	Text  string
}

func (e *Error) Error() string { return e.Text }

func refuse(field Field, format string, args ...any) *Error {
	return &Error{Field: field, Text: fmt.Sprintf(format, args...)}
}

// Parse reads a certificate with its chain, and its key, as PEM, and checks them. The certificates
// may come in any order and with the root. Its errors are of type [*Error].
func Parse(certPEM, keyPEM []byte, opts Options) (*Certificate, error) {
	if len(certPEM) > MaxBytes {
		return nil,
			refuse(FieldCertificate, "%d bytes: a certificate with its chain has at most %d", len(certPEM), MaxBytes)
	}
	if len(keyPEM) > MaxBytes {
		return nil, refuse(FieldKey, "%d bytes: a key has at most %d", len(keyPEM), MaxBytes)
	}
	all, err := readCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return New(all, key, opts)
}

// New checks a certificate with its chain, in any order and perhaps with the root, and its key. Its
// errors are of type [*Error].
func New(all []*x509.Certificate, key crypto.Signer, opts Options) (*Certificate, error) {
	leaf, err := leafOf(all, key)
	if err != nil {
		return nil, err
	}
	c := &Certificate{Leaf: leaf}
	if err := c.check(opts); err != nil {
		return nil, err
	}
	if c.key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, refuse(FieldKey, "the key is of a kind that cannot be stored")
	}
	if c.Chain, err = chainOf(leaf, all, opts); err != nil {
		return nil, err
	}
	return c, c.trust(opts)
}

// Record is what is stored of a certificate for a domain: which, by its id and uid. A chain that
// leads to a known authority, or that shared says many have, lies apart, where all certificates
// that have it refer to it.
func (c *Certificate) Record(domain, uid string, shared bool) store.Certificate {
	record := store.Certificate{
		Domain: domain, UID: uid, NotBefore: c.Leaf.NotBefore, NotAfter: c.Leaf.NotAfter,
		Pair: &topologyv1.KeyPair{Leaf: c.Leaf.Raw, Key: c.key},
	}
	chain := make([][]byte, 0, len(c.Chain))
	for _, one := range c.Chain {
		chain = append(chain, one.Raw)
	}
	if len(chain) > 0 && (c.Trusted || shared) {
		record.Chain = &topologyv1.Chain{Certificates: chain}
	} else {
		record.Pair.Chain = chain
	}
	return record
}

// byteOrderMark begins files of some editors, and joint is where one was put behind another that
// does not end in an end of line.
var byteOrderMark, joint = []byte("\ufeff"), []byte("----------BEGIN ")

// blocks is a text as package pem reads it.
func blocks(b []byte) []byte {
	return bytes.ReplaceAll(bytes.TrimPrefix(b, byteOrderMark), joint, []byte("-----\n-----BEGIN "))
}

func readCertificates(b []byte) (all []*x509.Certificate, err error) {
	rest := blocks(b)
	for n := 1; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "CERTIFICATE":
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return nil, refuse(FieldCertificate, "block %d is a private key: give that apart", n)
		case block.Type == "EC PARAMETERS":
			continue
		default:
			return nil, refuse(FieldCertificate, "block %d is no CERTIFICATE", n)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refuse(FieldCertificate, "certificate %d cannot be read: %v", n, err)
		}
		if !slices.ContainsFunc(all, cert.Equal) {
			all = append(all, cert)
		}
	}
	if len(all) == 0 {
		return nil, refuse(FieldCertificate, "it holds no certificate: give it as PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	if text := bytes.TrimSpace(rest); bytes.Contains(text, []byte("-----BEGIN")) {
		return nil, refuse(FieldCertificate, "what follows certificate %d cannot be read as PEM: is its end cut off?", len(all))
	}
	return all, nil
}

// readKey reads a private key: PKCS #8, PKCS #1, or SEC 1.
func readKey(b []byte) (key crypto.Signer, err error) {
	rest := blocks(b)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type == "EC PARAMETERS" || block.Type == "CERTIFICATE":
			continue
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, refuse(FieldKey, "the key is encrypted: give it in the clear, as `openssl pkey -in FILE` writes it")
		case key != nil:
			return nil, refuse(FieldKey, "it holds more than one private key: give that of the certificate alone")
		}
		if key, err = parseKey(block); err != nil {
			return nil, err
		}
	}
	cut := bytes.Contains(rest, []byte("-----BEGIN"))
	switch {
	case cut:
		return nil, refuse(FieldKey, "the private key cannot be read as PEM: is its end cut off?")
	case key == nil:
		return nil, refuse(FieldKey, "it holds no private key: give it as PEM, which begins with -----BEGIN PRIVATE KEY-----")
	}
	return key, nil
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, refuse(FieldKey, "it holds a block that is no private key")
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok { // what err says might quote the key
		return nil, refuse(FieldKey, "the private key cannot be read: is it whole?")
	}
	return signer, nil
}

type publicKey interface{ Equal(crypto.PublicKey) bool }

// leafOf is the certificate of a key.
func leafOf(all []*x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	public, ok := key.Public().(publicKey)
	if !ok {
		return nil, refuse(FieldKey, "the key is of an unknown kind: RSA and ECDSA keys are taken")
	}
	var leaves []*x509.Certificate
	for _, cert := range all {
		if public.Equal(cert.PublicKey) {
			leaves = append(leaves, cert)
		}
	}
	switch len(leaves) {
	case 1:
		return leaves[0], nil
	case 0:
		return nil, refuse(FieldKey, "the key belongs to none of the certificates: the first one is of %s", subject(all[0]))
	}
	return nil, refuse(FieldCertificate, "the key belongs to %d of the certificates: give one", len(leaves))
}

// subject is what a certificate is for, for people.
func subject(cert *x509.Certificate) string {
	if len(cert.DNSNames) > 0 {
		return quote(cert.DNSNames)
	}
	return fmt.Sprintf("%q", cert.Subject.String())
}

// quote quotes names that come from outside, a few of them.
func quote(names []string) string {
	const most = 5
	var all []string
	for _, name := range names[:min(len(names), most)] {
		all = append(all, fmt.Sprintf("%q", name))
	}
	if more := len(names) - most; more > 0 {
		all = append(all, fmt.Sprintf("%d more", more))
	}
	return strings.Join(all, ", ")
}

// check looks at the leaf alone.
func (c *Certificate) check(opts Options) error {
	if err := checkPublicKey(c.Leaf.PublicKey); err != nil {
		return err
	}
	switch leaf := c.Leaf; {
	case leaf.IsCA && !selfSigned(leaf):
		return refuse(FieldCertificate, "the certificate of the key is an authority's own: give one that an authority has signed for the domain")
	case !covers(leaf, opts.Domain):
		return refuse(FieldCertificate, "it is not good for %s: it is for %s", opts.Domain,
			cmp.Or(quote(leaf.DNSNames), "no host name"))
	case opts.Now.Before(leaf.NotBefore):
		return refuse(FieldCertificate, "it is not good before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case !opts.Now.Before(leaf.NotAfter):
		return refuse(FieldCertificate, "it has ended at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotAfter.Sub(opts.Now) < opts.Left:
		return refuse(FieldCertificate, "it ends at %s: it has to be good for another %s at least",
			leaf.NotAfter.UTC().Format(time.RFC3339), opts.Left)
	case !forServers(leaf):
		return refuse(FieldCertificate, "it is not for servers: its extended key usage lacks serverAuth")
	case mustStaple(leaf):
		return refuse(FieldCertificate, "it asks for OCSP stapling (must-staple, RFC 7633), which edges do not do: have it issued without")
	}
	return nil
}

// selfSigned recognises a certificate that its own key has signed.
func selfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

func checkPublicKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return refuse(FieldKey, "the RSA key has %d bits: %d to %d are taken", bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return refuse(FieldKey, "the ECDSA key is on curve %s: P-256 and P-384 are taken", key.Curve.Params().Name)
	}
	return refuse(FieldKey, "the key is neither RSA nor ECDSA, which browsers do not take")
}

// covers reports whether a certificate is good for a domain. A wildcard needs the wildcard.
func covers(leaf *x509.Certificate, domain string) bool {
	for _, name := range leaf.DNSNames {
		name, err := topology.CanonicalDomain(name, "")
		if err != nil {
			continue
		}
		wildcard, ok := topology.WildcardOf(domain)
		if name == domain || ok && name == wildcard {
			return true
		}
	}
	return false
}

func forServers(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 {
		return true // RFC 5280 4.2.1.12
	}
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// tlsFeature is the extension of RFC 7633.
var tlsFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

func mustStaple(leaf *x509.Certificate) bool {
	return slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(tlsFeature) })
}

// chainOf orders the certificates that lead from a leaf to its authority, without the root, which
// clients have or do not trust. Where authorities have signed each other there are several ways:
// one that leads to a known authority is taken. Every certificate has to be on some way.
func chainOf(leaf *x509.Certificate, all []*x509.Certificate, opts Options) (chain []*x509.Certificate, err error) {
	left := slices.DeleteFunc(slices.Clone(all), leaf.Equal)
	pool := poolOf(left)
	for reached := []*x509.Certificate{leaf}; len(reached) > 0; reached = reached[1:] {
		above := signers(reached[0], left)
		left = slices.DeleteFunc(left, func(c *x509.Certificate) bool { return slices.Contains(above, c) })
		reached = append(reached, above...)
	}
	if len(left) > 0 {
		return nil, refuse(FieldCertificate, "the certificate of %s has signed none of the others: leave it out", subject(left[0]))
	}
	for at := leaf; ; {
		above := slices.DeleteFunc(signers(at, all), func(c *x509.Certificate) bool {
			there := func(has *x509.Certificate) bool { return sameKey(has, c) }
			return selfSigned(c) || slices.ContainsFunc(chain, there)
		})
		if len(above) == 0 {
			return chain, nil
		}
		at = above[max(0, slices.IndexFunc(above, func(c *x509.Certificate) bool { return known(c, pool, opts) }))]
		if chain = append(chain, at); len(chain) > maxChain {
			return nil, refuse(FieldCertificate, "the chain has more than %d intermediates", maxChain)
		}
	}
}

// signers are those of some certificates whose authorities have signed one.
func signers(cert *x509.Certificate, all []*x509.Certificate) (found []*x509.Certificate) {
	for _, c := range all {
		if bytes.Equal(cert.RawIssuer, c.RawSubject) && cert.CheckSignatureFrom(c) == nil {
			found = append(found, c)
		}
	}
	return found
}

// sameKey reports whether certificates are of one authority.
func sameKey(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

func poolOf(all []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range all {
		pool.AddCert(cert)
	}
	return pool
}

// known reports whether a certificate leads to an authority that is trusted, by way of some others.
func known(cert *x509.Certificate, others *x509.CertPool, opts Options) bool {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: opts.Roots, Intermediates: others, CurrentTime: opts.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

// trust finds out whether the chain leads to a known authority.
func (c *Certificate) trust(opts Options) error {
	_, err := c.Leaf.Verify(x509.VerifyOptions{
		Roots: opts.Roots, Intermediates: poolOf(c.Chain), CurrentTime: opts.Now,
	})
	c.Trusted = err == nil
	if err == nil || opts.AllowUntrusted {
		return nil
	}
	text := "browsers would not trust it"
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown) && len(c.Chain) == 0:
		text += fmt.Sprintf(": the certificate of its issuer %q is not there, or is of no authority that this machine knows: "+
			"give the whole chain, which issuers call fullchain", c.Leaf.Issuer.String())
	case errors.As(err, &unknown):
		last := c.Chain[len(c.Chain)-1]
		text += fmt.Sprintf(": %q is no authority that this machine knows", last.Issuer.String())
	default:
		text += ": " + err.Error()
	}
	return &Error{Field: FieldCertificate, Text: text + "; allow_untrusted takes it all the same"}
}
