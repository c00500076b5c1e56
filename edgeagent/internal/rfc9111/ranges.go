package rfc9111

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// maxRanges is how many ranges one request may name. More is answered with the whole file, as RFC
// 9110 14.2 allows, because each costs a part's headers and a seek.
const maxRanges = 16

// ByteRange is Length bytes from Start, of a file whose size is known.
type ByteRange struct{ Start, Length int64 }

// RangeSpec is one member of a Range field. Last is -1 if open ("500-"); a suffix ("-500") has
// First -1 and its length in Last.
type RangeSpec struct{ First, Last int64 }

// RangeResult is what a Range field leads to.
type RangeResult uint8

const (
	// RangeIgnored: answer with the whole file.
	RangeIgnored RangeResult = iota
	// RangeSatisfiable: answer 206.
	RangeSatisfiable
	// RangeUnsatisfiable: answer 416.
	RangeUnsatisfiable
)

// ParseRange reads a Range field, into the memory of specs. It returns none, which means to ignore
// the field, if the unit is not bytes, the syntax is wrong anywhere, or there are more than 16
// ranges.
func ParseRange(value string, specs []RangeSpec) []RangeSpec {
	specs = specs[:0]
	unit, list, ok := strings.Cut(value, "=")
	if !ok || !strings.EqualFold(field.Trim(unit), "bytes") {
		return specs
	}
	for item := range strings.SplitSeq(list, ",") {
		item = field.Trim(item)
		if item == "" {
			continue
		}
		spec, ok := parseSpec(item)
		if !ok || len(specs) == maxRanges {
			return specs[:0]
		}
		specs = append(specs, spec)
	}
	return specs
}

func parseSpec(item string) (RangeSpec, bool) {
	first, last, ok := strings.Cut(item, "-")
	if !ok {
		return RangeSpec{}, false
	}
	spec := RangeSpec{First: -1, Last: -1}
	if first != "" {
		if spec.First, ok = parsePosition(first); !ok {
			return spec, false
		}
	}
	if last != "" {
		if spec.Last, ok = parsePosition(last); !ok {
			return spec, false
		}
	}
	if first == "" {
		return spec, last != ""
	}
	return spec, last == "" || spec.First <= spec.Last
}

// parsePosition reads digits only; strconv alone would take a sign. A position past any file
// saturates.
func parsePosition(s string) (int64, bool) {
	if !isDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}

// Resolve applies specs to a file of size bytes, in the memory of out. Unsatisfiable members are
// left out; if none is left the result is [RangeUnsatisfiable]. Ranges that overlap or touch are
// joined, others keep the client's order (RFC 9110 15.3.7.2).
func Resolve(specs []RangeSpec, size int64, out []ByteRange) ([]ByteRange, RangeResult) {
	out = out[:0]
	if len(specs) == 0 {
		return out, RangeIgnored
	}
	for _, s := range specs {
		if r, ok := s.resolve(size); ok {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return out, RangeUnsatisfiable
	}
	return join(out), RangeSatisfiable
}

func (s RangeSpec) resolve(size int64) (ByteRange, bool) {
	if s.First < 0 {
		n := min(s.Last, size)
		return ByteRange{size - n, n}, n > 0
	}
	if s.First >= size {
		return ByteRange{}, false
	}
	end := size - 1
	if s.Last >= 0 && s.Last < end {
		end = s.Last
	}
	return ByteRange{s.First, end - s.First + 1}, true
}

// join merges what overlaps or touches, so that no byte is sent twice for one request.
func join(in []ByteRange) []ByteRange {
	if len(in) < 2 {
		return in
	}
	sorted := slices.Clone(in)
	slices.SortFunc(sorted, func(a, b ByteRange) int { return cmp.Compare(a.Start, b.Start) })
	out := sorted[:1]
	for _, r := range sorted[1:] {
		last := &out[len(out)-1]
		if r.Start > last.Start+last.Length {
			out = append(out, r)
			continue
		}
		last.Length = max(last.Length, r.Start+r.Length-last.Start)
	}
	if len(out) == len(in) {
		return in
	}
	return out
}

// AppendContentRange appends "bytes 0-9/100", or "bytes 0-9/*" for a size below 0: it is not known.
func (r ByteRange) AppendContentRange(dst []byte, size int64) []byte {
	dst = append(dst, "bytes "...)
	dst = strconv.AppendInt(dst, r.Start, 10)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, r.Start+r.Length-1, 10)
	dst = append(dst, '/')
	if size < 0 {
		return append(dst, '*')
	}
	return strconv.AppendInt(dst, size, 10)
}

// AppendUnsatisfied appends "bytes */100", the Content-Range of a 416.
func AppendUnsatisfied(dst []byte, size int64) []byte {
	return strconv.AppendInt(append(dst, "bytes */"...), size, 10)
}

// ParseContentRange reads "bytes 0-9/100"; size is -1 if it is "*".
func ParseContentRange(value string) (r ByteRange, size int64, ok bool) {
	unit, rest, _ := strings.Cut(field.Trim(value), " ")
	span, total, found := strings.Cut(field.Trim(rest), "/")
	first, last, dash := strings.Cut(span, "-")
	if !found || !dash || !strings.EqualFold(unit, "bytes") {
		return r, 0, false
	}
	start, ok1 := parsePosition(first)
	end, ok2 := parsePosition(last)
	size = -1
	ok3 := total == "*"
	if !ok3 {
		size, ok3 = parsePosition(total)
	}
	if !ok1 || !ok2 || !ok3 || end < start || end == 1<<63-1 || size >= 0 && end >= size {
		return r, 0, false
	}
	return ByteRange{start, end - start + 1}, size, true
}
