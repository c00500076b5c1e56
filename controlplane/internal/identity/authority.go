package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/jointoken"
)

const (
	// certificateLife is how long an edge's certificate is valid. Edges renew it when a third is
	// left.
	certificateLife = 7 * 24 * time.Hour
	// skew is how far the clocks of two machines may differ: certificates begin so much earlier.
	skew = 10 * time.Minute
	// authorityLife is how long an authority is valid, if no other takes its place before.
	authorityLife = 10 * 365 * 24 * time.Hour
	// overlap is how long an authority stays valid after another has taken its place: until all
	// that it has signed has expired.
	overlap = certificateLife + 24*time.Hour
	// serverLife is how long the certificate is valid that a control plane shows to edges. It makes
	// another one when half is over.
	serverLife = 7 * 24 * time.Hour
)

// authority signs certificates of edges, and those that control planes show to edges. It is
// immutable.
type authority struct {
	number   int
	cert     *x509.Certificate
	key      crypto.Signer
	hash     [sha256.Size]byte
	cluster  string
	made     time.Time
	revision int64
}

// authorityRecord is an authority in etcd, at `auth/ca/{number}`. The key is sealed for that place.
type authorityRecord struct {
	Certificate []byte    `json:"certificate"`
	SealedKey   []byte    `json:"sealedKey"`
	Made        time.Time `json:"made"`
}

// authorityKey is where an authority lies below `auth/`.
func authorityKey(number int) string { return authorities + strconv.Itoa(number) }

// makeAuthority makes an authority and its record.
func makeAuthority(number int, cluster string, now time.Time, s *store.Store) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("edgewalk edges %s %d", cluster, number)},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: cluster}},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key: %w", err)
	}
	sealed, err := s.Seal("auth/"+authorityKey(number), plain)
	if err != nil {
		return nil, err
	}
	return json.Marshal(authorityRecord{Certificate: cert, SealedKey: sealed, Made: now.UTC()})
}

func readAuthority(ctx context.Context, number int, value []byte, s *store.Store) (*authority, error) {
	var r authorityRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, fmt.Errorf("decode the certificate: %w", err)
	}
	plain, err := s.Open(ctx, "auth/"+authorityKey(number), r.SealedKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, errors.New("decode the key") // the error might tell of it
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok || !signer.PublicKey.Equal(cert.PublicKey) || len(cert.URIs) != 1 {
		return nil, errors.New("the key is not that of the certificate")
	}
	return &authority{
		number: number, cert: cert, key: signer, hash: sha256.Sum256(cert.Raw), cluster: cert.URIs[0].Host,
		made: r.Made,
	}, nil
}

// sign signs a certificate for a key.
func (a *authority) sign(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	template.SerialNumber = serial()
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// issue signs the certificate of an edge.
func (a *authority) issue(e Edge, key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	subject := pkix.Name{CommonName: e.ID, Locality: []string{e.Region}}
	if e.Pool != "" {
		subject.OrganizationalUnit = []string{e.Pool}
	}
	return a.sign(&x509.Certificate{
		Subject: subject, URIs: []*url.URL{spiffeID(a.cluster, e.ID)}, NotBefore: now.Add(-skew),
		NotAfter:    now.Add(certificateLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key)
}

// serve makes what a control plane shows to edges that know it by this authority.
func (a *authority) serve(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	cert, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "edgewalk control plane"}, DNSNames: []string{jointoken.ServerName(a.hash)},
		NotBefore: now.Add(-skew), NotAfter: now.Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// spiffeID is the name of an edge (https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/).
func spiffeID(cluster, id string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: "/edge/" + id}
}

// edgeOf is the edge that a certificate is about.
func edgeOf(cert *x509.Certificate, cluster string) (Edge, error) {
	if len(cert.URIs) != 1 {
		return Edge{}, errors.New("the certificate names no edge")
	}
	id, ok := strings.CutPrefix(cert.URIs[0].Path, "/edge/")
	if !ok || cert.URIs[0].String() != spiffeID(cluster, id).String() {
		return Edge{}, errors.New("the certificate names no edge of this cluster")
	}
	e := Edge{ID: id, Key: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Expires: cert.NotAfter}
	if l := cert.Subject.Locality; len(l) == 1 {
		e.Region = l[0]
	}
	if u := cert.Subject.OrganizationalUnit; len(u) == 1 {
		e.Pool = u[0]
	}
	return e, nil
}

// serial is a random serial number (RFC 5280 4.1.2.2).
func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return n.Add(n, big.NewInt(1))
}
