package admincli

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Commands find messages and fields by AIP's naming rule, so each name that the rule gives has to
// exist.
func TestKindsNameWhatTheAPIHas(t *testing.T) {
	for _, k := range kinds {
		if _, err := k.new(); err != nil {
			t.Error(err)
		}
		for verb := range strings.FieldsSeq(k.verbs) {
			method, want := verb+k.message, []string{k.field, "revision"}
			switch verb {
			case "List":
				method, want = verb+k.plural, []string{k.fields, "next_page_token", "revision"}
			case "Delete":
				want = []string{"revision"}
			}
			if _, err := newMessage("edgewalk.admin.v1." + method + "Request"); err != nil {
				t.Error(err)
			}
			response, err := newMessage("edgewalk.admin.v1." + method + "Response")
			if err != nil {
				t.Error(err)
				continue
			}
			for _, name := range want {
				if response.Descriptor().Fields().ByName(protoreflect.Name(name)) == nil {
					t.Errorf("%sResponse has no field %s", method, name)
				}
			}
		}
		resource, err := k.new()
		if err != nil {
			continue
		}
		if got := len(k.row(resource.Interface())); got != len(k.head) {
			t.Errorf("%s: a row has %d cells, the head %d", k.names[0], got, len(k.head))
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, test := range []struct{ word, verb, want, err string }{
		{"origin", "Get", "Origin", ""},
		{"origins", "Get", "Origin", ""},
		{"endpoints", "Update", "UrlEndpoint", ""},
		{"URL-Endpoint", "Update", "UrlEndpoint", ""},
		{"domain", "Create", "CustomDomain", ""},
		{"edges", "List", "Edge", ""},
		{"edge", "Create", "", "there are account, custom-domain, origin, url-endpoint"},
		{"bucket", "Get", "", `"bucket" is no kind`},
	} {
		k, err := kindOf(test.word, test.verb)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || !IsUsage(err) {
				t.Errorf("kindOf(%q, %s): error %v, want a usage error with %q", test.word, test.verb, err, test.err)
			}
			continue
		}
		if err != nil || k.message != test.want {
			t.Errorf("kindOf(%q, %s) = %v, %v; want %s", test.word, test.verb, k, err, test.want)
		}
	}
}

func TestName(t *testing.T) {
	for _, test := range []struct{ kind, parent, id, want string }{
		{"account", "", "acme", "accounts/acme"},
		{"account", "", "accounts/acme", "accounts/acme"},
		{"origin", "accounts/acme", "legacy", "accounts/acme/origins/legacy"},
		{"domain", "accounts/acme", "*.example.com", "accounts/acme/customDomains/_wildcard.example.com"},
		{"media", "accounts/acme", "/shop/a.jpg", "accounts/acme/mediaFiles/shop/a.jpg"},
		{"edge", "", "fra-1", "edges/fra-1"},
	} {
		k, err := kindOf(test.kind, "Get")
		if err != nil {
			t.Fatal(err)
		}
		if got := k.name(test.parent, test.id); got != test.want {
			t.Errorf("%s %q is %q, want %q", test.kind, test.id, got, test.want)
		}
	}
}
