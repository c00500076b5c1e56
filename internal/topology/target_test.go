package topology_test

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A kind of the proto has a name and a location here, whichever it is.
func TestEveryKindIsKnown(t *testing.T) {
	t.Parallel()
	kinds := (&topologyv1.Origin{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		o := &topologyv1.Origin{}
		m := o.ProtoReflect()
		kind := m.Mutable(kinds.Get(i)).Message()
		for j := range kind.Descriptor().Fields().Len() {
			switch f := kind.Descriptor().Fields().Get(j); {
			case f.Kind() == protoreflect.StringKind && !f.IsList():
				kind.Set(f, protoreflect.ValueOfString("x"))
			case f.Kind() == protoreflect.StringKind:
				kind.Mutable(f).List().Append(protoreflect.ValueOfString("x"))
			}
		}
		if got := topology.KindOf(o); got != string(kinds.Get(i).Name()) {
			t.Errorf("%s is called %q", kinds.Get(i).Name(), got)
		}
		if topology.Location(o) == "" {
			t.Errorf("%s has no location", kinds.Get(i).Name())
		}
	}
	for _, test := range []struct {
		origin *topologyv1.Origin
		want   string
	}{
		{&topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{
			Bucket: "b", Prefix: "/p", Endpoint: "http://minio:9000",
		}}}, "s3://b/p at http://minio:9000"},
		{&topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{AzureBlob: &topologyv1.AzureBlobOrigin{
			AccountName: "a", Container: "c",
		}}}, "azblob://a/c"},
		{&topologyv1.Origin{}, ""},
	} {
		if got := topology.Location(test.origin); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
