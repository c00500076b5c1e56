// Package issuer gets certificates for custom domains from certificate authorities that speak ACME
// (RFC 8555), and renews them.
package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// keyName is where the key of the ACME accounts lies, sealed.
const keyName = "key"

// Key is the key of a deployment's ACME accounts, one for all issuers.
type Key struct{ *ecdsa.PrivateKey }

// LoadKey returns the key, which the first control plane of a deployment makes.
func LoadKey(ctx context.Context, s *store.Store) (Key, error) {
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(made)
	if err != nil {
		return Key{}, err
	}
	stored, err := s.FirstACME(ctx, keyName, der)
	if err != nil {
		return Key{}, fmt.Errorf("read the key of ACME accounts: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(stored)
	if err != nil {
		return Key{}, fmt.Errorf("read the key of ACME accounts: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("the key of ACME accounts is a %T", parsed)
	}
	return Key{key}, nil
}

// Thumbprint is the thumbprint of the key (RFC 7638), which answers to HTTP challenges end with
// (RFC 8555 8.1).
func (k Key) Thumbprint() (string, error) {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		return "", err
	}
	half := len(point) / 2 // behind the byte that says that it is not compressed
	encode := base64.RawURLEncoding.EncodeToString
	text := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, encode(point[1:1+half]), encode(point[1+half:]))
	sum := sha256.Sum256([]byte(text))
	return encode(sum[:]), nil
}
