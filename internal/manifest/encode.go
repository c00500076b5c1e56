package manifest

import (
	"bytes"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
)

const indent = 2

// YAML writes a message as [DecodeMessage] reads it: by the names of JSON, with durations as people
// write them, such as `1d`.
func YAML(m proto.Message) ([]byte, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(jsonAsYAML(string(text))), &root); err != nil {
		return nil, err
	}
	plain(&root)
	eachDuration(root.Content[0], m.ProtoReflect().Descriptor(), func(n *yaml.Node) {
		if d, err := duration.Parse(n.Value); err == nil {
			n.Value = duration.String(d)
		}
	})
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(indent)
	if err := enc.Encode(&root); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// plain removes the style of JSON.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}

// eachDuration visits the durations of a message.
func eachDuration(n *yaml.Node, d protoreflect.MessageDescriptor, visit func(*yaml.Node)) {
	switch {
	case d.FullName() == (&durationpb.Duration{}).ProtoReflect().Descriptor().FullName():
		visit(n)
		return
	case n.Kind != yaml.MappingNode:
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f, value := d.Fields().ByJSONName(n.Content[i].Value), n.Content[i+1]
		switch {
		case f == nil:
		case f.IsMap():
			if inner := f.MapValue().Message(); inner != nil {
				for j := 1; j < len(value.Content); j += 2 {
					eachDuration(value.Content[j], inner, visit)
				}
			}
		case f.Message() == nil:
		case f.IsList():
			for _, item := range value.Content {
				eachDuration(item, f.Message(), visit)
			}
		default:
			eachDuration(value, f.Message(), visit)
		}
	}
}
