package admincli

import (
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/manifest"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// topKeys are the fields of a YAML or JSON text at its top, by their JSON names. A text that is
// neither has none.
func topKeys(text string) map[string]bool {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil || len(root.Content) == 0 ||
		root.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	keys := make(map[string]bool)
	for i := 0; i < len(root.Content[0].Content); i += 2 {
		keys[fieldpath.JSON(root.Content[0].Content[i].Value)] = true
	}
	return keys
}

// shownResources reads what get -o yaml or -o json shows of resources that manifests list, as the
// manifest that makes them so. It returns nil for any other text, which is the control plane's to
// read. account is the one that --account names.
func shownResources(text, account string) (*adminv1.Manifest, error) {
	keys := topKeys(text)
	for _, k := range kinds {
		if !strings.Contains(k.verbs, "Create") {
			continue
		}
		switch {
		case keys[fieldpath.JSON(k.field)] && (k.owned && !keys["account"] || !k.owned && keys["revision"]),
			keys["name"] && k.shows(text):
			resource, err := k.decode(text)
			if err != nil {
				return nil, err
			}
			return manifestOf(account, resource.Interface())
		case keys[fieldpath.JSON(k.fields)] && !keys["account"] && k.owned && (keys["revision"] || account != ""):
			response, err := newMessage("edgewalk.admin.v1.List" + k.plural + "Response")
			if err != nil {
				return nil, err
			}
			if _, err := manifest.DecodeMessage(text, response.Interface()); err != nil {
				return nil, err
			}
			var all []proto.Message
			list := get(response, k.fields).List()
			for i := range list.Len() {
				all = append(all, list.Get(i).Message().Interface())
			}
			return manifestOf(account, all...)
		}
	}
	return nil, nil
}

// shows reports whether a text is a resource of the kind, by its name.
func (k *kind) shows(text string) bool {
	var named struct{ Name string }
	if err := yaml.Unmarshal([]byte(text), &named); err != nil {
		return false
	}
	_, err := topology.ParseName(topology.Kind(k.collection), named.Name)
	return err == nil
}

// manifestOf lists resources of one account, which their names or --account name.
func manifestOf(account string, resources ...proto.Message) (*adminv1.Manifest, error) {
	m := new(adminv1.Manifest)
	for _, r := range resources {
		of, _, _ := strings.Cut(strings.TrimPrefix(get(r.ProtoReflect(), "name").String(), "accounts/"), "/")
		if account != "" && of != "" && of != account {
			return nil,
				usagef("%s belongs to account %q, and this is about account %q", get(r.ProtoReflect(), "name").String(),
					of, account)
		}
		if of != "" {
			account = of
		}
		r.ProtoReflect().Clear(r.ProtoReflect().Descriptor().Fields().ByName("name"))
		switch r := r.(type) {
		case *topologyv1.Account:
			m.Account = r
		case *topologyv1.Origin:
			m.Origins = append(m.Origins, r)
		case *topologyv1.UrlEndpoint:
			m.UrlEndpoints = append(m.UrlEndpoints, r)
		case *topologyv1.CustomDomain:
			m.CustomDomains = append(m.CustomDomains, r)
		}
	}
	if account == "" {
		return nil, usagef("it does not say of which account it is: use --account ID")
	}
	if m.Account == nil {
		m.Account = new(topologyv1.Account)
	}
	m.Account.Id = account
	// An account's etag in a manifest speaks for all that it holds, that of get for the account
	// alone.
	m.Account.Etag = ""
	return m, nil
}

// testable refuses --test where there is nothing to test.
func (ch *change) testable(k *kind) error {
	if ch.test && k.message != "Origin" {
		return usagef("--test is for origins")
	}
	return nil
}
