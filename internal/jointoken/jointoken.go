// Package jointoken is the text of the tokens with which edges join. Control planes make them,
// edges present them; what they are good for is the business of both.
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// Token is a join token. Its text is `ewj1_{id}_{secret}_{authority}_{sum}`, in lower case, so that
// scanners for secrets find it by its prefix, and a token that was cut or mistyped is recognised at
// once.
type Token struct {
	// ID names the token. It is no secret.
	ID string
	// Secret is what its holder knows, 160 random bits.
	Secret [20]byte
	// Authority is the SHA-256 of the certificate of the authority that the control planes are
	// known by.
	Authority [sha256.Size]byte
}

const prefix = "ewj1"

// text is base32 (RFC 4648, section 6) in lower case, without padding.
var text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ErrMalformed says that a text is no join token.
var ErrMalformed = errors.New("it is no join token: that is a line of `ewj1_` and more, as `edgewalk edges join-token` prints it")

// New returns a token with a new secret.
func New(authority [sha256.Size]byte) Token {
	t := Token{ID: strings.ToLower(rand.Text()[:10]), Authority: authority}
	rand.Read(t.Secret[:])
	return t
}

// String returns the text of the token.
func (t Token) String() string {
	body := prefix + "_" + t.ID + "_" + text.EncodeToString(t.Secret[:]) + "_" + text.EncodeToString(t.Authority[:])
	return body + "_" + sum(body)
}

// GoString keeps the secret out of what is printed for debugging.
func (t Token) GoString() string { return "jointoken.Token(" + t.ID + ")" }

func sum(body string) string {
	return text.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body))))
}

// Parse reads a token. Space around it does not count.
func Parse(s string) (Token, error) {
	s = strings.TrimSpace(s)
	body, check := s[:max(strings.LastIndexByte(s, '_'), 0)], s[strings.LastIndexByte(s, '_')+1:]
	parts := strings.Split(body, "_")
	if len(parts) != 4 || parts[0] != prefix || len(parts[1]) != 10 || check != sum(body) {
		return Token{}, ErrMalformed
	}
	t := Token{ID: parts[1]}
	if !decode(t.Secret[:], parts[2]) || !decode(t.Authority[:], parts[3]) ||
		strings.Trim(t.ID, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return Token{}, ErrMalformed
	}
	return t, nil
}

func decode(to []byte, s string) bool {
	if text.DecodedLen(len(s)) != len(to) {
		return false
	}
	n, err := text.Decode(to, []byte(s))
	return err == nil && n == len(to)
}

// ServerName is the name that control planes answer to under an authority: what edges ask for in
// the handshake (RFC 6066 3), and what the certificate that they are shown is for. It lies below a
// domain for private use, so that no other authority signs it.
func ServerName(authority [sha256.Size]byte) string {
	const digits = "0123456789abcdef"
	var name [16]byte
	for i := range 8 {
		name[2*i], name[2*i+1] = digits[authority[i]>>4], digits[authority[i]&15]
	}
	return string(name[:]) + Domain
}

// Domain is what each [ServerName] ends with.
const Domain = ".edgewalk.internal"
