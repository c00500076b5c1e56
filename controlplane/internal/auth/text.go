package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"hash/crc32"
	"strings"
)

// A token's text is `ew1_{id}_{random}_{checksum}`: ten characters of a-z and 2-7, 32 of them, and
// eight hexadecimal digits. The prefix and the checksum, CRC-32 (IEEE) of what stands before its
// underscore, let secret scanners know it
// (https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/),
// and let most mistakes be found before anything is looked up.
const (
	textPrefix = "ew1_"
	idLength   = 10
	randomLen  = 32 // of base32, 160 bits
	textLength = len(textPrefix) + idLength + 1 + randomLen + 1 + 8
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newText makes a token's text.
func newText() (text, id string) {
	id = strings.ToLower(rand.Text()[:idLength])
	var random [20]byte
	_, _ = rand.Read(random[:]) // It never fails.
	text = textPrefix + id + "_" + encoding.EncodeToString(random[:])
	return fmt.Sprintf("%s_%08x", text, crc32.ChecksumIEEE([]byte(text))), id
}

// idOf returns the id in a token's text, unless it is none.
func idOf(text string) (id string, ok bool) {
	if len(text) != textLength || !strings.HasPrefix(text, textPrefix) {
		return "", false
	}
	body, sum := text[:textLength-9], text[textLength-8:]
	if text[textLength-9] != '_' || body[len(textPrefix)+idLength] != '_' ||
		fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body))) != sum {
		return "", false
	}
	return body[len(textPrefix) : len(textPrefix)+idLength], true
}

// IsText reports whether a text has the form and checksum of a token.
func IsText(text string) bool {
	_, ok := idOf(text)
	return ok
}

func hashOf(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }
