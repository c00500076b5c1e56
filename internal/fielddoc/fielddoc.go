// Package fielddoc returns what the protos say of resources and their fields. The comments in
// topology.proto are the one text for that, in commands, the reference and the dashboard.
package fielddoc

import (
	"context"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// File is topology.proto with its comments. It takes some milliseconds.
func File(ctx context.Context) (protoreflect.FileDescriptor, error) {
	const file = "edgewalk/topology/v1/topology.proto"
	compiler := protocompile.Compiler{
		SourceInfoMode: protocompile.SourceInfoStandard,
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{
				file: topologyv1.Source,
			})},
			protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
				d, err := protoregistry.GlobalFiles.FindFileByPath(path)
				return protocompile.SearchResult{Desc: d}, err
			}),
		},
	}
	files, err := compiler.Compile(ctx, file)
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// Comment is what the .proto says of a message or field of [File], with fields as people type them.
func Comment(d protoreflect.Descriptor) string {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return asTyped(strings.Join(lines, " "), d.ParentFile())
}

// Choice is one value that a field of an enum takes.
type Choice struct {
	Name, Meaning string
}

// Choices are the values of a field of [File] that people can type, with what the .proto says of
// each; none of a field that is no enum.
func Choices(f protoreflect.FieldDescriptor) (all []Choice) {
	if f.Enum() == nil {
		return nil
	}
	values := f.Enum().Values()
	for i := 1; i < values.Len(); i++ { // The first stands for a field that is not set.
		all = append(all, Choice{string(values.Get(i).Name()), Comment(values.Get(i))})
	}
	return all
}

// asTyped spells the names of fields in a text as people type them.
func asTyped(text string, file protoreflect.FileDescriptor) string {
	names := make(map[string]bool)
	var collect func(messages protoreflect.MessageDescriptors)
	collect = func(messages protoreflect.MessageDescriptors) {
		for i := range messages.Len() {
			m := messages.Get(i)
			for j := range m.Fields().Len() {
				names[string(m.Fields().Get(j).Name())] = true
			}
			collect(m.Messages())
		}
	}
	collect(file.Messages())
	var b strings.Builder
	for len(text) > 0 {
		n := 0
		for n < len(text) && (text[n] == '_' || 'a' <= text[n] && text[n] <= 'z' || '0' <= text[n] && text[n] <= '9') {
			n++
		}
		if word := text[:n]; names[word] && strings.Contains(word, "_") {
			b.WriteString(fieldpath.JSON(word))
		} else {
			b.WriteString(word)
		}
		if n < len(text) {
			b.WriteByte(text[n])
			n++
		}
		text = text[n:]
	}
	return b.String()
}
