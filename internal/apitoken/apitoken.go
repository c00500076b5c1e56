// Package apitoken is the text of the tokens that admins, programs and edges present. Control
// planes make them and know whose they are.
package apitoken

import (
	"crypto/rand"
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
	prefix = "ew1_"
	// IDLength is the length of a token's id in bytes.
	IDLength  = 10
	randomLen = 32 // of base32, 160 bits
	length    = len(prefix) + IDLength + 1 + randomLen + 1 + 8
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// New makes a token's text.
func New() (text, id string) {
	id = strings.ToLower(rand.Text()[:IDLength])
	var random [20]byte
	_, _ = rand.Read(random[:]) // It never fails.
	text = prefix + id + "_" + encoding.EncodeToString(random[:])
	return fmt.Sprintf("%s_%08x", text, crc32.ChecksumIEEE([]byte(text))), id
}

// ID returns the id in a token's text. It is not ok for a text without the form and checksum of a
// token.
func ID(text string) (id string, ok bool) {
	if len(text) != length || !strings.HasPrefix(text, prefix) {
		return "", false
	}
	body, sum := text[:length-9], text[length-8:]
	if text[length-9] != '_' || body[len(prefix)+IDLength] != '_' ||
		fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body))) != sum {
		return "", false
	}
	return body[len(prefix) : len(prefix)+IDLength], true
}
