package adminsvc

import (
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// domainFilter is the filter of a list of domains: all its terms have to be true.
type domainFilter []domainTerm

type domainTerm struct {
	path  []protoreflect.FieldDescriptor
	equal bool
	value string
}

// domainFilterFields are the fields that a filter may name.
var domainFilterFields = []string{
	"state", "mode", "url_endpoint", "ownership.state", "routing.state", "certificate.state", "certificate.issuer",
}

var (
	filterAnd  = regexp.MustCompile(`\s+AND\s+`)
	filterTerm = regexp.MustCompile(`^([A-Za-z_.]+)\s*(!?=)\s*(?:"([^"]*)"|([^\s"=!]+))$`)
)

// parseDomainFilter reads a filter (https://google.aip.dev/160). An empty one lets all pass.
func parseDomainFilter(text string) (domainFilter, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, nil
	}
	var filter domainFilter
	for _, part := range filterAnd.Split(text, -1) {
		m := filterTerm.FindStringSubmatch(part)
		if m == nil {
			return nil, invalid("filter", "%q: want FIELD = VALUE or FIELD != VALUE, several joined by AND", part)
		}
		term := domainTerm{equal: m[2] == "=", value: m[3] + m[4]}
		d := (*topologyv1.CustomDomain)(nil).ProtoReflect().Descriptor()
		var names []string
		for name := range strings.SplitSeq(m[1], ".") {
			if d == nil {
				break
			}
			f := d.Fields().ByName(protoreflect.Name(name))
			if f == nil {
				f = d.Fields().ByJSONName(name)
			}
			if f == nil {
				break
			}
			term.path, names, d = append(term.path, f), append(names, string(f.Name())), f.Message()
		}
		if path := strings.Join(names, "."); strings.Count(m[1], ".") != len(names)-1 ||
			!slices.Contains(domainFilterFields, path) {
			return nil, invalid("filter", "%q cannot be asked for: there are %s%s", m[1],
				strings.Join(domainFilterFields, ", "), fieldpath.Hint(m[1], domainFilterFields...))
		}
		last := term.path[len(term.path)-1]
		if values := last.Enum(); values != nil && values.Values().ByName(protoreflect.Name(term.value)) == nil {
			return nil,
				invalid("filter", "%s is never %q%s", m[1], term.value,
					fieldpath.Hint(term.value, valueNames(values)...))
		}
		filter = append(filter, term)
	}
	return filter, nil
}

func valueNames(d protoreflect.EnumDescriptor) (names []string) {
	for i := range d.Values().Len() {
		names = append(names, string(d.Values().Get(i).Name()))
	}
	return names
}

func (f domainFilter) matches(c *topologyv1.CustomDomain) bool {
	return !slices.ContainsFunc(f, func(t domainTerm) bool { return (t.of(c) == t.value) != t.equal })
}

// of is the value of the term's field as a filter has it.
func (t domainTerm) of(c *topologyv1.CustomDomain) string {
	m := c.ProtoReflect()
	for _, f := range t.path[:len(t.path)-1] {
		m = m.Get(f).Message()
	}
	last := t.path[len(t.path)-1]
	v := m.Get(last)
	if last.Enum() != nil {
		if value := last.Enum().Values().ByNumber(v.Enum()); value != nil {
			return string(value.Name())
		}
		return ""
	}
	return v.String()
}
