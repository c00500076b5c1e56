package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
)

// jwk is a key on P-256 (RFC 7518 6.2).
type jwk struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

// thumbprint is that of RFC 7638.
func (k jwk) thumbprint() string {
	text := fmt.Sprintf(`{"crv":%q,"kty":%q,"x":%q,"y":%q}`, k.Crv, k.Kty, k.X, k.Y)
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (k jwk) public() (*ecdsa.PublicKey, error) {
	x, xErr := base64.RawURLEncoding.DecodeString(k.X)
	y, yErr := base64.RawURLEncoding.DecodeString(k.Y)
	if k.Kty != "EC" || k.Crv != "P-256" || xErr != nil || yErr != nil || len(x) != 32 || len(y) != 32 {
		return nil, errors.New("want a key on P-256")
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
}

// signed is a request whose signature was checked (RFC 8555 6.2).
type signed struct {
	payload []byte
	jwk     *jwk   // of a new account
	account string // the URL of the account, else
}

// open checks who has signed a request, that it is for this URL, and that it has not come before.
func (a *Authority) open(body []byte, url string) (*signed, *problem) {
	malformed := func(detail string) (*signed, *problem) {
		return nil, refuse(http.StatusBadRequest, "malformed", detail)
	}
	var outer struct{ Protected, Payload, Signature string }
	if err := json.Unmarshal(body, &outer); err != nil {
		return malformed("the request is no JWS")
	}
	head, headErr := base64.RawURLEncoding.DecodeString(outer.Protected)
	payload, payloadErr := base64.RawURLEncoding.DecodeString(outer.Payload)
	signature, signatureErr := base64.RawURLEncoding.DecodeString(outer.Signature)
	var protected struct {
		Alg, Nonce, URL, Kid string
		JWK                  *jwk
	}
	if errors.Join(headErr, payloadErr, signatureErr) != nil || json.Unmarshal(head, &protected) != nil {
		return malformed("the request is no JWS")
	}
	s := &signed{payload: payload, jwk: protected.JWK, account: protected.Kid}
	key := protected.JWK
	a.mu.Lock()
	known := a.nonces[protected.Nonce]
	delete(a.nonces, protected.Nonce)
	if who, ok := a.accounts[protected.Kid]; ok && key == nil {
		key = &who.key
	}
	a.mu.Unlock()
	switch {
	case !known:
		return nil, refuse(http.StatusBadRequest, "badNonce", "the nonce is not known, or was used")
	case protected.Alg != "ES256":
		return nil, refuse(http.StatusBadRequest, "badSignatureAlgorithm", "want ES256")
	case protected.URL != url:
		return nil, refuse(http.StatusForbidden, "unauthorized", "the request was signed for another URL")
	case key == nil:
		return nil, refuse(http.StatusBadRequest, "accountDoesNotExist", "there is no such account")
	case protected.JWK != nil && protected.Kid != "":
		return malformed("a request has a key or an account")
	}
	public, err := key.public()
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "badPublicKey", err.Error())
	}
	sum := sha256.Sum256([]byte(outer.Protected + "." + outer.Payload))
	if len(signature) != 64 || !ecdsa.Verify(public, sum[:],
		new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return nil, refuse(http.StatusForbidden, "unauthorized", "the signature is wrong")
	}
	return s, nil
}
