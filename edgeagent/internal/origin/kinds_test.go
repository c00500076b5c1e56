package origin

import (
	"testing"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Cache keys rest on topology's word on which kinds are asked for an object key.
func TestKeyedIsWhatTopologySays(t *testing.T) {
	t.Parallel()
	c := localClient(t)
	for _, spec := range []*topologyv1.Origin{
		{Kind: &topologyv1.Origin_Web{}}, {Kind: &topologyv1.Origin_S3{}}, {Kind: &topologyv1.Origin_Gcs{}},
		{Kind: &topologyv1.Origin_AzureBlob{}}, {Kind: &topologyv1.Origin_WebProxy{}},
		{Kind: &topologyv1.Origin_Akeneo{}}, {},
	} {
		if got, want := topology.Keyed(spec), c.kindOf(&topology.Origin{Spec: spec}).Keyed; got != want {
			t.Errorf("%s: topology says %v, the kind %v", topology.KindOf(spec), got, want)
		}
	}
}
