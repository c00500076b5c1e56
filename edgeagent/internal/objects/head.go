package objects

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
)

// Key is a primary key: a hash, made by the caller, of everything by which one file differs from
// another (account uid, endpoint uid, canonical path, kept query, host if it counts). Its bits must
// be evenly spread.
type Key [16]byte

// Head is what a reply is, without its body. A Head that came out of the store is shared: nobody
// may change it.
type Head struct {
	Status int
	// Fields is the response header, a field list (see [field.Append]).
	Fields []byte
	// Selecting is the request header values this variant was selected by, a field list; empty
	// without Vary. A new object takes the place of the one with the same key and byte-equal
	// Selecting.
	Selecting []byte
	// RequestTime and ResponseTime are when the request left and the reply came, for Age (RFC 9111
	// 4.2.3).
	RequestTime, ResponseTime time.Time
	// Meta is the caller's own record about the reply, opaque to the store.
	Meta []byte
	// Decoded is what Config.Decode has made of the head. It is not stored.
	Decoded any
	// Length of the body in bytes, -1 while unknown. The Head of an [Entry] always knows it.
	Length int64
	// Scope is what purges can address, which the store only keeps.
	Scope purges.Scope
	// Asof is the revision that was applied when the walk began which brought this reply.
	Asof int64
}

// maxHeadBytes bounds an encoded head. Servers cap response headers far below (nginx 8 KiB,
// net/http 1 MiB by default); a reply beyond it is served but not stored.
const maxHeadBytes = 256 << 10

var errTooManyTags = fmt.Errorf("more than %d tags", purges.MaxTags)

// check finds more tags than purges look at, and a length that is none. Whether the lists are some
// is seen when the head is decoded, before an object has its name.
func (h *Head) check() error {
	switch {
	case len(h.Scope.Tags) > purges.MaxTags:
		return errTooManyTags
	case h.Length < -1:
		return fmt.Errorf("body length %d", h.Length)
	}
	return nil
}

// encodedBytes is how much appendHead appends.
func (h *Head) encodedBytes() int {
	s := &h.Scope
	n := varintBytes(int64(h.Status)) + varintBytes(h.RequestTime.UnixNano()) +
		varintBytes(h.ResponseTime.UnixNano()) + varintBytes(h.Asof) + uvarintBytes(uint64(len(s.Tags)))
	for _, length := range [...]int{
		len(h.Fields), len(h.Selecting), len(h.Meta), len(s.Account), len(s.Endpoint), len(s.Path), len(s.Query),
	} {
		n += uvarintBytes(uint64(length)) + length
	}
	for _, tag := range s.Tags {
		n += uvarintBytes(uint64(len(tag))) + len(tag)
	}
	return n
}

// varintBytes is how much [binary.AppendVarint] appends.
func varintBytes(v int64) int { return uvarintBytes(uint64(v<<1) ^ uint64(v>>63)) }

// uvarintBytes is how much [binary.AppendUvarint] appends: a byte for each 7 bits.
func uvarintBytes(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// appendHead encodes h. Length is not in it: the trailer says it.
func appendHead(b []byte, h *Head) []byte {
	// An object keeps the memory, so there is not much more of it than it takes.
	b = slices.Grow(b, h.encodedBytes())
	b = binary.AppendVarint(b, int64(h.Status))
	b = binary.AppendVarint(b, h.RequestTime.UnixNano())
	b = binary.AppendVarint(b, h.ResponseTime.UnixNano())
	b = binary.AppendVarint(b, h.Asof)
	b = field.AppendBytes(b, h.Fields)
	b = field.AppendBytes(b, h.Selecting)
	b = field.AppendBytes(b, h.Meta)
	b = field.AppendBytes(b, h.Scope.Account)
	b = field.AppendBytes(b, h.Scope.Endpoint)
	b = field.AppendBytes(b, h.Scope.Path)
	b = field.AppendBytes(b, h.Scope.Query)
	b = binary.AppendUvarint(b, uint64(len(h.Scope.Tags)))
	for _, t := range h.Scope.Tags {
		b = field.AppendBytes(b, t)
	}
	return b
}

var errBadHead = errors.New("malformed head")

// parseHead decodes what appendHead wrote. The Head aliases b.
func parseHead(b []byte) (Head, error) {
	var h Head
	var nums [4]int64
	for i := range nums {
		v, w := binary.Varint(b)
		if w <= 0 {
			return Head{}, errBadHead
		}
		nums[i], b = v, b[w:]
	}
	h.Status, h.Asof, h.Length = int(nums[0]), nums[3], -1
	h.RequestTime, h.ResponseTime = time.Unix(0, nums[1]), time.Unix(0, nums[2])
	var ok bool
	for _, p := range []*[]byte{&h.Fields, &h.Selecting, &h.Meta} {
		if *p, b, ok = field.CutBytes(b); !ok {
			return Head{}, errBadHead
		}
	}
	for _, s := range []*string{&h.Scope.Account, &h.Scope.Endpoint, &h.Scope.Path, &h.Scope.Query} {
		if *s, b, ok = field.CutString(b); !ok {
			return Head{}, errBadHead
		}
	}
	tags, w := binary.Uvarint(b)
	if w <= 0 || tags > purges.MaxTags {
		return Head{}, errBadHead
	}
	b = b[w:]
	for range tags {
		var t string
		if t, b, ok = field.CutString(b); !ok {
			return Head{}, errBadHead
		}
		h.Scope.Tags = append(h.Scope.Tags, t)
	}
	if len(b) != 0 || h.check() != nil || !field.Valid(h.Fields) || !field.Valid(h.Selecting) {
		return Head{}, errBadHead
	}
	return h, nil
}
