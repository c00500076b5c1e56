package field

// IsToken reports whether s is a token (RFC 9110 5.6.2), as field names are.
func IsToken[T string | []byte](s T) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

// IsTokenByte reports whether c may be part of a token.
func IsTokenByte(c byte) bool { return tokens[c] }

var tokens = func() (set [256]bool) {
	for c := range set {
		set[c] = isLower(byte(c)) || isUpper(byte(c)) || '0' <= c && c <= '9'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		set[c] = true
	}
	return set
}()

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// Trim cuts the optional white space around a value: spaces and tabs (OWS in RFC 9110 5.6.3).
func Trim(s string) string { return TrimRight(TrimLeft(s)) }

// TrimLeft is [Trim] for what is before the value.
func TrimLeft(s string) string {
	for s != "" && isBlank(s[0]) {
		s = s[1:]
	}
	return s
}

// TrimRight is [Trim] for what is behind the value.
func TrimRight(s string) string {
	for s != "" && isBlank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }
