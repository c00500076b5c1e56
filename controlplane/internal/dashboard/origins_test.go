package dashboard

import (
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A kind of the proto can be chosen in a form, whichever it is.
func TestEveryKindHasAForm(t *testing.T) {
	t.Parallel()
	kinds := (&topologyv1.Origin{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		if name := kinds.Get(i).JSONName(); kindNamed(name) == nil {
			t.Errorf("nobody can make an origin of kind %s", name)
		}
	}
}
