package adminsvc

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// mask is a checked update_mask.
type mask struct {
	all   bool // `*`
	given bool // false: the fields that are not empty in the request
	paths [][]string
}

// parseMask checks a mask against the type of a resource.
func parseMask(m *fieldmaskpb.FieldMask, resource protoreflect.MessageDescriptor) (mask, error) {
	if len(m.GetPaths()) == 0 {
		return mask{}, nil
	}
	out := mask{given: true}
	for _, path := range m.GetPaths() {
		if path == "*" {
			if len(m.GetPaths()) > 1 {
				return mask{}, unknownPath(path, "* stands alone")
			}
			return mask{all: true, given: true}, nil
		}
		parts, err := resolvePath(path, resource)
		if err != nil {
			return mask{}, err
		}
		if !topology.OutputOnly(protoreflect.Name(parts[0])) {
			out.paths = append(out.paths, parts)
		}
	}
	return out, nil
}

func unknownPath(path, text string) *failure {
	f := fail(kindUnknownField, "updateMask: %q: %s", path, text)
	f.fields = []fieldFault{{"update_mask", `"` + path + `": ` + text}}
	return f
}

// resolvePath returns the names in a path as the .proto spells them; the last may be the key of a
// map (AIP-161).
func resolvePath(path string, d protoreflect.MessageDescriptor) ([]string, error) {
	var parts []string
	rest := path
	for d != nil {
		part, tail, more := strings.Cut(rest, ".")
		f := d.Fields().ByName(protoreflect.Name(part))
		if f == nil {
			f = d.Fields().ByJSONName(part)
		}
		if f == nil {
			return nil, unknownPath(path, "there is no such field"+fieldpath.Hint(part, fieldNames(d)...))
		}
		parts = append(parts, string(f.Name()))
		switch {
		case !more:
			return parts, nil
		case f.IsMap():
			key := strings.Trim(tail, "`")
			if key == "" {
				return nil, unknownPath(path, "the key is missing")
			}
			return append(parts, key), nil
		case f.IsList():
			return nil, unknownPath(path, "a list can only be replaced whole")
		}
		rest = tail
		d = f.Message()
	}
	return nil, unknownPath(path, "there is no such field")
}

func fieldNames(d protoreflect.MessageDescriptor) (names []string) {
	for i := range d.Fields().Len() {
		names = append(names, string(d.Fields().Get(i).Name()))
	}
	return names
}

// names reports whether the mask names a field itself, by its path in the .proto's spelling.
func (m mask) names(path string) bool {
	for _, parts := range m.paths {
		if strings.Join(parts, ".") == path {
			return true
		}
	}
	return false
}

// apply changes dst to what src says of it. Output-only fields stay as they are in dst.
func (m mask) apply(dst, src proto.Message) {
	d, s := dst.ProtoReflect(), proto.Clone(src).ProtoReflect()
	switch {
	case m.all:
		fields := d.Descriptor().Fields()
		for i := range fields.Len() {
			if f := fields.Get(i); !topology.OutputOnly(f.Name()) {
				copyField(d, s, f)
			}
		}
	case m.given:
		for _, parts := range m.paths {
			applyPath(d, s, parts)
		}
	default:
		merge(d, s, true)
	}
}

// copyField sets a field as src has it. Clearing a oneof's field leaves another one of the oneof
// alone.
func copyField(dst, src protoreflect.Message, f protoreflect.FieldDescriptor) {
	if src.Has(f) {
		dst.Set(f, src.Get(f))
	} else {
		dst.Clear(f)
	}
}

func applyPath(dst, src protoreflect.Message, parts []string) {
	f := dst.Descriptor().Fields().ByName(protoreflect.Name(parts[0]))
	if len(parts) == 1 {
		copyField(dst, src, f)
		return
	}
	if f.IsMap() {
		key := protoreflect.ValueOfString(parts[1]).MapKey()
		switch {
		case src.Get(f).Map().Has(key):
			dst.Mutable(f).Map().Set(key, src.Get(f).Map().Get(key))
		case dst.Has(f):
			dst.Mutable(f).Map().Clear(key)
		}
		return
	}
	// Clearing what lies in an absent message must not make the message, which may have a meaning
	// of its own.
	if src.Has(f) || dst.Has(f) {
		applyPath(dst.Mutable(f).Message(), src.Get(f).Message(), parts[1:])
	}
}

// merge sets what is not empty in src, and looks into messages to do so; lists are replaced, maps
// added to.
func merge(dst, src protoreflect.Message, top bool) {
	src.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case top && topology.OutputOnly(f.Name()):
		case f.IsMap():
			to := dst.Mutable(f).Map()
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				to.Set(k, v)
				return true
			})
		case f.Message() != nil && !f.IsList() && f.Message().ParentFile().Package() != "google.protobuf":
			merge(dst.Mutable(f).Message(), v.Message(), false)
		default:
			dst.Set(f, v)
		}
		return true
	})
}
