package adminsvc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"google.golang.org/protobuf/proto"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// maxPageBytes ends a page early. gRPC clients take messages of 4 MiB by default.
	maxPageBytes = 2 << 20
)

// page is one page of a list: where it begins and how much it may hold.
type page struct {
	after string
	limit int
	bound []byte
	bytes int
}

// newPage reads a request for a page. what is everything that must be the same from page to page.
func newPage(size int32, token string, what ...string) (*page, error) {
	sum := sha256.Sum256([]byte(strings.Join(what, "\x00")))
	p := &page{limit: int(size), bound: sum[:8]}
	if p.limit == 0 {
		p.limit = defaultPageSize
	}
	p.limit = min(p.limit, maxPageSize)
	if token == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) <= len(p.bound) || !bytes.HasPrefix(raw, p.bound) {
		f := fail(kindInvalidPageToken, "page_token: not a token of this request: take next_page_token of the page before, and change nothing but page_size")
		f.fields = []fieldFault{{"page_token", "not a token of this request"}}
		return nil, f
	}
	p.after = string(raw[len(p.bound):])
	return p, nil
}

// token is the token of the page after the one that ends with last.
func (p *page) token(last string) string {
	return base64.RawURLEncoding.EncodeToString(append(bytes.Clone(p.bound), last...))
}

// full counts a resource of the page and reports whether it was the last that fits.
func (p *page) full(m proto.Message) bool {
	p.bytes += proto.Size(m)
	return p.bytes >= maxPageBytes
}
