package rest

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// Its services are those that bindings looks for.
	_ "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// binding is one rule by which a request is a call.
type binding struct {
	verb, pattern string
	method        protoreflect.MethodDescriptor
	// body is the field that the content of a request is: nil for none, or for all fields that the
	// path does not have, where all is true.
	body protoreflect.FieldDescriptor
	all  bool
	// vars are the paths of fields that are in the path.
	vars []string
	// at matches the paths of the pattern.
	at *regexp.Regexp
}

func (b *binding) hasBody() bool { return b.all || b.body != nil }

// content is the type of the content of a request.
func (b *binding) content() protoreflect.MessageDescriptor {
	if b.body != nil {
		return b.body.Message()
	}
	return b.method.Input()
}

// creates reports whether the call makes a resource (https://google.aip.dev/133).
func (b *binding) creates() bool {
	return strings.HasPrefix(string(b.method.Name()), "Create")
}

var (
	plainVariable = regexp.MustCompile(`\{([^}=]+)\}`)
	variable      = regexp.MustCompile(`\{[^}=]+=([^}]+)\}`)
)

// matcher matches the paths of a pattern (google/api/http.proto).
func matcher(pattern string) *regexp.Regexp {
	pattern = variable.ReplaceAllString(plainVariable.ReplaceAllString(pattern, "{$1=*}"), "$1")
	// `*` is one segment, and `**` as many as there are.
	pattern = strings.NewReplacer(`\*\*`, `.+`, `\*`, `[^/:]+`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^" + pattern + "$")
}

// bindings are all rules of the admin API, by HTTP method and pattern.
func bindings() map[string]*binding {
	all := make(map[string]*binding)
	const pkg = "edgewalk.admin.v1"
	protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
				if rule == nil {
					continue
				}
				for _, one := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
					b := newBinding(m, one)
					// The gateway spells what the rule leaves out.
					all[b.verb+" "+plainVariable.ReplaceAllString(b.pattern, "{$1=*}")] = b
				}
			}
		}
		return true
	})
	return all
}

func newBinding(m protoreflect.MethodDescriptor, rule *annotations.HttpRule) *binding {
	b := &binding{method: m}
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.verb, b.pattern = http.MethodGet, p.Get
	case *annotations.HttpRule_Post:
		b.verb, b.pattern = http.MethodPost, p.Post
	case *annotations.HttpRule_Patch:
		b.verb, b.pattern = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Delete:
		b.verb, b.pattern = http.MethodDelete, p.Delete
	}
	if b.all = rule.GetBody() == "*"; !b.all && rule.GetBody() != "" {
		b.body = m.Input().Fields().ByName(protoreflect.Name(rule.GetBody()))
	}
	b.at = matcher(b.pattern)
	for rest := b.pattern; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			return b
		}
		inside, more, _ := strings.Cut(after, "}")
		name, _, _ := strings.Cut(inside, "=")
		b.vars = append(b.vars, name)
		rest = more
	}
}

// resourceOf returns the name and the etag of the resource that an answer has, empty for none.
func resourceOf(resp proto.Message) (name, etag string) {
	r := resp.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() == nil || f.IsList() || f.IsMap() || !r.Has(f) {
			continue
		}
		of := f.Message().Fields()
		named, tagged := of.ByName("name"), of.ByName("etag")
		if named == nil || tagged == nil {
			continue
		}
		m := r.Get(f).Message()
		return m.Get(named).String(), m.Get(tagged).String()
	}
	return "", ""
}

// location is the path of a resource by its name.
func location(name string) string {
	return (&url.URL{Path: Prefix + "/" + name}).EscapedPath()
}
