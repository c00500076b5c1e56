package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxHostBytes is the longest name in DNS without the trailing dot (RFC 1035 2.3.4), maxLabelBytes
// the longest label. maxUnicodeBytes is about what maxHostBytes can stand for in UTF-8; more is
// refused before it is mapped, because Punycode takes time quadratic in the length.
const (
	maxHostBytes    = 253
	maxLabelBytes   = 63
	maxUnicodeBytes = 1024
)

var (
	errHostEmpty = errors.New("the host is empty")
	errHostPort  = errors.New("the host's port is not a number up to 65535")
	errHostIPv6  = errors.New("the host is not an IPv6 address in brackets")
	errHostLabel = errors.New("the host has an empty label or one over 63 bytes")
	errHostLong  = errors.New("the host is longer than 253 bytes")
	errHostBytes = errors.New("the host has a character that no host name has")
)

// hostProfile is the look-up profile of UTS 46, non-transitional as browsers use it, that lets "_"
// and hyphens in any place pass: clients do send such names. What else it lets pass is refused by
// [plainHost].
var hostProfile = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.Transitional(false),
	idna.CheckHyphens(false),
	idna.StrictDomainName(false),
)

// CanonicalHost is the form in which hosts are compared: without port, in lower case, IDNA as
// ASCII, without the trailing dot. An IPv6 address keeps its brackets. It returns a part of raw
// when that is canonical.
func CanonicalHost(raw string) (string, error) {
	host, _, err := SplitHost(raw)
	return host, err
}

// SplitHost is [CanonicalHost] that returns the port too, empty if there is none.
func SplitHost(raw string) (host, port string, err error) {
	if strings.HasPrefix(raw, "[") {
		return splitIPv6(raw)
	}
	host, port, found := strings.Cut(raw, ":")
	if found && !validPort(port) {
		return "", "", errHostPort
	}
	host, err = CanonicalName(host)
	return host, port, err
}

func splitIPv6(raw string) (host, port string, err error) {
	end := strings.IndexByte(raw, ']')
	if end < 0 {
		return "", "", errHostIPv6
	}
	if rest := raw[end+1:]; rest != "" {
		if rest[0] != ':' || !validPort(rest[1:]) {
			return "", "", errHostPort
		}
		port = rest[1:]
	}
	addr, err := netip.ParseAddr(raw[1:end])
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return "", "", errHostIPv6
	}
	return "[" + addr.String() + "]", port, nil
}

// validPort takes an empty port, as RFC 3986 3.2.3 does.
func validPort(port string) bool {
	n := 0
	for i := 0; i < len(port); i++ {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
		if n = n*10 + int(port[i]-'0'); n > 65535 {
			return false
		}
	}
	return true
}

// CanonicalName is [CanonicalHost] for a name that has no port.
func CanonicalName(name string) (string, error) {
	trimmed := strings.TrimSuffix(name, ".")
	if plainHost(trimmed) && !hasPunycode(trimmed) {
		return checkLabels(trimmed)
	}
	if len(trimmed) > maxUnicodeBytes {
		return "", errHostLong
	}
	if !utf8.ValidString(trimmed) {
		return "", errHostBytes
	}
	mapped, err := hostProfile.ToASCII(trimmed)
	if err != nil {
		return "", fmt.Errorf("the host is not a valid international name: %w", err)
	}
	// An ideographic full stop at the end has become a dot only by the mapping.
	mapped = strings.TrimSuffix(mapped, ".")
	if mapped != "" && !plainHost(mapped) {
		return "", errHostBytes
	}
	return checkLabels(mapped)
}

func checkLabels(name string) (string, error) {
	if name == "" {
		return "", errHostEmpty
	}
	if len(name) > maxHostBytes {
		return "", errHostLong
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			if i == start || i-start > maxLabelBytes {
				return "", errHostLabel
			}
			start = i + 1
		}
	}
	return name, nil
}

// plainHost says whether a name needs no mapping: ASCII in lower case, of the characters that names
// of hosts have.
func plainHost(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}

// hasPunycode says whether a label begins with "xn--", so that it must be decoded to know that it
// is valid.
func hasPunycode(name string) bool {
	return strings.HasPrefix(name, "xn--") || strings.Contains(name, ".xn--")
}

// IsLocal reports whether a canonical host is `localhost` or a name below it: each machine's name
// for itself (RFC 6761 6.3), whatever DNS says.
func IsLocal(host string) bool { return host == "localhost" || strings.HasSuffix(host, ".localhost") }

// IsAddress reports whether a canonical host is an IP address, or a name that many programs would
// read as one.
func IsAddress(host string) bool {
	if strings.HasPrefix(host, "[") {
		return true
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last != "" && (last[0] < '0' || last[0] > '9') {
		return false // as is nearly every name, millions of which are checked when an edge starts
	}
	return strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")
}

// ParseSharedHost reads `host[:port]` of the settings. The port counts only in URLs that are shown.
func ParseSharedHost(raw string) (host, port string, err error) {
	host, port, err = SplitHost(raw)
	if err != nil {
		return "", "", fmt.Errorf("shared host %q: %w", raw, err)
	}
	return host, port, nil
}

// AllowedHost is how allowed_hosts of a web proxy list a server, by its scheme, its host in
// canonical form and its port, which may be empty: https at its default port is not written out.
func AllowedHost(scheme, host, port string) string {
	port = strings.TrimLeft(port, "0")
	switch {
	case port == "443" && scheme == "https", port == "80" && scheme == "http":
		port = ""
	case port != "":
		port = ":" + port
	}
	if scheme == "https" {
		return host + port
	}
	return scheme + "://" + host + port
}
