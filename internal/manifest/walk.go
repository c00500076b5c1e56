package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const noAlias = "aliases and anchors are not allowed; quote a text that begins with * or &"

// walker checks what the decoder of values lets pass, and records where each field is.
type walker struct {
	positions map[string]Position
	errors    Errors
}

func (w *walker) fail(n *yaml.Node, field, format string, args ...any) {
	w.errors = append(w.errors,
		&Error{Position: Position{n.Line, n.Column}, Field: field, Text: fmt.Sprintf(format, args...)})
}

// value reports whether a node may stand where a value is wanted.
func (w *walker) value(n *yaml.Node, field string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.fail(n, field, noAlias)
		return false
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		w.fail(n, field, `no value; leave the field out, or write [] for an empty list and "" for an empty text`)
		return false
	}
	w.positions[field] = Position{n.Line, n.Column}
	return true
}

func (w *walker) message(n *yaml.Node, d protoreflect.MessageDescriptor, path string) {
	if !w.value(n, path) {
		return
	}
	if d.ParentFile().Package() == "google.protobuf" {
		w.wellKnown(n, d, path)
		return
	}
	if n.Kind != yaml.MappingNode {
		w.fail(n, path, "want fields, such as {%s: ...}", firstField(d))
		return
	}
	seen := map[protoreflect.FieldNumber]*yaml.Node{}
	chosen := map[protoreflect.OneofDescriptor]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := findField(d, key)
		if f == nil {
			names := fieldNames(d)
			hint := fieldpath.Hint(key.Value, names...)
			if hint == "" {
				hint = "; there are " + strings.Join(names, ", ")
			}
			w.fail(key, path, "unknown field %q%s", key.Value, hint)
			continue
		}
		if first := seen[f.Number()]; first != nil {
			w.fail(key, path, "field %q stands twice, first in line %d", key.Value, first.Line)
			continue
		}
		seen[f.Number()] = key
		if of := f.ContainingOneof(); of != nil && !of.IsSynthetic() {
			if first := chosen[of]; first != nil {
				w.fail(key, path, "%s and %s exclude each other: drop one of the two", first.Value, key.Value)
				continue
			}
			chosen[of] = key
		}
		w.field(value, f, join(path, string(f.Name())))
	}
}

func (w *walker) field(n *yaml.Node, f protoreflect.FieldDescriptor, path string) {
	switch {
	case f.IsList():
		if !w.value(n, path) {
			return
		}
		if n.Kind != yaml.SequenceNode {
			w.fail(n, path, "want a list")
			return
		}
		for i, item := range n.Content {
			w.single(item, f, path+"["+strconv.Itoa(i)+"]")
		}
	case f.IsMap():
		w.pairs(n, f, path)
	default:
		w.single(n, f, path)
	}
}

func (w *walker) single(n *yaml.Node, f protoreflect.FieldDescriptor, path string) {
	if f.Message() != nil {
		w.message(n, f.Message(), path)
		return
	}
	if !w.value(n, path) {
		return
	}
	switch known := valueNames(f.Enum()); {
	case known == nil:
	case n.Kind != yaml.ScalarNode:
		w.fail(n, path, "want one of %s", strings.Join(known, ", "))
	case !slices.Contains(known, n.Value):
		w.fail(n, path, "%q is none of %s", n.Value, strings.Join(known, ", "))
	}
}

// wellKnown looks at what is a scalar in text: durations and times.
func (w *walker) wellKnown(n *yaml.Node, d protoreflect.MessageDescriptor, path string) {
	if d.Name() != "Duration" {
		return
	}
	if n.Kind != yaml.ScalarNode {
		w.fail(n, path, "want a duration, such as 30s, 10m, 12h or 1d")
	} else if _, err := duration.Parse(n.Value); err != nil {
		w.fail(n, path, "%v", err)
	}
}

// valueNames are the values of an enum that can be chosen, nil for no enum.
func valueNames(e protoreflect.EnumDescriptor) (names []string) {
	if e == nil {
		return nil
	}
	for i := 1; i < e.Values().Len(); i++ { // 0 is what is not specified.
		names = append(names, string(e.Values().Get(i).Name()))
	}
	return names
}

// fieldNames are the names of the fields that a text may set.
func fieldNames(d protoreflect.MessageDescriptor) (names []string) {
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); d.ParentFile().Package() != "edgewalk.topology.v1" || f.Name() == "id" ||
			!topology.OutputOnly(f.Name()) {
			names = append(names, f.JSONName())
		}
	}
	return names
}

func (w *walker) pairs(n *yaml.Node, f protoreflect.FieldDescriptor, path string) {
	if !w.value(n, path) {
		return
	}
	if n.Kind != yaml.MappingNode {
		w.fail(n, path, "want names and values")
		return
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Anchor != "" {
			w.fail(key, path, "want a plain name")
			continue
		}
		if first := seen[key.Value]; first != nil {
			w.fail(key, path, "name %q stands twice, first in line %d", key.Value, first.Line)
			continue
		}
		seen[key.Value] = key
		w.single(n.Content[i+1], f.MapValue(), path+"["+strconv.Quote(key.Value)+"]")
	}
}

// findField takes the names of JSON and of the .proto; numbers, which protojson's YAML cousins
// allow, are no names.
func findField(d protoreflect.MessageDescriptor, key *yaml.Node) protoreflect.FieldDescriptor {
	if key.Kind != yaml.ScalarNode || key.Anchor != "" {
		return nil
	}
	if f := d.Fields().ByJSONName(key.Value); f != nil {
		return f
	}
	return d.Fields().ByName(protoreflect.Name(key.Value))
}

func firstField(d protoreflect.MessageDescriptor) string { return d.Fields().Get(0).JSONName() }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
