package topology

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/seal"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// CertificateID names a certificate with its key, of all accounts.
type CertificateID [16]byte

// String is 32 hex digits.
func (id CertificateID) String() string { return hex.EncodeToString(id[:]) }

// ChainID names a chain by what it holds.
type ChainID [16]byte

// String is 32 hex digits.
func (id ChainID) String() string { return hex.EncodeToString(id[:]) }

// ChainOf names a chain: the first 16 bytes of SHA-256 of its encoding.
func ChainOf(chain *topologyv1.Chain) (id ChainID) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(chain)
	if err != nil {
		panic(err) // bytes
	}
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
}

// Certificate is which certificate is shown for a custom domain. It is immutable.
type Certificate struct {
	// Domain is the domain as [DomainKey] has it.
	Domain string
	ID     CertificateID
	// Chain is zero if the chain comes with the certificate.
	Chain ChainID
	// NotBefore and NotAfter are Unix time. NotBefore is 0 if it is not known.
	NotBefore, NotAfter int64
	// Proxied says that another CDN asks for the domain.
	Proxied bool
}

// DomainKey names a domain by its owner and its id: two accounts may both have a domain of one name
// as long as neither is served.
func DomainKey(account, id string) string { return account + "/" + id }

// Expired reports whether the certificate has ended.
func (c *Certificate) Expired(now time.Time) bool { return c.NotAfter <= now.Unix() }

// unknownLife is taken for the life of a certificate whose beginning is not known: few live longer.
const unknownLife = 90 * 24 * time.Hour

// Left is the share of its life that a certificate has left, negative once it has ended.
func (c *Certificate) Left(now time.Time) float64 {
	life := unknownLife.Seconds()
	if c.NotBefore > 0 && c.NotBefore < c.NotAfter {
		life = float64(c.NotAfter - c.NotBefore)
	}
	return float64(c.NotAfter-now.Unix()) / life
}

// CompileChain returns the certificates of the record of a chain that is not deleted.
func CompileChain(r Record) ([][]byte, error) {
	m := new(topologyv1.Chain)
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	if id := ChainOf(m).String(); id != r.Key.ID {
		return nil, fmt.Errorf("decode %s: it holds chain %s", r.Key, id)
	}
	return m.GetCertificates(), nil
}

// CompileCertificate reads the record of a certificate that is not deleted.
func CompileCertificate(r Record) (*Certificate, error) {
	m := new(topologyv1.Certificate)
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	c := &Certificate{
		Domain: DomainKey(r.Key.Account, r.Key.ID), NotBefore: m.GetNotBefore(), NotAfter: m.GetNotAfter(),
		Proxied: m.GetProxied(),
	}
	if len(m.GetId()) != len(c.ID) || len(m.GetChain()) != 0 && len(m.GetChain()) != len(c.Chain) {
		return nil, fmt.Errorf("decode %s: ids have 16 bytes", r.Key)
	}
	copy(c.ID[:], m.GetId())
	copy(c.Chain[:], m.GetChain())
	return c, nil
}

// keyPairPlace is what a certificate with its key is bound to: their place in etcd.
func keyPairPlace(id CertificateID) seal.Place { return seal.Place{Name: "sec/certs/" + id.String()} }

// SealKeyPair is what is stored of a certificate with its key, sealed with a keyset of the ring.
func SealKeyPair(
	ring *seal.Ring, keyset, account string, id CertificateID, pair *topologyv1.KeyPair,
) (*topologyv1.SealedCertificate, error) {
	plain, err := Encode(pair)
	if err != nil {
		return nil, fmt.Errorf("encode certificate %s: %w", id, err)
	}
	sealed, err := ring.Seal(keyset, plain, keyPairPlace(id))
	if err != nil {
		return nil, err
	}
	return &topologyv1.SealedCertificate{Sealed: sealed, Keyset: keyset, Account: account}, nil
}

// OpenKeyPair returns the certificate with its key.
func OpenKeyPair(ring *seal.Ring, id CertificateID, stored *topologyv1.SealedCertificate) (*topologyv1.KeyPair, error) {
	plain, err := ring.Open(stored.GetKeyset(), stored.GetSealed(), keyPairPlace(id))
	if err != nil {
		return nil, err
	}
	pair := new(topologyv1.KeyPair)
	if proto.Unmarshal(plain, pair) != nil { // its error might quote the key
		return nil, errors.New("decode certificate " + id.String() + ": it is damaged")
	}
	return pair, nil
}
