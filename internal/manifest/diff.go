package manifest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Diff returns the fields in which two messages of one type differ, in the order of the .proto, by
// the names of JSON. A list differs as a whole, a map by key. Either message may be nil. The
// messages must hold no secrets.
func Diff(before, after proto.Message) []*adminv1.FieldChange {
	var d differ
	d.message(before.ProtoReflect(), after.ProtoReflect(), "")
	return d.changes
}

type differ struct{ changes []*adminv1.FieldChange }

func (d *differ) add(path, before, after string) {
	if before != after {
		d.changes = append(d.changes, &adminv1.FieldChange{Path: path, Before: before, After: after})
	}
}

func (d *differ) message(before, after protoreflect.Message, path string) {
	fields := before.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		p := join(path, f.JSONName())
		switch {
		case f.IsMap():
			d.pairs(before.Get(f).Map(), after.Get(f).Map(), f, p)
		case f.Message() != nil && !f.IsList() && f.Message().ParentFile().Package() != "google.protobuf":
			if !before.Has(f) && !after.Has(f) {
				continue
			}
			n := len(d.changes)
			d.message(before.Get(f).Message(), after.Get(f).Message(), p)
			if len(d.changes) == n {
				// Only one of them has the message, and it is empty.
				d.add(p, fieldJSON(before, f), fieldJSON(after, f))
			}
		default:
			d.add(p, fieldJSON(before, f), fieldJSON(after, f))
		}
	}
}

func (d *differ) pairs(before, after protoreflect.Map, f protoreflect.FieldDescriptor, path string) {
	keys := map[string]protoreflect.MapKey{}
	for _, m := range []protoreflect.Map{before, after} {
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys[k.String()] = k
			return true
		})
	}
	names := make([]string, 0, len(keys))
	for name := range keys {
		names = append(names, name)
	}
	slices.Sort(names)
	value := func(m protoreflect.Map, k protoreflect.MapKey) string {
		if !m.Has(k) {
			return ""
		}
		return valueJSON(m.Get(k), f.MapValue())
	}
	for _, name := range names {
		d.add(path+"["+strconv.Quote(name)+"]", value(before, keys[name]), value(after, keys[name]))
	}
}

func fieldJSON(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !m.Has(f) {
		return ""
	}
	if !f.IsList() {
		return valueJSON(m.Get(f), f)
	}
	var b bytes.Buffer
	b.WriteByte('[')
	list := m.Get(f).List()
	for i := range list.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(valueJSON(list.Get(i), f))
	}
	b.WriteByte(']')
	return b.String()
}

func valueJSON(v protoreflect.Value, f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return messageJSON(v.Message().Interface())
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return strconv.Quote(string(e.Name()))
		}
		return strconv.Itoa(int(v.Enum()))
	case protoreflect.StringKind:
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v.String()); err != nil {
			return strconv.Quote(v.String())
		}
		return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	}
	return v.String()
}

// messageJSON is stable; protojson on its own varies its spaces.
func messageJSON(m proto.Message) string {
	if d, ok := m.(*durationpb.Duration); ok {
		return strconv.Quote(duration.String(d.AsDuration()))
	}
	var b bytes.Buffer
	text, err := protojson.Marshal(m)
	if err == nil {
		err = json.Compact(&b, text)
	}
	if err != nil {
		return "{}"
	}
	return b.String()
}
