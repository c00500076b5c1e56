package topology

import (
	"errors"
	"fmt"
	"strings"
)

// wildcardLabel stands for "*" in the id of a wildcard, because a resource name should need no
// escaping in a shell.
const wildcardLabel = "_wildcard"

// CanonicalDomain checks a custom domain's name and returns the form that is stored: lower case,
// IDNA as ASCII, `*.` in front of a wildcard. sharedHost is the canonical shared host, which no
// account may claim; names under it may be claimed.
func CanonicalDomain(raw, sharedHost string) (string, error) {
	base, wildcard := strings.CutPrefix(raw, "*.")
	switch {
	case strings.Contains(base, "*"):
		return "", errors.New("a wildcard is * as the whole first label, as in *.example.com")
	case strings.ContainsAny(base, ":/[]"):
		return "", errors.New("give the host name alone, without scheme, port or path")
	}
	name, err := CanonicalName(base)
	if err != nil {
		return "", err
	}
	if err := checkDomain(name, wildcard); err != nil {
		return "", err
	}
	if wildcard {
		name = "*." + name
	}
	if len(name) > maxHostBytes {
		return "", errHostLong
	}
	if name == sharedHost {
		return "", errors.New("this is the shared host, which belongs to every account: choose another name")
	}
	return name, nil
}

func checkDomain(name string, wildcard bool) error {
	first, _, more := strings.Cut(name, ".")
	switch {
	case IsAddress(name):
		return errors.New("an IP address is not a domain")
	case !more && wildcard:
		return errors.New("a wildcard needs at least two labels below it, as in *.example.com")
	case !more:
		return errors.New("a single label is not a domain: give the full name")
	case first == wildcardLabel:
		return fmt.Errorf("%s is how ids spell a wildcard: write *.%s", wildcardLabel, name[len(wildcardLabel)+1:])
	}
	for label := range strings.SplitSeq(name, ".") {
		if label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("label %q begins or ends with a hyphen", label)
		}
	}
	return nil
}

// DomainID is the id of the domain with a canonical name: the name, `_wildcard.example.com` for a
// wildcard.
func DomainID(name string) string {
	if base, ok := strings.CutPrefix(name, "*."); ok {
		return wildcardLabel + "." + base
	}
	return name
}

// DomainFromID is the inverse of [DomainID]. The id must be canonical.
func DomainFromID(id string) (name string, err error) {
	name = id
	if base, ok := strings.CutPrefix(id, wildcardLabel+"."); ok {
		name = "*." + base
	}
	canonical, err := CanonicalDomain(name, "")
	if err == nil && (canonical != name || DomainID(name) != id) {
		err = fmt.Errorf("want %q", DomainID(canonical))
	}
	if err != nil {
		return "", fmt.Errorf("domain id %q: %w", id, err)
	}
	return name, nil
}

// WildcardOf is the one wildcard that covers a name, `*.example.com` for `a.example.com`. It
// reports false for a name without a dot and for a wildcard.
func WildcardOf(name string) (string, bool) {
	if strings.HasPrefix(name, "*.") {
		return "", false
	}
	dot := strings.IndexByte(name, '.')
	if dot < 0 {
		return "", false
	}
	return "*" + name[dot:], true
}
