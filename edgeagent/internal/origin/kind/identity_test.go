package kind_test

import (
	"hash/maphash"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What is remembered of credentials, such as a token, ends when any text of a kind that has
// credentials changes: whatever is no secret is part of the target or of the identity.
func TestEveryFieldOfCredentialsCounts(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	identity := func(o *topologyv1.Origin) kind.Identity {
		t.Helper()
		compiled, err := topology.CompileOrigin("a", o, nil)
		if err != nil {
			t.Fatal(err)
		}
		return kind.IdentityOf(seed, compiled)
	}
	checked := 0
	kinds := new(topologyv1.Origin).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		fields := kinds.Get(i).Message().Fields()
		var plain []protoreflect.FieldDescriptor
		secrets := 0
		for j := range fields.Len() {
			f := fields.Get(j)
			switch options, _ := f.Options().(*descriptorpb.FieldOptions); {
			case options.GetDebugRedact():
				secrets++
			case f.Kind() == protoreflect.StringKind && !f.IsList():
				plain = append(plain, f)
			}
		}
		if secrets == 0 {
			continue
		}
		before := new(topologyv1.Origin)
		before.ProtoReflect().Mutable(kinds.Get(i))
		for _, f := range plain {
			checked++
			next := proto.CloneOf(before)
			next.ProtoReflect().Mutable(kinds.Get(i)).Message().Set(f, protoreflect.ValueOfString("other"))
			if identity(before) == identity(next) {
				t.Errorf("another %s is taken for the same credentials: add it to IdentityOf", f.FullName())
			}
		}
	}
	if checked == 0 {
		t.Error("no kind has credentials")
	}
}
