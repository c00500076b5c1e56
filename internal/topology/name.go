package topology

import (
	"fmt"
	"strings"
)

// AccountName is the resource name of an account.
func AccountName(account string) string { return "accounts/" + account }

// OriginName is the resource name of an origin.
func OriginName(account, origin string) string {
	return Key{KindOrigins, account, origin}.Name()
}

// EndpointName is the resource name of an endpoint.
func EndpointName(account, endpoint string) string {
	return Key{KindURLEndpoints, account, endpoint}.Name()
}

// DomainName is the resource name of a custom domain, by its id.
func DomainName(account, domainID string) string {
	return Key{KindCustomDomains, account, domainID}.Name()
}

// Name is the resource name that admins use: `accounts/acme/origins/legacy`.
func (k Key) Name() string {
	switch k.shape() {
	case shapeGlobal, shapeShared:
		return k.String()
	case shapeAccount:
		if k.Kind == KindAccounts {
			return AccountName(k.Account)
		}
		return AccountName(k.Account) + "/" + string(k.Kind)
	}
	return AccountName(k.Account) + "/" + string(k.Kind) + "/" + k.ID
}

// ParseName reads the resource name of a kind that admins know. A media file's path may have
// slashes.
func ParseName(kind Kind, name string) (Key, error) {
	account, rest, child, err := cutAccount(name)
	if err != nil {
		return Key{}, err
	}
	k := Key{Kind: kind, Account: account}
	if k.shape() == shapeChild {
		collection, id, _ := strings.Cut(rest, "/")
		if collection != string(kind) || id == "" {
			return Key{}, fmt.Errorf("name %q: want accounts/{account}/%s/{id}", name, kind)
		}
		k.ID = id
	} else if child {
		return Key{}, fmt.Errorf("name %q: want accounts/{account}", name)
	}
	if err := k.Validate(); err != nil {
		return Key{}, fmt.Errorf("name %q: %w", name, err)
	}
	return k, nil
}

// ParseEdgeName reads `edges/{edge}`.
func ParseEdgeName(name string) (edge string, err error) {
	edge, ok := strings.CutPrefix(name, "edges/")
	if !ok || edge == "" || strings.Contains(edge, "/") {
		return "", fmt.Errorf("name %q: want edges/{edge}", name)
	}
	return edge, nil
}

func cutAccount(name string) (account, rest string, child bool, err error) {
	after, ok := strings.CutPrefix(name, "accounts/")
	if !ok {
		return "", "", false, fmt.Errorf("name %q: want a name that begins with accounts/", name)
	}
	account, rest, child = strings.Cut(after, "/")
	return account, rest, child, nil
}
