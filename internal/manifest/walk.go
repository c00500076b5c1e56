package manifest

import (
	"fmt"
	"strconv"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const noAlias = "aliases and anchors are not allowed; quote a text that begins with * or &"

// walker checks what the decoder of values lets pass, and notes where each field is.
type walker struct {
	positions map[string]Position
	errors    Errors
}

func (w *walker) fail(n *yaml.Node, field, format string, args ...any) {
	w.errors = append(w.errors, &Error{Position: Position{n.Line, n.Column}, Field: field, Text: fmt.Sprintf(format, args...)})
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
		return // Durations and times are scalars in text.
	}
	if n.Kind != yaml.MappingNode {
		w.fail(n, path, "want fields, such as {%s: ...}", firstField(d))
		return
	}
	seen := map[protoreflect.FieldNumber]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f := findField(d, key)
		if f == nil {
			w.fail(key, path, "unknown field %q", key.Value)
			continue
		}
		if first := seen[f.Number()]; first != nil {
			w.fail(key, path, "field %q stands twice, first in line %d", key.Value, first.Line)
			continue
		}
		seen[f.Number()] = key
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
	w.value(n, path)
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

// findField takes the names of JSON and of the .proto; numbers, which protojson's YAML cousins allow, are no names.
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
