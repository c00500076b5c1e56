package topology

import (
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What edges name at most is what the protos let them.
func TestMaxReported(t *testing.T) {
	t.Parallel()
	for m, name := range map[proto.Message]protoreflect.Name{
		new(edgev1.Report): "origins", new(topologyv1.AskedOrigins): "names",
	} {
		field := m.ProtoReflect().Descriptor().Fields().ByName(name)
		rules := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
		if most := rules.GetRepeated().GetMaxItems(); most != MaxReported {
			t.Errorf("%s may have %d items, MaxReported is %d", field.FullName(), most, MaxReported)
		}
	}
}
