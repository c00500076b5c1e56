package admincli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// setField sets the field at a dotted path to the value that text spells, and returns the path in
// proto names.
func setField(m protoreflect.Message, path, text string) (string, error) {
	owner, field, full, err := findField(m, path)
	switch {
	case err != nil:
		return "", err
	case !utf8.ValidString(text): // JSON would have other characters in its place.
		return "", fmt.Errorf("%q is not valid UTF-8", text)
	}
	value, err := jsonValue(field, text)
	if err != nil {
		return "", err
	}
	document, err := json.Marshal(map[string]json.RawMessage{field.JSONName(): value})
	if err != nil {
		return "", err
	}
	one := owner.New()
	if err := protojson.Unmarshal(document, one.Interface()); err != nil {
		return "", fmt.Errorf("%q is no %s", text, typeName(field))
	}
	owner.Clear(field)
	if one.Has(field) {
		owner.Set(field, one.Get(field))
	}
	return full, nil
}

// unsetField returns the path in proto names; the field is empty in a message that was never set.
func unsetField(m protoreflect.Message, path string) (string, error) {
	_, _, full, err := findField(m, path)
	return full, err
}

// findField follows a dotted path of JSON or proto names and makes the messages on its way.
func findField(
	m protoreflect.Message, path string,
) (owner protoreflect.Message, field protoreflect.FieldDescriptor, full string, err error) {
	parts := strings.Split(path, ".")
	var names []string
	for i, part := range parts {
		fields := m.Descriptor().Fields()
		field = fields.ByJSONName(part)
		if field == nil {
			field = fields.ByName(protoreflect.Name(part))
		}
		if field == nil {
			names := fieldNames(fields, i == 0)
			hint := fieldpath.Hint(part, names...)
			if hint == "" {
				hint = "; it has " + strings.Join(names, ", ")
			}
			return nil, nil, "", fmt.Errorf("%s has no field %q%s", m.Descriptor().Name(), part, hint)
		}
		if i == 0 && topology.OutputOnly(field.Name()) {
			return nil, nil, "", fmt.Errorf("%s is output-only: the control plane says what it is", part)
		}
		names = append(names, string(field.Name()))
		if i == len(parts)-1 {
			break
		}
		if field.Message() == nil || field.IsList() || field.IsMap() || wellKnown(field) {
			return nil, nil, "", fmt.Errorf("%s has no fields of its own; give it whole", part)
		}
		m = m.Mutable(field).Message()
	}
	return m, field, strings.Join(names, "."), nil
}

// fieldNames are the fields that can be set; top says that they are those of a resource.
func fieldNames(fields protoreflect.FieldDescriptors, top bool) (names []string) {
	for i := range fields.Len() {
		if f := fields.Get(i); !top || !topology.OutputOnly(f.Name()) {
			names = append(names, f.JSONName())
		}
	}
	return names
}

// wellKnown reports whether the field's message has a JSON form of its own, such as a Duration's
// "30s".
func wellKnown(field protoreflect.FieldDescriptor) bool {
	return strings.HasPrefix(string(field.Message().FullName()), "google.protobuf.")
}

// jsonValue turns what a person typed for a field into JSON.
func jsonValue(field protoreflect.FieldDescriptor, text string) (json.RawMessage, error) {
	trimmed := strings.TrimSpace(text)
	structured := strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[")
	switch {
	case field.IsMap(), field.Message() != nil && !wellKnown(field):
		if !structured {
			return nil, fmt.Errorf("takes JSON, such as {\"name\": \"value\"}")
		}
		return json.RawMessage(trimmed), nil
	case field.IsList():
		if structured {
			return json.RawMessage(trimmed), nil
		}
		var items []json.RawMessage
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, scalar(field, item))
			}
		}
		if items == nil {
			return json.RawMessage("[]"), nil
		}
		return json.Marshal(items)
	default:
		return scalar(field, text), nil
	}
}

// scalar quotes what is a string in JSON.
func scalar(field protoreflect.FieldDescriptor, text string) json.RawMessage {
	switch field.Kind() {
	case protoreflect.BoolKind, protoreflect.Int32Kind, protoreflect.Int64Kind:
		if json.Valid([]byte(text)) {
			return json.RawMessage(text)
		}
	case protoreflect.MessageKind:
		if d, err := duration.Parse(text); err == nil {
			return json.RawMessage(strconv.Quote(duration.JSON(d)))
		}
	}
	quoted, _ := json.Marshal(text) // A string always has a JSON form.
	return quoted
}

func typeName(field protoreflect.FieldDescriptor) string {
	switch {
	case field.IsList():
		return "list for " + field.JSONName()
	case field.Enum() != nil:
		values := field.Enum().Values()
		var names []string
		for i := 1; i < values.Len(); i++ {
			names = append(names, string(values.Get(i).Name()))
		}
		return "value of " + strings.Join(names, ", ")
	case field.Message() != nil:
		return strings.ToLower(string(field.Message().Name())) + ": write it like 30s, 10m, 12h or 1d"
	default:
		return field.Kind().String()
	}
}
