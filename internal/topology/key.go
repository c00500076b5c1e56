package topology

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Kind is a kind of stored resource, spelled as in keys.
type Kind string

// The kinds that edges see.
const (
	KindAccounts      Kind = "accounts"
	KindOrigins       Kind = "origins"
	KindOriginSecrets Kind = "originSecrets"
	KindURLEndpoints  Kind = "urlEndpoints"
	KindCustomDomains Kind = "customDomains"
	KindCertificates  Kind = "certificates"
	KindChains        Kind = "chains"
	KindMediaFiles    Kind = "mediaFiles"
	KindPurges        Kind = "purges"
	KindPurgeFloors   Kind = "purgeFloors"
	KindSettings      Kind = "settings"
)

// Kinds holds every kind, in the order in which a person would create the resources.
func Kinds() []Kind {
	return []Kind{
		KindSettings, KindAccounts, KindOrigins, KindOriginSecrets, KindURLEndpoints, KindCustomDomains, KindChains,
		KindCertificates, KindMediaFiles, KindPurges, KindPurgeFloors,
	}
}

// Key names one stored resource. It is comparable; two keys are equal exactly if their strings are.
type Key struct {
	Kind Kind
	// Account is the account's id, empty only for KindSettings and KindChains, which belong to all.
	Account string
	// ID is the last part of the resource's name; for a media file its path, which may hold
	// slashes, and for a certificate its domain's. It is empty for KindAccounts, KindPurgeFloors
	// and KindSettings.
	ID string
}

// String joins the parts with "/": `urlEndpoints/acme/default`, `accounts/acme`, `settings`,
// `chains/-/4fd1...`.
func (k Key) String() string {
	switch k.shape() {
	case shapeGlobal:
		return string(k.Kind)
	case shapeAccount:
		return string(k.Kind) + "/" + k.Account
	case shapeShared:
		return string(k.Kind) + "/" + noAccount + "/" + k.ID
	}
	return string(k.Kind) + "/" + k.Account + "/" + k.ID
}

// noAccount stands in keys in place of an account. No account has it for an id.
const noAccount = "-"

type shape int

const (
	shapeUnknown shape = iota
	shapeGlobal        // kind
	shapeAccount       // kind/account
	shapeChild         // kind/account/id
	shapeShared        // kind/-/id
)

func (k Key) shape() shape {
	switch k.Kind {
	case KindSettings:
		return shapeGlobal
	case KindAccounts, KindPurgeFloors:
		return shapeAccount
	case KindOrigins, KindOriginSecrets, KindURLEndpoints, KindCustomDomains, KindCertificates, KindMediaFiles,
		KindPurges:
		return shapeChild
	case KindChains:
		return shapeShared
	}
	return shapeUnknown
}

// Validate says whether the parts are well-formed for the kind.
func (k Key) Validate() error {
	shape := k.shape()
	if shape == shapeUnknown {
		return fmt.Errorf("unknown kind %q", k.Kind)
	}
	if shape == shapeGlobal {
		if k.Account != "" || k.ID != "" {
			return fmt.Errorf("%s has neither account nor id", k.Kind)
		}
		return nil
	}
	if shape == shapeShared {
		if k.Account != "" {
			return fmt.Errorf("%s have no account", k.Kind)
		}
		return k.validateID()
	}
	if err := ValidateAccountID(k.Account); err != nil {
		return err
	}
	if shape == shapeAccount {
		if k.ID != "" {
			return fmt.Errorf("%s has no id besides the account's", k.Kind)
		}
		return nil
	}
	return k.validateID()
}

func (k Key) validateID() error {
	switch k.Kind {
	case KindOrigins, KindOriginSecrets:
		return ValidateOriginID(k.ID)
	case KindURLEndpoints:
		return ValidateEndpointID(k.ID)
	case KindCustomDomains, KindCertificates:
		_, err := DomainFromID(k.ID)
		return err
	case KindChains:
		if !chainPattern.MatchString(k.ID) {
			return fmt.Errorf("chain id %q: want 32 lower-case hex digits", k.ID)
		}
		return nil
	case KindMediaFiles:
		path, err := MediaPath(k.ID)
		if err == nil && path != k.ID {
			err = fmt.Errorf("media path %q begins with /", k.ID)
		}
		return err
	}
	return validatePurgeID(k.ID)
}

// ParseKey is the inverse of [Key.String]. Every part must be well-formed, so that a key which
// parses is the only spelling of its resource.
func ParseKey(s string) (Key, error) {
	kind, rest, child := strings.Cut(s, "/")
	k := Key{Kind: Kind(kind)}
	if child {
		k.Account, k.ID, child = strings.Cut(rest, "/")
		if k.Account == "" || child && k.ID == "" {
			return Key{}, fmt.Errorf("key %q: empty account or id", s)
		}
		if k.shape() == shapeShared {
			if k.Account != noAccount {
				return Key{}, fmt.Errorf("key %q: want %s in place of an account", s, noAccount)
			}
			k.Account = ""
		}
	}
	if err := k.Validate(); err != nil {
		return Key{}, fmt.Errorf("key %q: %w", s, err)
	}
	return k, nil
}

// UID differs for a resource and a later one of the same id. createRevision is the revision that
// created it; the id is a part because one transaction may create several resources.
func UID(id string, createRevision int64) string {
	return strconv.FormatInt(createRevision, 10) + "-" + id
}

// Etag is the quoted revision of a resource's last change.
func Etag(modRevision int64) string {
	return `"` + strconv.FormatInt(modRevision, 10) + `"`
}

var (
	endpointPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,100}$`)
	purgePattern    = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	chainPattern    = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// isID is `^[a-z0-9][a-z0-9_-]{0,62}$`. It is asked for each of a million keys.
func isID(s string) bool {
	if len(s) < 1 || len(s) > 63 || s[0] == '_' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// ValidateAccountID says whether id may name an account.
func ValidateAccountID(id string) error {
	if !isID(id) {
		return fmt.Errorf("account id %q: use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit", id)
	}
	return nil
}

// ValidateOriginID says whether id may name an origin. [MediaStep] may not: it stands for the Media
// Library in walks.
func ValidateOriginID(id string) error {
	if !isID(id) {
		return fmt.Errorf("origin id %q: use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit", id)
	}
	if id == MediaStep {
		return fmt.Errorf("origin id %q stands for the Media Library: choose another", id)
	}
	return nil
}

// ValidateEndpointID says whether id may name an endpoint.
func ValidateEndpointID(id string) error {
	if !endpointPattern.MatchString(id) {
		return fmt.Errorf("identifier %q: use 1 to 100 of A-Z, a-z, 0-9 and -", id)
	}
	return nil
}

func validatePurgeID(id string) error {
	if !purgePattern.MatchString(id) {
		return fmt.Errorf("purge id %q: use 1 to 64 of a-z, 0-9 and -", id)
	}
	return nil
}
