package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// identity is the key pair of a process. It lives in memory only; what others know of it is the
// hash of its certificate.
type identity struct {
	pair tls.Certificate
	hash string
}

func newIdentity() (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key for other control planes: %w", err)
	}
	// Only the hash counts; RFC 5280 4.1.2.5 gives this date to certificates that do not end.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0),
		NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for other control planes: %w", err)
	}
	return &identity{pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, hash: hashOf(der)}, nil
}

func hashOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

var errStranger = errors.New("the certificate is that of no control plane that etcd knows")

// tls is for one end of a connection. trusted says whether a certificate with a hash is the other
// end's.
func (i *identity) tls(trusted func(hash string) bool) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{i.pair},
		MinVersion:         tls.VersionTLS13,
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // VerifyConnection is stricter: it takes one certificate only.
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 || !trusted(hashOf(state.PeerCertificates[0].Raw)) {
				return errStranger
			}
			return nil
		},
		SessionTicketsDisabled: true,
	}
}
