package topology

import (
	"slices"
	"strings"
)

// KeepQuery is the part of a raw query, without "?", that names a file under a policy: byte for
// byte as the client sent it, parameters in the client's order.
//
// The name of a parameter is compared decoded as a form is ("%5B" is "[", "+" a space), because
// that is how an origin will read it; one with a broken escape is compared as it stands. Parameters
// without a name or value count by what stands before "=".
func KeepQuery(policy *CachePolicy, raw string) string {
	switch policy.QueryMode {
	case QueryNone:
		return ""
	case QueryList:
		return listedQuery(policy.QueryNames, raw)
	}
	return raw
}

func listedQuery(names []string, raw string) string {
	if raw == "" {
		return ""
	}
	var kept []byte
	all := true
	for parameter := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if parameter == "" || !slices.Contains(names, decodeName(name)) {
			all = false
			continue
		}
		if len(kept) > 0 {
			kept = append(kept, '&')
		}
		kept = append(kept, parameter...)
	}
	if all {
		return raw
	}
	return string(kept)
}

func decodeName(name string) string {
	if !strings.ContainsAny(name, "%+") {
		return name
	}
	decoded, ok := decodeOnce(strings.ReplaceAll(name, "+", " "))
	if !ok {
		return name
	}
	return decoded
}

// validQuery refuses what no client may send in a request target: control characters and spaces
// would end up in requests to origins.
func validQuery(raw string) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] <= 0x20 || raw[i] == 0x7f {
			return false
		}
	}
	return true
}
