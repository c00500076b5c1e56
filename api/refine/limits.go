package main

import (
	"slices"
	"strconv"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/edgewalk/edgewalk/internal/topology"

	// What is described.
	_ "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

const (
	adminPackage    = "edgewalk.admin.v1"
	topologyPackage = "edgewalk.topology.v1"
)

// messages are those of the API, by the names of their schemas.
func messages() map[string]protoreflect.MessageDescriptor {
	all := make(map[string]protoreflect.MessageDescriptor)
	var add func(prefix string, list protoreflect.MessageDescriptors)
	add = func(prefix string, list protoreflect.MessageDescriptors) {
		for i := range list.Len() {
			m := list.Get(i)
			all[prefix+string(m.Name())] = m
			add(prefix+string(m.Name())+"_", m.Messages())
		}
	}
	for _, pkg := range []protoreflect.FullName{topologyPackage, adminPackage} {
		protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
			add("", f.Messages())
			return true
		})
	}
	return all
}

// method returns a method by its name, which is that of one alone.
func method(name string) (found protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFilesByPackage(adminPackage, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if m := f.Services().Get(i).Methods().ByName(protoreflect.Name(name)); m != nil {
				found = m
			}
		}
		return found == nil
	})
	return found
}

// hasEtag reports whether the resource of a method has an etag.
func hasEtag(name string) bool {
	for _, verb := range []string{"Get", "Delete"} {
		if resource, ok := strings.CutPrefix(name, verb); ok {
			m := messages()[resource]
			return m != nil && m.Fields().ByName("etag") != nil
		}
	}
	return false
}

// createdAt reports whether what a method creates has an etag, and so an address of its own.
func createdAt(name string) bool {
	m := messages()[strings.TrimPrefix(name, "Create")]
	return m != nil && m.Fields().ByName("etag") != nil
}

// limitSchemas adds the limits of fields to their schemas.
func limitSchemas(schemas node) {
	all := messages()
	for name, schema := range schemas.pairs() {
		m := all[name]
		if m == nil {
			continue
		}
		resource := m.ParentFile().Package() == topologyPackage
		var required []string
		for property, s := range schema.at("properties").pairs() {
			f := m.Fields().ByJSONName(property)
			if f == nil {
				continue
			}
			limit(s, f)
			switch {
			case redacted(f):
				s.set("writeOnly", parse("true"))
			case resource && topology.OutputOnly(f.Name()) &&
				!slices.Contains([]string{"id", "name", "etag"}, property):
				s.set("readOnly", parse("true"))
			}
			// A resource may also be a part of itself, in a PATCH.
			if !resource && strings.HasSuffix(name, "Request") && rules(f).GetRequired() {
				required = append(required, property)
			}
		}
		for _, one := range required {
			schema.add("required", parse(one))
		}
	}
}

func redacted(f protoreflect.FieldDescriptor) bool {
	options, _ := f.Options().(*descriptorpb.FieldOptions)
	return options.GetDebugRedact()
}

// limitParameters adds the limits of fields to the parameters that they are.
func limitParameters(operation node, name string) {
	m := method(name)
	if m == nil {
		return
	}
	for _, p := range operation.at("parameters").Content {
		d, path := m.Input(), strings.Split(node{p}.at("name").Value, ".")
		for i, part := range path {
			if d == nil {
				break
			}
			f := d.Fields().ByJSONName(part)
			if f == nil {
				break
			}
			if i == len(path)-1 {
				limit(node{p}.at("schema"), f)
			}
			d = f.Message()
		}
	}
}

func rules(f protoreflect.FieldDescriptor) *validate.FieldRules {
	r, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	return r
}

// limit adds what a field's rules say that OpenAPI can say too.
func limit(schema node, f protoreflect.FieldDescriptor) {
	r := rules(f)
	if r == nil || schema.Kind != yaml.MappingNode {
		return
	}
	if list := r.GetRepeated(); list != nil {
		number(schema, "minItems", list.MinItems)
		number(schema, "maxItems", list.MaxItems)
		if list.GetUnique() {
			schema.set("uniqueItems", parse("true"))
		}
		single(schema.at("items"), list.GetItems())
		return
	}
	single(schema, r)
}

// single adds the rules for one value.
func single(schema node, r *validate.FieldRules) {
	if r == nil || schema.Kind != yaml.MappingNode || schema.get("allOf").Kind != 0 {
		return
	}
	zero := r.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE
	if s := r.GetString(); s != nil {
		switch {
		case s.MaxLen != nil:
			number(schema, "maxLength", s.MaxLen)
		case s.MaxBytes != nil: // a character has one byte at least
			number(schema, "maxLength", s.MaxBytes)
		}
		if s.GetPattern() != "" {
			pattern := s.GetPattern()
			if zero {
				pattern = "^$|" + pattern
			}
			schema.set("pattern", node{text(pattern)})
		}
		if s.GetUuid() && !zero {
			schema.set("format", parse("uuid"))
		}
	}
	if n := r.GetInt32(); n != nil {
		if _, ok := n.GetGreaterThan().(*validate.Int32Rules_Gte); ok {
			schema.set("minimum", parse(strconv.Itoa(int(n.GetGte()))))
		}
		if _, ok := n.GetLessThan().(*validate.Int32Rules_Lte); ok {
			schema.set("maximum", parse(strconv.Itoa(int(n.GetLte()))))
		}
	}
}

func number(schema node, key string, value *uint64) {
	if value != nil {
		schema.set(key, parse(strconv.FormatUint(*value, 10)))
	}
}
