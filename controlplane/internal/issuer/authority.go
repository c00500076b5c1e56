package issuer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Authority is a certificate authority that speaks ACME (RFC 8555), and how it is used.
type Authority struct {
	// Name is its name in domains and flags: lower case letters, digits and dashes.
	Name string
	// Directory is the URL of its directory (RFC 8555 7.1.1).
	Directory string
	// Profile is the profile that orders ask for. Empty: the authority's default.
	Profile string
	// KeyID and MACKey bind the ACME account to one that the authority knows (RFC 8555 7.3.4), the
	// key in base64url. Empty: it asks for no such account.
	KeyID, MACKey string
	// Orders is how many new orders it takes from one account in 3 hours. Default: 300, the limit
	// of Let's Encrypt (https://letsencrypt.org/docs/rate-limits/).
	Orders int
}

const (
	defaultOrders = 300
	maxOrders     = 1_000_000
)

// authorityKeys are the keys that ParseAuthority knows.
var authorityKeys = []string{"name", "directory", "profile", "eab-kid", "eab-key-file", "orders-per-3h"}

var authorityName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ParseAuthority parses the value of --acme-issuer, such as
// `name=le,directory=https://ca.example/dir`. It reads the file that eab-key-file names.
func ParseAuthority(text string) (a Authority, err error) {
	a.Orders = defaultOrders
	keyFile, seen := "", map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		key = strings.TrimSpace(key)
		switch {
		case !ok:
			return a, fmt.Errorf("%q: want KEY=VALUE, several joined by commas; keys are %s", part,
				strings.Join(authorityKeys, ", "))
		case seen[key]:
			return a, fmt.Errorf("%s is there twice", key)
		case value == "":
			return a, fmt.Errorf("%s has no value", key)
		}
		seen[key] = true
		switch key {
		case "name":
			a.Name = value
		case "directory":
			a.Directory = value
		case "profile":
			a.Profile = value
		case "eab-kid":
			a.KeyID = value
		case "eab-key-file":
			keyFile = value
		case "orders-per-3h":
			if a.Orders, err = strconv.Atoi(value); err != nil || a.Orders < 1 || a.Orders > maxOrders {
				return a, fmt.Errorf("orders-per-3h=%s: want a number from 1 to %d", value, maxOrders)
			}
		default:
			return a, fmt.Errorf("%q is no key: there are %s%s", key, strings.Join(authorityKeys, ", "),
				fieldpath.Hint(key, authorityKeys...))
		}
	}
	if err := a.check(); err != nil {
		return a, err
	}
	if (a.KeyID == "") != (keyFile == "") {
		return a, errors.New("eab-kid and eab-key-file go together")
	}
	if keyFile != "" {
		if a.MACKey, err = readMACKey(keyFile); err != nil {
			return a, fmt.Errorf("eab-key-file: %w", err)
		}
	}
	return a, nil
}

func (a Authority) check() error {
	switch {
	case a.Name == "":
		return errors.New("name is missing: choose one, such as name=le")
	case !authorityName.MatchString(a.Name):
		return fmt.Errorf("name=%s: want lower case letters, digits and dashes, at most 63", a.Name)
	case a.Directory == "":
		return errors.New("directory is missing: give the URL of the authority's ACME directory, " +
			"such as directory=https://acme-v02.api.letsencrypt.org/directory")
	}
	u, err := url.Parse(a.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("directory=%s: want an https:// URL (RFC 8555 6.1)", a.Directory)
	}
	return nil
}

// maxMACKey bounds the key, in bytes. No authority issues longer ones.
const maxMACKey = 4096

// readMACKey reads the key of an external account from a file. Its errors never contain the key.
func readMACKey(name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	key := strings.TrimRight(strings.TrimSpace(string(b)), "=")
	decoded, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil || len(decoded) < 16 || len(key) > maxMACKey {
		return "", fmt.Errorf("%s: want the HMAC key as the authority shows it, in base64url, of 16 bytes at least",
			name)
	}
	return key, nil
}

// local reports whether the authority runs on this machine, and so resolves names below .localhost
// to the same machine.
func (a Authority) local() bool {
	u, err := url.Parse(a.Directory)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return topology.IsLocal(host) || strings.HasPrefix(host, "127.") || host == "::1"
}

// limit is so many in a span of time.
type limit struct {
	count int
	span  time.Duration
}

// ofPublished is the share of a published limit that is used, in percent: another client of the
// same account may need some, and clocks differ.
const ofPublished = 80

func published(count int, span time.Duration) limit {
	return limit{max(1, count*ofPublished/100), span}
}

// orders is the limit of new orders.
func (a Authority) orders() limit { return published(a.Orders, 3*time.Hour) }

// registered is the limit of new certificates of a registered domain, without a count if there is
// none (https://letsencrypt.org/docs/rate-limits/).
func (a Authority) registered() limit {
	u, err := url.Parse(a.Directory)
	switch {
	case err != nil:
	case u.Hostname() == "acme-v02.api.letsencrypt.org":
		return published(50, 7*24*time.Hour)
	}
	return limit{}
}

// failedValidations is the limit of failed validations of a name
// (https://letsencrypt.org/docs/rate-limits/), which suits other authorities too.
var failedValidations = published(5, time.Hour)
