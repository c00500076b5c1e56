package adminsvc

import (
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// No admin has to read a regular expression: each one in the protos has its words, and no words are
// left over.
func TestEachPatternHasWords(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	var collect func(field string, m protoreflect.Message)
	collect = func(field string, m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.Name() == "pattern":
				used[v.String()] = true
				if forms[v.String()] == "" {
					t.Errorf("%s has the pattern %s, which has no words", field, v)
				}
			case f.Message() != nil && !f.IsList() && !f.IsMap():
				collect(field, v.Message())
			}
			return true
		})
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(file.Package()), "edgewalk.") {
			for f := range fieldsIn(file.Messages()) {
				if rules, ok := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules); ok &&
					rules != nil {
					collect(string(f.FullName()), rules.ProtoReflect())
				}
			}
		}
		return true
	})
	for pattern := range forms {
		if !used[pattern] {
			t.Errorf("no field has the pattern %s", pattern)
		}
	}
}

func fieldsIn(messages protoreflect.MessageDescriptors) map[protoreflect.FieldDescriptor]bool {
	all := map[protoreflect.FieldDescriptor]bool{}
	for i := range messages.Len() {
		for j := range messages.Get(i).Fields().Len() {
			all[messages.Get(i).Fields().Get(j)] = true
		}
		for f := range fieldsIn(messages.Get(i).Messages()) {
			all[f] = true
		}
	}
	return all
}
