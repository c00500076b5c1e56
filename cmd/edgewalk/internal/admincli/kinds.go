package admincli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	// The messages are found by name; this registers them.
	_ "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// kind is one kind of resource. The admin API names methods, messages and fields by one rule
// (AIP-131 to 135), so a kind is only its words and its table.
type kind struct {
	// names are what a person may type, the first one is shown.
	names []string
	// message is the resource's message, such as UrlEndpoint; plural is the one in method names.
	message, plural string
	// service is the service that offers it.
	service string
	// field and fields are the names of one and of many in requests and responses.
	field, fields string
	// collection is the resource's part of a name.
	collection string
	// owned says that it belongs to an account.
	owned bool
	// verbs are the standard methods there are.
	verbs string
	head  []string
	row   func(proto.Message) []string
}

var kinds = []*kind{
	{names: []string{"account", "accounts"}, message: "Account", plural: "Accounts", service: "AccountService",
		field: "account", fields: "accounts", collection: "accounts",
		verbs: "Get List Create Update Delete", head: []string{"ID", "NAME", "STATE", "AGE"}, row: accountRow},
	{names: []string{"origin", "origins"}, message: "Origin", plural: "Origins", service: "OriginService",
		field: "origin", fields: "origins", collection: "origins", owned: true,
		verbs: "Get List Create Update Delete", head: []string{"ID", "KIND", "~LOCATION", "HEALTH", "+SECRETS", "AGE"},
		row: originRow},
	{names: []string{"url-endpoint", "url-endpoints", "endpoint", "endpoints", "urlendpoint", "urlendpoints"},
		message: "UrlEndpoint", plural: "UrlEndpoints", service: "UrlEndpointService",
		field: "url_endpoint", fields: "url_endpoints", collection: "urlEndpoints", owned: true,
		verbs: "Get List Create Update Delete",
		head:  []string{"ID", "~WALK", "+DEFAULT IMAGE", "CACHE", "~URLS", "AGE"}, row: endpointRow},
	{names: []string{"custom-domain", "custom-domains", "domain", "domains", "customdomain", "customdomains"},
		message: "CustomDomain", plural: "CustomDomains", service: "CustomDomainService",
		field: "custom_domain", fields: "custom_domains", collection: "customDomains", owned: true,
		verbs: "Get List Create Update Delete", head: []string{"DOMAIN", "MODE", "URL-ENDPOINT", "STATE", "AGE"},
		row: domainRow},
	{names: []string{"media", "media-file", "media-files", "mediafile", "mediafiles"}, message: "MediaFile",
		plural: "MediaFiles", service: "MediaService", field: "media_file", fields: "media_files",
		collection: "mediaFiles", owned: true, verbs: "Get List Delete",
		head: []string{"PATH", "SIZE", "~TYPE", "+SHA256", "~TAGS", "AGE"}, row: mediaRow},
	{names: []string{"purge", "purges"}, message: "Purge", plural: "Purges", service: "PurgeService", field: "purge",
		fields: "purges", collection: "purges", owned: true,
		verbs: "Get List", head: []string{"ID", "KIND", "~SCOPE", "STATE", "EDGES", "+REVISION", "AGE"}, row: purgeRow},
	{names: []string{"edge", "edges"}, message: "Edge", plural: "Edges", service: "FleetService", field: "edge",
		fields: "edges", collection: "edges",
		verbs: "Get List",
		head: []string{
			"ID", "REGION", "CONNECTED", "REVISION", "LAG", "+DURABLE", "+OBJECTS", "+CACHE", "REJECTED", "+LAST SEEN",
			"+VERSION", "ADDRESS",
		},
		row: edgeRow},
}

// kindOf finds the kind that a person means, if it can do verb.
func kindOf(word, verb string) (*kind, error) {
	var known, names []string
	for _, k := range kinds {
		if !strings.Contains(k.verbs, verb) {
			continue
		}
		known = append(known, k.names[0])
		names = append(names, k.names...)
		for _, name := range k.names {
			if strings.EqualFold(name, word) {
				return k, nil
			}
		}
	}
	slices.Sort(known)
	return nil,
		usagef("%q is no kind that can be used here: there are %s%s", word, strings.Join(known, ", "),
			fieldpath.Hint(word, names...))
}

// name returns the full name of id, which may be one already.
func (k *kind) name(parent, id string) string {
	full := k.collection + "/"
	if parent != "" {
		full = parent + "/" + full
	}
	switch {
	case strings.HasPrefix(id, full):
		return id
	case k.message == "MediaFile":
		return full + strings.TrimPrefix(id, "/")
	case k.message == "CustomDomain":
		return full + domainID(id)
	default:
		return full + id
	}
}

// domainID is the id of a domain in any spelling: with capitals, international, or with `*.` for a
// wildcard.
func domainID(domain string) string {
	name := domain
	if base, ok := strings.CutPrefix(domain, topology.DomainID("*.")); ok {
		name = "*." + base
	}
	if canonical, err := topology.CanonicalDomain(name, ""); err == nil {
		name = canonical
	}
	return topology.DomainID(name)
}

// nameOf returns the full name of a resource of an account, by its id or by that name, which says
// the account itself.
func (c *cli) nameOf(k *kind, id string) (string, error) {
	account, _, full := strings.Cut(strings.TrimPrefix(id, "accounts/"), "/"+k.collection+"/")
	if k.owned && full && strings.HasPrefix(id, "accounts/") && !strings.Contains(account, "/") {
		if c.account != "" && c.account != account {
			return "", usagef("%s belongs to account %q, --account says %q", id, account, c.account)
		}
		return id, nil
	}
	parent, err := c.parent(k)
	if err != nil {
		return "", err
	}
	return k.name(parent, id), nil
}

// resourceOf returns the kind and the full name that the arguments KIND ID of a command say, where
// the kind has a method.
func (c *cli) resourceOf(args []string, verb string) (*kind, string, error) {
	k, err := kindOf(args[0], verb)
	if err != nil {
		return nil, "", err
	}
	name, err := c.nameOf(k, args[1])
	return k, name, err
}

// new returns an empty message of the resource.
func (k *kind) new() (protoreflect.Message, error) {
	return newMessage("edgewalk.topology.v1." + k.message)
}

// newMessage returns an empty message by its full name.
func newMessage(name string) (protoreflect.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("find message %s: %w", name, err)
	}
	return t.New(), nil
}

// fieldsOf are values for the fields of a request, by proto name.
type fieldsOf map[string]any

// call calls a standard method of the kind and returns its response.
func (k *kind) call(
	ctx context.Context, conn grpc.ClientConnInterface, verb string, fields fieldsOf,
) (protoreflect.Message, error) {
	method := verb + k.message
	if verb == "List" {
		method = verb + k.plural
	}
	request, err := newMessage("edgewalk.admin.v1." + method + "Request")
	if err != nil {
		return nil, err
	}
	for name, value := range fields {
		field := request.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil {
			return nil, fmt.Errorf("%s has no field %s", request.Descriptor().FullName(), name)
		}
		if m, ok := value.(protoreflect.Message); ok {
			request.Set(field, protoreflect.ValueOfMessage(m))
			continue
		}
		request.Set(field, protoreflect.ValueOf(value))
	}
	response, err := newMessage("edgewalk.admin.v1." + method + "Response")
	if err != nil {
		return nil, err
	}
	err = conn.Invoke(ctx, "/edgewalk.admin.v1."+k.service+"/"+method, request.Interface(), response.Interface())
	return response, err
}

// get returns the value of a field by its proto name.
func get(m protoreflect.Message, name string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

// listAll returns one response with the resources of every page.
func (k *kind) listAll(
	ctx context.Context, conn grpc.ClientConnInterface, fields fieldsOf,
) (protoreflect.Message, error) {
	fields["page_size"] = int32(1000)
	var all protoreflect.Message
	for {
		page, err := k.call(ctx, conn, "List", fields)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = page
		} else {
			list, more := get(all, k.fields).List(), get(page, k.fields).List()
			for i := range more.Len() {
				list.Append(more.Get(i))
			}
		}
		token := get(page, "next_page_token").String()
		if token == "" {
			all.Clear(all.Descriptor().Fields().ByName("next_page_token"))
			return all, nil
		}
		fields["page_token"] = token
	}
}

// table returns the rows of a list response, or of a response with one resource.
func (k *kind) table(response protoreflect.Message) table {
	t := table{head: k.head}
	if t.whole = response.Descriptor().Fields().ByName(protoreflect.Name(k.fields)) == nil; t.whole {
		resource := get(response, k.field).Message()
		t.rows = append(t.rows, k.row(resource.Interface()))
		switch of := resource.Interface().(type) {
		case *topologyv1.UrlEndpoint:
			t.below = of.GetUrls()
		case *topologyv1.Account:
			t.below = limitLines(of)
		}
		t.below = append(t.below, lastFailure(resource.Interface())...)
		return t
	}
	list := get(response, k.fields).List()
	for i := range list.Len() {
		resource := list.Get(i).Message().Interface()
		t.rows = append(t.rows, k.row(resource))
		t.below = append(t.below, lastFailure(resource)...)
	}
	return t
}
