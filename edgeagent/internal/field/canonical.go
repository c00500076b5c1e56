package field

// Canonical returns a field name in canonical form: its first letter, and each one behind a hyphen,
// in upper case, the others in lower case ("Content-Type"). A name that is no token (RFC 9110 5.1)
// is returned as it is.
func Canonical(name string) string {
	same, upper := true, true
	for i := range len(name) {
		c := name[i]
		if !isToken(c) {
			return name
		}
		same = same && (!upper || !isLower(c)) && (upper || !isUpper(c))
		upper = c == '-'
	}
	if same {
		return name
	}
	switch name { // what nearly every Vary names allocates nothing
	case "accept-encoding":
		return "Accept-Encoding"
	case "accept":
		return "Accept"
	case "accept-language":
		return "Accept-Language"
	case "origin":
		return "Origin"
	case "user-agent":
		return "User-Agent"
	}
	return canonical(name)
}

func canonical(name string) string {
	b := []byte(name)
	upper := true
	for i, c := range b {
		switch {
		case upper && isLower(c):
			b[i] = c - 'a' + 'A'
		case !upper && isUpper(c):
			b[i] = c - 'A' + 'a'
		}
		upper = c == '-'
	}
	return string(b)
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// isToken reports whether c may be part of a token (RFC 9110 5.6.2).
func isToken(c byte) bool { return tokens[c] }

var tokens = func() (set [256]bool) {
	for c := range set {
		set[c] = isLower(byte(c)) || isUpper(byte(c)) || '0' <= c && c <= '9'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		set[c] = true
	}
	return set
}()
