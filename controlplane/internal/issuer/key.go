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
	"errors"
	"fmt"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// keyName is where the key of the ACME accounts lies, sealed.
const keyName = "key"

// accountKey is a key of a deployment's ACME accounts, one for all issuers.
type accountKey struct {
	*ecdsa.PrivateKey
	// thumbprint is that of RFC 7638, which answers to HTTP challenges end with (RFC 8555 8.1).
	thumbprint string
}

// makeKey makes a key, and its form in etcd.
func makeKey() (der []byte, err error) {
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(made)
}

func parseKey(der []byte) (accountKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return accountKey{}, errors.New("a key of ACME accounts cannot be read")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return accountKey{}, fmt.Errorf("a key of ACME accounts is a %T", parsed)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return accountKey{}, err
	}
	half := len(point) / 2 // behind the byte that says that it is not compressed
	encode := base64.RawURLEncoding.EncodeToString
	text := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, encode(point[1:1+half]), encode(point[1+half:]))
	sum := sha256.Sum256([]byte(text))
	return accountKey{key, encode(sum[:])}, nil
}

func (k accountKey) encode() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(k.PrivateKey) }

// EnsureKey has edges told the thumbprint of the key of ACME accounts, which the first control
// plane of a deployment makes.
func EnsureKey(ctx context.Context, s *store.Store) error {
	_, err := ensureKey(ctx, s, nil)
	return err
}

// ensureKey is [EnsureKey]. The thumbprint that edges are told is mended with the fence alone,
// because whoever has none may have read the key before it changed.
func ensureKey(ctx context.Context, s *store.Store, fence *store.Fence) (accountKey, error) {
	made, err := makeKey()
	if err != nil {
		return accountKey{}, err
	}
	stored, err := s.FirstACME(ctx, keyName, made)
	if err != nil {
		return accountKey{}, fmt.Errorf("read the key of ACME accounts: %w", err)
	}
	key, err := parseKey(stored)
	if err != nil {
		return accountKey{}, err
	}
	_, err = s.ChangeSettings(ctx, fence, func(settings *topologyv1.Settings) {
		if settings.AcmeThumbprint == "" || fence != nil {
			settings.AcmeThumbprint = key.thumbprint
		}
	})
	return key, err
}
