package topology

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestKeyAndName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key       Key
		str, name string
	}{
		{Key{Kind: KindAccounts, Account: "acme"}, "accounts/acme", "accounts/acme"},
		{Key{KindOrigins, "acme", "legacy"}, "origins/acme/legacy", "accounts/acme/origins/legacy"},
		{Key{KindOriginSecrets, "acme", "legacy"}, "originSecrets/acme/legacy", "accounts/acme/originSecrets/legacy"},
		{Key{KindURLEndpoints, "acme", "Product-Images"}, "urlEndpoints/acme/Product-Images",
			"accounts/acme/urlEndpoints/Product-Images"},
		{Key{KindCustomDomains, "acme", "_wildcard.example.com"}, "customDomains/acme/_wildcard.example.com",
			"accounts/acme/customDomains/_wildcard.example.com"},
		{Key{KindMediaFiles, "acme", "a/b c/ü.png"}, "mediaFiles/acme/a/b c/ü.png",
			"accounts/acme/mediaFiles/a/b c/ü.png"},
		{Key{KindPurges, "acme", "p-1"}, "purges/acme/p-1", "accounts/acme/purges/p-1"},
		{Key{Kind: KindPurgeFloors, Account: "acme"}, "purgeFloors/acme", "accounts/acme/purgeFloors"},
		{Key{Kind: KindSettings}, "settings", "settings"},
	} {
		if got := tt.key.String(); got != tt.str {
			t.Errorf("%v.String() = %q, want %q", tt.key, got, tt.str)
		}
		if got, err := ParseKey(tt.str); err != nil || got != tt.key {
			t.Errorf("ParseKey(%q) = %+v, %v", tt.str, got, err)
		}
		if got := tt.key.Name(); got != tt.name {
			t.Errorf("%v.Name() = %q, want %q", tt.key, got, tt.name)
		}
		if strings.HasPrefix(tt.name, "accounts/") && tt.key.Kind != KindPurgeFloors {
			if got, err := ParseName(tt.key.Kind, tt.name); err != nil || got != tt.key {
				t.Errorf("ParseName(%q) = %+v, %v", tt.name, got, err)
			}
		}
	}
	for _, s := range []string{
		"", "accounts", "accounts/", "accounts/acme/", "accounts/acme/x", "accounts/ACME", "accounts/-a",
		"unknown/acme/x", "settings/", "settings/x", "origins/acme", "origins/acme/", "origins/acme/a/b",
		"origins/acme/A", "origins/acme/media", "origins//a", "urlEndpoints/acme/a_b",
		"customDomains/acme/*.example.com", "customDomains/acme/Example.com", "customDomains/acme/example.com:80",
		"mediaFiles/acme/", "mediaFiles/acme//a", "mediaFiles/acme/a//b", "purgeFloors/acme/x", "/origins/acme/a",
		"accounts/" + strings.Repeat("a", 64),
	} {
		if got, err := ParseKey(s); err == nil {
			t.Errorf("ParseKey(%q) = %+v, want an error", s, got)
		}
	}
	for _, name := range []string{
		"", "acme", "accounts/", "accounts/acme", "accounts/acme/origins", "accounts/acme/origins/",
		"accounts/acme/urlEndpoints/a", "accounts/acme/origins/a/b", "//accounts/acme/origins/a",
		"accounts/acme/origins/A",
	} {
		if got, err := ParseName(KindOrigins, name); err == nil {
			t.Errorf("ParseName(origins, %q) = %+v, want an error", name, got)
		}
	}
	if _, err := ParseName(KindAccounts, "accounts/acme/origins/a"); err == nil {
		t.Error("an origin's name is taken for an account's")
	}
	if edge, err := ParseEdgeName("edges/edge-1"); err != nil || edge != "edge-1" {
		t.Errorf("edge %q, %v", edge, err)
	}
}

func FuzzParseKey(f *testing.F) {
	for _, kind := range Kinds() {
		f.Add(string(kind))
		f.Add(string(kind) + "/acme")
		f.Add(string(kind) + "/acme/a.example.com")
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil {
			return
		}
		if k.String() != s {
			t.Fatalf("%q parses as %+v, which is %q", s, k, k.String())
		}
		if err := k.Validate(); err != nil {
			t.Fatalf("%q parses as %+v, which is not valid: %v", s, k, err)
		}
		if k.Kind == KindSettings || k.Kind == KindPurgeFloors {
			return
		}
		if named, err := ParseName(k.Kind, k.Name()); err != nil || named != k {
			t.Fatalf("%+v is named %q, which parses as %+v, %v", k, k.Name(), named, err)
		}
	})
}

func TestDigest(t *testing.T) {
	t.Parallel()
	records := []Record{
		{Key: Key{Kind: KindAccounts, Account: "acme"}, ModRevision: 3, Value: []byte{}},
		{Key: Key{KindOrigins, "acme", "a"}, ModRevision: 4, Value: []byte("one")},
		{Key: Key{KindOrigins, "acme", "b"}, ModRevision: 1 << 40, Value: []byte("two")},
	}
	sum := func(records ...Record) (d Digest) {
		for _, r := range records {
			d.Add(r)
		}
		return d
	}
	whole := sum(records...)
	if whole != sum(records[2], records[0], records[1]) {
		t.Error("order counts")
	}
	part := whole
	part.Remove(records[1])
	if part != sum(records[0], records[2]) {
		t.Error("removing is not the inverse of adding")
	}
	deleted := whole
	deleted.Add(Record{Key: records[0].Key, ModRevision: 9})
	if deleted != whole {
		t.Error("a deleted record counts")
	}
	for _, r := range []Record{
		{Key: Key{KindOrigins, "acme", "c"}, ModRevision: 4, Value: []byte("one")},
		{Key: records[1].Key, ModRevision: 5, Value: []byte("one")},
		{Key: records[1].Key, ModRevision: 4, Value: []byte("ons")},
	} {
		if sum(r) == sum(records[1]) {
			t.Errorf("%+v has the digest of %+v", r, records[1])
		}
	}
	// SHA-256 of 0d "accounts/acme" 0300000000000000, computed with sha256sum.
	const want = "0837f7f1ccb76a3b37a9eeaa2dc35d98"
	if got := fmt.Sprintf("%x", sum(records[0])); got != want {
		t.Errorf("the digest of one record is %s, want %s: edges of another version would not agree", got, want)
	}
}

func TestIDsAreWhatThePatternSays(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	ids := []string{"", "\n", "a\n", "é", strings.Repeat("a", 63), strings.Repeat("a", 64)}
	for c := range 256 {
		ids = append(ids, string([]byte{byte(c)}), string([]byte{'a', byte(c)}))
	}
	for _, id := range ids {
		if isID(id) != pattern.MatchString(id) {
			t.Errorf("%q: %v", id, isID(id))
		}
	}
}
