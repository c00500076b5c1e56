package rfc9111

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// ParseVary returns the selecting field names of a reply, in lower case, sorted, each once. star is
// true if "*" stands anywhere, or what is no field name (RFC 9110 12.5.5): nobody knows what such a
// reply was selected by, so it matches no other request.
func ParseVary(lines []string) (names []string, star bool) {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.ToLower(field.Trim(name))
			switch {
			case name == "":
			case name == "*" || !field.IsToken(name):
				star = true
			default:
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), star
}

// Selecting returns the value by which a request selects its variant, for one name of [ParseVary].
// Two requests select the same variant if all their values are equal; a field that is absent
// differs from one that is empty.
//
// header must give the request as it would be sent to the origin, not as the client sent it: a
// field that no origin sees cannot have selected anything.
func Selecting(name string, header Fields) (value string, present bool) {
	lines := header(field.Canonical(name))
	if len(lines) == 0 {
		return "", false
	}
	value = Normalise(name, lines)
	if credentials(name) {
		sum := sha256.Sum256([]byte(value))
		value = hex.EncodeToString(sum[:])
	}
	return value, true
}

// credentials reports whether a request field says who its client is. What is stored holds no more
// than a hash of it.
func credentials(name string) bool {
	return strings.EqualFold(name, "authorization") || strings.EqualFold(name, "cookie")
}

// Normalise folds the differences in a request field that do not change what it asks for: spaces
// around values and the commas between them, and for the fields of content negotiation also case
// and the order of the list. Credentials count to the byte.
func Normalise(name string, lines []string) string {
	switch {
	case strings.EqualFold(name, "accept-encoding"):
		return NormaliseAcceptEncoding(lines)
	case strings.EqualFold(name, "accept"):
		return NormaliseAccept(lines)
	case strings.EqualFold(name, "accept-language"):
		return normaliseList(lines)
	}
	value := field.Trim(lines[0])
	if len(lines) > 1 {
		value = field.Trim(strings.Join(lines, ","))
	}
	if credentials(name) || strings.IndexByte(value, ',') < 0 {
		return value
	}
	return foldCommas(value)
}

// foldCommas takes away the spaces around the commas of a list, but for those in quoted strings.
func foldCommas(list string) string {
	b := make([]byte, 0, len(list))
	quoted, afterComma := false, false
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case quoted && c == '\\' && i+1 < len(list):
			b = append(b, c)
			i++
			c = list[i]
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',':
			for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
				b = b[:len(b)-1]
			}
		case afterComma && (c == ' ' || c == '\t'):
			continue
		}
		afterComma = c == ',' && !quoted
		b = append(b, c)
	}
	return string(b)
}

// NormaliseAcceptEncoding reduces Accept-Encoding to the codings worth a variant, in one order: a
// subset of br, zstd, gzip, or else identity. A client that sends none gets identity, because it
// may not decode anything.
func NormaliseAcceptEncoding(lines []string) string { return encodings[acceptedEncodings(lines)] }

func acceptedEncodings(lines []string) uint8 {
	const br, zstd, gzip = 1, 2, 4
	var accepted, named uint8
	star := false
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			coding, params, _ := strings.Cut(item, ";")
			coding = field.Trim(coding)
			wanted := !zeroWeight(params)
			var bit uint8
			switch {
			case strings.EqualFold(coding, "br"):
				bit = br
			case strings.EqualFold(coding, "zstd"):
				bit = zstd
			case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
				bit = gzip
			case coding == "*":
				star = star || wanted
			}
			named |= bit
			if wanted {
				accepted |= bit
			}
		}
	}
	if star {
		accepted |= (br | zstd | gzip) &^ named
	}
	return accepted
}

var encodings = [8]string{"identity", "br", "zstd", "br, zstd", "gzip", "br, gzip", "zstd, gzip", "br, zstd, gzip"}

// NormaliseAccept reduces Accept to the types worth a variant, those of images and videos that a
// client cannot be expected to take, and "*/*", in one order. Only a type that is named counts:
// wildcards say nothing about whether a client takes it. A client that sends none takes every type
// (RFC 9110 12.5.1), and none is refused for what it does not take: an edge has the file that it
// was asked for, or not.
func NormaliseAccept(lines []string) string { return accepts[acceptedTypes(lines)] }

func acceptedTypes(lines []string) int {
	accepted := 0
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(item, ";")
			media = field.Trim(media)
			for i, name := range negotiated {
				if strings.EqualFold(media, name) && !zeroWeight(params) {
					accepted |= 1 << i
				}
			}
		}
	}
	return accepted
}

// negotiations are what [Negotiation] returns, by the sets of codings and of types.
var negotiations = func() (all [len(encodings)][len(accepts)]field.Map) {
	for c := range all {
		for t := range all[c] {
			all[c][t] = field.Map{"Accept-Encoding": encodings[c : c+1 : c+1], "Accept": accepts[t : t+1 : t+1]}
		}
	}
	return all
}()

// Negotiation returns a header of the Accept-Encoding and the Accept of a request alone, both
// normalised. Nobody may change it.
func Negotiation(request Fields) field.Map {
	return negotiations[acceptedEncodings(request("Accept-Encoding"))][acceptedTypes(request("Accept"))]
}

// Named reports whether a media type is one of those that [NormaliseAccept] keeps, and an Accept
// that it returned holds it.
func Named(accept, media string) bool {
	if !slices.Contains(negotiated[:], media) {
		return false
	}
	for item := range strings.SplitSeq(accept, ",") {
		if item == media {
			return true
		}
	}
	return false
}

// negotiated are the types that origins choose by Accept.
var negotiated = [...]string{"image/avif", "image/jxl", "image/webp", "video/mp4", "video/webm"}

// accepts holds what NormaliseAccept returns, by the set of the types.
var accepts = func() (all [1 << len(negotiated)]string) {
	for set := range all {
		var members []string
		for i, name := range negotiated {
			if set&(1<<i) != 0 {
				members = append(members, name)
			}
		}
		all[set] = strings.Join(append(members, "*/*"), ",")
	}
	return all
}()

// zeroWeight reports whether the parameters hold q=0, in any of its spellings.
func zeroWeight(params string) bool {
	for params != "" {
		var p string
		p, params, _ = strings.Cut(params, ";")
		p = field.Trim(p)
		if len(p) > 2 && (p[0] == 'q' || p[0] == 'Q') && p[1] == '=' {
			return strings.Trim(p[2:], "0.") == ""
		}
	}
	return false
}

// normaliseList lower-cases a list and sorts its members: their order means nothing where weights
// do (RFC 9110 12.4.2).
func normaliseList(lines []string) string {
	var members []string
	for _, line := range lines {
		for member := range strings.SplitSeq(strings.ToLower(line), ",") {
			member = strings.Map(func(r rune) rune {
				if r == ' ' || r == '\t' {
					return -1
				}
				return r
			}, member)
			if member != "" {
				members = append(members, member)
			}
		}
	}
	slices.Sort(members)
	return strings.Join(slices.Compact(members), ",")
}
