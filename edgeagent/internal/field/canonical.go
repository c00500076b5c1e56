package field

// Canonical returns a field name in canonical form: its first letter, and each one behind a hyphen,
// in upper case, the others in lower case ("Content-Type"). A name that is no token (RFC 9110 5.1)
// is returned as it is.
func Canonical(name string) string {
	name, _ = ReadName(name)
	return name
}

// ReadName returns a field name as [Canonical] does, and whether it is one.
func ReadName(name string) (canonical string, valid bool) {
	same, upper := true, true
	for i := range len(name) {
		c := name[i]
		if !IsTokenByte(c) {
			return name, false
		}
		same = same && (!upper || !isLower(c)) && (upper || !isUpper(c))
		upper = c == '-'
	}
	if same {
		return name, name != ""
	}
	switch name { // what nearly every Vary names allocates nothing
	case "accept-encoding":
		return "Accept-Encoding", true
	case "accept":
		return "Accept", true
	case "accept-language":
		return "Accept-Language", true
	case "origin":
		return "Origin", true
	case "user-agent":
		return "User-Agent", true
	}
	b := []byte(name)
	upper = true
	for i, c := range b {
		switch {
		case upper && isLower(c):
			b[i] = c - 'a' + 'A'
		case !upper && isUpper(c):
			b[i] = c - 'A' + 'a'
		}
		upper = c == '-'
	}
	return string(b), true
}
